//! Programs that keep credentials: `docker-credential-NAME`, as github.com/docker/docker-credential-helpers has them.
//!
//! `get` reads the address of a registry from standard input and prints `{"ServerURL", "Username", "Secret"}`. For what it does
//! not know it fails and says so on standard output.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::credentials::Credentials;
use crate::archive::Shown;
use crate::store::{Error, Result};

/// What a program says when it has no credentials for a registry.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The name of a user who stands for a token.
const TOKEN: &str = "<token>";
/// How docker calls its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Asks `docker-credential-NAME` for what lets us into a registry. One that does not work is nothing but a warning, since most
/// images are for everybody.
pub fn ask(name: &str, registry: &str) -> Option<Credentials> {
    get(name, registry).unwrap_or_else(|error| {
        log::warn!("{error}");
        None
    })
}

fn get(name: &str, registry: &str) -> Result<Option<Credentials>> {
    let failed = |why: &dyn std::fmt::Display| {
        Error::failure(format!("docker-credential-{}: {why}", Shown(name.as_bytes())))
    };
    if name.contains('/') {
        return Err(failed(&"no name of a program that keeps credentials"));
    }
    let mut program = Command::new(format!("docker-credential-{name}"));
    let program = program.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut asked = program.spawn().map_err(|error| failed(&error))?;
    let server = if registry == "docker.io" { DOCKER_HUB } else { registry };
    // One that fails before it has read all says why.
    let told = asked.stdin.take().map_or(Ok(()), |mut input| input.write_all(server.as_bytes()));
    let answer = asked.wait_with_output().map_err(|error| failed(&error))?;
    let text = String::from_utf8_lossy(&answer.stdout);
    if !answer.status.success() {
        return match text.trim() {
            NOT_FOUND => Ok(None),
            "" => Err(failed(&answer.status)),
            why => Err(failed(&Shown(why.as_bytes()))),
        };
    }
    told.map_err(|error| failed(&error))?;
    let malformed = || failed(&"its answer is no credentials");
    let entry: Value = serde_json::from_str(&text).map_err(|_syntax| malformed())?;
    let (Some(user), Some(secret)) = (entry["Username"].as_str(), entry["Secret"].as_str()) else {
        return Err(malformed());
    };
    Ok(match (user, secret) {
        (_, "") => None,
        (TOKEN, token) => Some(Credentials::IdentityToken(token.to_owned())),
        (user, password) => Some(Credentials::Password(user.to_owned(), password.to_owned())),
    })
}
