//! What chattr(1) keeps from being changed: the flags `i` and `a` of a file or directory.
//!
//! No inode of the upper layer gets them itself: its filesystem would refuse also what the union has to do there and
//! nobody sees, a copy-up in an immutable directory above all. They stand in the attribute `overlay.protattr`, as the
//! kernel keeps them (fs/overlayfs, `ovl_set_protattr`): the letters `a` and `i`. Objects of lower layers have the flags
//! of their inodes, whatever their attributes say.

use std::ffi::OsStr;

use super::dir_marks::{Namespaces, PREFIXES, PROTECTION, marked_names, set_mark};
use super::owner_rights;
use crate::sys::inode_flags::Extended;
use crate::sys::stat::Flags;
use crate::sys::{Errno, Object, Result};

/// `FS_APPEND_FL` and `FS_IMMUTABLE_FL` of linux/fs.h.
const INODE_FLAGS: Bits = Bits { append_only: 0x20, immutable: 0x10 };
/// `FS_XFLAG_APPEND` and `FS_XFLAG_IMMUTABLE`.
const EXTENDED_FLAGS: Bits = Bits { append_only: 0x10, immutable: 0x8 };

/// The longest value that the kernel reads (`OVL_PROTATTR_MAX`), in bytes.
const LONGEST: usize = 32;

#[derive(Clone, Copy)]
struct Bits {
    append_only: u32,
    immutable: u32,
}

impl Bits {
    fn all(self) -> u32 {
        self.append_only | self.immutable
    }

    fn of(self, protection: Protection) -> u32 {
        let append_only = if protection.append_only { self.append_only } else { 0 };
        let immutable = if protection.immutable { self.immutable } else { 0 };
        append_only | immutable
    }

    fn read(self, flags: u32) -> Protection {
        Protection {
            append_only: flags & self.append_only != 0,
            immutable: flags & self.immutable != 0,
        }
    }
}

/// The two flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Things can be added and nothing else.
    pub append_only: bool,
    /// Nothing can be changed.
    pub immutable: bool,
}

impl Protection {
    /// Neither flag.
    pub const NONE: Self = Self { append_only: false, immutable: false };

    /// Whether there is either flag.
    pub fn any(self) -> bool {
        self != Self::NONE
    }

    /// The flags in the value of the attribute; `None` if the kernel would not understand it.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.is_empty() || value.len() > LONGEST {
            return None;
        }
        value.iter().try_fold(Self::NONE, |flags, letter| match letter {
            b'a' => Some(Self { append_only: true, ..flags }),
            b'i' => Some(Self { immutable: true, ..flags }),
            _ => None,
        })
    }

    fn value(self) -> &'static [u8] {
        match (self.append_only, self.immutable) {
            (true, true) => b"ai",
            (true, false) => b"a",
            (false, true) => b"i",
            (false, false) => b"",
        }
    }

    /// Those among inode flags (`FS_*_FL`).
    pub fn in_flags(flags: u32) -> Self {
        INODE_FLAGS.read(flags)
    }

    /// Inode flags (`FS_*_FL`) together with these.
    pub fn added_to(self, flags: u32) -> u32 {
        flags | INODE_FLAGS.of(self)
    }

    /// Inode flags (`FS_*_FL`) without either.
    pub fn cleared_in(flags: u32) -> u32 {
        flags & !INODE_FLAGS.all()
    }

    /// Those among extended flags.
    pub fn in_extended(value: &Extended) -> Self {
        EXTENDED_FLAGS.read(extended_flags(value))
    }

    /// Extended flags together with these.
    pub fn added_to_extended(self, value: &Extended) -> Extended {
        with_extended_flags(value, extended_flags(value) | EXTENDED_FLAGS.of(self))
    }

    /// Extended flags without either.
    pub fn cleared_in_extended(value: &Extended) -> Extended {
        with_extended_flags(value, extended_flags(value) & !EXTENDED_FLAGS.all())
    }

    /// The flags that stand beside an object of the upper layer. A value that nobody understands is none.
    pub fn beside(object: &Object) -> Result<Self> {
        let listed = match object.xattr_names() {
            Err(Errno::OPNOTSUPP) => return Ok(Self::NONE),
            listed => listed,
        };
        let names = marked_names(listed, |name| owner_rights::xattr(object, name))?;
        for prefix in PREFIXES {
            let mark = format!("{prefix}{PROTECTION}");
            if names.iter().any(|name| **name == *mark) {
                let value = owner_rights::xattr(object, OsStr::new(&mark))?;
                return Ok(value.and_then(|value| Self::parse(&value)).unwrap_or_default());
            }
        }
        Ok(Self::NONE)
    }

    /// Has these flags stand beside `object`, and no others.
    ///
    /// # Errors
    /// `EPERM` where no attributes can be written, as the kernel's.
    pub fn store(self, namespaces: Namespaces, object: &Object) -> Result<()> {
        let preferred = namespaces.name(PROTECTION);
        if self.any() {
            let name = preferred.as_deref().ok_or(Errno::PERM)?;
            set_mark(object, name, self.value())?;
        }
        for prefix in PREFIXES {
            let name = format!("{prefix}{PROTECTION}");
            if self.any() && preferred.as_deref() == Some(OsStr::new(&name)) {
                continue;
            }
            match object.remove_xattr(OsStr::new(&name)) {
                // (Without the right to such attributes there are none.)
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl From<Flags> for Protection {
    fn from(Flags { append_only, immutable }: Flags) -> Self {
        Self { append_only, immutable }
    }
}

/// `fsx_xflags`, the first field of `struct fsxattr`.
fn extended_flags(value: &Extended) -> u32 {
    let [a, b, c, d, ..] = *value;
    u32::from_ne_bytes([a, b, c, d])
}

fn with_extended_flags(value: &Extended, flags: u32) -> Extended {
    let mut changed = *value;
    for (byte, new) in changed.iter_mut().zip(flags.to_ne_bytes()) {
        *byte = new;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Protection; 4] = [
        Protection::NONE,
        Protection { append_only: true, immutable: false },
        Protection { append_only: false, immutable: true },
        Protection { append_only: true, immutable: true },
    ];

    #[test]
    fn the_letters_are_the_kernels() {
        for flags in ALL.into_iter().filter(|flags| flags.any()) {
            assert_eq!(Protection::parse(flags.value()), Some(flags));
        }
        assert_eq!(Protection::parse(b"ia"), Protection::parse(b"ai"));
        for other in [&b""[..], b"ix", b"A", &[b'i'; 33]] {
            assert_eq!(Protection::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn flags_are_taken_out_and_put_back_beside_others() {
        for flags in ALL {
            let nodump = 0x40;
            let plain = flags.added_to(nodump);
            assert_eq!(Protection::in_flags(plain), flags);
            assert_eq!(Protection::cleared_in(plain), nodump);
            let extended = flags.added_to_extended(&[0x80; 28]);
            assert_eq!(Protection::in_extended(&extended), flags);
            assert_eq!(Protection::cleared_in_extended(&extended), [0x80; 28]);
        }
    }
}
