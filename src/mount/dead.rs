//! A union whose daemon was killed: it answers nobody again, and the next mount at the same place takes it away.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::Errno;

use super::mounted::open_root;
use super::unmount;
use crate::sys::mount::{MountIdentity, detach};
use crate::sys::mountinfo::{self, MountLine};

/// Takes away what is mounted at `mountpoint`, as long as that is a union, of ours or of fuse-overlayfs, that nobody
/// serves. Not what others have mounted inside of one: then it stays.
///
/// What does not work here is left to the mount, which says what is in its way.
pub fn take_away(mountpoint: &Path) {
    let Some(path) = whole(mountpoint) else { return };
    while let Some(root) = dead_root(&path) {
        let detached = match detach(root.as_fd()) {
            // Only fusermount3 may, or there is no /proc through which the descriptor could be named.
            Err(Errno::PERM | Errno::NOENT) => {
                drop(root);
                unmount::by_path(&path, true).map_err(|error| error.to_string())
            }
            result => result.map_err(|error| error.to_string()),
        };
        if let Err(error) = detached {
            log::info!("{}: {error}", path.display());
            return;
        }
        log::warn!("{}: took away a mount whose daemon was gone", path.display());
    }
}

/// The absolute path. The last name is not looked at: whether a dead mount can be is a matter of what the kernel has in its
/// caches.
fn whole(mountpoint: &Path) -> Option<PathBuf> {
    match mountpoint.canonicalize() {
        Ok(path) => Some(path),
        Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
            let above = mountpoint.parent().filter(|above| above.as_os_str() != OsStr::new(""));
            let above = above.unwrap_or(Path::new(".")).canonicalize().ok()?;
            Some(above.join(mountpoint.file_name()?))
        }
        Err(_) => None,
    }
}

/// The root of the dead union on top at `path`.
fn dead_root(path: &Path) -> Option<OwnedFd> {
    let mounts = mountinfo::read().ok()?;
    let top = mounts.iter().rfind(|mount| mount.mountpoint == path)?;
    let is_inside =
        |mount: &MountLine| mount.mountpoint != path && mount.mountpoint.starts_with(path);
    if !unmount::is_union(&top.fs_type) || mounts.iter().any(is_inside) {
        return None;
    }
    let root = open_root(path).ok()?;
    let is_it = MountIdentity::of(&root).is_ok_and(|root| root.device == top.device);
    // Not from the kernel's caches.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let answer = statx(&root, c"", flags, StatxFlags::BASIC_STATS);
    (is_it && answer.err() == Some(Errno::NOTCONN)).then_some(root)
}
