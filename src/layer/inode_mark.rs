//! The mark that keeps st_ino constant over copy-up: `overlay.plyfs.ino`, a decimal number, on the upper
//! object. Other readers of the layer ignore it.

use super::dir_marks::{Namespaces, PREFIXES};
use crate::sys::{Errno, Object, Result};
use std::ffi::OsStr;

const MARK: &str = "plyfs.ino";

/// Stores `ino` on `object`. Where attributes cannot be stored (no namespace, or a symbolic link or
/// device without `trusted.`), the number lasts as long as the mount, and this is not an error.
pub fn write(namespaces: Namespaces, object: &Object, ino: u64) -> Result<()> {
    match namespaces.set(object, MARK, ino.to_string().as_bytes()) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The number stored on `object`, if there is a valid one.
pub fn read(object: &Object) -> Result<Option<u64>> {
    for prefix in PREFIXES {
        if let Some(value) = object.xattr(OsStr::new(&format!("{prefix}{MARK}")))? {
            return Ok(std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()));
        }
    }
    Ok(None)
}
