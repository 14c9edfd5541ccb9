//! The store of image layers: everything under one directory, named by what it is.
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/     an OCI image layout: tags, manifests, configurations, compressed layers
//! objects/xx/xxxx...                        contents of files, called by their BLAKE3 hashes
//! layers/<diff id>/                         packed layers
//! tmp/                                      what is being made
//! ```
//!
//! The formats and the order of steps are described in `docs/store.md`.

pub mod arriving;
pub mod blobs;
pub mod collect;
pub mod commit;
pub mod config;
pub mod digest;
pub mod error;
pub mod image;
pub mod import;
pub mod instruction;
pub mod layer_import;
pub mod load;
pub mod manifest;
pub mod merged;
pub mod objects;
pub mod progress;
pub mod reference;
pub mod rootfs;
pub mod save;
pub mod seal;
pub mod source;
pub mod stage;
pub mod tags;
pub mod tar_split;
pub mod timestamp;
pub mod unpack;
pub mod usage;
pub mod verify;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

pub use digest::{ChainId, DiffId, Digest};
pub use error::{Error, Kind, Result};

use objects::Objects;

use crate::sys::Errno;
use crate::sys::fault::point;

/// An open store.
pub struct Store {
    root: PathBuf,
    objects: Objects,
    /// Whether this process may write into it.
    writable: bool,
    /// Held as long as the store is open: shared by everybody, exclusively by whoever collects garbage.
    _lock: OwnedFd,
}

/// The folders of a store.
const FOLDERS: [&str; 7] =
    ["blobs", "blobs/sha256", "objects", "layers", "containers", "tmp", "mounts"];
/// The files of a store.
const FILES: [&str; 4] = ["oci-layout", "index.json", "lock", "tags.lock"];

/// What makes a folder an OCI image layout (image specification, "oci-layout file").
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

impl Store {
    /// Opens the store at `root`, and makes it if there is none.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_locked(root, FlockOperation::LockShared)
    }

    /// Opens the store at `root` when nobody else has it open, and keeps everybody out.
    pub fn open_alone(root: &Path) -> Result<Self> {
        Self::open_locked(root, FlockOperation::LockExclusive)
    }

    fn open_locked(root: &Path, lock: FlockOperation) -> Result<Self> {
        let open = || {
            let mut private = fs::DirBuilder::new();
            private.mode(0o700).recursive(true).create(root)?;
            refuse_others(root)?;
            let (lock, writable) = locked(&root.join("lock"), lock)?;
            if writable && fs::metadata(root)?.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
            }
            for folder in FOLDERS.iter().filter(|_| writable) {
                private.create(root.join(folder))?;
            }
            let objects = Objects::open(&root.join("objects"))?;
            Ok(Self { root: root.to_owned(), objects, writable, _lock: lock })
        };
        let store = open().map_err(|error: io::Error| {
            let root = root.display();
            Error::failure(match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("store {root}: no permission to use it; name one of yours with --store")
                }
                _ => format!("store {root}: cannot be opened: {error}"),
            })
        })?;
        for (file, text) in [("oci-layout", LAYOUT), ("index.json", tags::NONE)] {
            if store.writable && !root.join(file).exists() {
                store.write_file(file, text.as_bytes())?;
            }
        }
        Ok(store)
    }

    /// Writes a file of the root: all of it or, after a crash, nothing.
    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let stage = self.stage()?;
        let write = || {
            let new = stage.path(name);
            let mut file = File::create_new(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            point("tags.staged");
            fs::rename(&new, self.root.join(name))?;
            point("tags.published");
            File::open(&self.root)?.sync_all()
        };
        write().map_err(|error| self.cannot_store(error))
    }

    /// The folder of a stored layer.
    pub fn layer_path(&self, layer: &DiffId) -> PathBuf {
        self.root.join("layers").join(layer.0.hex())
    }

    /// Whether the layer is stored.
    pub fn has_layer(&self, layer: &DiffId) -> bool {
        self.layer_path(layer).join("index").exists()
    }

    /// The contents of files.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Whether this process may write into it: not where its filesystem is read-only, or it is somebody else's.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The directory that everything is in.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Opens a file to lock, and waits for the lock. Where nothing can be written, which the second value tells, the store can
/// still be read.
fn locked(path: &Path, operation: FlockOperation) -> io::Result<(OwnedFd, bool)> {
    let open = |flags| {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(path, flags, Mode::from(0o600))
    };
    let (lock, writable) = match open(OFlags::RDWR | OFlags::CREATE) {
        Err(Errno::ROFS | Errno::ACCESS) => (open(OFlags::RDONLY)?, false),
        lock => (lock?, true),
    };
    rustix::fs::flock(&lock, operation)?;
    Ok((lock, writable))
}

/// A folder that is somebody else's is not to be closed to others and filled.
fn refuse_others(root: &Path) -> io::Result<()> {
    if root.join("oci-layout").exists() && root.join("layers").exists() {
        return Ok(());
    }
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        if !FOLDERS.iter().chain(&FILES).any(|ours| name == **ours) {
            return Err(io::Error::other("it is neither empty nor a store"));
        }
    }
    Ok(())
}
