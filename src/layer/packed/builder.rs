//! Building a packed layer out of entries that come in any order.
//!
//! Entries may come twice, directories may come after what is in them, and a whiteout may come before or after an object
//! of its name, which it does not concern (OCI image specification, "Whiteouts": they apply to lower layers only).

//!
//! What is known so far is in `Pages`: the memory that a layer takes does not depend on how much is in it.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::format::{CONTENT_SIZE, INODE_SIZE, Inode, NONE, ROOT};
use super::pages::Pages;
use super::slots::{Slot, Slots};
use crate::sys::{FileKind, Time};

/// A layer that is being built. It takes up to about 40 MB of memory, and some 150 bytes on disk for each name that has
/// no room there.
pub struct Builder {
    pub(super) folder: Arc<Path>,
    /// While a layer is built, the `first` of a directory's inode is its first slot.
    inodes: Pages,
    inode_count: u32,
    pub(super) slots: Slots,
    pub(super) contents: Pages,
    pub(super) xattrs: Pages,
    trail: Trail,
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

/// Why something was not put into a layer.
#[derive(Debug)]
pub enum Failure {
    /// It cannot be there.
    Misplaced(Misplaced),
    /// What is known of the layer cannot be written or read.
    Disk(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misplaced(why) => why.fmt(f),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Misplaced> for Failure {
    fn from(why: Misplaced) -> Self {
        Self::Misplaced(why)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Whether something took the place of something else that was there by the same archive.
pub type Replaced = bool;

type Result<T> = std::result::Result<T, Failure>;

/// The most names in a layer, those of implied directories included.
const MOST_NAMES: u32 = 1 << 24;

/// Memory for inodes, for contents and for extended attributes, in bytes.
const INODES: usize = 6 << 20;
const CONTENTS: usize = 1 << 20;
const XATTRS: usize = 1 << 20;

impl Builder {
    /// An empty layer. What has no room in memory goes to files without names in `folder`.
    ///
    /// # Errors
    /// Here and below, besides what is said there: those of writing and reading these files.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let folder: Arc<Path> = folder.into();
        let pages = |memory| Pages::new(folder.clone(), memory);
        let mut builder = Self {
            inodes: pages(INODES),
            inode_count: 0,
            slots: Slots::new(&folder),
            contents: pages(CONTENTS),
            xattrs: pages(XATTRS),
            trail: Trail::default(),
            folder,
        };
        builder.inodes.push(&implied_directory(ROOT).write())?;
        builder.inode_count = 1;
        Ok(builder)
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
                return Err(Misplaced::Root.into());
            }
            return self.describe_again(ROOT, object);
        };
        let slot = self.slot(dir, name)?;
        let there = self.slots.get(slot)?.inode;
        if is_dir && there != NONE && self.inode(there)?.kind().is_dir() {
            return self.describe_again(there, object);
        }
        let inode = self.described(&implied_directory(dir), object)?;
        let inode = self.new_inode(&inode)?;
        self.replace(slot, inode)
    }

    /// Gives what is at `target` the name `path` too.
    pub fn link<'p>(
        &mut self,
        path: impl DoubleEndedIterator<Item = &'p [u8]>,
        target: impl Iterator<Item = &'p [u8]>,
    ) -> Result<Replaced> {
        let inode = self.find(target)?.ok_or(Misplaced::NoTarget)?;
        if self.inode(inode)?.kind().is_dir() {
            return Err(Misplaced::DirectoryTarget.into());
        }
        let (dir, name) = self.parent(path)?.ok_or(Misplaced::Root)?;
        let slot = self.slot(dir, name)?;
        if self.slots.get(slot)?.inode == inode {
            return Ok(false);
        }
        self.replace(slot, inode)
    }

    /// Notes that `name` in the directory `dir` is deleted in the layers below.
    pub fn whiteout<'p>(&mut self, dir: impl Iterator<Item = &'p [u8]>, name: &[u8]) -> Result<()> {
        let dir = self.directory(dir)?;
        let number = self.slot(dir, name)?;
        let slot = self.slots.get(number)?;
        Ok(self.slots.set(number, &Slot { whiteout: true, ..slot })?)
    }

    /// Notes that nothing of what the layers below have in the directory `dir` is there.
    pub fn opaque<'p>(&mut self, dir: impl Iterator<Item = &'p [u8]>) -> Result<()> {
        let dir = self.directory(dir)?;
        let inode = self.inode(dir)?;
        Ok(self.set_inode(dir, &Inode { opaque: true, ..inode })?)
    }

    pub(super) fn inode(&mut self, number: u32) -> io::Result<Inode> {
        let record: [u8; INODE_SIZE] = self.inodes.get(number)?;
        Inode::read(&record).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(super) fn set_inode(&mut self, number: u32, inode: &Inode) -> io::Result<()> {
        self.inodes.set(number, inode.write())
    }

    fn new_inode(&mut self, inode: &Inode) -> Result<u32> {
        let number = self.inode_count;
        if number == NONE {
            return Err(Misplaced::Full.into());
        }
        self.set_inode(number, inode)?;
        self.inode_count += 1;
        Ok(number)
    }

    /// Writes down what is known of a directory that is there.
    fn describe_again(&mut self, dir: u32, object: Object<'_>) -> Result<Replaced> {
        let known = self.inode(dir)?;
        let inode = self.described(&known, object)?;
        self.set_inode(dir, &inode)?;
        Ok(!known.implied)
    }

    /// The inode of an object, which has from `known` what belongs to its place.
    fn described(&mut self, known: &Inode, object: Object<'_>) -> Result<Inode> {
        let Object { mode, uid, gid, mtime, body, xattrs } = object;
        let xattrs = self.add_xattrs(xattrs)?;
        let (mut first, mut count, mut size) = (NONE, 0, 0);
        let (mut major, mut minor) = (0, 0);
        match body {
            Body::Content(of, content) => {
                size = of;
                if let Some(content) = content {
                    first = number(self.contents.push(&content)? / CONTENT_SIZE as u64)?;
                }
            }
            Body::Target(target) => {
                first = number(self.slots.names.push(target)?)?;
                count = target.len() as u32;
                size = target.len() as u64;
            }
            Body::Number(of, which) => (major, minor) = (of, which),
            Body::Nothing => {}
        }
        if FileKind::from_mode(mode).is_dir() {
            (first, count) = (known.first, known.count);
        }
        let Inode { parent, opaque, nlink, .. } = *known;
        let implied = false;
        Ok(Inode {
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
        })
    }

    fn add_xattrs<'x>(
        &mut self,
        xattrs: &mut dyn Iterator<Item = (&'x [u8], &'x [u8])>,
    ) -> Result<u32> {
        let mut record = Vec::new();
        let mut count = 0_u32;
        for (name, value) in xattrs {
            if count == 0 {
                record.extend_from_slice(&[0; 4]);
            }
            count += 1;
            for length in [name.len(), value.len()] {
                record.extend_from_slice(&(length as u32).to_le_bytes());
            }
            record.extend_from_slice(name);
            record.extend_from_slice(value);
        }
        if count == 0 {
            return Ok(0);
        }
        record[..4].copy_from_slice(&count.to_le_bytes());
        Ok(number(self.xattrs.push(&record)?)? + 1)
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
        for (depth, name) in path.enumerate() {
            if let Some(dir) = self.trail.step(depth, name) {
                at = dir;
                continue;
            }
            let number = self.slot(at, name)?;
            let slot = self.slots.get(number)?;
            let mut dir = slot.inode;
            if dir == NONE {
                dir = self.new_inode(&implied_directory(at))?;
                self.slots.set(number, &Slot { inode: dir, ..slot })?;
            } else if !self.inode(dir)?.kind().is_dir() {
                return Err(Misplaced::NotInDirectory.into());
            }
            self.trail.lead(depth, name, dir);
            at = dir;
        }
        Ok(at)
    }

    fn find<'p>(&mut self, path: impl Iterator<Item = &'p [u8]>) -> io::Result<Option<u32>> {
        let mut at = ROOT;
        for name in path {
            let Some(slot) = self.slots.find(at, name)? else { return Ok(None) };
            at = self.slots.get(slot)?.inode;
            if at == NONE {
                return Ok(None);
            }
        }
        Ok(Some(at))
    }

    /// The slot for `name` in the directory `dir`, made where it is missing.
    fn slot(&mut self, dir: u32, name: &[u8]) -> Result<u32> {
        if let Some(slot) = self.slots.find(dir, name)? {
            return Ok(slot);
        }
        if self.slots.count() == MOST_NAMES {
            return Err(Misplaced::Full.into());
        }
        let name_length = u8::try_from(name.len()).map_err(|_| Misplaced::Full)?;
        let name_at = number(self.slots.names.len())?;
        let inode = self.inode(dir)?;
        let next = inode.first;
        let slot = Slot { dir, name_at, name_length, whiteout: false, inode: NONE, next };
        let first = self.slots.add(&slot, name)?;
        self.set_inode(dir, &Inode { first, ..inode })?;
        Ok(first)
    }

    /// Has `slot` lead to `inode`. What was there goes, with everything in it; what was deleted in lower layers stays
    /// deleted.
    fn replace(&mut self, number: u32, inode: u32) -> Result<Replaced> {
        let slot = self.slots.get(number)?;
        self.slots.set(number, &Slot { inode, ..slot })?;
        // Of each directory on the way down, the next slot that is to be emptied.
        let mut emptied = Vec::new();
        let mut below = slot.inode;
        loop {
            if below != NONE && self.inode(below)?.kind().is_dir() {
                self.trail = Trail::default();
                emptied.push(self.inode(below)?.first);
            }
            let Some(next) = emptied.last_mut() else { break };
            if *next == NONE {
                emptied.pop();
                below = NONE;
                continue;
            }
            let slot = self.slots.get(*next)?;
            self.slots.set(*next, &Slot { inode: NONE, ..slot })?;
            *next = slot.next;
            below = slot.inode;
        }
        Ok(slot.inode != NONE)
    }
}

/// The way to the directory that was looked for last: the next entry of an archive is mostly there too.
#[derive(Default)]
struct Trail {
    names: Vec<u8>,
    /// Of each directory on it, where its name ends in `names`, and its inode.
    steps: Vec<(usize, u32)>,
}

impl Trail {
    /// The inode of the directory `name`, if it is the one at this depth.
    fn step(&self, depth: usize, name: &[u8]) -> Option<u32> {
        let (end, inode) = *self.steps.get(depth)?;
        (self.names[self.start(depth)..end] == *name).then_some(inode)
    }

    /// Goes on from this depth to another directory.
    fn lead(&mut self, depth: usize, name: &[u8], inode: u32) {
        self.names.truncate(self.start(depth));
        self.steps.truncate(depth);
        self.names.extend_from_slice(name);
        self.steps.push((self.names.len(), inode));
    }

    fn start(&self, depth: usize) -> usize {
        depth.checked_sub(1).map_or(0, |above| self.steps[above].0)
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
fn number(count: u64) -> Result<u32> {
    u32::try_from(count).ok().filter(|number| *number < NONE).ok_or_else(|| Misplaced::Full.into())
}
