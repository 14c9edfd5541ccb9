//! Layers and blobs that get their names together.
//!
//! Everything is made in a stage and synced; then the contents get their names, and when these are on disk too, the
//! layers and blobs. A crash leaves each of them complete or absent, and no layer without its contents. What nobody
//! refers to is garbage; the stage is swept.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::RenameFlags;

use super::digest::Digesting;
use super::manifest::{self, Descriptor, Manifest};
use super::objects::NewObjects;
use super::stage::Stage;
use super::{Digest, Error, Result, Store};
use crate::sys::fault::point;
use crate::sys::{Errno, open};

/// What is being imported. Nothing of it is stored before [`Import::publish`].
pub struct Import<'s> {
    pub(super) store: &'s Store,
    pub(super) stage: Stage,
    pub(super) contents: NewObjects<'s>,
}

impl Store {
    /// Begins an import.
    pub fn import(&self) -> Result<Import<'_>> {
        let stage = self.stage()?;
        let prepare = || {
            fs::create_dir(stage.path(LAYERS))?;
            fs::create_dir(stage.path(BLOBS))?;
            NewObjects::new(self.objects(), &stage)
        };
        let contents = prepare().map_err(|error| self.cannot_store(error))?;
        Ok(Import { store: self, stage, contents })
    }

    pub(super) fn cannot_store(&self, error: impl Into<io::Error>) -> Error {
        let (root, error) = (self.root().display(), error.into());
        Error::failure(format!("store {root}: cannot be written to: {error}"))
    }
}

/// The folders of a stage.
pub(super) const LAYERS: &str = "layers";
const BLOBS: &str = "blobs";
/// What has no name yet.
pub(super) const NEW: &str = "new";

impl Import<'_> {
    /// A blob that is to be written; [`Import::keep_blob`] ends it.
    pub(super) fn new_blob(&self) -> io::Result<Digesting<File>> {
        let path = self.stage.path(BLOBS).join(NEW);
        let mut options = fs::OpenOptions::new();
        Ok(Digesting::new(options.write(true).create(true).truncate(true).mode(0o444).open(path)?))
    }

    /// Takes a blob that is complete.
    pub(super) fn keep_blob(&self, blob: Digesting<File>) -> io::Result<(Digest, u64)> {
        let (digest, size, _) = blob.finish();
        let folder = self.stage.path(BLOBS);
        if self.store.has_blob(&digest) {
            fs::remove_file(folder.join(NEW))?;
        } else {
            fs::rename(folder.join(NEW), folder.join(digest.hex()))?;
        }
        Ok((digest, size))
    }

    /// Takes `bytes` as a blob.
    pub fn blob(&self, bytes: &[u8]) -> Result<Digest> {
        let write = || {
            let mut blob = self.new_blob()?;
            io::Write::write_all(&mut blob, bytes)?;
            self.keep_blob(blob)
        };
        write().map(|(digest, _)| digest).map_err(|error| self.store.cannot_store(error))
    }

    /// Takes the configuration of an image and the manifest that is made for it, over these layers, lowest first. Gives the
    /// image's id and what refers to the manifest.
    pub(super) fn new_image(
        &self,
        config: &[u8],
        layers: Vec<Descriptor>,
    ) -> Result<(Digest, Descriptor)> {
        if layers.len() > manifest::MOST_LAYERS {
            return Err(manifest::too_many());
        }
        let id = self.blob(config)?;
        let size = config.len() as u64;
        let manifest = Manifest {
            media_type: manifest::MANIFEST.to_owned(),
            config: Descriptor { media_type: manifest::CONFIG.to_owned(), digest: id, size },
            layers,
        };
        let bytes = manifest.write();
        let (media_type, digest) = (manifest.media_type, self.blob(&bytes)?);
        Ok((id, Descriptor { media_type, digest, size: bytes.len() as u64 }))
    }

    /// Stores everything.
    pub fn publish(self) -> Result<()> {
        Self::publish_together(vec![self])
    }

    /// Stores everything of several imports, with no more syncs than for one.
    pub fn publish_together(imports: Vec<Self>) -> Result<()> {
        let Some(store) = imports.first().map(|import| import.store) else { return Ok(()) };
        publish_all(store.root(), &imports).map_err(|error| store.cannot_store(error))
    }
}

fn publish_all(root: &Path, imports: &[Import<'_>]) -> io::Result<()> {
    point("import.staged");
    sync_filesystem(root)?;
    point("import.synced");
    imports.iter().try_for_each(|import| import.contents.publish())?;
    sync_filesystem(root)?;
    point("import.contents-published");
    for import in imports {
        for (folder, target) in [(LAYERS, "layers"), (BLOBS, "blobs/sha256")] {
            publish_folder(&import.stage.path(folder), &root.join(target))?;
        }
    }
    point("import.published");
    Ok(())
}

/// Moves everything in `folder` to `target`, unless it is there by somebody who was faster.
fn publish_folder(folder: &Path, target: &Path) -> io::Result<()> {
    let from = open::directory(folder)?;
    let to = File::open(target)?;
    let mut some = false;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if name == NEW {
            continue;
        }
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&from, &name, to.as_fd(), &name, flags) {
            Ok(()) | Err(Errno::EXIST) => some = true,
            Err(error) => return Err(error.into()),
        }
    }
    if some { to.sync_all() } else { Ok(()) }
}

fn sync_filesystem(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}
