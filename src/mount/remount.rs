//! `-o remount`: other flags for a union that is mounted, as mount(8) asks a mount helper for it.

use std::path::Path;

use rustix::mount::mount_remount;

use super::error::MountError;
use super::options::VfsOptions;
use super::{mounted, spec};

/// Gives the union mounted at `path` (absolute) the flags of `vfs`, and only those: what is left out
/// is as for a new mount. mount(8) passes what the mount has now, and the change.
///
/// # Errors
/// [`MountError::NotOurs`] if no FUSE filesystem is mounted there, [`MountError::Remount`].
pub(super) fn remount(path: &Path, vfs: &VfsOptions) -> Result<(), MountError> {
    match mounted::type_on_top(path)? {
        Some(name) if name.starts_with("fuse.") => {
            mount_remount(path, spec::flags(vfs, false), c"")
                .map_err(|error| MountError::Remount(path.to_owned(), error))
        }
        other => Err(MountError::not_ours(path, other)),
    }
}
