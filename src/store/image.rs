//! Images that are stored: a manifest, the configuration that it names, and tags.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::config::{self, Config};
use super::manifest::{self, Manifest};
use super::reference::Reference;
use super::tags::Tagged;
use super::{ChainId, DiffId, Digest, Error, Kind, Result, Store};
use crate::archive::Shown;

/// An image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's length in bytes.
    pub size: u64,
    /// What the manifest says.
    pub manifest: Manifest,
    /// What is read of the configuration.
    pub config: Config,
    /// Its layers, lowest first.
    pub layers: Vec<DiffId>,
    /// Its names.
    pub tags: Vec<String>,
}

/// The fewest digits that an id can be shortened to.
const SHORTEST_ID: usize = 3;

impl Image {
    /// The image's id: the digest of its configuration.
    pub fn id(&self) -> Digest {
        self.manifest.config.digest
    }

    /// The names of the stacks of its layers, from the lowest layer to all.
    pub fn chain(&self) -> Vec<ChainId> {
        (1..=self.layers.len()).filter_map(|count| ChainId::of(&self.layers[..count])).collect()
    }
}

impl Store {
    /// All images, each with all its tags, in the order in which they came. Damaged ones are left out, with a warning: they
    /// must not keep anybody from the others.
    pub fn images(&self) -> Result<Vec<Image>> {
        let mut images: Vec<Image> = Vec::new();
        let mut known: BTreeMap<Digest, Option<usize>> = BTreeMap::new();
        for tagged in self.tagged()? {
            if let Some(at) = known.get(&tagged.manifest) {
                if let Some(at) = *at {
                    images[at].tags.extend(tagged.name);
                }
                continue;
            }
            let image = match self.image_of(&tagged) {
                Err(error) if error.kind() == Kind::Damaged => {
                    log::warn!("{error}; see `plyfs store verify`");
                    None
                }
                image => Some(image?),
            };
            known.insert(tagged.manifest, image.is_some().then_some(images.len()));
            images.extend(image);
        }
        Ok(images)
    }

    /// The image that an entry of the index is about, with the tag of this entry.
    pub fn image_of(&self, tagged: &Tagged) -> Result<Image> {
        let of = |error: Error| error.about(&format!("image {}", tagged.manifest));
        let bytes = self.read_blob(&tagged.manifest, manifest::LONGEST).map_err(of)?;
        let manifest = Manifest::read(&bytes, &tagged.media_type).map_err(of)?;
        let config = self.read_blob(&manifest.config.digest, config::LONGEST).map_err(of)?;
        let config = Config::read(&config).map_err(of)?;
        let layers = config.layers().map_err(of)?;
        Ok(Image {
            digest: tagged.manifest,
            size: bytes.len() as u64,
            manifest,
            config,
            layers,
            tags: tagged.name.iter().cloned().collect(),
        })
    }

    /// The image with this manifest, whether or not the index is about it.
    pub fn image_with_manifest(&self, manifest: &Digest) -> Result<Image> {
        let bytes = self.read_blob(manifest, manifest::LONGEST)?;
        let size = bytes.len() as u64;
        let media_type =
            manifest::own_type(&bytes).unwrap_or_else(|| manifest::MANIFEST.to_owned());
        self.image_of(&Tagged { name: None, manifest: *manifest, media_type, size })
    }

    /// The indexes of layers, the lowest of which comes first in `layers`, from the top.
    pub fn layer_indexes(&self, layers: &[DiffId]) -> Vec<PathBuf> {
        layers.iter().rev().map(|layer| self.layer_path(layer).join("index")).collect()
    }

    /// The image that `text` names: a tag, an id or digest, or the beginning of one; or any name and a digest
    /// (`NAME@DIGEST`), which alone counts.
    pub fn find_image(&self, text: &str) -> Result<Image> {
        if let Some((_, digest)) = text.split_once('@') {
            return self.find_image(&digest.parse::<Digest>()?.to_string());
        }
        let none = || {
            let shown = Shown(text.as_bytes());
            Error::not_found(format!("no image `{shown}` in {}", self.root().display()))
        };
        let name = text.parse::<Reference>().map(|reference| reference.to_string());
        let all = self.tagged()?;
        let is_it = |tag: &String| tag == text || name.as_ref().is_ok_and(|name| tag == name);
        if let Some(tagged) = all.iter().find(|tagged| tagged.name.as_ref().is_some_and(is_it)) {
            let same = all.iter().filter(|other| other.manifest == tagged.manifest);
            let tags = same.filter_map(|other| other.name.clone()).collect();
            return Ok(Image { tags, ..self.image_of(tagged)? });
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() < SHORTEST_ID || !digits.bytes().all(is_hex) {
            return Err(none());
        }
        let begins = |digest: &Digest| digest.hex().starts_with(digits);
        let images = self.images()?;
        let mut found = images.iter().filter(|image| begins(&image.id()) || begins(&image.digest));
        let first = found.next().ok_or_else(none)?;
        if found.any(|other| other.id() != first.id()) {
            return Err(Error::failure(format!("`{digits}` is the beginning of several ids")));
        }
        Ok(first.clone())
    }

    /// The bytes of the files of an image's layers.
    pub fn image_size(&self, image: &Image) -> Result<u64> {
        image.layers.iter().map(|layer| Ok(self.layer_meta(layer)?.size)).sum()
    }
}
