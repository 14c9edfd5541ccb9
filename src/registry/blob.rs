//! What is read from a repository: manifests and blobs.

use std::io::{self, Read};

use ureq::BodyReader;
use ureq::http::{Method, StatusCode};

use super::Client;
use super::client::{Answer, Call, Content};
use super::pace::TRIES;
use crate::store::manifest::{self, Descriptor};
use crate::store::{Digest, Error, Result};

/// A blob as it comes. A connection that breaks is taken up again where it broke.
pub struct Blob<'c> {
    client: &'c Client,
    blob: Descriptor,
    body: BodyReader<'static>,
    /// The bytes that have been read.
    at: u64,
    /// Broken connections, and where the first of them broke.
    broken: (u32, u64),
}

/// After so many bytes a connection was a good one.
const PROGRESS: u64 = 1 << 20;

impl Client {
    /// The manifest or index that `wanted`, a tag or a digest, names, and what refers to it.
    pub fn manifest(&self, wanted: &str) -> Result<(Descriptor, Vec<u8>)> {
        let what = format!("manifest {wanted}");
        let url = self.url(&format!("manifests/{wanted}"));
        let accept = manifest::TYPES.join(", ");
        let headers = [("accept", accept.as_str())];
        let call = Call { method: Method::GET, url, headers: &headers, content: Content::Nothing };
        let answer = self.send(&call)?;
        if answer.status() != StatusCode::OK {
            return Err(self.refusal(&what, answer));
        }
        let named = answer
            .header("content-type")
            .map(|value| value.split(';').next().unwrap_or_default().trim().to_owned());
        let promised = answer.header("docker-content-digest").map(ToOwned::to_owned);
        let bytes = answer.bytes(manifest::LONGEST);
        let bytes = bytes.map_err(|error| self.error(&format!("{what}: {error}")))?;
        let digest = Digest::of(&bytes);
        if wanted.parse::<Digest>().is_ok_and(|wanted| wanted != digest)
            || promised.is_some_and(|promised| promised != digest.to_string())
        {
            return Err(Error::damaged(format!("{what}: it is {digest}")));
        }
        // What is called nothing in particular may say itself what it is.
        let known = named.filter(|named| manifest::TYPES.contains(&named.as_str()));
        let media_type = known.or_else(|| manifest::own_type(&bytes)).unwrap_or_default();
        Ok((Descriptor { media_type, digest, size: bytes.len() as u64 }, bytes))
    }

    /// A blob of at most `most` bytes.
    pub fn small_blob(&self, blob: &Descriptor, most: u64) -> Result<Vec<u8>> {
        let failed = |error: io::Error| self.error(&format!("blob {}: {error}", blob.digest));
        if blob.size > most {
            return Err(failed(io::Error::other(format!("it is longer than {most} bytes"))));
        }
        let mut bytes = Vec::new();
        self.blob(blob)?.read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// A blob, to be read once. It has as many bytes as the descriptor says; whether they are the right ones is for the reader
    /// to find out.
    pub fn blob(&self, blob: &Descriptor) -> Result<Blob<'_>> {
        let body = self.open(blob, 0)?;
        Ok(Blob { client: self, blob: blob.clone(), body, at: 0, broken: (0, 0) })
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<BodyReader<'static>> {
        let url = self.url(&format!("blobs/{}", blob.digest));
        let what = format!("blob {}", blob.digest);
        let range = format!("bytes={from}-");
        let range = [("range", range.as_str())];
        let headers = if from == 0 { &[][..] } else { &range };
        let call = Call { method: Method::GET, url, headers, content: Content::Nothing };
        let answer = self.send(&call)?;
        let skipped = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if is_from(&answer, from) => from,
            _ => return Err(self.refusal(&what, answer)),
        };
        if let Some(length) = answer.length().filter(|length| *length != blob.size - skipped) {
            let length = length + skipped;
            return Err(Error::damaged(format!(
                "{what}: it has {length} bytes, and not {}",
                blob.size
            )));
        }
        let mut body = answer.response.into_body().into_with_config().limit(u64::MAX).reader();
        // Who does not know ranges sends everything again.
        let again = io::copy(&mut (&mut body).take(from - skipped), &mut io::sink());
        match again {
            Ok(count) if count == from - skipped => Ok(body),
            _ => Err(self.error(&format!("{what}: its connection broke at {from} bytes"))),
        }
    }
}

/// Whether a part of a content begins there.
fn is_from(answer: &Answer, from: u64) -> bool {
    let range = answer.header("content-range").and_then(|range| range.strip_prefix("bytes "));
    range.and_then(|range| range.split('-').next()) == Some(from.to_string().as_str())
}

impl Blob<'_> {
    /// Opens the rest of a blob whose connection has broken.
    fn take_up(&mut self) -> io::Result<()> {
        let (times, at) = self.broken;
        self.broken = if self.at - at >= PROGRESS { (1, self.at) } else { (times + 1, at) };
        let broke = |why: &str| {
            let (at, size) = (self.at, self.blob.size);
            io::Error::other(format!("the connection broke at {at} of {size} bytes{why}"))
        };
        if !self.client.pace.wait(self.broken.0, None) {
            return Err(broke(&format!(", {TRIES} times")));
        }
        let again = self.client.open(&self.blob, self.at);
        self.body = again.map_err(|error| broke(&format!("; {error}")))?;
        Ok(())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.blob.size - self.at).unwrap_or(usize::MAX);
        let piece = buffer.len().min(left);
        if piece == 0 {
            return Ok(0);
        }
        loop {
            if self.client.pace.is_stopped() {
                return Err(io::Error::other("stopped, since something else has failed"));
            }
            if let Ok(count @ 1..) = self.body.read(&mut buffer[..piece]) {
                self.at += count as u64;
                return Ok(count);
            }
            self.take_up()?;
        }
    }
}
