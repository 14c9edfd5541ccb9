//! How a packed layer's index lies on disk: `docs/format.md`, "Packed layers".
//!
//! All numbers are little-endian. Records have fixed sizes, so that any of them can be read from the mapped file without
//! reading others.

use crate::sys::{FileKind, Time};

/// What the file begins with.
pub const MAGIC: [u8; 8] = *b"plyfsidx";

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// Sizes of the records, in bytes.
pub const HEADER_SIZE: usize = 128;
/// See [`HEADER_SIZE`].
pub const INODE_SIZE: usize = 64;
/// See [`HEADER_SIZE`].
pub const ENTRY_SIZE: usize = 12;
/// The name of a content: its BLAKE3 hash.
pub const CONTENT_SIZE: usize = 32;

/// The inode of the root directory.
pub const ROOT: u32 = 0;

/// Stands for an inode or a content that is not there.
pub const NONE: u32 = u32::MAX;

/// Where the header's checksum lies: the BLAKE3 hash of all bytes of the file but these 32.
pub const CHECKSUM_AT: usize = 96;

/// The number of records, or of bytes, of each section, in the order in which they follow the header without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    /// Inode records.
    pub inodes: u32,
    /// Entry records.
    pub entries: u32,
    /// Names of contents.
    pub contents: u32,
    /// Bytes of names and link targets.
    pub names: u32,
    /// Bytes of extended attributes.
    pub xattrs: u64,
}

impl Sections {
    /// Where the sections begin, and where the file ends.
    pub fn offsets(&self) -> Offsets {
        let inodes = HEADER_SIZE as u64;
        let entries = inodes + u64::from(self.inodes) * INODE_SIZE as u64;
        let contents = entries + u64::from(self.entries) * ENTRY_SIZE as u64;
        let names = contents + u64::from(self.contents) * CONTENT_SIZE as u64;
        let xattrs = names + u64::from(self.names);
        Offsets {
            inodes,
            entries,
            contents,
            names,
            xattrs,
            end: xattrs.saturating_add(self.xattrs),
        }
    }

    /// The header without its checksum.
    pub fn header(&self) -> [u8; CHECKSUM_AT] {
        let mut header = [0; CHECKSUM_AT];
        header[..8].copy_from_slice(&MAGIC);
        let numbers = [VERSION, self.inodes, self.entries, self.contents, self.names];
        for (number, field) in numbers.iter().zip(header[8..].as_chunks_mut::<4>().0) {
            *field = number.to_le_bytes();
        }
        header[32..40].copy_from_slice(&self.xattrs.to_le_bytes());
        header
    }

    /// Reads a header; `None` if it is of something else or of another version.
    pub fn read(header: &[u8]) -> Option<Self> {
        let this = header.get(..8)? == MAGIC && u32_at(header, 8)? == VERSION;
        let rest_is_zero =
            header.get(40..CHECKSUM_AT)?.iter().chain(header.get(28..32)?).all(|b| *b == 0);
        (this && rest_is_zero).then_some(())?;
        Some(Self {
            inodes: u32_at(header, 12)?,
            entries: u32_at(header, 16)?,
            contents: u32_at(header, 20)?,
            names: u32_at(header, 24)?,
            xattrs: u64_at(header, 32)?,
        })
    }
}

/// Where the sections begin, in bytes from the beginning of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// Inode records.
    pub inodes: u64,
    /// Entry records.
    pub entries: u64,
    /// Names of contents.
    pub contents: u64,
    /// Names.
    pub names: u64,
    /// Extended attributes.
    pub xattrs: u64,
    /// The end of the file.
    pub end: u64,
}

/// An inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names in this layer.
    pub nlink: u32,
    /// Of a device: its number. Of a directory: the entry record that names it, 0 of the root.
    pub major: u32,
    /// Of a device: its number.
    pub minor: u32,
    /// Of a file: bytes.
    pub size: u64,
    /// Last change of the contents.
    pub mtime: Time,
    /// Where its attributes begin in their section, plus one; 0 for none.
    pub xattrs: u32,
    /// Of a directory the first of its entries; of a symbolic link where its target begins in the names; of a file
    /// the place of its content, [`NONE`] for an empty one.
    pub first: u32,
    /// Of a directory the number of its entries; of a symbolic link the length of its target.
    pub count: u32,
    /// Of a directory: the one that it is in. The root is in itself.
    pub parent: u32,
    /// Of a directory: whether nothing that lower layers have in it is there.
    pub opaque: bool,
    /// Whether no entry of the archive is about it: a directory that must be there because something is in it. It has
    /// the attributes of the same directory in a lower layer, if there is one.
    pub implied: bool,
}

const OPAQUE: u32 = 1;
const IMPLIED: u32 = 2;

impl Inode {
    /// The type.
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode)
    }

    /// The record.
    pub fn write(&self) -> [u8; INODE_SIZE] {
        let flags = u32::from(self.opaque) * OPAQUE + u32::from(self.implied) * IMPLIED;
        let size = self.size.to_le_bytes();
        let sec = self.mtime.sec.to_le_bytes();
        let mut record = [0; INODE_SIZE];
        let start = [self.mode, self.uid, self.gid, self.nlink, self.major, self.minor];
        let end = [self.mtime.nsec, self.xattrs, self.first, self.count, self.parent, flags];
        for (at, numbers) in [(0, start), (40, end)] {
            for (number, field) in numbers.iter().zip(record[at..].as_chunks_mut::<4>().0) {
                *field = number.to_le_bytes();
            }
        }
        record[24..32].copy_from_slice(&size);
        record[32..40].copy_from_slice(&sec);
        record
    }

    /// Reads a record; `None` if no such record is ever written.
    pub fn read(record: &[u8]) -> Option<Self> {
        let number = |at| u32_at(record, at);
        let flags = number(60)?;
        let inode = Self {
            mode: number(0)?,
            uid: number(4)?,
            gid: number(8)?,
            nlink: number(12)?,
            major: number(16)?,
            minor: number(20)?,
            size: u64_at(record, 24)?,
            mtime: Time { sec: u64_at(record, 32)?.cast_signed(), nsec: number(40)? },
            xattrs: number(44)?,
            first: number(48)?,
            count: number(52)?,
            parent: number(56)?,
            opaque: flags & OPAQUE != 0,
            implied: flags & IMPLIED != 0,
        };
        (inode.write() == *record && inode.mtime.nsec < 1_000_000_000).then_some(inode)
    }
}

/// A name in a directory. Those of one directory follow one another in the order of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRecord {
    /// Where the name begins in the names.
    pub name_at: u32,
    /// The length of the name in bytes.
    pub name_length: u8,
    /// The inode, or [`NONE`] for a whiteout.
    pub inode: u32,
}

impl EntryRecord {
    /// The record.
    pub fn write(&self) -> [u8; ENTRY_SIZE] {
        let mut record = [0; ENTRY_SIZE];
        record[..4].copy_from_slice(&self.name_at.to_le_bytes());
        record[4..8].copy_from_slice(&self.inode.to_le_bytes());
        record[8] = self.name_length;
        record
    }

    /// Reads a record; `None` if no such record is ever written.
    pub fn read(record: &[u8]) -> Option<Self> {
        let entry = Self {
            name_at: u32_at(record, 0)?,
            name_length: *record.get(8)?,
            inode: u32_at(record, 4)?,
        };
        (entry.write() == *record && entry.name_length > 0).then_some(entry)
    }
}

/// The number at `at`; `None` behind the end.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The number at `at`; `None` behind the end.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
