//! Containers: a writable layer over the layers of an image, under a name, and the mounts of images.
//!
//! ```text
//! containers/NAME/{upper,work,meta.json}    a container layer, and what it is over
//! mounts/NAME.json                          what is mounted; locked by the daemon as long as the mount lives
//! ```
//!
//! Who holds the lock on `mounts/NAME.json` has the name for itself: a mount for its whole life, `rm` while it removes.
//! The store is open (which keeps garbage collection out) until the record of a mount is written, and not longer.

mod changes;
mod error;
mod hold;
mod layer_root;
mod mount;
mod name;
mod record;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;

pub use error::Error;
pub use hold::{Hold, find_mount, live_mounts, wait_for_end};
pub use mount::{Changes, ImageMount, Prepared, mount};
pub use record::{MountRecord, Record};

use crate::archive::Shown;
use crate::store::image::Image;
use crate::store::stage::remove_tree;
use crate::store::{self, Result, Store, timestamp};
use crate::sys::Errno;
use crate::sys::fault::point;

/// A container that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    path: PathBuf,
    record: Record,
}

/// The folder of the store that containers are in.
const FOLDER: &str = "containers";
/// The file that has the record of a container.
const META: &str = "meta.json";

impl Container {
    /// Makes a container over `image`, which was called `reference`. Without a name it gets one of 12 hexadecimal
    /// digits. It is there with everything or, after a crash, not at all.
    ///
    /// # Errors
    /// If there is a container of that name, or `name` is none.
    pub fn create(
        store: &Store,
        name: Option<&str>,
        image: &Image,
        reference: &str,
    ) -> Result<Self> {
        let name = match name {
            Some(name) => name::check(name)?.to_owned(),
            None => name::new(store)?,
        };
        let record = Record::new(&name, reference, image, timestamp::now());
        let path = store.root().join(FOLDER).join(&name);
        let root = layer_root::of_image(store, &image.layers)?;
        let stage = store.stage()?;
        let make = || -> io::Result<()> {
            let staged = stage.path(&name);
            let mut private = fs::DirBuilder::new();
            private.mode(0o700).create(&staged)?;
            private.create(staged.join("work"))?;
            private.mode(0o755).create(staged.join("upper"))?;
            layer_root::begin(&staged.join("upper"), &root)?;
            let mut meta = File::create_new(staged.join(META))?;
            meta.write_all(&serde_json::to_vec(&record)?)?;
            meta.sync_all()?;
            for folder in ["upper", "work", "."] {
                File::open(staged.join(folder))?.sync_all()?;
            }
            point("container.staged");
            publish(&staged, &path)?;
            point("container.published");
            Ok(())
        };
        make().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                store::Error::failure(format!("container {name} exists already"))
            }
            _ => store::Error::failure(format!("container {name}: cannot be made: {error}")),
        })?;
        Ok(Self { path, record })
    }

    /// The container of exactly this name, if there is one.
    ///
    /// # Errors
    /// If `name` is no name, or the container is damaged.
    pub fn named(store: &Store, name: &str) -> Result<Option<Self>> {
        let path = store.root().join(FOLDER).join(name::check(name)?);
        Self::read(path, name)
    }

    /// The container that `text` names: its name, or the beginning of no other's.
    ///
    /// # Errors
    /// [`store::Kind::NotFound`] if there is none; if there are several.
    pub fn find(store: &Store, text: &str) -> Result<Self> {
        let none = || {
            let shown = Shown(text.as_bytes());
            store::Error::not_found(format!("no container `{shown}` in {}", store.root().display()))
        };
        if name::check(text).is_err() {
            return Err(none());
        }
        if let Some(exact) = Self::named(store, text)? {
            return Ok(exact);
        }
        let names = names(store)?;
        let mut found = names.iter().filter(|name| name.starts_with(text));
        let first = found.next().ok_or_else(none)?;
        if found.next().is_some() {
            return Err(store::Error::failure(format!("several containers begin with `{text}`")));
        }
        Self::named(store, first)?.ok_or_else(none)
    }

    /// All containers, the oldest first.
    pub fn list(store: &Store) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for name in names(store)? {
            // One that is being removed is gone.
            all.extend(Self::named(store, &name)?);
        }
        all.sort_by(|a, b| {
            (&a.record.created, &a.record.name).cmp(&(&b.record.created, &b.record.name))
        });
        Ok(all)
    }

    /// Removes the container with all its changes.
    ///
    /// # Errors
    /// While it is mounted.
    pub fn remove(self, store: &Store) -> Result<()> {
        let name = &self.record.name;
        let hold = Hold::take(store, name)?;
        let stage = store.stage()?;
        let failed = |error: io::Error| {
            store::Error::failure(format!("container {name}: cannot be removed: {error}"))
        };
        let moved = stage.path(name);
        // From here on it is gone; what is left of it after a crash is swept.
        match publish(&self.path, &moved) {
            Ok(()) => {}
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        point("container.removed");
        hold.remove().map_err(failed)?;
        match remove_tree(&moved) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// What is known about it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The layer that takes the changes.
    pub fn upper(&self) -> PathBuf {
        self.path.join("upper")
    }

    /// The work directory of [`Container::upper`].
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Where [`crate::run`] mounts it, in a namespace of its own; it may have to be made.
    pub fn mountpoint(&self) -> PathBuf {
        self.path.join("root")
    }

    /// Whether nothing has been changed yet.
    fn is_untouched(&self) -> io::Result<bool> {
        Ok(fs::read_dir(self.upper())?.next().is_none())
    }

    fn read(path: PathBuf, name: &str) -> Result<Option<Self>> {
        let damaged =
            |why: &dyn std::fmt::Display| store::Error::damaged(format!("container {name}: {why}"));
        let bytes = match fs::read(path.join(META)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(damaged(&format_args!("{META}: {error}"))),
        };
        let record: Record = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(&format_args!("{META}: {error}")))?;
        if record.name != name || record.version != record::VERSION {
            return Err(damaged(&"meta.json: it is about something else"));
        }
        Ok(Some(Self { path, record }))
    }
}

/// The names of all containers, in their order.
fn names(store: &Store) -> Result<Vec<String>> {
    let folder = store.root().join(FOLDER);
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder)? {
            names.extend(entry?.file_name().into_string());
        }
        names.retain(|name| name::check(name).is_ok());
        names.sort_unstable();
        Ok(names)
    };
    read().map_err(|error| store::Error::failure(format!("{}: {error}", folder.display())))
}

/// Moves a folder to a name that nothing has, durably.
fn publish(from: &Path, to: &Path) -> io::Result<()> {
    let (here, there) = (parent(from)?, parent(to)?);
    let names = from.file_name().zip(to.file_name()).ok_or(Errno::INVAL)?;
    let flags = RenameFlags::NOREPLACE;
    rustix::fs::renameat_with(here.as_fd(), names.0, there.as_fd(), names.1, flags)?;
    here.sync_all()?;
    there.sync_all()
}

fn parent(path: &Path) -> io::Result<File> {
    File::open(path.parent().ok_or(Errno::INVAL)?)
}

#[cfg(test)]
mod tests;
