//! A node: one object of the union, whatever its names and whichever layer it lies in now.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::copy_up::Wanted;
use super::directory::Directory;
use super::node_table::Key;
use super::pins::Pinned;
use crate::layer::descriptors::Key as DescriptorKey;
use crate::layer::{Descriptors, LowerPlace, Name};
use crate::sys::FileKind;

/// The identity of a node towards the callers; equal to its inode number wherever that is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

/// An object of the union.
pub(super) struct Node {
    pub id: NodeId,
    pub kind: FileKind,
    /// st_ino, constant over copy-up, rename and, where it can be stored, remount.
    pub ino: u64,
    /// References held by the caller; changed under the node table's lock only.
    pub lookups: AtomicU64,
    /// Names of other nodes in the table that are in this directory; changed like `lookups`.
    pub children: AtomicU64,
    /// Held during a copy-up of this node.
    pub copy_up: Mutex<()>,
    pub state: Mutex<NodeState>,
    /// Held while the layers are asked what is in this directory.
    pub reading: Mutex<()>,
    /// What is in the directory, of a directory.
    pub dir: Option<Box<RwLock<Directory>>>,
}

/// What may change about a node.
pub(super) struct NodeState {
    pub place: Place,
    /// The known names; empty for the root and for what has been deleted.
    pub names: Vec<NameRef>,
    /// Keeps an upper object reachable that has no known name.
    pub pinned: Option<Pinned>,
    /// Where the data of an upper metacopy file is, as soon as that is known.
    pub data_source: Option<LowerPlace>,
    /// Whether an upper file is known to hold its data itself, and not only attributes.
    pub complete: bool,
    /// What the next sync has to see to, if the object is in the upper layer. Changed under the `copy_up` lock, or
    /// before anybody else knows the node.
    pub unsynced: Unsynced,
    /// What is added to the link count that the backing inode reports.
    pub link_bias: i32,
    /// Whether the last change was that the capabilities of the file were taken away.
    pub lost_capabilities: bool,
    /// The keys under which the node table finds this node by its backing inode.
    pub keys: Vec<Key>,
}

/// What a sync of a node has to see to besides what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unsynced {
    /// Nothing.
    Nothing,
    /// All attributes, since the object came to be by more than what fdatasync(2) covers.
    Attributes,
    /// Its names in the upper layer too: for all that is known they are from a copy-up, of which whoever syncs
    /// knows nothing.
    Names,
}

/// Where a node's object lies.
#[derive(Clone)]
pub(super) enum Place {
    /// In the upper layer, under the names that are `in_upper`.
    Upper,
    /// In the upper layer, under this name in the index of hard links.
    Indexed(Name),
    /// In a lower layer.
    Lower(LowerPlace),
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

impl NodeState {
    /// Whether the upper layer has what is wanted, and every name that is known.
    pub fn is_settled(&self, wanted: Wanted) -> bool {
        let here = match wanted {
            Wanted::Attributes => !matches!(self.place, Place::Lower(_)),
            Wanted::Data | Wanted::Cut(_) => self.complete,
        };
        here && self.names.iter().all(|name| name.in_upper)
    }
}

impl Node {
    pub fn new(
        id: NodeId,
        kind: FileKind,
        ino: u64,
        place: Place,
        directory: Option<Directory>,
    ) -> Self {
        let state = NodeState {
            place,
            names: Vec::new(),
            pinned: None,
            data_source: None,
            complete: false,
            unsynced: Unsynced::Names,
            link_bias: 0,
            lost_capabilities: false,
            keys: Vec::new(),
        };
        Self {
            id,
            kind,
            ino,
            lookups: AtomicU64::new(0),
            children: AtomicU64::new(0),
            copy_up: Mutex::new(()),
            state: Mutex::new(state),
            reading: Mutex::new(()),
            dir: directory.map(|directory| Box::new(RwLock::new(directory))),
        }
    }

    pub fn is_root(&self) -> bool {
        self.id == NodeId::ROOT
    }

    pub fn is_upper(&self) -> bool {
        !matches!(self.state.lock().place, Place::Lower(_))
    }

    pub fn has_name(&self, parent: &Node, name: &OsStr) -> bool {
        self.state.lock().names.iter().any(|known| known.is(parent, name))
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
        added.parent.children.fetch_add(1, Ordering::Relaxed);
        // Nearly everything has one name.
        state.names.reserve_exact(1);
        state.names.push(added);
    }

    /// Takes a name away.
    pub fn remove_name(&self, parent: &Node, name: &OsStr) {
        let mut state = self.state.lock();
        if let Some(at) = state.names.iter().position(|known| known.is(parent, name)) {
            let removed = state.names.swap_remove(at);
            removed.parent.children.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The directory that this one is in (itself for the root); `None` for a deleted one.
    pub fn parent(self: &Arc<Self>) -> Option<Arc<Self>> {
        if self.is_root() {
            return Some(self.clone());
        }
        self.state.lock().names.first().map(|name| name.parent.clone())
    }

    /// A path of this node in the union, for messages.
    pub fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut next = self.state.lock().names.first().cloned();
        while let Some(name) = next {
            next = name.parent.state.lock().names.first().cloned();
            names.push(name.name);
        }
        names.push(Name::from(OsStr::new("/")));
        names.iter().rev().map(|name| &**name).collect()
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
