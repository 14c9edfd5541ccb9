//! A node: one object of the union, whatever its names and whichever layer it lies in now.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::directory::Directory;
use super::node_state::{Place, Plain, StateCell};
use super::node_table::Key;
use super::protection::Remembered;
use crate::layer::descriptors::Key as DescriptorKey;
use crate::layer::{Descriptors, LowerPlace, Name, Protection};
use crate::sys::FileKind;

/// The identity of a node towards the callers; equal to its inode number wherever that is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

/// An object of the union. There is one for each file that the kernel remembers, so its size is what the daemon's
/// memory depends on.
pub(super) struct Node {
    pub id: NodeId,
    /// st_ino, constant over copy-up, rename and, where it can be stored, remount.
    pub ino: u64,
    /// References held by the caller; changed under the node table's lock only.
    pub lookups: Lookups,
    pub kind: FileKind,
    /// What is known of its attributes.
    pub remembered: Remembered,
    /// Held during a copy-up of this node.
    pub copy_up: Mutex<()>,
    /// Held while the layers are asked what is in this directory.
    pub reading: Mutex<()>,
    pub state: StateCell,
    /// What only directories have.
    pub dir: Option<Box<DirPart>>,
}

/// The part of a node that only directories have.
pub(super) struct DirPart {
    /// What is in the directory.
    pub contents: RwLock<Directory>,
    /// Names of other nodes in the table that are in this directory; changed like `lookups`.
    pub children: AtomicU64,
    /// How many names its lower parts list, as far as that can be known without reading them.
    pub listed: u32,
}

/// A count of references that the caller gives back one day. One that has become as large as it can stays so, and
/// the node stays too.
#[derive(Default)]
pub(super) struct Lookups(AtomicU32);

impl Lookups {
    /// One more.
    pub fn add_one(&self) {
        let more = self.0.load(Ordering::Relaxed).saturating_add(1);
        self.0.store(more, Ordering::Relaxed);
    }

    /// `count` are given back.
    pub fn give_back(&self, count: u64) {
        let held = self.0.load(Ordering::Relaxed);
        if held < u32::MAX {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.0.store(held.saturating_sub(count), Ordering::Relaxed);
        }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_zero(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// One name of a node.
#[derive(Clone)]
pub(super) struct NameRef {
    pub parent: Arc<Node>,
    pub name: Name,
    /// Whether the upper layer has the name, or only a lower one.
    pub in_upper: bool,
    /// Whether the name is about to go, or to move.
    pub leaving: bool,
}

impl NameRef {
    pub fn is(&self, parent: &Node, name: &OsStr) -> bool {
        self.parent.id == parent.id && &*self.name == name
    }
}

impl Node {
    /// A node without a name yet.
    pub fn new(
        id: NodeId,
        kind: FileKind,
        ino: u64,
        place: Place,
        directory: Option<Directory>,
    ) -> Self {
        Self::with(id, kind, ino, StateCell::new(place), directory)
    }

    /// A node of anything but a directory that is known by one name; see [`Plain`].
    pub fn plain(id: NodeId, kind: FileKind, ino: u64, plain: Plain) -> Self {
        plain.parent.count_child();
        Self::with(id, kind, ino, StateCell::plain(plain), None)
    }

    fn with(
        id: NodeId,
        kind: FileKind,
        ino: u64,
        state: StateCell,
        directory: Option<Directory>,
    ) -> Self {
        Self {
            id,
            ino,
            lookups: Lookups::default(),
            kind,
            remembered: Remembered::default(),
            copy_up: Mutex::new(()),
            reading: Mutex::new(()),
            state,
            dir: directory.map(|directory| {
                let listed = directory.listed;
                let contents = RwLock::new(directory);
                Box::new(DirPart { contents, children: AtomicU64::new(0), listed })
            }),
        }
    }

    /// The same node, of which `protection` is remembered if it is known.
    pub fn knowing(self, protection: Option<Protection>) -> Self {
        if let Some(protection) = protection {
            self.remembered.note_protection(protection);
        }
        self
    }

    /// Counts a name in this directory.
    pub fn count_child(&self) {
        if let Some(dir) = &self.dir {
            dir.children.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a name less in this directory.
    pub fn discount_child(&self) {
        if let Some(dir) = &self.dir {
            dir.children.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether names of other nodes are in this directory.
    pub fn has_children(&self) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.children.load(Ordering::Relaxed) > 0)
    }

    pub fn is_root(&self) -> bool {
        self.id == NodeId::ROOT
    }

    pub fn is_upper(&self) -> bool {
        self.state
            .look(|plain| plain.lower.is_none(), |state| !matches!(state.place, Place::Lower(_)))
    }

    pub fn has_name(&self, parent: &Node, name: &OsStr) -> bool {
        self.state.look(
            |plain| plain.is(parent, name),
            |state| state.names.iter().any(|known| known.is(parent, name)),
        )
    }

    /// Its first known name.
    pub fn first_name(&self) -> Option<NameRef> {
        self.state.look(|plain| Some(plain.name()), |state| state.names.first().cloned())
    }

    /// What is added to the link count that the backing inode reports.
    pub fn link_bias(&self) -> i32 {
        self.state.look(|_| 0, |state| state.link_bias)
    }

    /// Whether an upper file is known to hold its data itself, and not only attributes.
    pub fn is_complete(&self) -> bool {
        self.state.look(|_| false, |state| state.complete)
    }

    /// Where the data of an upper file is, if that is known: `None` inside for a file that holds it itself.
    pub fn known_data_source(&self) -> Option<Option<LowerPlace>> {
        self.state.look(
            |_| None,
            |state| {
                let known = state.complete || state.data_source.is_some();
                known.then(|| state.data_source.clone())
            },
        )
    }

    /// Adds a name, unless it is known.
    pub fn add_name(&self, added: NameRef) {
        let mut state = self.state.lock();
        if let Some(known) =
            state.names.iter_mut().find(|known| known.is(&added.parent, &added.name))
        {
            known.in_upper = added.in_upper;
            known.leaving = false;
            return;
        }
        added.parent.count_child();
        // Nearly everything has one name.
        state.names.reserve_exact(1);
        state.names.push(added);
    }

    /// Takes a name away.
    pub fn remove_name(&self, parent: &Node, name: &OsStr) {
        let mut state = self.state.lock();
        if let Some(at) = state.names.iter().position(|known| known.is(parent, name)) {
            let removed = state.names.swap_remove(at);
            removed.parent.discount_child();
        }
    }

    /// Takes the keys away under which the node table finds this node.
    pub fn take_keys(&self) -> Vec<Key> {
        if self.state.look(|_| true, |state| state.keys.is_empty()) {
            return Vec::new();
        }
        std::mem::take(&mut self.state.lock().keys)
    }

    /// Takes all names away.
    pub fn take_names(&self) -> Vec<NameRef> {
        let names = std::mem::take(&mut self.state.lock().names);
        for name in &names {
            name.parent.discount_child();
        }
        names
    }

    /// The directory that this one is in (itself for the root); `None` for a deleted one.
    pub fn parent(self: &Arc<Self>) -> Option<Arc<Self>> {
        if self.is_root() {
            return Some(self.clone());
        }
        self.first_name().map(|name| name.parent)
    }

    /// A path of this node in the union, for messages.
    pub fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut next = self.first_name();
        while let Some(name) = next {
            next = name.parent.first_name();
            names.push(name.name);
        }
        names.push(Name::from(OsStr::new("/")));
        names.iter().rev().map(|name| &**name).collect()
    }

    /// Ends the node, and returns how many names were remembered of it as a directory.
    pub fn into_names(self) -> usize {
        self.dir.map_or(0, |dir| dir.contents.into_inner().len())
    }

    /// Closes the descriptors that are kept for this node.
    pub fn close(&self, descriptors: &Descriptors) {
        if self.kind == FileKind::Regular {
            descriptors.remove(DescriptorKey::Data(self.id.0));
        } else if self.kind.is_dir() {
            descriptors.remove(DescriptorKey::UpperDir(self.id.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_small() {
        // With the two counts of its Arc, 88 bytes: what an allocator serves with 96.
        assert!(size_of::<Node>() <= 72, "{}", size_of::<Node>());
    }

    #[test]
    fn a_full_count_of_references_is_never_given_back() {
        let lookups = Lookups::default();
        lookups.add_one();
        lookups.give_back(2);
        assert!(lookups.is_zero());
        lookups.0.store(u32::MAX, Ordering::Relaxed);
        lookups.add_one();
        lookups.give_back(u64::MAX);
        assert!(!lookups.is_zero());
    }
}
