//! Building a packed layer out of entries that come in any order.
//!
//! Entries may come twice, directories may come after what is in them, and a whiteout may come before or after an object
//! of its name, which it does not concern (OCI image specification, "Whiteouts": they apply to lower layers only).

use std::collections::VecDeque;
use std::fmt;
use std::hash::BuildHasher;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::format::{EntryRecord, HEADER_SIZE, Inode, NONE, ROOT, Sections};
use crate::sys::{FileKind, Time};

/// A layer that is being built. It takes about 120 bytes of memory an entry and its name.
pub struct Builder {
    inodes: Vec<Inode>,
    slots: Vec<Slot>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Names and link targets, one after the other.
    names: Vec<u8>,
    contents: Vec<[u8; 32]>,
    xattrs: Vec<u8>,
}

/// A name in a directory. While a layer is built, the `first` of a directory's inode is its first slot.
struct Slot {
    dir: u32,
    name_at: u32,
    name_length: u8,
    /// Whether the name is deleted in the layers below.
    whiteout: bool,
    /// What is called so, or [`NONE`].
    inode: u32,
    /// The next slot of the directory, or [`NONE`].
    next: u32,
}

/// What is put into a layer.
pub struct Object<'o> {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the contents.
    pub mtime: Time,
    /// What belongs to its type.
    pub body: Body<'o>,
    /// Extended attributes, in the order of names.
    pub xattrs: &'o mut dyn Iterator<Item = (&'o [u8], &'o [u8])>,
}

/// What belongs to the type of an object.
pub enum Body<'o> {
    /// Of a regular file its size and, unless it is empty, the hash of its content.
    Content(u64, Option<[u8; 32]>),
    /// Of a symbolic link.
    Target(&'o [u8]),
    /// Of a device.
    Number(u32, u32),
    /// Nothing, of directories and pipes.
    Nothing,
}

/// Why something cannot be in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misplaced {
    /// It lies in something that is no directory.
    NotInDirectory,
    /// The root can only be a directory.
    Root,
    /// It is a hard link to something that the layer does not have.
    NoTarget,
    /// It is a hard link to a directory.
    DirectoryTarget,
    /// There is more in the layer than an index can hold.
    Full,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotInDirectory => "it lies in something that is not a directory",
            Self::Root => "the root of a layer can only be a directory",
            Self::NoTarget => "it is a hard link to something that is not in the layer before it",
            Self::DirectoryTarget => "it is a hard link to a directory",
            Self::Full => "the layer has more names than a packed layer can hold",
        })
    }
}

impl std::error::Error for Misplaced {}

/// Whether something took the place of something else that was there by the same archive.
pub type Replaced = bool;

type Result<T> = std::result::Result<T, Misplaced>;

/// Names of AUFS' own files, which are no part of the layer, but may be what hard links lead to.
const PRIVATE: &[u8] = b".wh..wh.";

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An empty layer.
    pub fn new() -> Self {
        Self {
            inodes: vec![implied_directory(ROOT)],
            slots: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            names: Vec::new(),
            contents: Vec::new(),
            xattrs: Vec::new(),
        }
    }

    /// Puts an object at the place `path`, a list of names from the root. A directory keeps what is in it; anything else
    /// takes the place of what was there.
    pub fn put<'p>(
        &mut self,
        path: impl DoubleEndedIterator<Item = &'p [u8]>,
        object: Object<'_>,
    ) -> Result<Replaced> {
        let is_dir = FileKind::from_mode(object.mode).is_dir();
        let Some((dir, name)) = self.parent(path)? else {
            if !is_dir {
                return Err(Misplaced::Root);
            }
            let replaced = !self.inode(ROOT).implied;
            self.describe(ROOT, object)?;
            return Ok(replaced);
        };
        let slot = self.slot(dir, name)?;
        let there = self.slots[slot as usize].inode;
        if is_dir && there != NONE && self.inode(there).kind().is_dir() {
            let replaced = !self.inode(there).implied;
            self.describe(there, object)?;
            return Ok(replaced);
        }
        let inode = self.new_inode(implied_directory(dir))?;
        self.describe(inode, object)?;
        self.clear(slot);
        self.slots[slot as usize].inode = inode;
        Ok(there != NONE)
    }

    /// Gives what is at `target` the name `path` too.
    pub fn link<'p>(
        &mut self,
        path: impl DoubleEndedIterator<Item = &'p [u8]>,
        target: impl Iterator<Item = &'p [u8]>,
    ) -> Result<Replaced> {
        let inode = self.find(target).ok_or(Misplaced::NoTarget)?;
        if self.inode(inode).kind().is_dir() {
            return Err(Misplaced::DirectoryTarget);
        }
        let (dir, name) = self.parent(path)?.ok_or(Misplaced::Root)?;
        let slot = self.slot(dir, name)?;
        let there = self.slots[slot as usize].inode;
        if there == inode {
            return Ok(false);
        }
        self.clear(slot);
        self.slots[slot as usize].inode = inode;
        Ok(there != NONE)
    }

    /// Notes that `name` in the directory `dir` is deleted in the layers below.
    pub fn whiteout<'p>(&mut self, dir: impl Iterator<Item = &'p [u8]>, name: &[u8]) -> Result<()> {
        let dir = self.directory(dir)?;
        let slot = self.slot(dir, name)?;
        self.slots[slot as usize].whiteout = true;
        Ok(())
    }

    /// Notes that nothing of what the layers below have in the directory `dir` is there.
    pub fn opaque<'p>(&mut self, dir: impl Iterator<Item = &'p [u8]>) -> Result<()> {
        let dir = self.directory(dir)?;
        self.inodes[dir as usize].opaque = true;
        Ok(())
    }

    /// The kind of what is at `path`.
    pub fn kind<'p>(&self, path: impl Iterator<Item = &'p [u8]>) -> Option<FileKind> {
        self.find(path).map(|inode| self.inode(inode).kind())
    }

    /// Writes the index.
    pub fn write(mut self, file: impl Write + Seek) -> io::Result<()> {
        let (order, entries) = self.arrange()?;
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let sections = Sections {
            inodes: u32::try_from(order.len()).map_err(too_large)?,
            entries: u32::try_from(entries.len()).map_err(too_large)?,
            contents: u32::try_from(self.contents.len()).map_err(too_large)?,
            names: u32::try_from(self.names.len()).map_err(too_large)?,
            xattrs: self.xattrs.len() as u64,
        };
        let header = sections.header();
        let mut out =
            Hashed { file: BufWriter::with_capacity(1 << 20, file), hasher: blake3::Hasher::new() };
        out.file.seek(SeekFrom::Start(HEADER_SIZE as u64))?;
        out.hasher.update(&header);
        for inode in order {
            out.write(&self.inode(inode).write())?;
        }
        for entry in entries {
            out.write(&entry.write())?;
        }
        for content in &self.contents {
            out.write(content)?;
        }
        out.write(&self.names)?;
        out.write(&self.xattrs)?;
        out.file.seek(SeekFrom::Start(0))?;
        out.file.write_all(&header)?;
        out.file.write_all(out.hasher.finalize().as_bytes())?;
        out.file.flush()
    }

    /// Brings everything that is part of the layer into its final order, directory after directory, beginning with the
    /// root: the inodes as they are numbered here, and the entries. Makes every directory's inode name its entries.
    fn arrange(&mut self) -> io::Result<(Vec<u32>, Vec<EntryRecord>)> {
        let mut order = vec![ROOT];
        let mut entries = Vec::new();
        let mut numbers = vec![NONE; self.inodes.len()];
        numbers[ROOT as usize] = ROOT;
        for inode in self.inodes.iter_mut().filter(|inode| !inode.kind().is_dir()) {
            inode.nlink = 0;
        }
        let mut dirs = VecDeque::from([ROOT]);
        while let Some(dir) = dirs.pop_front() {
            let first = entries.len();
            let slots = self.visible_slots(dir);
            self.inodes[dir as usize].nlink = 2;
            for slot in &slots {
                let slot = &self.slots[*slot as usize];
                let mut inode = NONE;
                if slot.inode != NONE {
                    let record = &mut self.inodes[slot.inode as usize];
                    if numbers[slot.inode as usize] == NONE {
                        numbers[slot.inode as usize] = order.len() as u32;
                        order.push(slot.inode);
                    }
                    inode = numbers[slot.inode as usize];
                    if record.kind().is_dir() {
                        record.parent = numbers[dir as usize];
                        record.major = entries.len() as u32;
                        // Deleted below and there again: it has nothing of what lies below.
                        record.opaque |= slot.whiteout;
                        record.implied &= !slot.whiteout;
                        dirs.push_back(slot.inode);
                        self.inodes[dir as usize].nlink += 1;
                    } else {
                        record.nlink += 1;
                    }
                }
                let (name_at, name_length) = (slot.name_at, slot.name_length);
                entries.push(EntryRecord { name_at, name_length, inode });
            }
            let record = &mut self.inodes[dir as usize];
            record.first = first as u32;
            record.count = slots.len() as u32;
        }
        Ok((order, entries))
    }

    /// The slots of a directory that say something, in the order of names.
    fn visible_slots(&self, dir: u32) -> Vec<u32> {
        let says_something = |slot: &u32| {
            let Slot { whiteout, inode, .. } = self.slots[*slot as usize];
            (whiteout || inode != NONE) && !self.slot_name(*slot).starts_with(PRIVATE)
        };
        let mut slots: Vec<u32> = self.slots_of(dir).filter(says_something).collect();
        slots.sort_unstable_by(|one, other| self.slot_name(*one).cmp(self.slot_name(*other)));
        slots
    }

    fn slots_of(&self, dir: u32) -> impl Iterator<Item = u32> {
        let exists = |slot: u32| (slot != NONE).then_some(slot);
        let next = move |slot: &u32| exists(self.slots[*slot as usize].next);
        std::iter::successors(exists(self.inode(dir).first), next)
    }

    fn inode(&self, number: u32) -> &Inode {
        &self.inodes[number as usize]
    }

    fn slot_name(&self, slot: u32) -> &[u8] {
        let slot = &self.slots[slot as usize];
        let start = slot.name_at as usize;
        &self.names[start..start + usize::from(slot.name_length)]
    }

    fn new_inode(&mut self, inode: Inode) -> Result<u32> {
        let number = number(self.inodes.len())?;
        self.inodes.push(inode);
        Ok(number)
    }

    /// Writes down what is known of an object.
    fn describe(&mut self, inode: u32, object: Object<'_>) -> Result<()> {
        let Object { mode, uid, gid, mtime, body, xattrs } = object;
        let xattrs = self.add_xattrs(xattrs)?;
        let (mut first, mut count, mut size) = (NONE, 0, 0);
        let (mut major, mut minor) = (0, 0);
        match body {
            Body::Content(of, content) => {
                size = of;
                if let Some(content) = content {
                    first = number(self.contents.len())?;
                    self.contents.push(content);
                }
            }
            Body::Target(target) => {
                first = number(self.names.len())?;
                count = target.len() as u32;
                size = target.len() as u64;
                self.names.extend_from_slice(target);
            }
            Body::Number(of, which) => (major, minor) = (of, which),
            Body::Nothing => {}
        }
        let record = &mut self.inodes[inode as usize];
        if FileKind::from_mode(mode).is_dir() {
            (first, count) = (record.first, record.count);
        }
        let (parent, opaque, nlink) = (record.parent, record.opaque, record.nlink);
        let implied = false;
        *record = Inode {
            mode,
            uid,
            gid,
            nlink,
            major,
            minor,
            size,
            mtime,
            xattrs,
            first,
            count,
            parent,
            opaque,
            implied,
        };
        Ok(())
    }

    fn add_xattrs<'x>(
        &mut self,
        xattrs: &mut dyn Iterator<Item = (&'x [u8], &'x [u8])>,
    ) -> Result<u32> {
        let start = self.xattrs.len();
        let mut count = 0_u32;
        for (name, value) in xattrs {
            if count == 0 {
                self.xattrs.extend_from_slice(&[0; 4]);
            }
            count += 1;
            for length in [name.len(), value.len()] {
                self.xattrs.extend_from_slice(&(length as u32).to_le_bytes());
            }
            self.xattrs.extend_from_slice(name);
            self.xattrs.extend_from_slice(value);
        }
        if count == 0 {
            return Ok(0);
        }
        self.xattrs[start..start + 4].copy_from_slice(&count.to_le_bytes());
        Ok(number(start)? + 1)
    }

    /// The inode of the directory that `path` lies in, made where it is missing, and the last name; `None` for the root.
    fn parent<'p>(
        &mut self,
        mut path: impl DoubleEndedIterator<Item = &'p [u8]>,
    ) -> Result<Option<(u32, &'p [u8])>> {
        let Some(name) = path.next_back() else { return Ok(None) };
        Ok(Some((self.directory(path)?, name)))
    }

    fn directory<'p>(&mut self, path: impl Iterator<Item = &'p [u8]>) -> Result<u32> {
        let mut at = ROOT;
        for name in path {
            let slot = self.slot(at, name)?;
            let mut inode = self.slots[slot as usize].inode;
            if inode == NONE {
                inode = self.new_inode(implied_directory(at))?;
                self.slots[slot as usize].inode = inode;
            }
            if !self.inode(inode).kind().is_dir() {
                return Err(Misplaced::NotInDirectory);
            }
            at = inode;
        }
        Ok(at)
    }

    fn find<'p>(&self, path: impl Iterator<Item = &'p [u8]>) -> Option<u32> {
        let mut at = ROOT;
        for name in path {
            let slot = self.known_slot(at, name)?;
            at = self.slots[slot as usize].inode;
            if at == NONE {
                return None;
            }
        }
        Some(at)
    }

    fn hash(&self, dir: u32, name: &[u8]) -> u64 {
        self.hasher.hash_one((dir, name))
    }

    fn known_slot(&self, dir: u32, name: &[u8]) -> Option<u32> {
        let same =
            |slot: &u32| self.slots[*slot as usize].dir == dir && self.slot_name(*slot) == name;
        self.index.find(self.hash(dir, name), same).copied()
    }

    fn slot(&mut self, dir: u32, name: &[u8]) -> Result<u32> {
        if let Some(slot) = self.known_slot(dir, name) {
            return Ok(slot);
        }
        let slot = number(self.slots.len())?;
        let name_at = number(self.names.len())?;
        let next = self.inode(dir).first;
        let name_length = u8::try_from(name.len()).map_err(|_| Misplaced::Full)?;
        self.names.extend_from_slice(name);
        self.slots.push(Slot { dir, name_at, name_length, whiteout: false, inode: NONE, next });
        self.inodes[dir as usize].first = slot;
        let hash = self.hash(dir, name);
        let (slots, names, hasher) = (&self.slots, &self.names, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| {
            let slot = &slots[*slot as usize];
            let start = slot.name_at as usize;
            hasher.hash_one((slot.dir, &names[start..start + usize::from(slot.name_length)]))
        });
        Ok(slot)
    }

    /// Takes away what is called so, with everything in it. What was deleted in lower layers stays deleted.
    fn clear(&mut self, slot: u32) {
        let mut slots = vec![slot];
        while let Some(slot) = slots.pop() {
            let inode = std::mem::replace(&mut self.slots[slot as usize].inode, NONE);
            if inode != NONE && self.inode(inode).kind().is_dir() {
                slots.extend(self.slots_of(inode));
            }
        }
    }
}

fn implied_directory(parent: u32) -> Inode {
    Inode {
        mode: libc::S_IFDIR | 0o755,
        uid: 0,
        gid: 0,
        nlink: 2,
        major: 0,
        minor: 0,
        size: 0,
        mtime: Time::default(),
        xattrs: 0,
        first: NONE,
        count: 0,
        parent,
        opaque: false,
        implied: true,
    }
}

/// Numbers end before [`NONE`].
fn number(count: usize) -> Result<u32> {
    u32::try_from(count).ok().filter(|number| *number < NONE).ok_or(Misplaced::Full)
}

struct Hashed<W: Write> {
    file: BufWriter<W>,
    hasher: blake3::Hasher,
}

impl<W: Write> Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }
}
