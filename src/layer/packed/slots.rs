//! The names of a layer that is being built: each in its directory once, found by directory and name.

use std::hash::BuildHasher;
use std::io;
use std::path::Path;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use super::format::{NONE, u32_at};
use super::pages::Pages;

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The inode of the directory.
    pub dir: u32,
    /// Where the name begins in the names.
    pub name_at: u32,
    pub name_length: u8,
    /// Whether the name is deleted in the layers below.
    pub whiteout: bool,
    /// What is called so, or [`NONE`].
    pub inode: u32,
    /// The next slot of the directory, or [`NONE`].
    pub next: u32,
}

const SLOT_SIZE: usize = 18;

impl Slot {
    fn write(&self) -> [u8; SLOT_SIZE] {
        let mut record = [0; SLOT_SIZE];
        let numbers = [self.dir, self.name_at, self.inode, self.next];
        for (number, field) in numbers.iter().zip(record.as_chunks_mut::<4>().0) {
            *field = number.to_le_bytes();
        }
        record[16..].copy_from_slice(&[self.name_length, self.whiteout.into()]);
        record
    }

    fn read(record: &[u8; SLOT_SIZE]) -> Self {
        let number = |at| u32_at(record, at).unwrap_or(NONE);
        Self {
            dir: number(0),
            name_at: number(4),
            inode: number(8),
            next: number(12),
            name_length: record[16],
            whiteout: record[17] != 0,
        }
    }
}

/// Memory for the hash table, for the slots, and for names and targets, in bytes.
const TABLE: usize = 12 << 20;
const SLOTS: usize = 4 << 20;
const NAMES: usize = 4 << 20;

/// All slots.
pub(super) struct Slots {
    slots: Pages,
    count: u32,
    table: Table,
    hasher: DefaultHashBuilder,
    /// Names and link targets, one after the other.
    pub names: Pages,
}

impl Slots {
    pub fn new(folder: &Arc<Path>) -> Self {
        Self {
            slots: Pages::new(folder.clone(), SLOTS),
            count: 0,
            table: Table::new(folder, 9),
            hasher: DefaultHashBuilder::default(),
            names: Pages::new(folder.clone(), NAMES),
        }
    }

    /// How many there are; each has a number below it.
    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn get(&mut self, number: u32) -> io::Result<Slot> {
        Ok(Slot::read(&self.slots.get(number)?))
    }

    pub fn set(&mut self, number: u32, slot: &Slot) -> io::Result<()> {
        self.slots.set(number, slot.write())
    }

    /// The name of a slot, put into `buffer`.
    pub fn name<'b>(&mut self, slot: &Slot, buffer: &'b mut [u8; 255]) -> io::Result<&'b [u8]> {
        let name = &mut buffer[..slot.name_length.into()];
        self.names.read(slot.name_at.into(), name)?;
        Ok(name)
    }

    /// The number of the slot for `name` in the directory `dir`.
    pub fn find(&mut self, dir: u32, name: &[u8]) -> io::Result<Option<u32>> {
        let (slots, names) = (&mut self.slots, &mut self.names);
        let mut known = [0; 255];
        self.table.find(hash(&self.hasher, dir, name), |number| {
            let slot = Slot::read(&slots.get(number)?);
            if slot.dir != dir || usize::from(slot.name_length) != name.len() {
                return Ok(false);
            }
            let known = &mut known[..name.len()];
            names.read(slot.name_at.into(), known)?;
            Ok(known == name)
        })
    }

    /// Adds the slot for `name`, which is not there, and gives it the next number.
    pub fn add(&mut self, slot: &Slot, name: &[u8]) -> io::Result<u32> {
        let number = self.count;
        self.names.push(name)?;
        self.set(number, slot)?;
        self.table.insert(hash(&self.hasher, slot.dir, name), number)?;
        self.count += 1;
        Ok(number)
    }
}

fn hash(hasher: &DefaultHashBuilder, dir: u32, name: &[u8]) -> u32 {
    (hasher.hash_one((dir, name)) >> 32) as u32
}

/// Numbers by hashes. The highest bits of a hash say where its number is looked for first, so that all of them keep their
/// order when the table grows, and it is read and written from one end to the other.
struct Table {
    folder: Arc<Path>,
    /// For each bucket the hash and 1 + the number, 0 in an empty one.
    buckets: Pages,
    /// The logarithm of the number of buckets.
    bits: u32,
    used: u32,
}

impl Table {
    fn new(folder: &Arc<Path>, bits: u32) -> Self {
        let buckets = Pages::new(folder.clone(), TABLE);
        Self { folder: folder.clone(), buckets, bits, used: 0 }
    }

    fn find(
        &mut self,
        hash: u32,
        mut same: impl FnMut(u32) -> io::Result<bool>,
    ) -> io::Result<Option<u32>> {
        let mut at = self.first(hash);
        loop {
            let (known, number) = self.bucket(at)?;
            match number.checked_sub(1) {
                None => return Ok(None),
                Some(number) if known == hash && same(number)? => return Ok(Some(number)),
                Some(_) => at = self.next(at),
            }
        }
    }

    fn insert(&mut self, hash: u32, number: u32) -> io::Result<()> {
        if u64::from(self.used) * 4 >= 3 << self.bits {
            let mut larger = Self::new(&self.folder, self.bits + 1);
            for at in 0..1 << self.bits {
                let (hash, number) = self.bucket(at)?;
                if let Some(number) = number.checked_sub(1) {
                    larger.insert(hash, number)?;
                }
            }
            *self = larger;
        }
        let mut at = self.first(hash);
        while self.bucket(at)?.1 != 0 {
            at = self.next(at);
        }
        self.used += 1;
        let record = u64::from(hash) << 32 | u64::from(number + 1);
        self.buckets.set(at, record.to_le_bytes())
    }

    fn bucket(&mut self, at: u32) -> io::Result<(u32, u32)> {
        let record = u64::from_le_bytes(self.buckets.get(at)?);
        Ok(((record >> 32) as u32, record as u32))
    }

    fn first(&self, hash: u32) -> u32 {
        hash >> (u32::BITS - self.bits)
    }

    fn next(&self, at: u32) -> u32 {
        (at + 1) & ((1 << self.bits) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_its_directory() {
        let folder = tempfile::tempdir().unwrap();
        let mut slots = Slots::new(&folder.path().into());
        let name = |n: u32| format!("name-{}", n / 3).into_bytes();
        for n in 0..10_000 {
            let (dir, name) = (n % 3, name(n));
            assert_eq!(slots.find(dir, &name).unwrap(), None);
            let name_at = slots.names.len() as u32;
            let name_length = name.len() as u8;
            let slot = Slot { dir, name_at, name_length, whiteout: false, inode: n, next: NONE };
            assert_eq!(slots.add(&slot, &name).unwrap(), n);
        }
        for n in (0..10_000).rev() {
            let found = slots.find(n % 3, &name(n)).unwrap().unwrap();
            assert_eq!(slots.get(found).unwrap().inode, n);
        }
        assert_eq!(slots.find(3, b"name-1").unwrap(), None);
    }
}
