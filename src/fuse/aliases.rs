//! More ids for one node.
//!
//! To the kernel an id is an inode, and an inode is read by it from one file at a time. A node whose file changes under
//! somebody who goes on reading the former one gets another id, so that the kernel has two inodes: the old one for those
//! who have it open, the new one for whoever looks the name up from then on. The inode number that stat(2) shows stays.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::INodeNo;
use parking_lot::Mutex;

use crate::overlay::{Identity, NodeId};

/// No node has an id from here on: inode numbers end at 2^63, and the union counts its own ids from there.
const FIRST: u64 = 3 << 62;

/// The ids that nodes have besides their own.
#[derive(Default)]
pub(super) struct Aliases {
    /// Whether there is one.
    any: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    nodes: HashMap<u64, NodeId>,
    /// Of each node, oldest first.
    aliases: HashMap<NodeId, (Identity, Vec<u64>)>,
    made: u64,
}

impl Aliases {
    /// The node behind an id of the kernel.
    pub fn node(&self, ino: INodeNo) -> NodeId {
        match ino.0 < FIRST {
            true => NodeId(ino.0),
            // An id that has been forgotten: there is no such node.
            false => self.inner.lock().nodes.get(&ino.0).copied().unwrap_or(NodeId(ino.0)),
        }
    }

    /// Whether a node has more than one id. Then none of them is told of changes that are made by another.
    pub fn has_several(&self, node: NodeId) -> bool {
        self.any() && self.inner.lock().aliases.contains_key(&node)
    }

    /// The id that lookups answer with.
    pub fn newest(&self, node: NodeId, identity: impl FnOnce() -> Option<Identity>) -> INodeNo {
        if !self.any() {
            return INodeNo(node.0);
        }
        let inner = self.inner.lock();
        let newest = inner.aliases.get(&node).and_then(|(known, aliases)| {
            let same = identity().is_some_and(|now| now == *known);
            aliases.last().filter(|_| same).copied()
        });
        INodeNo(newest.unwrap_or(node.0))
    }

    /// Gives a node another id, unless it has got a newer one than `ino` already.
    pub fn retire(&self, ino: INodeNo, node: NodeId, identity: Identity) {
        let mut inner = self.inner.lock();
        inner.drop_foreign(node, Some(&identity));
        let newest = inner.aliases.get(&node).and_then(|(_, aliases)| aliases.last());
        if *newest.unwrap_or(&node.0) != ino.0 {
            return;
        }
        let alias = FIRST + inner.made;
        inner.made += 1;
        inner.nodes.insert(alias, node);
        inner.aliases.entry(node).or_insert_with(|| (identity, Vec::new())).1.push(alias);
        self.any.store(true, Ordering::Relaxed);
    }

    /// Forgets the ids of a node that is gone; `identity` is that of the node which has its id now.
    pub fn forget(&self, node: NodeId, identity: Option<&Identity>) {
        if self.any() {
            self.inner.lock().drop_foreign(node, identity);
        }
    }

    fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn drop_foreign(&mut self, node: NodeId, identity: Option<&Identity>) {
        if self.aliases.get(&node).is_some_and(|(known, _)| Some(known) != identity)
            && let Some((_, aliases)) = self.aliases.remove(&node)
        {
            for alias in aliases {
                self.nodes.remove(&alias);
            }
        }
    }
}
