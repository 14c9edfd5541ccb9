//! Whose signatures on certificates count: the system's list, and what stands beside a registry's name in
//! containers-certs.d(5).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Where systems keep their list.
const LISTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Folders with a folder for each registry.
const FOLDERS: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// How TLS to `host` is spoken; any certificate will do unless `verify`.
pub fn tls(host: &str, verify: bool) -> TlsConfig {
    let mut roots = Vec::new();
    if verify {
        let list = match env::var_os("SSL_CERT_FILE") {
            Some(file) => Some(PathBuf::from(file)),
            None => LISTS.iter().map(PathBuf::from).find(|list| list.exists()),
        };
        list.iter().for_each(|list| add(&mut roots, list));
        for folder in FOLDERS {
            let Ok(entries) = fs::read_dir(Path::new(folder).join(host)) else { continue };
            let files = entries.flatten().map(|entry| entry.path());
            files.filter(|path| path.extension().is_some_and(|it| it == "crt")).for_each(|path| {
                add(&mut roots, &path);
            });
        }
    }
    TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .disable_verification(!verify)
        .build()
}

fn add(roots: &mut Vec<Certificate<'static>>, path: &Path) {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => return log::warn!("{}: cannot be read: {error}", path.display()),
    };
    roots.extend(parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    }));
}
