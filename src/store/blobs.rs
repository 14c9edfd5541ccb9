//! Blobs: manifests, configurations and compressed layers, called by their SHA-256 digests.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use super::{Digest, Error, Result, Store};

impl Store {
    /// Where a blob is.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("blobs/sha256").join(digest.hex())
    }

    /// Whether there is a blob of that name.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Opens a blob.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.blob_path(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::damaged(format!("blob {digest} is missing")),
            _ => Error::failure(format!("blob {digest} cannot be opened: {error}")),
        })
    }

    /// Reads a blob of at most `most` bytes, and compares it with its name.
    pub fn read_blob(&self, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        let bytes = read_at_most(self.open_blob(digest)?, most)
            .map_err(|error| Error::failure(format!("blob {digest} cannot be read: {error}")))?;
        if Digest::of(&bytes) != *digest {
            return Err(Error::damaged(format!("blob {digest} is damaged")));
        }
        Ok(bytes)
    }
}

/// All that `source` gives, which may be no more than `most` bytes.
pub fn read_at_most(source: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}
