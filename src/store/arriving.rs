//! An image that arrives as a manifest, a configuration and a blob for each layer: from an OCI layout or a registry.
//!
//! None of these is believed: each is compared with what refers to it, and layers with the diff ids of the configuration.

use std::io::Read;

use super::config::Config;
use super::import::Import;
use super::layer_import::{Imported, Keep};
use super::manifest::{self, Descriptor, Manifest};
use super::{DiffId, Digest, Error, Result};
use crate::archive::Limits;

/// An image whose manifest and configuration have come, and agree.
pub struct Arriving {
    /// What refers to the manifest.
    pub descriptor: Descriptor,
    /// Its id.
    pub id: Digest,
    /// Its layers, lowest first, with the blobs that they come as.
    pub layers: Vec<(DiffId, Descriptor)>,
    /// As they came.
    manifest: Vec<u8>,
    config: Vec<u8>,
}

impl Arriving {
    /// Takes the manifest that `descriptor` refers to, and the configuration that `config` finds.
    pub fn new(
        descriptor: Descriptor,
        bytes: Vec<u8>,
        config: impl FnOnce(&Descriptor) -> Result<Vec<u8>>,
    ) -> Result<Self> {
        check_blob(&descriptor, &bytes)?;
        let manifest = Manifest::read(&bytes, &descriptor.media_type)?;
        let config = config(&manifest.config)?;
        check_blob(&manifest.config, &config)?;
        let diff_ids = diff_ids(&config, manifest.layers.len())?;
        let layers = diff_ids.into_iter().zip(manifest.layers).collect();
        Ok(Self { descriptor, id: manifest.config.digest, layers, manifest: bytes, config })
    }
}

impl Import<'_> {
    /// Takes the manifest and the configuration.
    pub fn image(&self, image: &Arriving) -> Result<()> {
        self.blob(&image.config)?;
        self.blob(&image.manifest)?;
        Ok(())
    }

    /// Takes a layer, which must have this diff id and, where it is known, be this blob. `name` is what messages call it.
    pub fn expected_layer(
        &mut self,
        name: &str,
        content: impl Read,
        diff_id: &DiffId,
        blob: Option<&Descriptor>,
    ) -> Result<(Imported, Descriptor)> {
        let keep = if blob.is_some() { Keep::AsItCame } else { Keep::Compressed };
        let imported = self.layer(name, content, Limits::default(), keep)?;
        let kept = Descriptor::layer(imported.compression, imported.blob);
        if imported.diff_id != *diff_id {
            return Err(Error::damaged(format!(
                "layer {name}: it is {}, and not {}, as the configuration says",
                imported.diff_id.0, diff_id.0
            )));
        }
        if let Some(blob) = blob
            && (kept.digest != blob.digest || kept.size != blob.size)
        {
            return Err(wrong_blob(&blob.digest));
        }
        if imported.replaced > 0 {
            let count = imported.replaced;
            log::warn!("layer {name}: {count} names came more than once: the last of each is kept");
        }
        Ok((imported, kept))
    }
}

/// The diff ids of a configuration, of an image with so many layers.
pub(super) fn diff_ids(config: &[u8], layers: usize) -> Result<Vec<DiffId>> {
    let diff_ids = Config::read(config)?.layers()?;
    let named = diff_ids.len();
    if named > manifest::MOST_LAYERS {
        return Err(manifest::too_many());
    }
    if named != layers {
        return Err(Error::failure(format!(
            "the manifest has {layers} layers, and the configuration {named}"
        )));
    }
    Ok(diff_ids)
}

/// Compares a blob with what refers to it.
pub(super) fn check_blob(descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
    if Digest::of(bytes) == descriptor.digest && bytes.len() as u64 == descriptor.size {
        return Ok(());
    }
    Err(wrong_blob(&descriptor.digest))
}

fn wrong_blob(digest: &Digest) -> Error {
    Error::damaged(format!("blob {digest} is not what its name and size say"))
}
