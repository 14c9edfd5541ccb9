//! Names by content: SHA-256, as OCI images have them (image specification, "Descriptors", "Layer DiffID",
//! "Layer ChainID").

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Error;

/// A SHA-256 hash, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// The name of a layer: the digest of its uncompressed archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

/// The name of a stack of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(pub Digest);

const PREFIX: &str = "sha256:";

impl Digest {
    /// The digest of `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(Sha256::digest(data).into())
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.to_string().split_off(PREFIX.len())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let read = || {
            let digits: &[u8; 64] = text.strip_prefix(PREFIX)?.as_bytes().try_into().ok()?;
            let mut bytes = [0; 32];
            for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks().0) {
                *byte = value(*high)? << 4 | value(*low)?;
            }
            Some(Self(bytes))
        };
        read().ok_or_else(|| {
            let shown = crate::archive::Shown(text.as_bytes());
            Error::failure(format!(
                "`{shown}` is no digest: sha256: and 64 digits of 0-9a-f are needed"
            ))
        })
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl ChainId {
    /// The name of the stack of `layers`, lowest first; `None` for none at all.
    pub fn of(layers: &[DiffId]) -> Option<Self> {
        let (first, others) = layers.split_first()?;
        let chain = others
            .iter()
            .fold(first.0, |below, layer| Digest::of(format!("{below} {}", layer.0).as_bytes()));
        Some(Self(chain))
    }
}

/// Passes a stream on, and computes the digest of what has passed.
pub struct Digesting<S> {
    stream: S,
    hasher: Sha256,
    length: u64,
}

impl<S> Digesting<S> {
    /// Begins with nothing.
    pub fn new(stream: S) -> Self {
        Self { stream, hasher: Sha256::new(), length: 0 }
    }

    /// The digest and the number of the bytes that have passed, and the stream.
    pub fn finish(self) -> (Digest, u64, S) {
        (Digest(self.hasher.finalize().into()), self.length, self.stream)
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }
}

impl<S: Read> Read for Digesting<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.passed(&buffer[..count]);
        Ok(count)
    }
}

impl<S: Write> Write for Digesting<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(buffer)?;
        self.passed(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_they_are_written_and_in_no_other_way() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        for wrong in [
            "",
            "sha256:",
            &text[7..],
            &text[..70],
            &format!("{text}0"),
            &text.to_uppercase().replace("SHA", "sha"),
            &text.replace("sha256", "sha512"),
            &text.replace('5', "/"),
            &text.replace("e3b0", "+3b0"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_chain_of_one_layer_is_its_own_name() {
        let layers = [DiffId(Digest::of(b"1")), DiffId(Digest::of(b"2")), DiffId(Digest::of(b"3"))];
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(&layers[..1]).unwrap().0, layers[0].0);
        let two = ChainId::of(&layers[..2]).unwrap();
        assert_eq!(two.0, Digest::of(format!("{} {}", layers[0].0, layers[1].0).as_bytes()));
        let three = ChainId::of(&layers).unwrap();
        assert_eq!(three.0, Digest::of(format!("{} {}", two.0, layers[2].0).as_bytes()));
    }
}
