//! What a live mount tells about itself.

use std::path::Path;

use rustix::io::Errno;

use super::error::MountError;
use super::mounted;
use crate::fuse::statistics::{ATTRIBUTE, Report};

/// The largest value that an attribute can have (`XATTR_SIZE_MAX`).
const LARGEST: usize = 64 * 1024;

/// Asks the union mounted at `path`.
///
/// # Errors
/// [`MountError::NotOurs`] if no union of this program answers there.
pub fn statistics(path: &Path) -> Result<Report, MountError> {
    let not_here = |error| MountError::Mountpoint(path.to_owned(), error);
    let path = path.canonicalize().map_err(not_here)?;
    let mut value = vec![0; LARGEST];
    let length = match rustix::fs::getxattr(&path, ATTRIBUTE, &mut value) {
        Ok(length) => length,
        Err(Errno::NODATA | Errno::OPNOTSUPP) => {
            return Err(MountError::not_ours(&path, mounted::type_on_top(&path)?));
        }
        Err(error) => return Err(MountError::Mountpoint(path, error.into())),
    };
    serde_json::from_slice(&value[..length])
        .map_err(|error| MountError::NotOurs(path, format!("of another version: {error}")))
}
