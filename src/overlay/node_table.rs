//! All nodes that the caller holds references on, or that are ancestors of such.
//!
//! There is at most one node for an object: found again by the id that its parent's name table keeps, or,
//! for objects with several names, by the inode behind it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;

use super::node::{NameRef, Node, NodeId};
use crate::layer::LayerIndex;

/// The inode behind a node. The layer is part of it: two layers may be links to the same files on the
/// host, and still are different files of the union.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub layer: LayerIndex,
    pub dev: u64,
    pub ino: u64,
}

/// Ids from here on are not inode numbers.
const FIRST_OWN_ID: u64 = 1 << 63;

/// Ids of objects that are new to a process which has taken the union over: their number, and from this bit on the place
/// of that process in the row of all.
const GENERATION_SHIFT: u32 = 48;

/// Where that process begins to count ids that are not even this.
const COUNTER_SHIFT: u32 = 40;

/// Added to the number of a lower file that has several names, where numbers are looked up.
pub(super) const SHARED: u64 = 1 << 63;

/// The ids of objects that were there when a process took the union over.
#[derive(Default)]
pub(super) struct KnownIds {
    /// By the number, with [`SHARED`] or not.
    pub ids: HashMap<u64, u64>,
    /// How many processes came before.
    pub generation: u16,
}

impl KnownIds {
    /// The id for an object with this number, if it can have one that the next process finds out again.
    pub fn id(&self, number: u64, shared: bool) -> Option<NodeId> {
        let as_it_was = if shared { None } else { self.ids.get(&number) };
        // One that has been copied up since is no lower file any more.
        let known = as_it_was.or_else(|| self.ids.get(&(number | SHARED)));
        known.map(|id| NodeId(*id)).or_else(|| new_id(self.generation, number))
    }

    /// The id of an object that was there.
    pub fn known(&self, number: u64) -> Option<NodeId> {
        self.ids.get(&number).or_else(|| self.ids.get(&(number | SHARED))).map(|id| NodeId(*id))
    }
}

/// The id of an object with this number that was not there when the process of that `generation` began.
pub(super) fn new_id(generation: u16, number: u64) -> Option<NodeId> {
    if number <= NodeId::ROOT.0 || number >= FIRST_OWN_ID {
        return None;
    }
    match generation {
        0 => Some(NodeId(number)),
        _ if number >> GENERATION_SHIFT != 0 => None,
        _ => Some(NodeId(FIRST_OWN_ID | (u64::from(generation) << GENERATION_SHIFT) | number)),
    }
}

/// The number of the object that has this id, if it is none that was counted.
pub(super) fn number(id: NodeId) -> u64 {
    match id.0 < FIRST_OWN_ID {
        true => id.0,
        false => id.0 & ((1 << GENERATION_SHIFT) - 1),
    }
}

pub(super) struct NodeTable {
    inner: Mutex<Inner>,
}

struct Inner {
    nodes: HashTable<Arc<Node>>,
    hasher: DefaultHashBuilder,
    by_key: HashMap<Key, NodeId>,
    next_own_id: u64,
    known: KnownIds,
    /// Called when a number is met that is the id of another object.
    clashed: Option<Box<dyn Fn() + Send + Sync>>,
}

impl NodeTable {
    /// A table that holds the root, for ever.
    pub fn new(root: Arc<Node>) -> Self {
        let mut inner = Inner {
            nodes: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            by_key: HashMap::new(),
            next_own_id: FIRST_OWN_ID,
            known: KnownIds::default(),
            clashed: None,
        };
        inner.insert(root);
        Self { inner: Mutex::new(inner) }
    }

    pub fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        self.inner.lock().get(id).cloned()
    }

    /// Takes one more reference on a node; false if it is not known.
    pub fn refer(&self, id: NodeId) -> bool {
        let inner = self.inner.lock();
        inner.get(id).map(|node| node.lookups.add_one()).is_some()
    }

    /// Has `told` called whenever an object cannot have its number as its id.
    pub fn tell_clashes(&mut self, told: Box<dyn Fn() + Send + Sync>) {
        self.inner.get_mut().clashed = Some(told);
    }

    /// Has objects get these ids from now on.
    pub fn take_over(&self, known: KnownIds) {
        let mut inner = self.inner.lock();
        inner.next_own_id = FIRST_OWN_ID + (u64::from(known.generation) << COUNTER_SHIFT);
        inner.known = known;
    }

    /// The id of an object that was there when this process took over.
    pub fn known(&self, number: u64) -> Option<NodeId> {
        self.inner.lock().known.known(number)
    }

    pub fn len(&self) -> usize {
        self.inner.lock().nodes.len()
    }

    /// The node known for a name, with one more reference. `slot` is the id that the parent's name table
    /// remembers, which may have been given to another node since.
    pub fn acquire(&self, slot: &AtomicU64, name: &NameRef) -> Option<Arc<Node>> {
        self.inner.lock().named(slot, name)
    }

    /// The node for a name, with one more reference: the one that is known by the name or by `keys`, else
    /// a new one. It is entered under its keys if it is `linked`: if it can have other names. `make` gets the new
    /// node's id, which is `number` where that is free, and the name for it. `shared` is whether other lower layers may
    /// have the same file.
    pub fn intern(
        &self,
        slot: &AtomicU64,
        name: NameRef,
        keys: &[Key],
        linked: bool,
        (number, shared): (u64, bool),
        make: impl FnOnce(NodeId, NameRef) -> Node,
    ) -> Arc<Node> {
        let mut inner = self.inner.lock();
        if let Some(node) = inner.named(slot, &name) {
            return node;
        }
        let known = keys.iter().find_map(|key| inner.by_key.get(key)).copied();
        let node = match known.and_then(|id| inner.get(id).cloned()) {
            Some(node) => {
                node.add_name(name);
                node
            }
            None => {
                let node = Arc::new(make(inner.free_id(number, shared), name));
                inner.insert(node.clone());
                node
            }
        };
        if linked {
            inner.register(&node, keys);
        }
        node.lookups.add_one();
        slot.store(node.id.0, Ordering::Relaxed);
        node
    }

    /// Makes `node` findable by the inode that `key` names.
    pub fn register(&self, node: &Arc<Node>, key: Key) {
        self.inner.lock().register(node, &[key]);
    }

    /// Takes a name away from the node `id`, which it does not lead to any more, and with its last name the inodes
    /// that it is found by. Returns the node if it had the name.
    pub fn part(&self, id: NodeId, parent: &Node, name: &OsStr) -> Option<Arc<Node>> {
        let mut inner = self.inner.lock();
        let node = inner.get(id).filter(|node| node.has_name(parent, name))?.clone();
        node.remove_name(parent, name);
        if node.first_name().is_none() {
            inner.unregister(&node);
        }
        Some(node)
    }

    /// Gives `count` references back. Returns the nodes that are gone by that, ancestors that only they
    /// kept included.
    pub fn forget(&self, id: NodeId, count: u64) -> Vec<Arc<Node>> {
        let mut inner = self.inner.lock();
        let Some(node) = inner.get(id).cloned() else { return Vec::new() };
        node.lookups.give_back(count);
        let mut gone = Vec::new();
        let mut unsure = vec![node];
        while let Some(node) = unsure.pop() {
            if inner.remove_unused(&node) {
                unsure.extend(node.take_names().into_iter().map(|name| name.parent));
                gone.push(node);
            }
        }
        inner.shrink();
        gone
    }
}

impl Drop for NodeTable {
    /// Takes the tree apart before the nodes go: a child holds its parent, and to drop a chain of them one
    /// inside the other would need as much stack as the tree is deep.
    fn drop(&mut self) {
        for node in &self.inner.get_mut().nodes {
            node.take_names();
        }
    }
}

impl Inner {
    fn get(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.find(self.hasher.hash_one(id), |node| node.id == id)
    }

    /// Adds a node whose id is free.
    fn insert(&mut self, node: Arc<Node>) {
        let hasher = &self.hasher;
        self.nodes.insert_unique(hasher.hash_one(node.id), node, |node| hasher.hash_one(node.id));
    }

    /// Takes a node out; false if it is not there.
    fn remove(&mut self, id: NodeId) -> bool {
        let found = self.nodes.find_entry(self.hasher.hash_one(id), |node| node.id == id);
        found.map(|entry| entry.remove()).is_ok()
    }

    fn named(&self, slot: &AtomicU64, name: &NameRef) -> Option<Arc<Node>> {
        let id = slot.load(Ordering::Relaxed);
        let node = self.get(NodeId(id)).filter(|_| id != 0)?;
        if !node.has_name(&name.parent, &name.name) {
            return None;
        }
        node.lookups.add_one();
        Some(node.clone())
    }

    fn register(&mut self, node: &Arc<Node>, keys: &[Key]) {
        for key in keys {
            if self.by_key.insert(*key, node.id).is_none() {
                node.state.lock().keys.push(*key);
            }
        }
    }

    fn free_id(&mut self, number: u64, shared: bool) -> NodeId {
        let wanted = self.known.id(number, shared);
        match wanted {
            Some(id) if self.get(id).is_none() => return id,
            Some(_) => {
                if let Some(clashed) = &self.clashed {
                    clashed();
                }
            }
            None => {}
        }
        self.next_own_id += 1;
        NodeId(self.next_own_id)
    }

    /// Gives memory back when most of the nodes are gone.
    fn shrink(&mut self) {
        const SMALL: usize = 4096;
        let wanted = (2 * self.nodes.len()).max(SMALL);
        if self.nodes.capacity() > 4 * wanted {
            let hasher = &self.hasher;
            self.nodes.shrink_to(wanted, |node| hasher.hash_one(node.id));
            self.by_key.shrink_to(wanted.min(2 * self.by_key.len()));
        }
    }

    fn remove_unused(&mut self, node: &Arc<Node>) -> bool {
        let used = node.is_root() || !node.lookups.is_zero() || node.has_children();
        if used || !self.remove(node.id) {
            return false;
        }
        self.unregister(node);
        true
    }

    fn unregister(&mut self, node: &Node) {
        for key in node.take_keys() {
            if self.by_key.get(&key) == Some(&node.id) {
                self.by_key.remove(&key);
            }
        }
    }
}
