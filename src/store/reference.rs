//! Names of images: `[REGISTRY/]REPOSITORY[:TAG]` (distribution specification, "Pulling manifests").

use std::fmt;
use std::str::FromStr;

use super::{Error, Result};
use crate::archive::Shown;

/// The name of an image, in the short form that docker shows: without `docker.io/` and `library/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Everything before the tag.
    pub repository: String,
    /// The tag; `latest` where none is given.
    pub tag: String,
}

/// The longest tag, in bytes.
const LONGEST_TAG: usize = 128;
/// The longest repository, in bytes, registry included.
const LONGEST_REPOSITORY: usize = 255;

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let colon = text.rfind(':').filter(|colon| !text[*colon..].contains('/'));
        let (repository, tag) = match colon {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, "latest"),
        };
        let short = ["docker.io/", "index.docker.io/"]
            .iter()
            .find_map(|registry| repository.strip_prefix(registry))
            .unwrap_or(repository);
        let short = short.strip_prefix("library/").unwrap_or(short);
        if !is_repository(short) || !is_tag(tag) {
            let shown = Shown(text.as_bytes());
            return Err(Error::failure(format!(
                "`{shown}` is no name of an image: NAME or NAME:TAG of a-z, 0-9, `.`, `_`, `-` and `/` is needed"
            )));
        }
        Ok(Self { repository: short.to_owned(), tag: tag.to_owned() })
    }
}

fn is_repository(text: &str) -> bool {
    let mut parts = text.split('/').enumerate();
    let has_registry = text.contains('/');
    text.len() <= LONGEST_REPOSITORY
        && parts.all(|(at, part)| is_part(part, at == 0 && has_registry))
}

/// A component. That of a registry may have capitals and a port.
fn is_part(part: &str, may_be_registry: bool) -> bool {
    let (name, port) = match part.split_once(':') {
        Some((name, port)) if may_be_registry => (name, port),
        Some(_) => return false,
        None => (part, "0"),
    };
    let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let allowed = |byte: &u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => true,
        b'A'..=b'Z' => may_be_registry,
        _ => false,
    };
    bytes.iter().all(allowed)
        && ends_well(bytes.first())
        && ends_well(bytes.last())
        && !name.contains("..")
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_tag(tag: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST_TAG).contains(&tag.len())
        && tag.bytes().all(allowed)
        && !tag.starts_with(['.', '-'])
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_in_their_short_form() {
        for (text, shown) in [
            ("busybox", "busybox:latest"),
            ("docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/grafana/grafana", "grafana/grafana:latest"),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
            ("Registry.example/a:V1", "Registry.example/a:V1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("quay.io/coreos/flannel:v0.14.0", "quay.io/coreos/flannel:v0.14.0"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ":",
            "a:",
            ":b",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            "a b",
            "a\nb",
            "a/B",
            "B",
            "B:a",
            "-a",
            "a-",
            "a:.b",
            "a:b:c",
            "a/b:c/d:e:f",
            "a:\u{1b}[0m",
            "é",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert!(format!("a:{}", "b".repeat(129)).parse::<Reference>().is_err());
    }
}
