//! Garbage collection: mark what tags, containers and mounts refer to, sweep the rest.
//!
//! Only whoever has the store alone collects, so that no import is running. Layers go before the contents that they name,
//! and are gone on disk by then: after a crash no layer lacks a content.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde_json::Value;

use super::config::{self, Config};
use super::manifest::{self, Manifest};
use super::objects::ContentId;
use super::{DiffId, Digest, Error, Result, Store, tar_split};
use crate::sys::Errno;

/// What was swept, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers.
    pub layers: u64,
    /// Contents of files.
    pub objects: u64,
    /// Blobs.
    pub blobs: u64,
    /// What processes that are gone have left.
    pub stages: u64,
    /// Bytes on disk of all of it.
    pub bytes: u64,
}

/// What is referred to.
#[derive(Default)]
struct Marked {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<DiffId>,
    /// In order, for the binary search.
    objects: Vec<[u8; 32]>,
}

impl Store {
    /// Sweeps what nothing refers to; only counts it with `dry_run`. The store has been opened by [`Store::open_alone`].
    ///
    /// # Errors
    /// If something that is referred to cannot be read, nothing is swept: what it refers to is not known then.
    pub fn collect(&self, dry_run: bool) -> Result<Collected> {
        let marked = self.mark()?;
        self.sweep_unmarked(&marked, dry_run).map_err(|error| self.cannot_store(error))
    }

    fn mark(&self) -> Result<Marked> {
        let mut marked = Marked::default();
        for tagged in self.tagged()? {
            let image = self.image_of(&tagged)?;
            marked.blobs.extend([image.digest, image.id()]);
            marked.blobs.extend(image.manifest.layers.iter().map(|blob| blob.digest));
            marked.layers.extend(image.layers);
        }
        for digest in self.digests_in_use()? {
            self.mark_digest(digest, &mut marked)?;
        }
        for layer in marked.layers.iter().filter(|layer| self.has_layer(layer)) {
            let split = File::open(self.layer_path(layer).join("tar-split"));
            let objects = &mut marked.objects;
            split
                .and_then(|split| tar_split::contents(split, |id| objects.push(*id.as_bytes())))
                .map_err(|error| Error::damaged(format!("layer {}: tar-split: {error}", layer.0)))?;
        }
        marked.objects.sort_unstable();
        marked.objects.dedup();
        Ok(marked)
    }

    /// Every digest that stands in a file about a container or a mount.
    fn digests_in_use(&self) -> Result<BTreeSet<Digest>> {
        let mut digests = BTreeSet::new();
        let mut read = |path: &Path| -> io::Result<()> {
            let bytes = match fs::read(path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            digests_of(&serde_json::from_slice(&bytes)?, &mut digests);
            Ok(())
        };
        let mut all = || -> io::Result<()> {
            for entry in fs::read_dir(self.root().join("containers"))? {
                read(&entry?.path().join("meta.json"))?;
            }
            for mount in self.mount_records()? {
                if mount.is_live()? {
                    read(&mount.path)?;
                }
            }
            Ok(())
        };
        all().map_err(|error| {
            Error::damaged(format!("what is in use cannot be read, so nothing is removed: {error}"))
        })?;
        Ok(digests)
    }

    fn mount_records(&self) -> io::Result<Vec<MountFile>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root().join("mounts"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match File::open(&path) {
                Ok(file) => found.push(MountFile { path, file }),
                // The mount has just ended.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Marks what a digest names: a layer, a manifest, a configuration, or any blob.
    fn mark_digest(&self, digest: Digest, marked: &mut Marked) -> Result<()> {
        marked.layers.insert(DiffId(digest));
        if !self.has_blob(&digest) {
            return Ok(());
        }
        marked.blobs.insert(digest);
        let Ok(bytes) = self.read_blob(&digest, config::LONGEST) else { return Ok(()) };
        let media_type = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|value| Some(value.get("mediaType")?.as_str()?.to_owned()))
            .unwrap_or_else(|| manifest::MANIFEST.to_owned());
        if let Ok(manifest) = Manifest::read(&bytes, &media_type) {
            marked.blobs.extend(manifest.layers.iter().map(|blob| blob.digest));
            return self.mark_digest(manifest.config.digest, marked);
        }
        if let Ok(config) = Config::read(&bytes) {
            marked.layers.extend(config.layers()?);
        }
        Ok(())
    }

    fn sweep_unmarked(&self, marked: &Marked, dry_run: bool) -> io::Result<Collected> {
        let stages = fs::read_dir(self.root().join("tmp"))?.count() as u64;
        let mut collected = Collected { stages, ..Collected::default() };
        if !dry_run {
            self.sweep().map_err(io::Error::other)?;
            self.sweep_mount_records()?;
        }
        self.sweep_layers(marked, dry_run, &mut collected)?;
        self.sweep_files(marked, dry_run, &mut collected)?;
        Ok(collected)
    }

    fn sweep_mount_records(&self) -> io::Result<()> {
        for mount in self.mount_records()? {
            if !mount.is_live()? {
                remove_if_there(&mount.path)?;
            }
        }
        Ok(())
    }

    fn sweep_layers(
        &self,
        marked: &Marked,
        dry_run: bool,
        collected: &mut Collected,
    ) -> io::Result<()> {
        let stage = self.stage().map_err(io::Error::other)?;
        let layers = self.root().join("layers");
        for entry in fs::read_dir(&layers)? {
            let entry = entry?;
            let Some(layer) = digest_of(&entry.file_name()) else { continue };
            if marked.layers.contains(&DiffId(layer)) {
                continue;
            }
            collected.layers += 1;
            collected.bytes += size_of_folder(&entry.path())?;
            if !dry_run {
                fs::rename(entry.path(), stage.path(&layer.hex()))?;
            }
        }
        File::open(&layers)?.sync_all()
    }

    /// Contents and blobs.
    fn sweep_files(
        &self,
        marked: &Marked,
        dry_run: bool,
        collected: &mut Collected,
    ) -> io::Result<()> {
        let mut remove = |path: &Path, count: &mut u64| {
            *count += 1;
            collected.bytes += path.symlink_metadata()?.blocks() * 512;
            if dry_run { Ok(()) } else { fs::remove_file(path) }
        };
        for folder in fs::read_dir(self.root().join("objects"))? {
            for entry in fs::read_dir(folder?.path())? {
                let path = entry?.path();
                let unused = |id: &ContentId| marked.objects.binary_search(id.as_bytes()).is_err();
                if super::objects::id_of(&path).is_some_and(|id| unused(&id)) {
                    remove(&path, &mut collected.objects)?;
                }
            }
        }
        for entry in fs::read_dir(self.root().join("blobs/sha256"))? {
            let entry = entry?;
            if digest_of(&entry.file_name()).is_some_and(|digest| !marked.blobs.contains(&digest)) {
                remove(&entry.path(), &mut collected.blobs)?;
            }
        }
        Ok(())
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file in `mounts` that is about a mount, and locked by it as long as it lives. Only who has the store open begins one.
struct MountFile {
    path: PathBuf,
    file: File,
}

impl MountFile {
    fn is_live(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// The digest whose digits are the name of a file.
pub(super) fn digest_of(name: &std::ffi::OsStr) -> Option<Digest> {
    format!("sha256:{}", name.to_str()?).parse().ok()
}

fn digests_of(value: &Value, digests: &mut BTreeSet<Digest>) {
    match value {
        Value::String(text) => digests.extend(text.parse::<Digest>()),
        Value::Array(values) => values.iter().for_each(|value| digests_of(value, digests)),
        Value::Object(fields) => fields.values().for_each(|value| digests_of(value, digests)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What a folder of files takes on disk.
pub(super) fn size_of_folder(path: &Path) -> io::Result<u64> {
    fs::read_dir(path)?.map(|entry| Ok(entry?.metadata()?.blocks() * 512)).sum()
}
