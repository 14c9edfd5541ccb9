//! The union: what a tree of layers means and how it changes.
//!
//! No FUSE types, no system calls and no host paths: callers name objects by [`NodeId`], and layers do
//! the work on disk. The files follow the kernel's fs/overlayfs, so that whoever knows one finds his way
//! in the other: lookup (namei.c), directory and read_dir (readdir.c), create, remove and rename
//! (dir.c), attr (inode.c), file (file.c), copy_up (copy_up.c), xattr (xattrs.c).
//!
//! # Locks
//!
//! Taken in this order, each released before anything that may wait for one further up:
//!
//! 1. a node's `copy_up` lock, ancestors first: one copy-up of a node at a time, held while its data
//!    moves, so that only those who need this very copy wait; and one first sync;
//! 2. directory locks (`Node::dir`): an ancestor before its descendant, two unrelated ones by node id; a
//!    node's `reading` lock before its own directory lock, which is free while layers are asked;
//! 3. the rename lock: shared while a path of names is turned into a descriptor, exclusive for the
//!    moment in which a directory gets another name;
//! 4. the lock on lent rights (`layer::owner_rights`), held for the steps of one change on disk;
//! 5. leaves, held for no system call and never together, but for a node's state inside the node table:
//!    the node table, the state of one node, the descriptor cache, the pins, the index.

mod acl;
mod attr;
mod backing;
mod capability;
mod changing;
mod copy_attributes;
mod copy_up;
mod create;
mod directory;
mod figures;
mod file;
mod hard_link;
pub mod id_map;
mod ids;
mod inode_number;
mod locate;
mod lookup;
mod mark_names;
mod metacopy;
mod name_table;
mod node;
mod node_state;
mod node_table;
mod open;
mod pins;
mod protection;
mod read_dir;
mod remove;
mod rename;
mod resume;
mod sync;
mod xattr;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

pub use crate::layer::windows::{SHORTEST_READ as SHORTEST_VIEW, View};
pub use attr::{Attr, SetAttr};
pub use backing::{Backing, Identity};
pub use figures::Figures;
pub use file::{Allocate, FilesystemStat, SeekTo};
pub use ids::Ids;
pub use node::NodeId;
pub use open::{Config, OpenError, RedirectPolicy, UpperDirs};
pub use read_dir::{DirEntry, Flow};
pub use rename::RenameFlags;
pub use resume::Census;

use crate::layer::windows::Windows;
use crate::layer::{Descriptors, Lowers, Upper};
use crate::sys::{Errno, Result, process};
use changing::Changing;
use figures::Done;
use inode_number::InodeNumbers;
use node::Node;
use node_table::NodeTable;
use pins::Pins;

/// Who asks for something to be made or changed: the ids that the mount shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// The thread that asks, from which its other groups can be learnt; 0 where this process cannot see it.
    pub thread: u32,
}

impl Caller {
    /// Whether listxattr(2) names this attribute to the caller: `trusted.` is for root alone, and FUSE leaves
    /// that to the daemon (xattr(7)).
    pub fn sees_attribute(self, name: &OsStr) -> bool {
        self.uid == 0 || !name.as_bytes().starts_with(b"trusted.")
    }

    /// Whether a file of group `gid` may have its set-group-id bit in spite of what the caller does: root may
    /// keep it, and a member of the group (the kernel's `in_group_or_capable`).
    fn may_keep_group_bit(self, gid: u32) -> bool {
        self.uid == 0
            || self.gid == gid
            || process::supplementary_groups(self.thread).is_ok_and(|groups| groups.contains(&gid))
    }
}

/// What a lookup or a creation found: the node, on which the caller holds one more reference, and its
/// attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The node.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
}

/// How long a thread is likely to be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// As long as a disk needs for a small file.
    Short,
    /// Nobody knows.
    Long,
}

/// For fewer forgotten nodes and names it is not worth to look for memory that can be given back.
const FORGOTTEN_TO_TRIM: usize = 5000;

/// A union of layers.
pub struct Overlay {
    lowers: Lowers,
    upper: Option<Upper>,
    nodes: NodeTable,
    descriptors: Arc<Descriptors>,
    windows: Windows,
    /// Whether somebody changes files of lower layers meanwhile.
    lowers_change: bool,
    /// Called by whoever is about to do what takes long.
    delayed: Box<dyn Fn(Delay) + Send + Sync>,
    numbers: InodeNumbers,
    ids: Ids,
    redirect: RedirectPolicy,
    /// Whether a change of attributes leaves the data below.
    metacopy: bool,
    refuse_redirects: bool,
    /// The ids under which this process makes files.
    own: Caller,
    rename_lock: RwLock<()>,
    pins: Pins,
    /// What is known about lower layers, if others change them.
    changing: Option<Changing>,
    /// Nodes, and names in directories, that have been forgotten since memory was last given back.
    forgotten: AtomicUsize,
    done: Done,
}

impl Overlay {
    /// Has `delayed` called, from now on, by every thread that is about to wait for a disk, as far as that is known.
    pub fn tell_delays(&mut self, delayed: impl Fn(Delay) + Send + Sync + 'static) {
        self.delayed = Box::new(delayed);
    }

    /// Says that somebody will change files of lower layers meanwhile: nothing is remembered of their size and
    /// content then.
    pub fn expect_changes_below(&mut self) {
        self.lowers_change = true;
    }

    /// Whether lower layers are not to be relied on to stay as they are.
    fn lowers_may_change(&self) -> bool {
        self.lowers_change || self.changing.is_some()
    }

    /// The node `id`.
    ///
    /// # Errors
    /// `ESTALE` when nobody holds a reference on it.
    fn node(&self, id: NodeId) -> Result<Arc<Node>> {
        self.nodes.get(id).ok_or(Errno::STALE)
    }

    /// The upper layer.
    ///
    /// # Errors
    /// `EROFS` without one.
    fn writable(&self) -> Result<&Upper> {
        self.upper.as_ref().ok_or(Errno::ROFS)
    }

    /// Gives `count` references on a node back.
    pub fn forget(&self, id: NodeId, count: u64) {
        for gone in self.nodes.forget(id, count) {
            gone.close(&self.descriptors);
            self.unpin(&gone);
            if let Some(changing) = &self.changing {
                changing.forget(gone.id);
            }
            let names = Arc::into_inner(gone).map_or(0, Node::into_names);
            self.give_memory_back(1 + names);
        }
    }

    /// Gives memory back whenever more has been forgotten than is left.
    fn give_memory_back(&self, forgotten: usize) {
        let all = self.forgotten.fetch_add(forgotten, Ordering::Relaxed) + forgotten;
        if all > FORGOTTEN_TO_TRIM && all > self.nodes.len() {
            self.forgotten.store(0, Ordering::Relaxed);
            crate::sys::process::give_memory_back();
        }
    }

    /// The number of nodes that are referred to, the root included.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }
}
