//! `plyfs umount`: unmounting what plyfs, or fuse-overlayfs, has mounted.

use std::path::Path;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::error::{MountError, text};
use super::{fusermount, mounted};

/// The types under which a union is mounted: ours, and that of the program we stand in for.
const OUR_TYPES: &[&str] = &["fuse.plyfs", "fuse.fuse-overlayfs"];

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
        Some(name) if OUR_TYPES.contains(&name.as_str()) => by_path(&path, lazy),
        other => Err(MountError::not_ours(&path, other)),
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
