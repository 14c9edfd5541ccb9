//! Addresses: where they lead, and whose they are.

use ureq::http::Uri;

use crate::archive::Shown;
use crate::store::{Error, Result};

/// Whom an address asks: scheme, host and port. Credentials for one are for no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether it is asked over TLS.
    pub secure: bool,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Origin {
    /// The origin of an absolute address.
    ///
    /// # Errors
    /// For other schemes than HTTP, and for addresses with user names in them.
    pub fn of(url: &str) -> Result<Self> {
        let wrong = || {
            let shown = Shown(url.as_bytes());
            Error::failure(format!("the registry names an address that is none: {shown}"))
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(wrong)?;
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { secure, host: authority.host().to_ascii_lowercase(), port })
    }
}

/// The address that `location` means in an answer to a request for `base` (RFC 3986, 5.2, as far as servers need it).
pub fn join(base: &str, location: &str) -> Result<String> {
    let url = if location.contains("://") {
        location.to_owned()
    } else {
        let scheme = base.find("://").map_or(0, |at| at + 3);
        let root = base[scheme..].find('/').map_or(base.len(), |at| scheme + at);
        let path = base[root..].find(['?', '#']).map_or(base.len(), |at| root + at);
        let folder = base[root..path].rfind('/').map_or(root, |at| root + at);
        match location {
            _ if location.starts_with("//") => format!("{}{location}", &base[..scheme - 2]),
            _ if location.starts_with('/') => format!("{}{location}", &base[..root]),
            _ if location.starts_with('?') => format!("{}{location}", &base[..path]),
            _ => format!("{}/{location}", &base[..folder]),
        }
    };
    Origin::of(&url)?;
    Ok(url)
}

/// `url` with one more parameter.
pub fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}{name}={}", encoded(value))
}

/// Text as a parameter or a form has it (RFC 3986, 2.1).
pub fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_from_where_one_is() {
        let base = "https://r.example:5000/v2/a/blobs/uploads/?x=/1";
        for (location, url) in [
            ("http://other/x?y", "http://other/x?y"),
            ("//other/x", "https://other/x"),
            ("/x/y?z", "https://r.example:5000/x/y?z"),
            ("?z", "https://r.example:5000/v2/a/blobs/uploads/?z"),
            ("x", "https://r.example:5000/v2/a/blobs/uploads/x"),
        ] {
            assert_eq!(join(base, location).unwrap(), url);
        }
        assert_eq!(join("http://r", "x").unwrap(), "http://r/x");
        for wrong in ["ftp://x/", "file:///etc/passwd", "https://user@x/", "http://", "/\n"] {
            assert!(join(base, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let origin = |url: &str| Origin::of(url).unwrap();
        assert_eq!(origin("https://A.example/x"), origin("https://a.example:443/y?z"));
        for other in ["http://a.example", "https://a.example:444", "https://b.a.example"] {
            assert_ne!(origin("https://a.example"), origin(other));
        }
    }

    #[test]
    fn parameters_hold_any_text() {
        let url = with_parameter("http://a/b", "scope", "repository:a/b:pull,push");
        assert_eq!(url, "http://a/b?scope=repository%3Aa%2Fb%3Apull%2Cpush");
        assert_eq!(with_parameter(&url, "x", "é &"), format!("{url}&x=%C3%A9%20%26"));
    }
}
