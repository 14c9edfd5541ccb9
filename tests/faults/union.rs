//! An open union, driven as the kernel would: by nodes that have been looked up before.

use std::ffi::OsStr;
use std::sync::Mutex;

use plyfs::overlay::{Attr, Caller, Config, Entry, NodeId, Overlay};
use rustix::io::Errno;

use crate::ground::Ground;
use crate::syscalls::watch;

pub type Answer<T> = Result<T, Errno>;

/// The user who asks.
pub const ROOT: Caller = Caller { uid: 0, gid: 0, thread: 0 };

/// An open union, and the references that are held on its nodes.
pub struct Union {
    pub overlay: Overlay,
    /// The nodes that an operation works on.
    pub nodes: Vec<NodeId>,
    held: Mutex<Vec<NodeId>>,
}

impl Union {
    pub fn open(config: &Config, ground: Ground) -> Self {
        let overlay = watch(|call| ground.answer(call), || Overlay::open(config).unwrap());
        Self { overlay, nodes: Vec::new(), held: Mutex::new(Vec::new()) }
    }

    /// The node at `path`, to be held until the union is closed.
    pub fn find(&self, path: &str) -> NodeId {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(NodeId::ROOT, |node, name| {
            let entry = self.overlay.lookup(node, OsStr::new(name)).unwrap();
            let node = entry.unwrap_or_else(|| panic!("{path} does not exist")).node;
            self.hold([node]);
            node
        })
    }

    pub fn hold(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.held.lock().unwrap().extend(nodes);
    }

    /// Keeps the reference that came with an answer, and shows the answer.
    pub fn enter(&self, entry: Entry) -> String {
        self.hold([entry.node]);
        shown(&entry.attr)
    }

    /// The number of nodes that stay when all references are given back: the root alone, if all is right.
    pub fn close(self) -> usize {
        for node in self.held.into_inner().unwrap() {
            self.overlay.forget(node, 1);
        }
        self.overlay.node_count()
    }
}

/// What a caller sees of attributes, as far as it is the same in every run.
pub fn shown(attr: &Attr) -> String {
    let size = if attr.kind().is_dir() { 0 } else { attr.size };
    let nlink = if attr.kind().is_dir() { 0 } else { attr.nlink };
    format!("mode {:o}, owner {}:{}, size {size}, nlink {nlink}", attr.mode, attr.uid, attr.gid)
}
