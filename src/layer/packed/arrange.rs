//! From a layer that has been built to its index.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use super::Builder;
use super::format::{ENTRY_SIZE, EntryRecord, HEADER_SIZE, NONE, ROOT, Sections};
use super::pages::Pages;
use super::slots::Slot;
use super::sorted::Sorter;

/// Names of AUFS' own files, which are no part of the layer, but may be what hard links lead to.
const PRIVATE: &[u8] = b".wh..wh.";

/// Memory for each list of numbers or records, in bytes.
const LIST: usize = 1 << 20;

/// What is part of the layer, directory after directory, beginning with the root.
struct Arranged {
    /// The inodes in their order in the index, as they are numbered by the builder: 4 bytes each.
    order: Pages,
    inodes: u32,
    /// Of each inode of the builder, 1 + its number in the index; 0 if it has none: 4 bytes each.
    numbers: Pages,
    /// The entry records.
    entries: Pages,
    sorter: Sorter,
}

impl Builder {
    /// Writes the index.
    pub fn write(mut self, file: impl Write + Seek) -> io::Result<()> {
        let mut arranged = Arranged::new(&self);
        arranged.directories(&mut self)?;
        let count = |bytes: u64, size: usize| {
            u32::try_from(bytes / size as u64).map_err(|_| io::ErrorKind::FileTooLarge)
        };
        let sections = Sections {
            inodes: arranged.inodes,
            entries: count(arranged.entries.len(), ENTRY_SIZE)?,
            contents: count(self.contents.len(), super::format::CONTENT_SIZE)?,
            names: count(self.slots.names.len(), 1)?,
            xattrs: self.xattrs.len(),
        };
        let header = sections.header();
        let file = BufWriter::with_capacity(128 << 10, file);
        let mut out = Hashed { file, hasher: blake3::Hasher::new() };
        out.file.seek(SeekFrom::Start(HEADER_SIZE as u64))?;
        out.hasher.update(&header);
        for number in 0..arranged.inodes {
            let inode = arranged.ordered(number)?;
            out.write_all(&self.inode(inode)?.write())?;
        }
        arranged.entries.copy_to(&mut out)?;
        self.contents.copy_to(&mut out)?;
        self.slots.names.copy_to(&mut out)?;
        self.xattrs.copy_to(&mut out)?;
        out.file.seek(SeekFrom::Start(0))?;
        out.file.write_all(&header)?;
        out.file.write_all(out.hasher.finalize().as_bytes())?;
        out.file.flush()
    }
}

impl Arranged {
    fn new(builder: &Builder) -> Self {
        let pages = || Pages::new(builder.folder.clone(), LIST);
        let sorter = Sorter::new(&builder.folder);
        Self { order: pages(), inodes: 0, numbers: pages(), entries: pages(), sorter }
    }

    /// Numbers the inodes, and makes every directory's inode name its entries.
    fn directories(&mut self, builder: &mut Builder) -> io::Result<()> {
        self.number(ROOT)?;
        let mut next = 0;
        while next < self.inodes {
            let inode = self.ordered(next)?;
            if builder.inode(inode)?.kind().is_dir() {
                self.directory(builder, next, inode)?;
            }
            next += 1;
        }
        Ok(())
    }

    /// Arranges what is in the directory `inode`, which has the number `dir` in the index.
    fn directory(&mut self, builder: &mut Builder, dir: u32, inode: u32) -> io::Result<()> {
        let mut at = builder.inode(inode)?.first;
        let mut buffer = [0; 255];
        let mut sorter = std::mem::replace(&mut self.sorter, Sorter::new(&builder.folder));
        while at != NONE {
            let slot = builder.slots.get(at)?;
            let name = builder.slots.name(&slot, &mut buffer)?;
            if (slot.whiteout || slot.inode != NONE) && !name.starts_with(PRIVATE) {
                sorter.push(name, at)?;
            }
            at = slot.next;
        }
        let first = self.entries.len() / ENTRY_SIZE as u64;
        let mut subdirectories = 0;
        sorter.drain(|slot| {
            let slot = builder.slots.get(slot)?;
            subdirectories += u32::from(self.entry(builder, dir, &slot)?);
            Ok(())
        })?;
        self.sorter = sorter;
        let mut record = builder.inode(inode)?;
        record.first = first as u32;
        record.count = (self.entries.len() / ENTRY_SIZE as u64 - first) as u32;
        record.nlink = 2 + subdirectories;
        builder.set_inode(inode, &record)
    }

    /// Adds the entry of a slot in the directory with the number `dir`; true if it is one of a directory.
    fn entry(&mut self, builder: &mut Builder, dir: u32, slot: &Slot) -> io::Result<bool> {
        let mut entry =
            EntryRecord { name_at: slot.name_at, name_length: slot.name_length, inode: NONE };
        let mut is_dir = false;
        if slot.inode != NONE {
            let mut inode = builder.inode(slot.inode)?;
            let known = u32::from_le_bytes(self.numbers.get(slot.inode)?);
            entry.inode = match known.checked_sub(1) {
                Some(number) => number,
                None => self.number(slot.inode)?,
            };
            is_dir = inode.kind().is_dir();
            if is_dir {
                inode.parent = dir;
                inode.major = (self.entries.len() / ENTRY_SIZE as u64) as u32;
                // Deleted below and there again: it has nothing of what lies below.
                inode.opaque |= slot.whiteout;
                inode.implied &= !slot.whiteout;
            } else {
                inode.nlink = if known == 0 { 1 } else { inode.nlink + 1 };
            }
            builder.set_inode(slot.inode, &inode)?;
        }
        self.entries.push(&entry.write())?;
        Ok(is_dir)
    }

    /// Gives an inode of the builder the next number in the index.
    fn number(&mut self, inode: u32) -> io::Result<u32> {
        let number = self.inodes;
        self.inodes += 1;
        self.order.push(&inode.to_le_bytes())?;
        self.numbers.set(inode, self.inodes.to_le_bytes())?;
        Ok(number)
    }

    /// The inode of the builder that has this number in the index.
    fn ordered(&mut self, number: u32) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.order.get(number)?))
    }
}

struct Hashed<W: Write> {
    file: BufWriter<W>,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
