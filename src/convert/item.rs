//! What an entry of a layer is, and how its directory is marked.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::layer::mark::{Mark, Namespace};
use crate::layer::{DirMarks, Name, Opaque, whiteout};
use crate::sys::dir::RawEntry;
use crate::sys::{FileKind, Object, Result};

/// What an entry is.
pub(super) enum Item {
    /// A directory.
    Directory,
    /// A device 0:0.
    Device,
    /// A whiteout by attribute, in a directory that is marked to hold such.
    Attribute,
    /// A `.wh.` file for this name, or for none that can be.
    DotFile(Option<OsString>),
    /// `.wh..wh..opq`.
    OpaqueFile,
    /// Anything else: a user's.
    Own,
}

/// How a directory is marked, in whatever form.
pub(super) struct Marks {
    pub dir: DirMarks,
    pub opaque: bool,
    /// Whether `.wh..wh..opq` is in it, and is a mark.
    pub opaque_file: bool,
    /// Whether root's kernel marked it, so that `user.overlay.` attributes on it are a user's.
    pub by_root: bool,
}

impl Marks {
    pub fn read(dir: &Arc<OwnedFd>) -> Result<Self> {
        let object = Object::Own(dir.clone());
        let marks = DirMarks::read(&object)?;
        let by_root = object
            .xattr_names()?
            .iter()
            .any(|name| Mark::of(name) == Some((Namespace::Trusted, Mark::Origin)));
        let opaque_file = whiteout::has_opaque_file(dir)?;
        let opaque = opaque_file || marks.opaque == Opaque::Yes;
        Ok(Self { dir: marks, opaque, opaque_file, by_root })
    }
}

pub(super) fn classify(dir: &Arc<OwnedFd>, marks: &Marks, entry: RawEntry<'_>) -> Result<Item> {
    let object = Object::Child(dir.clone(), Name::from(entry.name));
    let stat = match entry.kind {
        Some(kind) if kind != FileKind::CharDevice => None,
        _ => Some(object.stat()?),
    };
    let kind = entry.kind.or(stat.map(|stat| stat.kind())).unwrap_or(FileKind::Regular);
    Ok(match kind {
        FileKind::Directory => Item::Directory,
        FileKind::CharDevice if stat.as_ref().is_some_and(whiteout::is_char_whiteout) => {
            Item::Device
        }
        FileKind::Regular
            if whiteout::has_prefix(entry.name) && !whiteout::is_literal(&object)? =>
        {
            match entry.name == whiteout::OPAQUE_FILE {
                true => Item::OpaqueFile,
                false => Item::DotFile(whiteout::hidden_by(entry.name).map(OsStr::to_owned)),
            }
        }
        FileKind::Regular
            if marks.dir.opaque == Opaque::XattrWhiteouts
                && whiteout::has_whiteout_xattr(&object)? =>
        {
            Item::Attribute
        }
        _ => Item::Own,
    })
}
