//! All nodes that the caller holds references on, or that are ancestors of such.
//!
//! There is at most one node for an object: found again by the id that its parent's name table keeps, or,
//! for objects with several names, by the inode behind it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

pub(super) struct NodeTable {
    inner: Mutex<Inner>,
}

struct Inner {
    nodes: HashMap<NodeId, Arc<Node>>,
    by_key: HashMap<Key, NodeId>,
    next_own_id: u64,
}

impl NodeTable {
    /// A table that holds the root, for ever.
    pub fn new(root: Arc<Node>) -> Self {
        let nodes = HashMap::from([(root.id, root)]);
        let inner = Inner { nodes, by_key: HashMap::new(), next_own_id: FIRST_OWN_ID };
        Self { inner: Mutex::new(inner) }
    }

    pub fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        self.inner.lock().nodes.get(&id).cloned()
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
    /// a new one. It is entered under its keys if it is `linked`: if it can have other names. `make` gets the new node's id, which is `number` where that is free.
    pub fn intern(
        &self,
        slot: &AtomicU64,
        name: NameRef,
        keys: &[Key],
        linked: bool,
        number: u64,
        make: impl FnOnce(NodeId) -> Node,
    ) -> Arc<Node> {
        let mut inner = self.inner.lock();
        if let Some(node) = inner.named(slot, &name) {
            return node;
        }
        let known = keys.iter().find_map(|key| inner.by_key.get(key)).copied();
        let node = match known.and_then(|id| inner.nodes.get(&id).cloned()) {
            Some(node) => node,
            None => {
                let node = Arc::new(make(inner.free_id(number)));
                inner.nodes.insert(node.id, node.clone());
                node
            }
        };
        if linked {
            inner.register(&node, keys);
        }
        node.lookups.fetch_add(1, Ordering::Relaxed);
        slot.store(node.id.0, Ordering::Relaxed);
        node.add_name(name);
        node
    }

    /// Makes `node` findable by the inode that `key` names.
    pub fn register(&self, node: &Arc<Node>, key: Key) {
        self.inner.lock().register(node, &[key]);
    }

    /// Gives `count` references back. Returns the nodes that are gone by that, ancestors that only they
    /// kept included.
    pub fn forget(&self, id: NodeId, count: u64) -> Vec<Arc<Node>> {
        let mut inner = self.inner.lock();
        let Some(node) = inner.nodes.get(&id).cloned() else { return Vec::new() };
        let held = node.lookups.load(Ordering::Relaxed);
        node.lookups.store(held.saturating_sub(count), Ordering::Relaxed);
        let mut gone = Vec::new();
        let mut unsure = vec![node];
        while let Some(node) = unsure.pop() {
            if inner.remove_unused(&node) {
                let names = std::mem::take(&mut node.state.lock().names);
                for name in names {
                    name.parent.children.fetch_sub(1, Ordering::Relaxed);
                    unsure.push(name.parent);
                }
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
        for node in self.inner.get_mut().nodes.values() {
            node.state.lock().names = Vec::new();
        }
    }
}

impl Inner {
    fn named(&self, slot: &AtomicU64, name: &NameRef) -> Option<Arc<Node>> {
        let id = slot.load(Ordering::Relaxed);
        let node = self.nodes.get(&NodeId(id)).filter(|_| id != 0)?;
        if !node.has_name(&name.parent, &name.name) {
            return None;
        }
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Some(node.clone())
    }

    fn register(&mut self, node: &Arc<Node>, keys: &[Key]) {
        for key in keys {
            if self.by_key.insert(*key, node.id).is_none() {
                node.state.lock().keys.push(*key);
            }
        }
    }

    fn free_id(&mut self, number: u64) -> NodeId {
        let wanted = NodeId(number);
        let usable = number > NodeId::ROOT.0 && number < FIRST_OWN_ID;
        if usable && !self.nodes.contains_key(&wanted) {
            return wanted;
        }
        self.next_own_id += 1;
        NodeId(self.next_own_id)
    }

    /// Gives memory back when most of the nodes are gone.
    fn shrink(&mut self) {
        const SMALL: usize = 4096;
        let wanted = (2 * self.nodes.len()).max(SMALL);
        if self.nodes.capacity() > 4 * wanted {
            self.nodes.shrink_to(wanted);
            self.by_key.shrink_to(wanted.min(2 * self.by_key.len()));
        }
    }

    fn remove_unused(&mut self, node: &Arc<Node>) -> bool {
        let used = node.is_root()
            || node.lookups.load(Ordering::Relaxed) > 0
            || node.children.load(Ordering::Relaxed) > 0;
        if used || self.nodes.remove(&node.id).is_none() {
            return false;
        }
        for key in std::mem::take(&mut node.state.lock().keys) {
            if self.by_key.get(&key) == Some(&node.id) {
                self.by_key.remove(&key);
            }
        }
        true
    }
}
