//! Requests to one repository of one registry: tried again when trouble passes, let in when that is asked for, led on by
//! redirects.

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, AsSendBody, Body, SendBody};

use super::certificates;
use super::challenge::Challenge;
use super::credentials::Credentials;
use super::pace::Pace;
use super::target::{Target, is_loopback};
use super::url::{Origin, join};
use crate::archive::Shown;
use crate::store::{Error, Result};

/// How to get in.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whether certificates are verified, and plain HTTP is for this machine only.
    pub verify: bool,
    /// The file of credentials, instead of the usual ones.
    pub file: Option<PathBuf>,
    /// Credentials, instead of any file.
    pub credentials: Option<Credentials>,
}

/// One repository.
pub struct Client {
    pub(super) agent: Agent,
    pub(super) target: Target,
    pub(super) credentials: Option<Credentials>,
    /// What is wanted of servers of tokens.
    pub(super) scopes: Vec<String>,
    /// `https://HOST`.
    base: String,
    origin: Origin,
    verify: bool,
    authorization: Mutex<Option<String>>,
    pub(super) pace: Pace,
}

/// A request that can be made several times.
pub struct Call<'c> {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: String,
    /// Headers, besides those that all have.
    pub headers: &'c [(&'static str, &'c str)],
    /// What is sent.
    pub content: Content<'c>,
}

/// Begins to read what is sent.
pub type Open<'c> = &'c dyn Fn() -> Result<Box<dyn Read + 'c>>;

/// What is sent.
pub enum Content<'c> {
    /// No content at all.
    Nothing,
    /// These bytes.
    Bytes(&'c [u8]),
    /// So many bytes, from a reader that is made for each try.
    Stream(u64, Open<'c>),
}

/// An answer, and whether it is the registry's own.
pub struct Answer {
    /// What came.
    pub response: Response<Body>,
    /// Whether no redirect led to another server.
    own: bool,
}

/// Why there is no answer.
enum Failed {
    /// The connection; another try may help.
    Connection(ureq::Error),
    /// Something else than a registry has answered.
    NoRegistry,
    /// Anything else.
    Refused(Error),
}

const MOST_REDIRECTS: usize = 10;
/// The longest text of an error that is read, in bytes.
const LONGEST_REFUSAL: u64 = 64 << 10;

const CONNECT: Duration = Duration::from_secs(30);
/// A server that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a registry may think, about a layer that it has been sent too.
const ANSWER: Duration = Duration::from_secs(600);

impl Client {
    /// Finds out how the registry of `target` speaks.
    pub fn connect(target: Target, access: &Access, scopes: Vec<String>) -> Result<Self> {
        let credentials = match &access.credentials {
            Some(given) => Some(given.clone()),
            None => Credentials::find(&target, access.file.as_deref())?,
        };
        let agent = Agent::config_builder()
            .user_agent(concat!("plyfs/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .timeout_recv_response(Some(ANSWER))
            .tls_config(certificates::tls(target.host(), access.verify))
            .build()
            .new_agent();
        let base = format!("https://{}", target.host());
        let mut client = Self {
            agent,
            credentials,
            scopes,
            origin: Origin::of(&base)?,
            base,
            verify: access.verify,
            authorization: Mutex::default(),
            pace: Pace::default(),
            target,
        };
        let failed = match client.greet() {
            Ok(()) => return Ok(client),
            Err(Failed::Connection(error)) if client.takes_plain_http() => error,
            Err(failed) => return Err(client.failure(failed)),
        };
        client.base = format!("http://{}", client.target.host());
        client.origin = Origin::of(&client.base)?;
        match client.greet() {
            Ok(()) => Ok(client),
            Err(Failed::Refused(error)) => Err(error),
            Err(_) => Err(client.failure(Failed::Connection(failed))),
        }
    }

    fn takes_plain_http(&self) -> bool {
        !self.verify || self.target.is_local()
    }

    /// Asks whether there is a registry, and shows what is needed to be let in.
    fn greet(&self) -> std::result::Result<(), Failed> {
        let url = format!("{}/v2/", self.base);
        let call = Call { method: Method::GET, url, headers: &[], content: Content::Nothing };
        let mut tries = 0;
        loop {
            let answer = self.follow(&call)?;
            tries += 1;
            match answer.status() {
                StatusCode::UNAUTHORIZED if answer.own => {
                    return self.authorize(&answer).map_err(Failed::Refused);
                }
                // What a server that speaks TLS says to plain HTTP.
                StatusCode::BAD_REQUEST => return Err(Failed::NoRegistry),
                status if is_passing(status) && self.pace.wait(tries, answer.pause()) => {}
                _ => return Ok(()),
            }
        }
    }

    /// The address of something in the repository.
    pub fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.base, self.target.repository())
    }

    /// Makes a request. Answers that say no are answers, too.
    pub fn send(&self, call: &Call<'_>) -> Result<Answer> {
        let mut tries = 0;
        let mut let_in = false;
        loop {
            let (failed, pause) = match self.follow(call) {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED && !let_in => {
                    if !answer.own {
                        return Ok(answer);
                    }
                    let_in = true;
                    self.authorize(&answer)?;
                    continue;
                }
                Ok(answer) if is_passing(answer.status()) => {
                    let pause = answer.pause();
                    (Ok(answer), pause)
                }
                Ok(answer) => return Ok(answer),
                Err(Failed::Connection(error)) => (Err(error), None),
                Err(failed) => return Err(self.failure(failed)),
            };
            tries += 1;
            if !self.pace.wait(tries, pause) {
                return failed.map_err(|error| self.failure(Failed::Connection(error)));
            }
        }
    }

    /// Makes a request and follows redirects, if it is one for reading.
    fn follow(&self, call: &Call<'_>) -> std::result::Result<Answer, Failed> {
        let mut url = call.url.clone();
        for _ in 0..MOST_REDIRECTS {
            let origin = Origin::of(&url).map_err(Failed::Refused)?;
            let own = origin == self.origin;
            let response = self.exchange(call, &url, own)?;
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let reads = [Method::GET, Method::HEAD].contains(&call.method);
            let Some(location) = location.filter(|_| reads && response.status().is_redirection())
            else {
                return Ok(Answer { response, own });
            };
            url = join(&url, location).map_err(Failed::Refused)?;
            self.check_safe(&url, origin.secure).map_err(Failed::Refused)?;
        }
        Err(Failed::Refused(self.error("its redirects do not end")))
    }

    /// One request and its answer. Only the registry itself is shown that we may come in.
    fn exchange(
        &self,
        call: &Call<'_>,
        url: &str,
        own: bool,
    ) -> std::result::Result<Response<Body>, Failed> {
        let mut request = Request::builder().method(call.method.clone()).uri(url);
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        if own && let Some(authorization) = &*self.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        match &call.content {
            Content::Nothing => self.run(request.body(())),
            Content::Bytes(bytes) => self.run(request.body(*bytes)),
            Content::Stream(size, open) => {
                let mut reader = open().map_err(Failed::Refused)?;
                let request = request.header(CONTENT_LENGTH, *size);
                self.run(request.body(SendBody::from_reader(&mut reader)))
            }
        }
    }

    fn run(
        &self,
        request: std::result::Result<Request<impl AsSendBody>, ureq::http::Error>,
    ) -> std::result::Result<Response<Body>, Failed> {
        let request = request
            .map_err(|error| Failed::Refused(self.error(&format!("no request: {error}"))))?;
        self.agent.run(request).map_err(Failed::Connection)
    }

    fn authorization(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the registry asks for before it lets anybody in.
    fn authorize(&self, answer: &Answer) -> Result<()> {
        let headers = answer.response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = Challenge::of(headers.iter().filter_map(|value| value.to_str().ok()));
        let authorization = match challenge {
            None => return Err(self.error("it lets nobody in, and does not say how to get in")),
            Some(Challenge::Basic) => self.credentials.as_ref().and_then(Credentials::basic),
            Some(Challenge::Bearer { realm, service }) => {
                self.check_safe(&realm, self.origin.secure)?;
                Some(format!("Bearer {}", self.token(&realm, service.as_deref())?))
            }
        };
        *self.authorization() = Some(authorization.ok_or_else(|| self.needs_login())?);
        Ok(())
    }

    /// What began over TLS goes on over TLS; and plain HTTP without being asked for is for this machine.
    fn check_safe(&self, url: &str, was_secure: bool) -> Result<()> {
        let origin = Origin::of(url)?;
        if origin.secure || !self.verify || (!was_secure && is_loopback(&origin.host)) {
            return Ok(());
        }
        let shown = Shown(url.as_bytes());
        Err(self.error(&format!("it leads to {shown}, which is not safe (see --tls-verify)")))
    }

    fn needs_login(&self) -> Error {
        self.error(&format!("it wants credentials: `podman login {}`", self.target.registry()))
    }

    fn failure(&self, failed: Failed) -> Error {
        match failed {
            Failed::Refused(error) => error,
            Failed::Connection(error) => self.error(&error.to_string()),
            Failed::NoRegistry => self.error("it is none"),
        }
    }

    /// An error of the registry.
    pub fn error(&self, line: &str) -> Error {
        Error::failure(line).about(&format!("registry {}", self.target.registry()))
    }

    /// Why an answer is not the one that was hoped for.
    pub fn refusal(&self, what: &str, answer: Answer) -> Error {
        let status = answer.status();
        let reason = match answer.reason() {
            Some(reason) => format!("{what}: {} ({reason})", status.as_u16()),
            None => format!("{what}: {}", status.as_u16()),
        };
        match status {
            StatusCode::UNAUTHORIZED if self.credentials.is_none() => self.needs_login(),
            StatusCode::NOT_FOUND => {
                Error::not_found(reason).about(&format!("registry {}", self.target.registry()))
            }
            _ => self.error(&reason),
        }
    }
}

impl Answer {
    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// A header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// How long its content says it is, in bytes.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Its content, which may be no longer than `most` bytes.
    pub fn bytes(self, most: u64) -> std::io::Result<Vec<u8>> {
        let reader = self.response.into_body().into_with_config().limit(u64::MAX).reader();
        crate::store::blobs::read_at_most(reader, most)
    }

    fn pause(&self) -> Option<Duration> {
        self.header(RETRY_AFTER.as_str())?.parse().ok().map(Duration::from_secs)
    }

    /// What the registry says about a refusal (distribution specification, "Error Codes").
    fn reason(self) -> Option<String> {
        let bytes = self.bytes(LONGEST_REFUSAL).ok()?;
        let text: Value = serde_json::from_slice(&bytes).ok()?;
        let error = &text["errors"][0];
        let said = error["message"].as_str().or_else(|| error["code"].as_str())?;
        Some(Shown(said.as_bytes()).to_string())
    }
}

/// Whether the same request may be answered later.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}
