//! Having a live mount go on with another program.

use std::path::Path;

use rustix::io::Errno;

use super::error::MountError;
use super::{mounted, unmount};
use crate::fuse::upgrade::{ATTRIBUTE, Upgraded};

/// More than any answer has.
const LARGEST: usize = 16 * 1024;

/// Has the union mounted at `path` go on with the program that lies now where its own was started from; the version of that.
/// Returns when it answers.
///
/// # Errors
/// [`MountError::NotUpgraded`] if the former program goes on; [`MountError::NotOurs`].
pub fn upgrade(path: &Path) -> Result<String, MountError> {
    let not_here = |error| MountError::Mountpoint(path.to_owned(), error);
    let path = path.canonicalize().map_err(not_here)?;
    let fs_type = mounted::type_on_top(&path)?;
    if !fs_type.as_deref().is_some_and(unmount::is_union) {
        return Err(MountError::not_ours(&path, fs_type));
    }
    let mut value = vec![0; LARGEST];
    let answer = match rustix::fs::getxattr(&path, ATTRIBUTE, &mut value) {
        Ok(length) => serde_json::from_slice(&value[..length]),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => {
            let line = "it was mounted without supervise; unmount it and mount again";
            return Err(MountError::NotUpgraded(path, line.into()));
        }
        Err(Errno::PERM) => {
            let line = "only root and the user who mounted it may ask for that";
            return Err(MountError::NotUpgraded(path, line.into()));
        }
        Err(error) => return Err(MountError::Mountpoint(path, error.into())),
    };
    match answer {
        Ok(Upgraded::GoesOn(version)) => Ok(version),
        Ok(Upgraded::Refused(line)) => Err(MountError::NotUpgraded(path, line)),
        Err(error) => Err(MountError::NotUpgraded(path, error.to_string())),
    }
}
