//! The model: a plain POSIX tree in memory.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use crate::cases::op::Redirect;
use crate::cases::op::Target;
use crate::cases::text::Text;

mod admit;
mod apply;
mod inode;

pub use inode::{CAPABILITY, Inode, Kind, Stamp};

/// Index of an inode of the model; never reused.
pub type Ino = usize;

pub const ROOT: Ino = 0;
/// What an operation gives back, apart from an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Count(usize),
    Bytes(Text),
    Names(BTreeSet<Text>),
    /// An object (or its absence) whose attributes are to be compared.
    Object(Option<Ino>),
}

/// How the filesystem under test differs from a plain one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whiteouts are `.wh.` files: no new name may look like one.
    pub dot_files: bool,
    /// No writable layer: every change is EROFS.
    pub read_only: bool,
    /// How a directory that has a lower part is renamed; `None` if there is no such thing.
    pub redirect: Option<Redirect>,
}

#[derive(Clone, Debug)]
pub struct Tree {
    pub inodes: Vec<Inode>,
    pub held: BTreeMap<u8, Ino>,
    pub rules: Rules,
}

type Applied = Result<Outcome, Errno>;

impl Tree {
    /// A tree of nothing but a root directory.
    pub fn new() -> Tree {
        let root = Inode::new(Kind::Dir(BTreeMap::new()));
        Tree { inodes: vec![root], held: BTreeMap::new(), rules: Rules::default() }
    }

    pub fn add(&mut self, inode: Inode) -> Ino {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    pub fn entries(&self, dir: Ino) -> &BTreeMap<Text, Ino> {
        match &self.inodes[dir].kind {
            Kind::Dir(entries) => entries,
            _ => unreachable!("not a directory"),
        }
    }

    pub fn entries_mut(&mut self, dir: Ino) -> &mut BTreeMap<Text, Ino> {
        match &mut self.inodes[dir].kind {
            Kind::Dir(entries) => entries,
            _ => unreachable!("not a directory"),
        }
    }

    /// Every path with its inode, parents first, the root included.
    pub fn paths(&self) -> Vec<(Text, Ino)> {
        let mut paths = vec![(Text::default(), ROOT)];
        let mut next = 0;
        while let Some((path, ino)) = paths.get(next).cloned() {
            if let Kind::Dir(entries) = &self.inodes[ino].kind {
                paths.extend(entries.iter().map(|(name, &child)| (path.join(name), child)));
            }
            next += 1;
        }
        paths
    }

    /// The number of names an inode has in the tree.
    pub fn names_of(&self, ino: Ino) -> u32 {
        self.paths().iter().map(|(_, it)| u32::from(*it == ino)).sum()
    }

    pub fn resolve(&self, path: &Text) -> Option<Ino> {
        path.components().try_fold(ROOT, |at, name| match &self.inodes[at].kind {
            Kind::Dir(entries) => entries.get(&name).copied(),
            _ => None,
        })
    }

    /// The directory that holds or would hold `path`, and the last name.
    pub fn parent(&self, path: &Text) -> Option<(Ino, Text)> {
        let (parent, name) = path.split_last()?;
        let dir = self.resolve(&parent)?;
        self.inodes[dir].is_dir().then_some((dir, name))
    }

    /// The directories on the way to `path`.
    pub fn ancestors(&self, path: &Text) -> Vec<Ino> {
        let paths = self.paths().into_iter();
        paths.filter(|(it, _)| path.is_within(it) && it != path).map(|(_, ino)| ino).collect()
    }

    pub fn target(&self, target: &Target) -> Option<Ino> {
        match target {
            Target::At(path) => self.resolve(path),
            Target::Held(slot) => self.held.get(slot).copied(),
        }
    }

    fn file(&self, target: &Target) -> Option<&Inode> {
        self.target(target).map(|ino| &self.inodes[ino]).filter(|inode| inode.is_file())
    }

    /// Whether no path leads to the inode any more.
    pub fn is_dead(&self, ino: Ino) -> bool {
        ino != ROOT && self.names_of(ino) == 0
    }
}
