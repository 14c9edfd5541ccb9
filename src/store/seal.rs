//! One hash over everything that an image shows: `docs/format.md`, "Seals".

use std::fmt;
use std::fs::File;
use std::str::FromStr;

use super::config::{self, Config};
use super::{DiffId, Digest, Error, Result, Store};
use crate::layer::packed::Index;
use crate::sys::Errno;

/// The hash over a whole image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal(blake3::Hash);

/// A seal, and what it was made of.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The seal.
    pub seal: Seal,
    /// The image's layers, lowest first, with the checksums of their indexes: those a mount has to find.
    pub layers: Vec<(DiffId, blake3::Hash)>,
}

/// The first line of what is hashed.
const FORM: &str = "plyfs seal 1\n";

impl Store {
    /// The seal of the image with this configuration. Indexes are compared with their checksums; contents are named by
    /// their hashes in them, and not read.
    ///
    /// # Errors
    /// If the configuration or an index is damaged.
    pub fn seal(&self, config: &Digest) -> Result<Sealed> {
        let layers = Config::read(&self.read_blob(config, config::LONGEST)?)?.layers()?;
        let sealed = layers.into_iter().map(|layer| Ok((layer, self.checksum(&layer)?)));
        let layers = sealed.collect::<Result<Vec<_>>>()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{FORM}{config}\n").as_bytes());
        for (layer, index) in &layers {
            hasher.update(format!("{} {index}\n", layer.0).as_bytes());
        }
        Ok(Sealed { seal: Seal(hasher.finalize()), layers })
    }

    /// The same, which must be `wanted`.
    ///
    /// # Errors
    /// Also if it is another.
    pub fn require_seal(&self, config: &Digest, wanted: Seal) -> Result<Sealed> {
        let sealed = self.seal(config)?;
        if sealed.seal == wanted {
            return Ok(sealed);
        }
        let found = sealed.seal;
        Err(Error::damaged(format!("image {config}: its seal is {found}, not {wanted}")))
    }

    fn checksum(&self, layer: &DiffId) -> Result<blake3::Hash> {
        let of = |error: String| Error::damaged(format!("layer {}: {error}", layer.0));
        let file = File::open(self.layer_path(layer).join("index"));
        let file = file.map_err(|error| of(format!("its index: {error}")))?;
        match Index::open(&file) {
            Ok(index) if index.is_sound() => Ok(index.checksum()),
            Ok(_) | Err(Errno::INVAL) => Err(of("its index is damaged".into())),
            Err(error) => Err(of(format!("its index: {error}"))),
        }
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl FromStr for Seal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let small = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let hash = blake3::Hash::from_hex(text).ok().filter(|_| small);
        hash.map(Self).ok_or_else(|| "a seal is 64 digits of 0-9a-f".into())
    }
}
