//! What is written to a repository (distribution specification, "Push").

use ureq::http::{Method, StatusCode};

use super::Client;
use super::client::{Call, Content, Open};
use super::pace::TRIES;
use super::url::{join, with_parameter};
use crate::store::manifest::Descriptor;
use crate::store::{Error, Result};

const BYTES: &str = "application/octet-stream";

impl Client {
    /// Whether the repository has a blob.
    pub fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let url = self.url(&format!("blobs/{}", blob.digest));
        let call = Call { method: Method::HEAD, url, headers: &[], content: Content::Nothing };
        let answer = self.send(&call)?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refusal(&format!("blob {}", blob.digest), answer)),
        }
    }

    /// Sends a blob, which `open` gives anew for each try; unless the registry takes it from the repository `from`. True if it
    /// did.
    pub fn put_blob(&self, blob: &Descriptor, from: Option<&str>, open: Open<'_>) -> Result<bool> {
        let digest = blob.digest.to_string();
        let mut begin = self.url("blobs/uploads/");
        if let Some(from) = from {
            begin = with_parameter(&with_parameter(&begin, "mount", &digest), "from", from);
        }
        let mut tries = 0;
        loop {
            let Some(place) = self.begin_upload(&begin, blob)? else { return Ok(true) };
            let url = with_parameter(&place, "digest", &digest);
            let content = Content::Stream(blob.size, open);
            let headers = &[("content-type", BYTES)];
            let call = Call { method: Method::PUT, url, headers, content };
            let answer = self.send(&call)?;
            tries += 1;
            match answer.status() {
                StatusCode::CREATED => return Ok(false),
                // What came of a try that broke has made this one impossible; a new upload is not hindered by it.
                StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE if tries < TRIES => {}
                _ => return Err(self.refusal(&format!("upload of blob {digest}"), answer)),
            }
        }
    }

    /// Begins an upload, and tells where to; nowhere if the registry has taken the blob from elsewhere.
    fn begin_upload(&self, url: &str, blob: &Descriptor) -> Result<Option<String>> {
        let call = Call {
            method: Method::POST,
            url: url.to_owned(),
            headers: &[],
            content: Content::Bytes(b""),
        };
        let answer = self.send(&call)?;
        match (answer.status(), answer.header("location")) {
            (StatusCode::CREATED, _) => Ok(None),
            (StatusCode::ACCEPTED, Some(place)) => join(url, place).map(Some),
            _ => Err(self.refusal(&format!("upload of blob {}", blob.digest), answer)),
        }
    }

    /// Gives the repository a manifest, under a tag or its digest.
    pub fn put_manifest(&self, name: &str, manifest: &Descriptor, bytes: &[u8]) -> Result<()> {
        let url = self.url(&format!("manifests/{name}"));
        let headers = [("content-type", manifest.media_type.as_str())];
        let content = Content::Bytes(bytes);
        let answer = self.send(&Call { method: Method::PUT, url, headers: &headers, content })?;
        if answer.status() != StatusCode::CREATED {
            return Err(self.refusal(&format!("manifest {name}"), answer));
        }
        let theirs = answer.header("docker-content-digest");
        match theirs.filter(|theirs| *theirs != manifest.digest.to_string()) {
            Some(_) => Err(Error::damaged(format!("manifest {name}: the registry has changed it"))),
            None => Ok(()),
        }
    }
}
