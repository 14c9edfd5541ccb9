//! Loading images: docker archives, OCI archives and OCI layout directories.
//!
//! What arrives is not believed: manifests and configurations are compared with the digests that refer to them, layers
//! with the diff ids of the configuration. Bytes of configurations and of OCI manifests are kept as they came.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use super::config::{self, Config};
use super::import::Import;
use super::layer_import::{Imported, Keep};
use super::manifest::{self, Descriptor, IndexEntry, Manifest};
use super::reference::Reference;
use super::source::Source;
use super::tags::Tagged;
use super::{DiffId, Digest, Error, Result, Store};
use crate::archive::{Limits, Shown};

/// What a load tells while it goes on.
pub trait Progress {
    /// A layer of so many bytes as it came, which is stored already if `known`.
    fn layer(&mut self, diff_id: &DiffId, bytes: u64, known: bool);
    /// So many bytes of it have been read.
    fn read(&mut self, bytes: u64);
    /// The layer is complete.
    fn done(&mut self, imported: Option<&Imported>);
}

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
const DEEPEST_INDEX: usize = 4;

/// What of a stored image can be used again: the blob of each layer.
type KnownBlobs = BTreeMap<DiffId, Descriptor>;

impl Store {
    /// Loads all images of `open`'s source, and gives them their names; `name` instead, if it is one image.
    ///
    /// # Errors
    /// Nothing is stored then.
    pub fn load(
        &self,
        open: impl FnOnce(&super::stage::Stage) -> Result<Source>,
        name: Option<&Reference>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Loaded>> {
        let import = self.import()?;
        let source = open(&import.stage)?;
        let known = self.known_blobs()?;
        let mut load = Load { import, source: &source, known, progress, limits: Limits::default() };
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
    pub(super) fn tag_all(&self, manifest: &Descriptor, names: &[Reference]) -> Result<()> {
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
    fn known_blobs(&self) -> Result<KnownBlobs> {
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
    progress: &'s mut dyn Progress,
    limits: Limits,
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
        let (config, diff_ids) = read_config(&bytes)?;
        same_number(&diff_ids, image.layers.len())?;
        drop(config);
        let mut layers = Vec::new();
        for (diff_id, member) in diff_ids.iter().zip(&image.layers) {
            layers.push(match self.known.get(diff_id).cloned() {
                Some(blob) => {
                    self.progress.layer(diff_id, blob.size, true);
                    self.progress.done(None);
                    blob
                }
                None => self.layer(diff_id, member, None)?,
            });
        }
        let digest = self.import.blob(&bytes)?;
        let size = bytes.len() as u64;
        let manifest = Manifest {
            media_type: manifest::MANIFEST.to_owned(),
            config: Descriptor { media_type: manifest::CONFIG.to_owned(), digest, size },
            layers,
        };
        let names = image.repo_tags.unwrap_or_default();
        let names = names.iter().map(|name| name.parse()).collect::<Result<_>>()?;
        let bytes = manifest.write();
        let descriptor = Descriptor {
            media_type: manifest.media_type,
            digest: self.import.blob(&bytes)?,
            size: bytes.len() as u64,
        };
        Ok((Loaded { id: digest, manifest: descriptor.digest, names }, descriptor))
    }

    fn oci_image(&mut self, entry: IndexEntry) -> Result<(Loaded, Descriptor)> {
        let name = entry.name.clone();
        let (descriptor, bytes) = self.manifest(entry.descriptor, 0)?;
        let manifest = Manifest::read(&bytes, &descriptor.media_type)?;
        let config_bytes = self.blob(&manifest.config, config::LONGEST)?;
        let (_, diff_ids) = read_config(&config_bytes)?;
        same_number(&diff_ids, manifest.layers.len())?;
        for (diff_id, blob) in diff_ids.iter().zip(&manifest.layers) {
            if self.known.get(diff_id).is_some_and(|known| known.digest == blob.digest) {
                self.progress.layer(diff_id, blob.size, true);
                self.progress.done(None);
                continue;
            }
            self.layer(diff_id, &member_of(&blob.digest), Some(blob))?;
        }
        self.import.blob(&config_bytes)?;
        self.import.blob(&bytes)?;
        let names = name.map(|name| name.parse()).transpose()?.into_iter().collect();
        let id = manifest.config.digest;
        Ok((Loaded { id, manifest: descriptor.digest, names }, descriptor))
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
        let ours = |entry: &IndexEntry| match &entry.platform {
            Some((os, architecture)) => os == "linux" && *architecture == architecture_here(),
            None => true,
        };
        let wanted = entries.into_iter().find(ours).ok_or_else(|| {
            let here = architecture_here();
            Error::not_found(format!("the image is not there for linux/{here}"))
        })?;
        self.manifest(wanted.descriptor, depth + 1)
    }

    /// Reads the blob that a descriptor refers to, and compares it with that.
    fn blob(&self, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>> {
        let name = member_of(&descriptor.digest);
        let bytes = self.source.text(&name, most)?.ok_or_else(|| missing(&name))?;
        if Digest::of(&bytes) != descriptor.digest || bytes.len() as u64 != descriptor.size {
            return Err(wrong_blob(&descriptor.digest));
        }
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
        self.progress.layer(diff_id, size, false);
        let content = Watched { source: content, progress: &mut *self.progress };
        let shown = Shown(member.as_bytes()).to_string();
        let keep = if blob.is_some() { Keep::AsItCame } else { Keep::Compressed };
        let imported = self.import.layer(&shown, content, self.limits, keep)?;
        if imported.diff_id != *diff_id {
            return Err(Error::damaged(format!(
                "layer {shown}: it is {}, and not {}, as the configuration says",
                imported.diff_id.0, diff_id.0
            )));
        }
        let kept = Descriptor::layer(imported.compression, imported.blob);
        if let Some(blob) = blob
            && (kept.digest != blob.digest || kept.size != blob.size)
        {
            return Err(wrong_blob(&blob.digest));
        }
        self.progress.done(Some(&imported));
        self.known.insert(*diff_id, kept.clone());
        Ok(kept)
    }
}

/// Tells how far a layer has been read.
struct Watched<'p, R> {
    source: R,
    progress: &'p mut dyn Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.progress.read(count as u64);
        Ok(count)
    }
}

fn read_config(bytes: &[u8]) -> Result<(Config, Vec<DiffId>)> {
    let config = Config::read(bytes)?;
    let diff_ids = config.layers()?;
    if diff_ids.len() > manifest::MOST_LAYERS {
        return Err(manifest::too_many());
    }
    Ok((config, diff_ids))
}

fn same_number(diff_ids: &[DiffId], layers: usize) -> Result<()> {
    if diff_ids.len() == layers {
        return Ok(());
    }
    let named = diff_ids.len();
    Err(Error::failure(format!("the manifest has {layers} layers, and the configuration {named}")))
}

fn member_of(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn missing(member: &str) -> Error {
    Error::failure(format!("{} is missing", Shown(member.as_bytes())))
}

fn wrong_blob(digest: &Digest) -> Error {
    Error::damaged(format!("blob {digest} is not what its name and size say"))
}

/// The processor, as Go calls it.
pub(super) fn architecture_here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
