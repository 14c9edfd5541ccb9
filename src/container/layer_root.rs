//! The root of a new container layer: it hides that of the image, so it is made like it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use crate::layer::packed::Index;
use crate::layer::packed::format::ROOT;
use crate::layer::stat_override::{Overridden, StatOverride};
use crate::store::{DiffId, Error, Result, Store};
use crate::sys::{FileKind, Object, Time, open, process};

/// What the root directory of an image is like.
pub struct Root {
    uid: u32,
    gid: u32,
    permissions: u32,
    mtime: Option<Time>,
}

/// The root of the image with these layers (lowest first): that of the highest that says something about it.
pub fn of_image(store: &Store, layers: &[DiffId]) -> Result<Root> {
    for layer in layers.iter().rev() {
        let index = File::open(store.layer_path(layer).join("index"))
            .and_then(|file| Ok(Index::open(&file)?.inode(ROOT)?));
        let root = index.map_err(|error| {
            Error::damaged(format!("layer {}: {error}; see `plyfs store verify`", layer.0))
        })?;
        if !root.implied {
            return Ok(Root {
                uid: root.uid,
                gid: root.gid,
                permissions: root.mode & 0o7777,
                mtime: Some(root.mtime),
            });
        }
    }
    Ok(Root { uid: 0, gid: 0, permissions: 0o755, mtime: None })
}

/// The form in which a layer at `upper` has owners, modes and devices: that which it has already, else attributes where
/// who runs this cannot give files away.
pub fn form(upper: &Path) -> io::Result<Option<StatOverride>> {
    let root = Object::Own(Arc::new(open::directory(upper)?));
    let found = StatOverride::detect(&root)?;
    Ok(found.or((!process::is_real_root()).then_some(StatOverride::Containers)))
}

/// [`begin`] for a directory that may be a layer already, or have been chosen for its attributes: only where attributes
/// are stored apart and are not yet.
pub fn adopt(upper: &Path, root: &Root) -> io::Result<()> {
    let object = Object::Own(Arc::new(open::directory(upper)?));
    match form(upper)? {
        Some(_) if StatOverride::detect(&object)?.is_none() => begin(upper, root),
        _ => Ok(()),
    }
}

/// Gives the directory `upper`, a layer without anything in it, the attributes of `root`.
pub fn begin(upper: &Path, root: &Root) -> io::Result<()> {
    let Root { uid, gid, permissions, mtime } = *root;
    match form(upper)? {
        Some(form) => {
            let kind = Some(FileKind::Directory);
            let stored = Overridden { uid, gid, permissions, kind, rdev: 0 };
            form.store(&Object::Own(Arc::new(open::directory(upper)?)), &stored)?;
        }
        None => {
            chown(upper, Some(uid), Some(gid))?;
            std::fs::set_permissions(upper, std::fs::Permissions::from_mode(permissions))?;
        }
    }
    if let Some(Time { sec, nsec }) = mtime {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let last_modification = Timespec { tv_sec: sec, tv_nsec: nsec.into() };
        let times = Timestamps { last_access, last_modification };
        utimensat(CWD, upper, &times, AtFlags::empty())?;
    }
    Ok(())
}
