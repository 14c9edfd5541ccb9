//! Attributes that are stored in an extended attribute because the layer's filesystem or its owner cannot
//! keep them: `uid:gid:octalmode[:type[-major-minor]]`.
//!
//! Written by containers/storage (`force_mask`) and fuse-overlayfs (`xattr_permissions`). The C program
//! writes the whole st_mode, type bits included.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{OFlags, XattrFlags, makedev};

use crate::sys::{Errno, FileKind, Object, Result, Stat, data};

/// Which extended attribute a layer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatOverride {
    /// `user.containers.override_stat`
    Containers,
    /// `user.fuseoverlayfs.override_stat`
    User,
    /// `security.fuseoverlayfs.override_stat`
    Security,
}

/// Attributes out of, or for, such an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overridden {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, 0..=0o7777.
    pub permissions: u32,
    /// Type, where it is not that of the stored object.
    pub kind: Option<FileKind>,
    /// Device number where `kind` is a device.
    pub rdev: u64,
}

impl StatOverride {
    /// All forms, in the order in which peers look for them.
    pub const ALL: [Self; 3] = [Self::Security, Self::Containers, Self::User];

    /// The name of the extended attribute.
    pub fn name(self) -> &'static OsStr {
        OsStr::new(match self {
            Self::Containers => "user.containers.override_stat",
            Self::User => "user.fuseoverlayfs.override_stat",
            Self::Security => "security.fuseoverlayfs.override_stat",
        })
    }

    /// The form that the layer with this root directory uses, if any.
    pub fn detect(root: &Object) -> Result<Option<Self>> {
        for form in Self::ALL {
            if root.xattr(form.name())?.is_some() {
                return Ok(Some(form));
            }
        }
        Ok(None)
    }

    /// `stat` of `object` with what is stored in its attribute instead of what the filesystem says; without an
    /// attribute, what is the layer's `keeper`'s is root's.
    ///
    /// # Errors
    /// `EIO` when the attribute is there and cannot be understood.
    pub fn apply(self, keeper: Option<Keeper>, object: &Object, stat: Stat) -> Result<Stat> {
        match object.xattr(self.name())? {
            Some(value) => Ok(Overridden::parse(&value).ok_or(Errno::IO)?.over(stat)),
            None => Ok(keeper.map_or(stat, |keeper| keeper.as_root(stat))),
        }
    }

    /// The same for a listing, in which one attribute that cannot be understood must not keep all others from
    /// being listed: whoever asks for that object gets the error.
    pub fn apply_if_valid(self, object: &Object, stat: Stat) -> Result<Stat> {
        let value = object.xattr(self.name())?;
        let stored = value.and_then(|value| Overridden::parse(&value));
        Ok(stored.map_or(stat, |stored| stored.over(stat)))
    }

    /// Stores the attributes on `object`. A symbolic link cannot have a `user.` attribute: see [`Keeper`].
    pub fn store(self, object: &Object, stored: &Overridden) -> Result<()> {
        if stored.kind == Some(FileKind::Symlink) && self != Self::Security {
            return Ok(());
        }
        object.set_xattr(self.name(), stored.value().as_bytes(), XattrFlags::empty())
    }
}

/// An ordinary user who keeps a layer for root: what he cannot give an attribute (symbolic links) is root's, as it is when
/// the same layer is seen from his user namespace, in which he is root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeper {
    uid: u32,
    gid: u32,
}

impl Keeper {
    /// Who keeps the layer with this root directory and this form of attributes. Nobody does where that directory's attribute says that it is whose it
    /// is anyway: such a layer was begun by a user for himself, and his links stay his like his files.
    pub fn find(root: &Object, form: Option<StatOverride>) -> Result<Option<Self>> {
        let Some(form) = form else { return Ok(None) };
        let plain = root.stat()?;
        let said = form.apply_if_valid(root, plain)?;
        Ok((said.uid != plain.uid).then_some(Self { uid: plain.uid, gid: plain.gid }))
    }

    fn as_root(self, mut stat: Stat) -> Stat {
        if stat.uid == self.uid {
            stat.uid = 0;
        }
        if stat.gid == self.gid {
            stat.gid = 0;
        }
        stat
    }
}

/// The target of a symbolic link, which may be stored as a regular file that holds it.
pub fn read_link(overriding: Option<StatOverride>, object: &Object) -> Result<OsString> {
    match object.read_link() {
        Err(Errno::INVAL) if overriding.is_some() => {
            let file = object.open(OFlags::RDONLY)?;
            let mut target = vec![0; LONGEST_TARGET];
            let length = data::read_at(file.as_fd(), &mut target, 0)?;
            target.truncate(length);
            Ok(OsString::from_vec(target))
        }
        result => result,
    }
}

/// (uid_t) -1: nobody's, and to chown(2) the wish to leave an owner as he is.
const NO_ID: u32 = u32::MAX;

/// The longest target of a symbolic link in bytes (PATH_MAX without the closing NUL).
const LONGEST_TARGET: usize = 4095;

impl Overridden {
    /// Understands the attribute's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut fields = text.trim_end_matches('\0').splitn(4, ':');
        let mut id = || fields.next()?.parse().ok().filter(|id| *id != NO_ID);
        let (uid, gid) = (id()?, id()?);
        let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
        let (mut kind, rdev) = match fields.next() {
            Some(text) => parse_kind(text).map(|(kind, rdev)| (Some(kind), rdev))?,
            None => (None, 0),
        };
        if kind.is_none() && mode & libc::S_IFMT != 0 {
            kind = Some(FileKind::from_mode(mode));
        }
        Some(Self { uid, gid, permissions: mode & 0o7777, kind, rdev })
    }

    /// `stat` with these attributes instead of its own.
    fn over(self, mut stat: Stat) -> Stat {
        stat.uid = self.uid;
        stat.gid = self.gid;
        let kind = self.kind.unwrap_or(stat.kind());
        stat.mode = kind.mode_bits() | self.permissions;
        if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) {
            stat.rdev = self.rdev;
        }
        stat
    }

    /// The value to store.
    pub fn value(&self) -> String {
        let Self { uid, gid, permissions, .. } = self;
        let kind = match self.kind {
            None => String::new(),
            Some(kind) => format!(":{}", kind_text(kind, self.rdev)),
        };
        format!("{uid}:{gid}:{permissions:o}{kind}")
    }
}

fn kind_text(kind: FileKind, rdev: u64) -> String {
    let numbers = || format!("{}-{}", rustix::fs::major(rdev), rustix::fs::minor(rdev));
    match kind {
        FileKind::Directory => "dir".into(),
        FileKind::Regular => "file".into(),
        FileKind::Symlink => "symlink".into(),
        FileKind::Fifo => "pipe".into(),
        FileKind::Socket => "socket".into(),
        FileKind::BlockDevice => format!("block-{}", numbers()),
        FileKind::CharDevice => format!("char-{}", numbers()),
    }
}

fn parse_kind(text: &str) -> Option<(FileKind, u64)> {
    let mut words = text.split('-');
    let kind = match words.next()? {
        "dir" => FileKind::Directory,
        "file" => FileKind::Regular,
        "symlink" => FileKind::Symlink,
        "pipe" => FileKind::Fifo,
        "socket" => FileKind::Socket,
        "block" => FileKind::BlockDevice,
        "char" => FileKind::CharDevice,
        _ => return None,
    };
    let rdev = match kind {
        FileKind::BlockDevice | FileKind::CharDevice => {
            // What the kernel has room for in a device number (linux/kdev_t.h).
            let mut number = |below: u32| {
                let number: Option<u32> = words.next()?.parse().ok();
                number.filter(|number| *number < below)
            };
            makedev(number(1 << 12)?, number(1 << 20)?)
        }
        _ => 0,
    };
    words.next().is_none().then_some((kind, rdev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_writer_is_understood() {
        let device = Overridden::parse(b"0:0:0666:char-1-3").unwrap();
        assert_eq!((device.permissions, device.kind), (0o666, Some(FileKind::CharDevice)));
        assert_eq!(device.rdev, makedev(1, 3));
        let full_mode = Overridden::parse(b"5:6:104711").unwrap();
        assert_eq!((full_mode.uid, full_mode.gid, full_mode.permissions), (5, 6, 0o4711));
        assert_eq!(full_mode.kind, Some(FileKind::Regular));
        let plain = Overridden::parse(b"1000:100:755").unwrap();
        assert_eq!((plain.permissions, plain.kind), (0o755, None));
    }

    #[test]
    fn values_come_back() {
        for text in ["0:0:755", "1:2:4711:file", "0:0:666:char-1-3", "0:0:660:block-8-300"] {
            assert_eq!(Overridden::parse(text.as_bytes()).unwrap().value(), text);
        }
    }

    #[test]
    fn garbage_is_refused() {
        let lines = [
            "",
            "0",
            "0:0",
            "0:0:9",
            "-1:0:755",
            "4294967295:0:755",
            "0:99999999999:755",
            "0:0:777777777777",
            "0:0:755:what",
            "0:0:755:char",
            "0:0:755:char-1-2-3",
            "0:0:755:block-4104-0",
            "0:0:755:char-1-1048576",
        ];
        for bad in lines {
            assert_eq!(Overridden::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Overridden::parse(b"4294967294:4294967294:0").unwrap().uid, u32::MAX - 1);
    }
}
