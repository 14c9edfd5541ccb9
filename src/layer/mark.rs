//! The marks that are kept in extended attributes: which attribute is which, and whether its value means
//! anything to those who read it.

use std::ffi::OsStr;

use super::dir_marks::{Opaque, PREFIXES, Redirect};
use super::index::LinkCount;
use super::protection::Protection;
use super::{inode_mark, origin};

/// What an attribute says about its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `opaque`
    Opaque,
    /// `redirect`
    Redirect,
    /// `metacopy`
    Metacopy,
    /// `origin`
    Origin,
    /// `nlink`
    LinkCount,
    /// `impure`
    Impure,
    /// `protattr`
    Protection,
    /// `whiteout`
    Whiteout,
    /// `plyfs.ino`
    InodeNumber,
    /// `plyfs.literal`
    Literal,
    /// `plyfs.layer`
    Layer,
    /// `uuid`: the kernel's, on the root of an upper layer
    Uuid,
}

/// Who reads an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// `trusted.overlay.`: the kernel, mounted by root, and plyfs as root.
    Trusted,
    /// `user.overlay.`: the kernel with `userxattr`, and plyfs.
    User,
    /// `user.fuseoverlayfs.`: fuse-overlayfs, and plyfs for what makes a directory opaque.
    Peer,
}

const MARKS: [(&str, Mark); 12] = [
    ("opaque", Mark::Opaque),
    ("redirect", Mark::Redirect),
    ("metacopy", Mark::Metacopy),
    ("origin", Mark::Origin),
    ("nlink", Mark::LinkCount),
    ("impure", Mark::Impure),
    ("protattr", Mark::Protection),
    ("whiteout", Mark::Whiteout),
    ("plyfs.ino", Mark::InodeNumber),
    ("plyfs.literal", Mark::Literal),
    ("plyfs.layer", Mark::Layer),
    ("uuid", Mark::Uuid),
];

impl Mark {
    /// The mark that the attribute `name` is, and for whom.
    pub fn of(name: &OsStr) -> Option<(Namespace, Self)> {
        let name = name.to_str()?;
        if name == "user.fuseoverlayfs.opaque" {
            return Some((Namespace::Peer, Self::Opaque));
        }
        [Namespace::Trusted, Namespace::User].into_iter().zip(PREFIXES).find_map(
            |(namespace, prefix)| {
                let word = name.strip_prefix(prefix)?;
                let (_, mark) = MARKS.iter().find(|(known, _)| *known == word)?;
                Some((namespace, *mark))
            },
        )
    }

    /// Whether its readers understand this value.
    pub fn understands(self, value: &[u8]) -> bool {
        match self {
            Self::Opaque => Opaque::parse(value) != Opaque::No,
            Self::Redirect => Redirect::parse(value).is_some(),
            Self::Metacopy => is_metacopy(value),
            // Empty means that the origin is not known (the kernel's copy-up without file handles).
            Self::Origin => value.is_empty() || origin::is_complete(value),
            Self::LinkCount => LinkCount::parse(value).is_some(),
            Self::Impure => value == b"y",
            Self::Protection => Protection::parse(value).is_some(),
            Self::Whiteout | Self::Literal | Self::Layer | Self::Uuid => true,
            Self::InodeNumber => {
                std::str::from_utf8(value).ok().and_then(inode_mark::parse_number).is_some()
            }
        }
    }
}

/// `struct ovl_metacopy` of fs/overlayfs/overlayfs.h: version 0, length, flags 0, and the algorithm and bytes of
/// a digest; nothing at all in the form before Linux 6.6.
fn is_metacopy(value: &[u8]) -> bool {
    match *value {
        [] => true,
        [0, length, 0, _, ..] => usize::from(length) == value.len(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_known_by_their_names() {
        let of = |name: &str| Mark::of(OsStr::new(name));
        assert_eq!(of("trusted.overlay.opaque"), Some((Namespace::Trusted, Mark::Opaque)));
        assert_eq!(of("user.overlay.nlink"), Some((Namespace::User, Mark::LinkCount)));
        assert_eq!(of("user.fuseoverlayfs.opaque"), Some((Namespace::Peer, Mark::Opaque)));
        for other in
            ["trusted.overlay.overlay.opaque", "user.opaque", "user.overlay.other", "user.x"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn values_are_told_from_garbage() {
        type Row<'a> = (Mark, &'a [&'a [u8]], &'a [&'a [u8]]);
        let table: &[Row<'_>] = &[
            (Mark::Opaque, &[b"y", b"x"], &[b"", b"n", b"yes"]),
            (Mark::Redirect, &[b"/a", b"a"], &[b"", b"/a/..", b"a/b"]),
            (Mark::Metacopy, &[b"", b"\0\x04\0\0"], &[b"x", b"\0\x05\0\0", b"\x01\x04\0\0"]),
            (Mark::Origin, &[b""], &[b"x", b"\0\xfb\x05\0\0"]),
            (Mark::LinkCount, &[b"U+1", b"L-2"], &[b"", b"1", b"U"]),
            (Mark::Impure, &[b"y"], &[b"", b"n"]),
            (Mark::Protection, &[b"i", b"a", b"ai"], &[b"", b"y"]),
            (Mark::InodeNumber, &[b"17"], &[b"", b"-1", b"x"]),
        ];
        for (mark, good, bad) in table {
            assert!(good.iter().all(|value| mark.understands(value)), "{mark:?}");
            assert!(!bad.iter().any(|value| mark.understands(value)), "{mark:?}");
        }
    }
}
