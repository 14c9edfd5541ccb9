//! Tags: names of images, in the `index.json` of the OCI image layout (image specification, "Image Layout",
//! "org.opencontainers.image.ref.name").
//!
//! The file is replaced as a whole, by whoever holds the lock on `tags.lock`. What other programs have written into it
//! stays.

use std::fs;

use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use super::manifest::{self, Manifest};
use super::{Digest, Error, Result, Store, locked};

/// An index without tags.
pub(super) const NONE: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

/// The annotation that has the tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The longest index that is read, in bytes.
const LONGEST: u64 = 64 << 20;

/// A manifest that the index names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// Its tag; none of an image that has lost it.
    pub name: Option<String>,
    /// The manifest.
    pub manifest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
}

impl Store {
    /// All manifests of the index, in its order.
    pub fn tagged(&self) -> Result<Vec<Tagged>> {
        let index = self.index()?;
        let entries = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
        entries.iter().map(|entry| self.entry(entry)).collect()
    }

    /// Gives a manifest a tag, which whatever had it loses; or lists it without one. What has lost its tag to the same image,
    /// whose layers are only compressed in another way, is listed no more.
    pub fn tag(&self, tagged: &Tagged) -> Result<()> {
        self.change_index(|entries| {
            let manifest = tagged.manifest.to_string();
            let mut descriptor = json!({
                "mediaType": tagged.media_type, "digest": manifest, "size": tagged.size,
            });
            if let Some(name) = &tagged.name {
                descriptor["annotations"] = json!({ REF_NAME: name });
                let config = self.config_of(&tagged.manifest);
                entries.retain(|old| {
                    let replaced = old["digest"] != manifest && name_of(old) == Some(name);
                    !replaced || config.is_none() || config != self.config_of_entry(old)
                });
                for old in entries.iter_mut().filter(|entry| entry["digest"] != manifest) {
                    take_tag(old, name);
                }
            } else if entries.iter().any(|entry| entry["digest"] == manifest) {
                return;
            }
            entries.retain(|entry| {
                entry["digest"] != manifest
                    || name_of(entry).is_some_and(|name| Some(name) != tagged.name.as_deref())
            });
            entries.push(descriptor);
        })
    }

    /// Takes a tag away; true if its manifest is in the index no more.
    pub fn untag(&self, name: &str) -> Result<bool> {
        let mut gone = false;
        self.change_index(|entries| {
            let digest = |entry: &Value| entry["digest"].clone();
            let of = entries.iter().find(|entry| name_of(entry) == Some(name)).map(digest);
            entries.retain(|entry| name_of(entry) != Some(name));
            gone = of.is_some_and(|of| !entries.iter().any(|entry| entry["digest"] == of));
        })?;
        Ok(gone)
    }

    /// Takes a manifest away, with all its tags.
    pub fn forget(&self, manifest: &Digest) -> Result<()> {
        let manifest = manifest.to_string();
        self.change_index(|entries| entries.retain(|entry| entry["digest"] != manifest))
    }

    /// The configuration that a manifest names; `None` if that cannot be read.
    fn config_of(&self, digest: &Digest) -> Option<Digest> {
        let image = self.read_blob(digest, manifest::LONGEST).ok()?;
        let media_type =
            manifest::own_type(&image).unwrap_or_else(|| manifest::MANIFEST.to_owned());
        Some(Manifest::read(&image, &media_type).ok()?.config.digest)
    }

    fn config_of_entry(&self, entry: &Value) -> Option<Digest> {
        self.config_of(&entry["digest"].as_str()?.parse().ok()?)
    }

    fn change_index(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let (_lock, _) = locked(&self.root().join("tags.lock"), FlockOperation::LockExclusive)
            .map_err(|error| self.cannot_store(error))?;
        let mut index = self.index()?;
        let old = index.clone();
        match index.get_mut("manifests").and_then(Value::as_array_mut) {
            Some(entries) => {
                change(entries);
                drop_needless(entries);
            }
            None => return Err(self.bad_index("it has no manifests")),
        }
        if index == old {
            return Ok(());
        }
        self.write_file("index.json", index.to_string().as_bytes())
    }

    fn index(&self) -> Result<Value> {
        let file = fs::File::open(self.root().join("index.json"));
        let bytes = file.and_then(|file| super::blobs::read_at_most(file, LONGEST));
        let bytes = bytes.map_err(|error| self.bad_index(error))?;
        serde_json::from_slice(&bytes).map_err(|error| self.bad_index(error))
    }

    fn entry(&self, entry: &Value) -> Result<Tagged> {
        let digest = entry["digest"].as_str().ok_or_else(|| self.bad_index("a digest is missing"));
        Ok(Tagged {
            name: name_of(entry).map(ToOwned::to_owned),
            manifest: digest?.parse()?,
            media_type: entry["mediaType"].as_str().unwrap_or_default().to_owned(),
            size: entry["size"].as_u64().unwrap_or_default(),
        })
    }

    fn bad_index(&self, why: impl std::fmt::Display) -> Error {
        let root = self.root().display();
        Error::damaged(format!("store {root}: index.json cannot be read: {why}"))
    }
}

/// An image that has a tag needs no entry without one.
fn drop_needless(entries: &mut Vec<Value>) {
    let tagged: Vec<Value> = entries
        .iter()
        .filter(|entry| name_of(entry).is_some())
        .map(|entry| entry["digest"].clone())
        .collect();
    entries.retain(|entry| name_of(entry).is_some() || !tagged.contains(&entry["digest"]));
}

fn name_of(entry: &Value) -> Option<&str> {
    entry["annotations"][REF_NAME].as_str()
}

/// Takes the tag from an entry that has it; the image stays, without a name.
fn take_tag(entry: &mut Value, name: &str) {
    if name_of(entry) == Some(name)
        && let Some(annotations) = entry["annotations"].as_object_mut()
    {
        annotations.remove(REF_NAME);
    }
}
