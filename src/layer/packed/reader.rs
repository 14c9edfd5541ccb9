//! Reading a packed layer's index.
//!
//! The file is looked at where it is mapped, and every number in it is checked when it is used: an index that is damaged
//! or made by an enemy gives errors for the objects concerned, and nothing else.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::ops::{Deref, Range};
use std::os::unix::ffi::OsStrExt;

use super::format::{
    CHECKSUM_AT, CONTENT_SIZE, ENTRY_SIZE, EntryRecord, HEADER_SIZE, INODE_SIZE, Inode, NONE,
    Offsets, ROOT, Sections, u32_at,
};
use crate::sys::mapping::Mapping;
use crate::sys::{Errno, FileKind, Result};

/// The index of a packed layer.
pub struct Index {
    bytes: Bytes,
    sections: Sections,
    offsets: Offsets,
}

enum Bytes {
    Mapped(Mapping),
    /// In memory: nothing that happens to the file afterwards shows.
    Read(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping,
            Self::Read(bytes) => bytes,
        }
    }
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'i> {
    /// The name.
    pub name: &'i OsStr,
    /// What is called so; `None` if the name is deleted here.
    pub inode: Option<u32>,
}

impl Index {
    /// Opens an index.
    ///
    /// # Errors
    /// `EINVAL` for a file that is no index of this version, or not all of one.
    pub fn open(file: &File) -> Result<Self> {
        Self::of(Bytes::Mapped(Mapping::new(file)?))
    }

    /// Reads an index into memory, and compares it with its checksum.
    ///
    /// # Errors
    /// `EINVAL` as above; `EIO` if it is not as it was written.
    pub fn read(mut file: File) -> Result<Self> {
        let mut bytes = Vec::new();
        let read = file.read_to_end(&mut bytes);
        read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let index = Self::of(Bytes::Read(bytes))?;
        if index.is_sound() { Ok(index) } else { Err(Errno::IO) }
    }

    fn of(bytes: Bytes) -> Result<Self> {
        let sections = bytes.get(..HEADER_SIZE).and_then(Sections::read).ok_or(Errno::INVAL)?;
        let offsets = sections.offsets();
        if offsets.end != bytes.len() as u64 || sections.inodes == 0 {
            return Err(Errno::INVAL);
        }
        Ok(Self { bytes, sections, offsets })
    }

    /// Whether the file is as it was written.
    pub fn is_sound(&self) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.bytes[..CHECKSUM_AT]).update(&self.bytes[HEADER_SIZE..]);
        hasher.finalize() == self.bytes[CHECKSUM_AT..HEADER_SIZE]
    }

    /// The checksum that the file has in its header, over all other bytes of it.
    pub fn checksum(&self) -> blake3::Hash {
        let mut checksum = [0; HEADER_SIZE - CHECKSUM_AT];
        checksum.copy_from_slice(&self.bytes[CHECKSUM_AT..HEADER_SIZE]);
        blake3::Hash::from_bytes(checksum)
    }

    /// The number of inodes; all are less than it.
    pub fn inodes(&self) -> u32 {
        self.sections.inodes
    }

    /// An inode.
    ///
    /// # Errors
    /// `EIO` here and below: the index is damaged.
    pub fn inode(&self, number: u32) -> Result<Inode> {
        let record = self.record(number, self.sections.inodes, self.offsets.inodes, INODE_SIZE)?;
        Inode::read(record).ok_or(Errno::IO)
    }

    /// The names in the directory `dir`, in the order of their bytes.
    pub fn entries(&self, dir: u32) -> Result<impl Iterator<Item = Result<Entry<'_>>>> {
        let range = self.entries_of(&self.inode(dir)?)?;
        let mut last: Option<&OsStr> = None;
        Ok(range.map(move |at| {
            let entry = self.entry(dir, at)?;
            if last.is_some_and(|last| last.as_bytes() >= entry.name.as_bytes()) {
                return Err(Errno::IO);
            }
            last = Some(entry.name);
            Ok(entry)
        }))
    }

    /// What the directory `dir` says about `name`.
    pub fn find(&self, dir: u32, name: &OsStr) -> Result<Option<Entry<'_>>> {
        let mut range = self.entries_of(&self.inode(dir)?)?;
        while !range.is_empty() {
            let middle = range.start + (range.end - range.start) / 2;
            let entry = self.entry(dir, middle)?;
            match entry.name.as_bytes().cmp(name.as_bytes()) {
                std::cmp::Ordering::Equal => return Ok(Some(entry)),
                std::cmp::Ordering::Less => range.start = middle + 1,
                std::cmp::Ordering::Greater => range.end = middle,
            }
        }
        Ok(None)
    }

    /// The target of a symbolic link.
    pub fn link_target(&self, inode: &Inode) -> Result<&OsStr> {
        let target = self.name(inode.first, inode.count)?;
        if inode.kind() != FileKind::Symlink || target.is_empty() || target.as_bytes().contains(&0)
        {
            return Err(Errno::IO);
        }
        Ok(target)
    }

    /// The hash of a file's content; `None` of an empty file.
    pub fn content(&self, inode: &Inode) -> Result<Option<blake3::Hash>> {
        if inode.kind() != FileKind::Regular {
            return Err(Errno::INVAL);
        }
        if inode.first == NONE {
            return if inode.size == 0 { Ok(None) } else { Err(Errno::IO) };
        }
        let at = self.offsets.contents;
        let record = self.record(inode.first, self.sections.contents, at, CONTENT_SIZE)?;
        blake3::Hash::from_slice(record).map(Some).map_err(|_| Errno::IO)
    }

    /// The extended attributes of an inode, names and values, in the order of names.
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<(&OsStr, &[u8])>> {
        let Some(start) = inode.xattrs.checked_sub(1) else { return Ok(Vec::new()) };
        let section = &self.bytes[self.offsets.xattrs as usize..];
        read_xattrs(section.get(start as usize..).ok_or(Errno::IO)?).ok_or(Errno::IO)
    }

    fn entries_of(&self, inode: &Inode) -> Result<Range<u32>> {
        if inode.kind() != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        let end = inode.first.checked_add(inode.count).ok_or(Errno::IO)?;
        Ok(inode.first..end)
    }

    fn entry(&self, dir: u32, at: u32) -> Result<Entry<'_>> {
        let record = self.record(at, self.sections.entries, self.offsets.entries, ENTRY_SIZE)?;
        let record = EntryRecord::read(record).ok_or(Errno::IO)?;
        let name = self.name(record.name_at, record.name_length.into())?;
        let bytes = name.as_bytes();
        if matches!(bytes, b"." | b"..") || bytes.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(Errno::IO);
        }
        if record.inode == NONE {
            return Ok(Entry { name, inode: None });
        }
        let inode = self.inode(record.inode)?;
        // Each directory is in one place, so that the way down from the root never comes by one twice.
        let its_place = (inode.parent, inode.major) == (dir, at) && record.inode != ROOT;
        if inode.kind().is_dir() && !its_place {
            return Err(Errno::IO);
        }
        Ok(Entry { name, inode: Some(record.inode) })
    }

    fn name(&self, at: u32, length: u32) -> Result<&OsStr> {
        let start = self.offsets.names as usize;
        let names = &self.bytes[start..start + self.sections.names as usize];
        let name = names.get(at as usize..).and_then(|rest| rest.get(..length as usize));
        name.map(OsStr::from_bytes).ok_or(Errno::IO)
    }

    fn record(&self, number: u32, count: u32, start: u64, size: usize) -> Result<&[u8]> {
        if number >= count {
            return Err(Errno::IO);
        }
        let at = start as usize + number as usize * size;
        Ok(&self.bytes[at..at + size])
    }
}

fn read_xattrs(bytes: &[u8]) -> Option<Vec<(&OsStr, &[u8])>> {
    let count = u32_at(bytes, 0)?;
    let mut rest = bytes.get(4..)?;
    let mut xattrs = Vec::new();
    for _ in 0..count {
        let name_length = u32_at(rest, 0)? as usize;
        let value_length = u32_at(rest, 4)? as usize;
        let name = rest.get(8..)?.get(..name_length)?;
        let value = rest.get(8 + name_length..)?.get(..value_length)?;
        rest = rest.get(8 + name_length + value_length..)?;
        xattrs.push((OsStr::from_bytes(name), value));
    }
    Some(xattrs)
}
