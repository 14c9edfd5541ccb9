//! What a store holds and takes, and what is shared in it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::collect::size_of_folder;
use super::{DiffId, Result, Store};

/// Figures of a store. Bytes of files are those that `ls` shows, others those that a disk has given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images.
    pub images: u64,
    /// Bytes of the files of all images, each image for itself.
    pub image_bytes: u64,
    /// Layers that images have.
    pub layers: u64,
    /// Bytes of the files of these layers, each layer once.
    pub layer_bytes: u64,
    /// Bytes of all packed layers on disk.
    pub packed_bytes: u64,
    /// Contents.
    pub objects: u64,
    /// Bytes of the contents on disk.
    pub object_bytes: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of the blobs on disk.
    pub blob_bytes: u64,
}

impl Store {
    /// The figures of the store.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut layers: BTreeSet<DiffId> = BTreeSet::new();
        for image in self.images()? {
            usage.images += 1;
            usage.image_bytes += self.image_size(&image)?;
            layers.extend(image.layers);
        }
        usage.layers = layers.len() as u64;
        for layer in &layers {
            usage.layer_bytes += self.layer_meta(layer)?.size;
        }
        let mut on_disk = || -> io::Result<()> {
            for entry in fs::read_dir(self.root().join("layers"))? {
                usage.packed_bytes += size_of_folder(&entry?.path())?;
            }
            for folder in fs::read_dir(self.root().join("objects"))? {
                for entry in fs::read_dir(folder?.path())? {
                    usage.objects += 1;
                    usage.object_bytes += entry?.metadata()?.blocks() * 512;
                }
            }
            for entry in fs::read_dir(self.root().join("blobs/sha256"))? {
                usage.blobs += 1;
                usage.blob_bytes += entry?.metadata()?.blocks() * 512;
            }
            Ok(())
        };
        on_disk().map_err(|error| {
            super::Error::failure(format!("store {}: {error}", self.root().display()))
        })?;
        Ok(usage)
    }
}
