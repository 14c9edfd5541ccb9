//! Where things are made before they get their names.
//!
//! A folder in `tmp/` belongs to the process that holds the lock on it. When that process is gone, whoever comes next
//! sweeps it.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;

use super::{Error, Result, Store};
use crate::sys::Errno;

/// A folder that goes when this does.
pub struct Stage {
    path: PathBuf,
    _lock: OwnedFd,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Store {
    /// A new empty folder on the store's filesystem.
    pub fn stage(&self) -> Result<Stage> {
        let failed = |error: io::Error| {
            Error::failure(format!("store {}: cannot write to tmp: {error}", self.root().display()))
        };
        loop {
            let serial = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.root().join(format!("tmp/{}-{serial}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                // Of a process that had the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed(error)),
            }
            let Ok(folder) = File::open(&path) else { continue };
            match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                // Somebody who sweeps may have been faster than the lock.
                Ok(()) if path.exists() => return Ok(Stage { path, _lock: folder.into() }),
                Ok(()) | Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
    }

    /// Removes what processes that are gone have left; returns how much that was.
    pub fn sweep(&self) -> Result<usize> {
        let folder = self.root().join("tmp");
        let failed = |path: &Path, error: io::Error| {
            Error::failure(format!("store: cannot remove {}: {error}", path.display()))
        };
        let mut removed = 0;
        for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
            let path = entry.map_err(|error| failed(&folder, error))?.path();
            let Ok(left) = File::open(&path) else { continue };
            if rustix::fs::flock(&left, FlockOperation::NonBlockingLockExclusive).is_ok() {
                remove_tree(&path).map_err(|error| failed(&path, error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Removes a folder with everything in it, also if its owner has no right to some of it: what a container has made may
/// be closed to whoever it belongs to.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        result => result,
    }
}

fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

impl Stage {
    /// The path of something in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        match remove_tree(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("{}: cannot be removed now: {error}", self.path.display());
            }
            _ => {}
        }
    }
}
