//! Whiteouts: marks that a name is deleted.
//!
//! Read in all forms: a character device 0:0 (the kernel's), a regular file `.wh.NAME` (AUFS, OCI layers,
//! fuse-overlayfs), and an empty regular file with the attribute `overlay.whiteout` in a directory whose
//! `overlay.opaque` is `x` (kernel 6.7). Written as a character device where that is possible, else as
//! `.wh.NAME`.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use rustix::fs::XattrFlags;

use super::dir_marks::{Namespaces, PREFIXES};
use crate::sys::{Errno, FileKind, Object, Result, Stat};

/// What a `.wh.` file's name begins with.
pub const PREFIX: &[u8] = b".wh.";

/// The file that makes its directory opaque, in the `.wh.` form.
pub const OPAQUE_FILE: &str = ".wh..wh..opq";

/// The mark on a file whose name begins with `.wh.` and that is meant literally.
const LITERAL: &str = "plyfs.literal";

/// How a whiteout is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A character device with the number 0:0, under the name itself. (A file with the kernel's attribute
    /// is in the same place, and is replaced and removed in the same way.)
    CharDevice,
    /// An empty regular file called `.wh.` and the name.
    DotFile,
}

/// Whether an object with these attributes is the kernel's whiteout.
pub fn is_char_whiteout(stat: &Stat) -> bool {
    stat.kind() == FileKind::CharDevice && stat.rdev == 0
}

/// Whether an entry called so could be a `.wh.` file.
pub fn has_prefix(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX)
}

/// The name that the `.wh.` file `name` hides; `None` for one that hides nothing that can exist.
pub fn hidden_by(name: &OsStr) -> Option<&OsStr> {
    let hidden = OsStr::from_bytes(name.as_bytes().strip_prefix(PREFIX)?);
    (!hidden.is_empty() && hidden != "." && hidden != "..").then_some(hidden)
}

/// The `.wh.` file's name for `name`.
pub fn dot_file(name: &OsStr) -> OsString {
    OsString::from_vec([PREFIX, name.as_bytes()].concat())
}

/// Whether the regular file `object` carries the kernel's whiteout attribute.
pub fn has_whiteout_xattr(object: &Object) -> Result<bool> {
    has_mark(object, "whiteout")
}

/// Whether the file `object`, whose name begins with `.wh.`, is meant literally.
pub fn is_literal(object: &Object) -> Result<bool> {
    has_mark(object, LITERAL)
}

/// Whether the file that makes a directory opaque is in `dir`, and not something of a user that is called so.
pub fn has_opaque_file(dir: &Arc<OwnedFd>) -> Result<bool> {
    let file = Object::Child(dir.clone(), OsStr::new(OPAQUE_FILE).into());
    match file.stat() {
        Ok(stat) => Ok(stat.kind() == FileKind::Regular && !is_literal(&file)?),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Marks a file whose name begins with `.wh.` as meant literally.
pub fn mark_literal(namespaces: Namespaces, object: &Object) -> Result<()> {
    let name = namespaces.name(LITERAL).ok_or(Errno::INVAL)?;
    object.set_xattr(&name, b"y", XattrFlags::empty())
}

fn has_mark(object: &Object, mark: &str) -> Result<bool> {
    for prefix in PREFIXES {
        if object.xattr(OsStr::new(&format!("{prefix}{mark}")))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_files_name_what_they_hide() {
        assert_eq!(hidden_by(OsStr::new(".wh.a")), Some(OsStr::new("a")));
        assert_eq!(hidden_by(OsStr::new(".wh..wh.a")), Some(OsStr::new(".wh.a")));
        for nothing in [".wh.", ".wh..", ".wh...", "a"] {
            assert_eq!(hidden_by(OsStr::new(nothing)), None, "{nothing}");
        }
        assert_eq!(hidden_by(&dot_file(OsStr::new("x"))), Some(OsStr::new("x")));
    }
}
