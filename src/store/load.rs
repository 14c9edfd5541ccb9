//! Loading images: docker archives, OCI archives and OCI layout directories.
//!
//! What arrives is not believed: manifests and configurations are compared with the digests that refer to them, layers
//! with the diff ids of the configuration. Bytes of configurations and of OCI manifests are kept as they came.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::arriving::{Arriving, check_blob, diff_ids};
use super::config;
use super::import::Import;
use super::manifest::{self, Descriptor, IndexEntry, Platform};
use super::progress::{Progress, Status, Watched};
use super::reference::Reference;
use super::source::Source;
use super::tags::Tagged;
use super::{DiffId, Digest, Error, Result, Store};
use crate::archive::Shown;

/// An image that has been loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Digest,
    /// Its names; none at all if nobody named it.
    pub names: Vec<Reference>,
}

/// An entry of `manifest.json` (docker image save).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// How deep indexes may lie in one another.
pub const DEEPEST_INDEX: usize = 4;

/// What of a stored image can be used again: the blob of each layer.
pub type KnownBlobs = BTreeMap<DiffId, Descriptor>;

impl Store {
    /// Loads all images of `open`'s source, and gives them their names; `name` instead, if it is one image.
    ///
    /// # Errors
    /// Nothing is stored then.
    pub fn load(
        &self,
        open: impl FnOnce(&super::stage::Stage) -> Result<Source>,
        name: Option<&Reference>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>> {
        let import = self.import()?;
        let source = open(&import.stage)?;
        let known = self.known_blobs()?;
        let mut load = Load { import, source: &source, known, progress };
        let mut loaded = load.images()?;
        if let Some(name) = name {
            match loaded.as_mut_slice() {
                [(one, _)] => one.names = vec![name.clone()],
                more => {
                    let count = more.len();
                    return Err(Error::failure(format!("one name for {count} images")));
                }
            }
        }
        load.import.publish()?;
        for (image, descriptor) in &loaded {
            self.tag_all(descriptor, &image.names)?;
        }
        Ok(loaded.into_iter().map(|(image, _)| image).collect())
    }

    /// Gives a manifest its names, or lists it without.
    pub fn tag_all(&self, manifest: &Descriptor, names: &[Reference]) -> Result<()> {
        let tagged = |name: Option<&Reference>| Tagged {
            name: name.map(ToString::to_string),
            manifest: manifest.digest,
            media_type: manifest.media_type.clone(),
            size: manifest.size,
        };
        if names.is_empty() {
            return self.tag(&tagged(None));
        }
        names.iter().try_for_each(|name| self.tag(&tagged(Some(name))))
    }

    /// The blobs of all layers of all images: they were compared with the diff ids when they came.
    pub fn known_blobs(&self) -> Result<KnownBlobs> {
        let mut known = KnownBlobs::new();
        for tagged in self.tagged()? {
            // Of an image that cannot be read nothing is used.
            let Ok(image) = self.image_of(&tagged) else { continue };
            let pairs = image.layers.into_iter().zip(image.manifest.layers);
            known.extend(
                pairs.filter(|(layer, blob)| self.has_layer(layer) && self.has_blob(&blob.digest)),
            );
        }
        Ok(known)
    }
}

struct Load<'s> {
    import: Import<'s>,
    source: &'s Source,
    known: KnownBlobs,
    progress: &'s dyn Progress,
}

impl Load<'_> {
    fn images(&mut self) -> Result<Vec<(Loaded, Descriptor)>> {
        if let Some(bytes) = self.source.text("manifest.json", manifest::LONGEST)? {
            let images: Vec<DockerImage> = serde_json::from_slice(&bytes)
                .map_err(|error| Error::failure(format!("manifest.json: {error}")))?;
            return images.into_iter().map(|image| self.docker_image(image)).collect();
        }
        let Some(bytes) = self.source.text("index.json", manifest::LONGEST)? else {
            return Err(Error::failure(
                "this is no image: neither manifest.json nor index.json is in it \
                 (a root filesystem is imported with `plyfs image import`)",
            ));
        };
        let entries = manifest::read_index(&bytes, manifest::index_type())
            .map_err(|error| error.about("index.json"))?;
        entries.into_iter().map(|entry| self.oci_image(entry)).collect()
    }

    fn docker_image(&mut self, image: DockerImage) -> Result<(Loaded, Descriptor)> {
        let bytes = self
            .source
            .text(&image.config, config::LONGEST)?
            .ok_or_else(|| missing(&image.config))?;
        let diff_ids = diff_ids(&bytes, image.layers.len())?;
        let mut layers = Vec::new();
        for (diff_id, member) in diff_ids.iter().zip(&image.layers) {
            layers.push(match self.known.get(diff_id).cloned() {
                Some(blob) => {
                    self.is_known(diff_id, blob.size);
                    blob
                }
                None => self.layer(diff_id, member, None)?,
            });
        }
        let (id, descriptor) = self.import.new_image(&bytes, layers)?;
        let names = image.repo_tags.unwrap_or_default();
        let names = names.iter().map(|name| name.parse()).collect::<Result<_>>()?;
        Ok((Loaded { id, manifest: descriptor.digest, names }, descriptor))
    }

    fn oci_image(&mut self, entry: IndexEntry) -> Result<(Loaded, Descriptor)> {
        let name = entry.name.clone();
        let (descriptor, bytes) = self.manifest(entry.descriptor, 0)?;
        let image = Arriving::new(descriptor, bytes, |config| self.blob(config, config::LONGEST))?;
        for (diff_id, blob) in &image.layers {
            if self.known.get(diff_id).is_some_and(|known| known.digest == blob.digest) {
                self.is_known(diff_id, blob.size);
                continue;
            }
            self.layer(diff_id, &member_of(&blob.digest), Some(blob))?;
        }
        self.import.image(&image)?;
        let names = name.map(|name| name.parse()).transpose()?.into_iter().collect();
        let descriptor = image.descriptor;
        Ok((Loaded { id: image.id, manifest: descriptor.digest, names }, descriptor))
    }

    /// The manifest that a descriptor leads to, through indexes: the one for this machine.
    fn manifest(&self, descriptor: Descriptor, depth: usize) -> Result<(Descriptor, Vec<u8>)> {
        let bytes = self.blob(&descriptor, manifest::LONGEST)?;
        if !descriptor.is_index() {
            return Ok((descriptor, bytes));
        }
        if depth == DEEPEST_INDEX {
            return Err(Error::failure("its indexes lead too deep"));
        }
        let entries = manifest::read_index(&bytes, &descriptor.media_type)?;
        let wanted = Platform::here().choose(entries)?;
        self.manifest(wanted.descriptor, depth + 1)
    }

    /// Reads the blob that a descriptor refers to, and compares it with that.
    fn blob(&self, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>> {
        let name = member_of(&descriptor.digest);
        let bytes = self.source.text(&name, most)?.ok_or_else(|| missing(&name))?;
        check_blob(descriptor, &bytes)?;
        Ok(bytes)
    }

    /// Takes a layer, which must have this diff id and, where it is known, be this blob.
    fn layer(
        &mut self,
        diff_id: &DiffId,
        member: &str,
        blob: Option<&Descriptor>,
    ) -> Result<Descriptor> {
        let (content, size) = self.source.member(member)?.ok_or_else(|| missing(member))?;
        let layer = Some(diff_id.0);
        let content = Watched::new(content, self.progress, layer, Status::LoadingLayer, size);
        let shown = Shown(member.as_bytes()).to_string();
        let (imported, kept) = self.import.expected_layer(&shown, content, diff_id, blob)?;
        let status = if imported.known { Status::AlreadyExists } else { Status::LoadComplete };
        self.progress.tell(layer.as_ref(), &status, size, size);
        self.known.insert(*diff_id, kept.clone());
        Ok(kept)
    }

    fn is_known(&self, diff_id: &DiffId, size: u64) {
        self.progress.tell(Some(&diff_id.0), &Status::AlreadyExists, size, size);
    }
}

fn member_of(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn missing(member: &str) -> Error {
    Error::failure(format!("{} is missing", Shown(member.as_bytes())))
}
