//! Credentials, as `podman login`, `skopeo login` and `docker login` leave them: containers-auth.json(5), and `auths` of
//! docker's config.json. Programs that keep them elsewhere (`credsStore`, `credHelpers`) are asked by `credential_program`.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Target, credential_program};
use crate::store::{Error, Result};

/// What lets somebody in.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password.
    Password(String, String),
    /// What a server of tokens gave for them.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// `USER:PASSWORD`.
impl FromStr for Credentials {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let (user, password) = text.split_once(':').ok_or("it is not USER:PASSWORD")?;
        Ok(Self::Password(user.to_owned(), password.to_owned()))
    }
}

impl Credentials {
    /// The credentials for a target: in `file`, else in the files where they usually are, the first that has some.
    pub fn find(target: &Target, file: Option<&Path>) -> Result<Option<Self>> {
        if let Some(file) = file {
            let read = fs::read(file)
                .map_err(|error| Error::failure(format!("{}: {error}", file.display())));
            return of_file(target, file, &read?);
        }
        for path in usual() {
            match fs::read(&path) {
                Ok(bytes) => {
                    if let Some(found) = of_file(target, &path, &bytes)? {
                        return Ok(Some(found));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => log::warn!("{}: cannot be read: {error}", path.display()),
            }
        }
        Ok(None)
    }

    /// What a request for the registry itself carries; `None` for what is for a server of tokens only.
    pub fn basic(&self) -> Option<String> {
        match self {
            Self::Password(user, password) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Self::IdentityToken(_) => None,
        }
    }

    fn of_entry(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
        if let Some(token) = text("identitytoken") {
            return Some(Self::IdentityToken(token.to_owned()));
        }
        if let Some(auth) = text("auth") {
            let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
            let (user, password) = decoded.split_once(':')?;
            // Some programs end it with a zero byte.
            let password = password.trim_end_matches('\0');
            return Some(Self::Password(user.to_owned(), password.to_owned()));
        }
        Some(Self::Password(text("username")?.to_owned(), text("password")?.to_owned()))
    }
}

fn usual() -> Vec<PathBuf> {
    let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let below = |dir: Option<PathBuf>, path: &str| dir.map(|dir| dir.join(path));
    if let Some(file) = var("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let docker = var("DOCKER_CONFIG").or_else(|| below(var("HOME"), ".docker"));
    [
        below(var("XDG_RUNTIME_DIR"), "containers/auth.json"),
        below(
            var("XDG_CONFIG_HOME").or_else(|| below(var("HOME"), ".config")),
            "containers/auth.json",
        ),
        below(docker, "config.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn of_file(target: &Target, path: &Path, bytes: &[u8]) -> Result<Option<Credentials>> {
    let file: Value = serde_json::from_slice(bytes).map_err(|error| {
        Error::failure(format!("{}: no file of credentials: {error}", path.display()))
    })?;
    let registry = target.registry();
    if let Some(program) = program(&file, registry)
        && let Some(found) = credential_program::ask(program, registry)
    {
        return Ok(Some(found));
    }
    let Some(auths) = file["auths"].as_object() else { return Ok(None) };
    let full = format!("{registry}/{}", target.repository());
    // The longest key that the name begins with, part by part.
    let namespaces = full.match_indices('/').map(|(at, _)| &full[..at]).chain([full.as_str()]);
    let mut entry = namespaces.filter_map(|key| auths.get(key)).next_back();
    if entry.is_none() {
        entry = auths.iter().find(|(key, _)| host_of(key) == registry).map(|(_, entry)| entry);
    }
    Ok(entry.and_then(Credentials::of_entry))
}

/// The program that keeps the credentials for a registry, after `docker-credential-`.
fn program<'f>(file: &'f Value, registry: &str) -> Option<&'f str> {
    let own = file["credHelpers"].as_object().and_then(|programs| {
        programs.iter().find(|(key, _)| host_of(key) == registry).map(|(_, program)| program)
    });
    let program = own.unwrap_or(&file["credsStore"]).as_str();
    program.filter(|program| !program.is_empty())
}

/// The registry of a key as docker writes it: `https://index.docker.io/v1/`.
fn host_of(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let with_version = |key: &'_ str| key.contains("/v1") || key.contains("/v2");
    let host = match bare {
        Some(bare) => bare.split('/').next().unwrap_or_default(),
        None if with_version(key) => key.split('/').next().unwrap_or_default(),
        None => key,
    };
    if ["index.docker.io", "registry-1.docker.io"].contains(&host) { "docker.io" } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, file: &str) -> Option<String> {
        let target: Target = name.parse().unwrap();
        match of_file(&target, Path::new("auth.json"), file.as_bytes()).unwrap()? {
            Credentials::Password(user, password) => Some(format!("{user}:{password}")),
            Credentials::IdentityToken(token) => Some(format!("token {token}")),
        }
    }

    #[test]
    fn the_nearest_entry_counts() {
        // "a:1", "b:2:3", "c:4" with a zero byte behind it.
        let file = r#"{ "auths": {
            "quay.io": { "auth": "YToxAA==" }, "quay.io/team": { "auth": "YjoyOjM=" },
            "https://index.docker.io/v1/": { "auth": "Yzo0" },
            "127.0.0.1:5000": { "username": "d", "password": "5" },
            "token.example": { "auth": "YTox", "identitytoken": "t" },
            "wrong.example": { "auth": "!" }, "empty.example": {}
        } }"#;
        for (name, found) in [
            ("quay.io/x", Some("a:1")),
            ("quay.io/team/x", Some("b:2:3")),
            ("quay.io/teams/x", Some("a:1")),
            ("busybox", Some("c:4")),
            ("127.0.0.1:5000/x", Some("d:5")),
            ("127.0.0.1:5001/x", None),
            ("127.0.0.1/x", None),
            ("token.example/x", Some("token t")),
            ("wrong.example/x", None),
            ("empty.example/x", None),
            ("evil.quay.io/x", None),
            ("io/quay.io/x", Some("c:4")),
        ] {
            assert_eq!(user(name, file).as_deref(), found, "{name}");
        }
        assert_eq!(user("busybox", "{}"), None);
    }
}
