//! Marks on directories: opaque, redirect, impure.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use rustix::fs::XattrFlags;

use super::{Name, owner_rights};
use crate::sys::{Errno, Object, Result, xattr};

/// Whether what lies below a directory in lower layers shines through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opaque {
    /// The directory merges with the lower ones.
    #[default]
    No,
    /// Nothing below shines through.
    Yes,
    /// Merges, and may hold whiteouts that are files with an attribute (kernel 6.7 and later).
    XattrWhiteouts,
}

/// Where the lower part of a renamed directory lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Under this name in the same parent directory.
    Sibling(Name),
    /// In the directory with this path from the root of the layers, under this name.
    Absolute(Vec<Name>, Name),
}

/// All marks of one directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirMarks {
    /// Its opacity.
    pub opaque: Opaque,
    /// Its redirect.
    pub redirect: Option<Redirect>,
    /// Whether some of its children carry a number of their own (see `inode_mark`).
    pub impure: bool,
}

/// Attribute names without their prefix.
const OPAQUE: &str = "opaque";
const REDIRECT: &str = "redirect";
const IMPURE: &str = "impure";
const ORIGIN: &str = "origin";
const METACOPY: &str = "metacopy";
/// See [`super::protection`].
pub(super) const PROTECTION: &str = "protattr";
/// Means nothing: see [`Namespaces::try_out`].
const PROBE: &str = "probe";

/// The prefixes under which the kernel, as root and with `userxattr`, keeps its marks.
pub const PREFIXES: [&str; 2] = ["trusted.overlay.", "user.overlay."];

/// What fuse-overlayfs writes where it cannot write the kernel's own.
const PEER_OPAQUE: &str = "user.fuseoverlayfs.opaque";

impl DirMarks {
    /// Reads the marks of `dir`.
    ///
    /// # Errors
    /// `EIO` for a redirect that is not one; anything that keeps the attributes from being read.
    pub fn read(dir: &Object) -> Result<Self> {
        Self::among(dir, dir.xattr_names())
    }

    /// The same of a directory that is open for reading.
    pub fn read_open(reader: &Arc<OwnedFd>) -> Result<Self> {
        Self::among(&Object::Own(reader.clone()), xattr::names_of_open(reader.as_fd()))
    }

    fn among(dir: &Object, listed: Result<Vec<Box<OsStr>>>) -> Result<Self> {
        let mut marks = Self::default();
        let names = marked_names(listed, |name| dir.xattr(name))?;
        // What root has marked under `trusted.` carries root's marks only there; an attribute under
        // `user.` can then be data that the kernel, to which it means nothing, copied up from below.
        let by_root = names.iter().any(|name| {
            name.to_str().is_some_and(|name| name.strip_prefix(PREFIXES[0]) == Some(ORIGIN))
        });
        for name in names {
            let Some(mark) = mark_name(&name) else { continue };
            if by_root && name.as_bytes().starts_with(PREFIXES[1].as_bytes()) {
                continue;
            }
            match mark {
                OPAQUE => {
                    if let Some(value) = dir.xattr(&name)? {
                        marks.opaque = marks.opaque.or(Opaque::parse(&value));
                    }
                }
                REDIRECT => {
                    if let Some(value) = dir.xattr(&name)? {
                        marks.redirect = Some(Redirect::parse(&value).ok_or(Errno::IO)?);
                    }
                }
                IMPURE => marks.impure = true,
                _ => {}
            }
        }
        Ok(marks)
    }
}

/// The names among which the marks of an object are: all those `listed`, or where there are too many for
/// one answer (listxattr(2), `E2BIG`), the marks that it has.
pub fn marked_names(
    listed: Result<Vec<Box<OsStr>>>,
    value: impl Fn(&OsStr) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<Box<OsStr>>> {
    if listed.as_ref().err() != Some(&Errno::TOOBIG) {
        return listed;
    }
    let mut names = Vec::new();
    let marks = [OPAQUE, REDIRECT, IMPURE, ORIGIN, METACOPY, PROTECTION];
    let full = PREFIXES.iter().flat_map(|prefix| marks.map(|mark| format!("{prefix}{mark}")));
    for name in full.chain([PEER_OPAQUE.to_owned()]) {
        let name = OsString::from(name).into_boxed_os_str();
        if value(&name)?.is_some() {
            names.push(name);
        }
    }
    Ok(names)
}

/// The mark that an attribute stands for, if it is one of the union's.
fn mark_name(name: &OsStr) -> Option<&str> {
    let name = name.to_str()?;
    if name == PEER_OPAQUE {
        return Some(OPAQUE);
    }
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))
}

impl Opaque {
    pub(crate) fn parse(value: &[u8]) -> Self {
        match value {
            b"y" => Self::Yes,
            b"x" => Self::XattrWhiteouts,
            _ => Self::No,
        }
    }

    /// The stricter of two marks on one directory.
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::XattrWhiteouts, _) | (_, Self::XattrWhiteouts) => Self::XattrWhiteouts,
            _ => Self::No,
        }
    }
}

impl Redirect {
    /// Understands the value of a redirect attribute: `/a/b` or one name.
    pub fn parse(value: &[u8]) -> Option<Self> {
        match value.strip_prefix(b"/") {
            Some(path) => {
                let names: Option<Vec<Name>> = path.split(|byte| *byte == b'/').map(name).collect();
                names.and_then(Self::to_path)
            }
            None => name(value).map(Self::Sibling),
        }
    }

    /// The value to store.
    pub fn value(&self) -> Vec<u8> {
        match self {
            Self::Sibling(name) => name.as_bytes().to_vec(),
            Self::Absolute(dirs, name) => {
                let names = dirs.iter().chain([name]);
                names.flat_map(|name| [b"/", name.as_bytes()].concat()).collect()
            }
        }
    }

    /// The redirect to a path of names from the root; `None` for the root itself.
    pub fn to_path(mut names: Vec<Name>) -> Option<Self> {
        let name = names.pop()?;
        Some(Self::Absolute(names, name))
    }

    /// The name that it leads to, in whichever directory.
    pub fn name(&self) -> &Name {
        match self {
            Self::Sibling(name) | Self::Absolute(_, name) => name,
        }
    }
}

/// A directory entry's name out of a redirect; refuses what could lead anywhere else.
fn name(bytes: &[u8]) -> Option<Name> {
    let plain = !bytes.is_empty()
        && bytes.len() <= 255
        && bytes != b"."
        && bytes != b".."
        && !bytes.contains(&b'/')
        && !bytes.contains(&0);
    plain.then(|| Name::from(OsString::from_vec(bytes.to_vec())))
}

/// The attribute namespaces in which this process may write marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// `trusted.overlay.` (needs CAP_SYS_ADMIN in the initial user namespace).
    pub trusted: bool,
    /// `user.overlay.` (needs a filesystem with user attributes).
    pub user: bool,
}

impl Namespaces {
    /// Whether marks can be kept in attributes at all.
    pub fn any(self) -> bool {
        self.trusted || self.user
    }

    /// The full name of a mark in the namespace that this mount prefers, or `None` where there is none.
    pub fn name(self, mark: &str) -> Option<OsString> {
        let prefix = match (self.trusted, self.user) {
            (true, _) => PREFIXES[0],
            (false, true) => PREFIXES[1],
            (false, false) => return None,
        };
        Some(OsString::from(format!("{prefix}{mark}")))
    }

    /// Sets a mark in the preferred namespace.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where no namespace can be written.
    pub fn set(self, object: &Object, mark: &str, value: &[u8]) -> Result<()> {
        let name = self.name(mark).ok_or(Errno::OPNOTSUPP)?;
        set_mark(object, &name, value)
    }

    /// Writes a mark that means nothing to `dir`, and takes it away.
    ///
    /// # Errors
    /// Those of [`set`](Self::set).
    pub fn try_out(self, dir: &Object) -> Result<()> {
        self.set(dir, PROBE, b"y")?;
        self.name(PROBE).map_or(Ok(()), |name| dir.remove_xattr(&name))
    }

    /// Makes `dir` opaque in every namespace that can be written, so that the layer can be read by the
    /// kernel with and without `userxattr`, by podman's own diff, and by every peer.
    pub fn set_opaque(self, dir: &Object) -> Result<()> {
        let writable = [self.trusted, self.user];
        for (prefix, _) in PREFIXES.iter().zip(writable).filter(|(_, writable)| *writable) {
            set_mark(dir, OsStr::new(&format!("{prefix}{OPAQUE}")), b"y")?;
        }
        if self.any() { Ok(()) } else { Err(Errno::OPNOTSUPP) }
    }

    /// Sets the redirect of `dir`.
    pub fn set_redirect(self, dir: &Object, redirect: &Redirect) -> Result<()> {
        self.set(dir, REDIRECT, &redirect.value())
    }

    /// Marks `dir` as holding children with numbers of their own.
    pub fn set_impure(self, dir: &Object) -> Result<()> {
        self.set(dir, IMPURE, b"y")
    }
}

/// Sets an attribute, also on an object whose permissions keep its owner, which an ordinary user's daemon
/// is, from writing to it.
pub(super) fn set_mark(object: &Object, name: &OsStr, value: &[u8]) -> Result<()> {
    let set = || object.set_xattr(name, value, XattrFlags::empty());
    match set() {
        Err(Errno::ACCESS) => owner_rights::lend(&[object], owner_rights::WRITE, set),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_come_back_and_hostile_ones_do_not() {
        for good in ["/a", "/a/b/c", "name", "/\u{e4} b"] {
            assert_eq!(Redirect::parse(good.as_bytes()).unwrap().value(), good.as_bytes());
        }
        for bad in ["", "/", "..", "/..", "/a/../b", "/a//b", "/a/", "a/b", ".", "/a\0b"] {
            assert_eq!(Redirect::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn every_form_of_opaque_is_read() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let fd = crate::sys::open::directory(root.path()).unwrap();
        let dir = Object::Own(std::sync::Arc::new(fd));
        let forms = [
            ("user.overlay.opaque", "y", Opaque::Yes),
            ("user.fuseoverlayfs.opaque", "y", Opaque::Yes),
            ("user.overlay.opaque", "x", Opaque::XattrWhiteouts),
            ("user.overlay.opaque", "n", Opaque::No),
        ];
        for (name, value, expected) in forms {
            let name = OsStr::new(name);
            dir.set_xattr(name, value.as_bytes(), XattrFlags::empty()).unwrap();
            assert_eq!(DirMarks::read(&dir).unwrap().opaque, expected, "{name:?}={value}");
            dir.remove_xattr(name).unwrap();
        }
    }
}
