//! What is pulled or pushed, and where that is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::store::reference::Reference;
use crate::store::{Digest, Error, Result};

/// An image in a registry: `NAME[:TAG]` or `NAME@DIGEST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name; the tag means nothing where there is a digest.
    pub name: Reference,
    /// The digest of its manifest or index.
    pub digest: Option<Digest>,
}

/// The registry of names that have none.
const DOCKER: &str = "docker.io";

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        Ok(Self { name: name.parse()?, digest })
    }
}

impl Target {
    /// The registry, as names and files of credentials call it.
    pub fn registry(&self) -> &str {
        self.parts().0
    }

    /// The repository in the registry: `library/busybox`.
    pub fn repository(&self) -> String {
        match self.parts() {
            (DOCKER, path) if !path.contains('/') => format!("library/{path}"),
            (_, path) => path.to_owned(),
        }
    }

    /// The host that answers for the registry, with its port.
    pub fn host(&self) -> &str {
        match self.registry() {
            DOCKER => "registry-1.docker.io",
            registry => registry,
        }
    }

    /// The tag or the digest, as a registry is asked for it.
    pub fn wanted(&self) -> String {
        self.digest.map_or_else(|| self.name.tag.clone(), |digest| digest.to_string())
    }

    /// Whether the registry is this machine.
    pub fn is_local(&self) -> bool {
        is_loopback(self.host().rsplit_once(':').map_or(self.host(), |(host, _)| host))
    }

    fn parts(&self) -> (&str, &str) {
        match self.name.repository.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path),
            _ => (DOCKER, &self.name.repository),
        }
    }
}

/// With registry and repository in full: `docker.io/library/busybox:latest`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.digest.is_some() { '@' } else { ':' };
        write!(f, "{}/{}{sign}{}", self.registry(), self.repository(), self.wanted())
    }
}

/// Whether the first part of a name is a registry: as docker finds out.
fn is_host(part: &str) -> bool {
    part == "localhost"
        || part.contains(['.', ':'])
        || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether `host` is this machine by its name or address.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_registries() {
        for (text, host, repository, full) in [
            (
                "busybox",
                "registry-1.docker.io",
                "library/busybox",
                "docker.io/library/busybox:latest",
            ),
            ("a/b:1", "registry-1.docker.io", "a/b", "docker.io/a/b:1"),
            ("docker.io/a/b/c:1", "registry-1.docker.io", "a/b/c", "docker.io/a/b/c:1"),
            (
                "quay.io/coreos/flannel:v0.14.0",
                "quay.io",
                "coreos/flannel",
                "quay.io/coreos/flannel:v0.14.0",
            ),
            ("localhost/app", "localhost", "app", "localhost/app:latest"),
            ("127.0.0.1:5000/x:1", "127.0.0.1:5000", "x", "127.0.0.1:5000/x:1"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host(), &*target.repository()), (host, repository), "{text}");
            assert_eq!(target.to_string(), full);
        }
        let digest = Digest::of(b"");
        let target: Target = format!("quay.io/x:1@{digest}").parse().unwrap();
        assert_eq!(target.wanted(), digest.to_string());
        assert_eq!(target.to_string(), format!("quay.io/x@{digest}"));
        assert!("quay.io/x@sha256:1".parse::<Target>().is_err());
    }

    #[test]
    fn only_this_machine_is_local() {
        let local = |text: &str| text.parse::<Target>().unwrap().is_local();
        for here in ["localhost/a", "localhost:5000/a", "127.0.0.1:5000/a", "127.1.2.3/a"] {
            assert!(local(here), "{here}");
        }
        for there in ["a", "quay.io/a", "10.0.0.1:5000/a", "127.0.0.1.example/a", "localhost.x/a"] {
            assert!(!local(there), "{there}");
        }
    }
}
