//! What one entry of an archive says, with all its headers understood.

use super::EntryPath;
use crate::sys::Time;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is, from the root of the layer.
    pub path: EntryPath,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-id and sticky included.
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the contents.
    pub mtime: Time,
    /// Extended attributes by their full names, in the order of names.
    pub xattrs: Vec<Xattr>,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Its full name, namespace included.
    pub name: Box<[u8]>,
    /// Its value.
    pub value: Box<[u8]>,
}

/// The type of an entry, with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, whose data is read from the archive next.
    Regular(Extent),
    /// A directory.
    Directory,
    /// A symbolic link to this text.
    Symlink(Box<[u8]>),
    /// One more name of what is at this place.
    HardLink(EntryPath),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The device of that driver.
    pub minor: u32,
}

/// The size of a file, and where in it its data lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Size in bytes.
    pub size: u64,
    /// The parts that the archive has data of, in order and apart; the rest is holes. `None` for all of it.
    pub data: Option<Vec<Part>>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

impl Extent {
    /// A file without holes.
    pub fn whole(size: u64) -> Self {
        Self { size, data: None }
    }

    /// How many bytes of data the archive has.
    pub fn stored(&self) -> u64 {
        match &self.data {
            Some(parts) => parts.iter().map(|part| part.length).sum(),
            None => self.size,
        }
    }
}
