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

pub mod digest;
pub mod error;
pub mod layer_import;
pub mod objects;
pub mod stage;
pub mod tar_split;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

pub use digest::{ChainId, DiffId, Digest};
pub use error::{Error, Kind, Result};

use objects::Objects;

/// An open store.
pub struct Store {
    root: PathBuf,
    objects: Objects,
    /// Held as long as the store is open: shared by everybody, exclusively by whoever collects garbage.
    _lock: OwnedFd,
}

/// What a store holds besides files.
const FOLDERS: [&str; 7] =
    ["blobs", "blobs/sha256", "objects", "layers", "containers", "tmp", "mounts"];

impl Store {
    /// Opens the store at `root`, and makes it if there is none.
    pub fn open(root: &Path) -> Result<Self> {
        let failed = |what: &str| {
            let at = root.display().to_string();
            let what = what.to_owned();
            move |error: io::Error| Error::failure(format!("store {at}: cannot {what}: {error}"))
        };
        let mut private = fs::DirBuilder::new();
        private.mode(0o700).recursive(true);
        private.create(root).map_err(failed("make it"))?;
        for folder in FOLDERS {
            private.create(root.join(folder)).map_err(failed("make its folders"))?;
        }
        let mode = fs::metadata(root).map_err(failed("read it"))?.permissions().mode();
        if mode & 0o077 != 0 {
            let closed = fs::Permissions::from_mode(0o700);
            fs::set_permissions(root, closed).map_err(failed("close it to others"))?;
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock = rustix::fs::open(root.join("lock"), flags, Mode::from(0o600))
            .map_err(|error| failed("open its lock")(error.into()))?;
        rustix::fs::flock(&lock, FlockOperation::LockShared)
            .map_err(|error| failed("take its lock")(error.into()))?;
        let objects = Objects::open(&root.join("objects")).map_err(failed("open its objects"))?;
        Ok(Self { root: root.to_owned(), objects, _lock: lock })
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

    /// The directory that everything is in.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
