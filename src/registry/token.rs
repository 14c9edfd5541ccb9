//! Tokens (Docker Registry v2 authentication, "Token Authentication", "OAuth2").

use serde_json::Value;
use ureq::http::Request;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};

use super::Client;
use super::credentials::Credentials;
use super::url::{encoded, with_parameter};
use crate::archive::Shown;
use crate::store::Result;
use crate::store::blobs::read_at_most;

/// The longest answer of a server of tokens, in bytes.
const LONGEST: u64 = 1 << 20;

impl Client {
    /// A token from the server at `realm`, which has been found to be safe. Redirects are not followed.
    pub(super) fn token(&self, realm: &str, service: Option<&str>) -> Result<String> {
        let failed =
            |why: &str| self.error(&format!("no token from {}: {why}", Shown(realm.as_bytes())));
        let answer = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = self.form(token, service);
                let request = Request::post(realm)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form);
                self.agent.run(request.map_err(|error| failed(&error.to_string()))?)
            }
            credentials => {
                let mut request = Request::get(self.query(realm, service));
                if let Some(basic) = credentials.as_ref().and_then(Credentials::basic) {
                    request = request.header(AUTHORIZATION, basic);
                }
                self.agent.run(request.body(()).map_err(|error| failed(&error.to_string()))?)
            }
        };
        let answer = answer.map_err(|error| failed(&error.to_string()))?;
        if !answer.status().is_success() {
            return Err(failed(answer.status().as_str()));
        }
        let body = answer.into_body().into_with_config().limit(u64::MAX).reader();
        let bytes = read_at_most(body, LONGEST).map_err(|error| failed(&error.to_string()))?;
        let said: Value = serde_json::from_slice(&bytes).map_err(|_| failed("it is no JSON"))?;
        let token = said["token"].as_str().or_else(|| said["access_token"].as_str());
        Ok(token.ok_or_else(|| failed("there is none in the answer"))?.to_owned())
    }

    fn query(&self, realm: &str, service: Option<&str>) -> String {
        let mut url = realm.to_owned();
        if let Some(service) = service {
            url = with_parameter(&url, "service", service);
        }
        if let Some(Credentials::Password(user, _)) = &self.credentials {
            url = with_parameter(&url, "account", user);
        }
        self.scopes.iter().fold(url, |url, scope| with_parameter(&url, "scope", scope))
    }

    fn form(&self, token: &str, service: Option<&str>) -> String {
        let scopes = encoded(&self.scopes.join(" "));
        let service = encoded(service.unwrap_or_default());
        let token = encoded(token);
        format!(
            "grant_type=refresh_token&client_id=plyfs&service={service}&scope={scopes}&refresh_token={token}"
        )
    }
}
