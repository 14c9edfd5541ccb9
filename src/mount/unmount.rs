//! `plyfs umount`: unmounting what plyfs, or fuse-overlayfs, has mounted.

use std::path::Path;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::error::{MountError, text};
use super::{fusermount, mounted};
use crate::sys::mountinfo;

/// The types under which a union is mounted: ours, and that of the program we stand in for.
const OUR_TYPES: &[&str] = &["fuse.plyfs", "fuse.fuse-overlayfs"];

/// Whether what is mounted as this type is a union of ours, or of the program we stand in for.
pub(super) fn is_union(fs_type: &str) -> bool {
    OUR_TYPES.contains(&fs_type)
}

/// Unmounts the union mounted at `path`; a busy one only if `lazy`: it leaves the tree, and its
/// daemon ends with the last user.
///
/// # Errors
/// [`MountError::NotOurs`] if no union is mounted there, [`MountError::Busy`],
/// [`MountError::Unmount`].
pub fn unmount(path: &Path, lazy: bool) -> Result<(), MountError> {
    let not_here = |error| MountError::Mountpoint(path.to_owned(), error);
    let path = path.canonicalize().map_err(not_here)?;
    match mounted::type_on_top(&path)? {
        Some(name) if is_union(&name) => by_path(&path, lazy),
        other => Err(MountError::not_ours(&path, other)),
    }
}

/// Unmounts the filesystem with these numbers, which was mounted at `path`, or wherever it has been moved; nothing else that
/// may be mounted there now.
///
/// # Errors
/// [`MountError::NotOurs`] if it is not to be seen from here, or something is mounted over it; those of [`unmount`].
pub fn unmount_device(path: &Path, device: (u32, u32), lazy: bool) -> Result<(), MountError> {
    let mounts = mountinfo::read().map_err(MountError::system("/proc/self/mountinfo"))?;
    let on_top = |path: &Path| mounts.iter().rfind(|mount| mount.mountpoint == path);
    let is_it = |path: &Path| on_top(path).is_some_and(|mount| mount.device == device);
    let elsewhere = mounts.iter().filter(|mount| mount.device == device);
    let mut places = [path].into_iter().chain(elsewhere.map(|mount| mount.mountpoint.as_path()));
    match places.find(|path| is_it(path)) {
        Some(path) => by_path(path, lazy),
        None => Err(MountError::out_of_reach(path)),
    }
}

/// Unmounts whatever is on top at `path` (absolute): with umount2(2), or with fusermount3 where we
/// may not.
pub(super) fn by_path(path: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(MountError::Busy(path.to_owned())),
        Err(Errno::PERM) => fusermount::unmount(path, lazy),
        Err(error) => Err(MountError::Unmount(path.to_owned(), text(error).to_string())),
    }
}
