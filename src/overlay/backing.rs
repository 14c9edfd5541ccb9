//! Files of layers that the kernel may read and write by itself.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::fs::{FsWord, OFlags};

use super::file::DataFrom;
use super::node::{Node, NodeId};
use super::{Overlay, Result};
use crate::sys::stat::stat_fd;
use crate::sys::{Errno, FileKind};

/// The magic numbers of overlayfs and FUSE (linux/magic.h).
const STACKED: [FsWord; 2] = [0x794c_7630, 0x6573_5546];

/// The file that holds the data of a node now.
#[derive(Debug)]
pub struct Backing {
    /// It, open for reading.
    pub file: OwnedFd,
    /// Whether it is in a lower layer, so that a change would give the node another one.
    pub below: bool,
    /// Its size in bytes.
    pub size: u64,
}

impl Backing {
    /// Whether it can be read and written past the page cache (O_DIRECT).
    pub fn allows_direct(&self) -> bool {
        rustix::fs::fcntl_getfl(&self.file)
            .and_then(|flags| rustix::fs::fcntl_setfl(&self.file, flags | OFlags::DIRECT))
            .is_ok()
    }
}

/// A node itself, whatever gets its id when it is forgotten.
#[derive(Clone)]
pub struct Identity(Weak<Node>);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Overlay {
    /// The node that has the id now.
    ///
    /// # Errors
    /// `ESTALE` when nobody holds a reference on it.
    pub fn identity(&self, id: NodeId) -> Result<Identity> {
        self.node(id).map(|node| Identity(Arc::downgrade(&node)))
    }

    /// Opens what holds the data of a regular file.
    pub fn backing(&self, id: NodeId) -> Result<Backing> {
        let node = self.node(id)?;
        if node.kind != FileKind::Regular {
            return Err(Errno::INVAL);
        }
        let opened = self.descriptors.with_room(|| self.open_data(&node, false))?;
        let size = stat_fd(opened.fd.as_fd())?.size;
        Ok(Backing { file: opened.fd, below: opened.from == DataFrom::Below, size })
    }

    /// Whether a layer lies on a filesystem that may itself be stacked on others: overlayfs, or a FUSE filesystem that
    /// uses backing files.
    pub fn is_stacked(&self) -> bool {
        let upper = self.upper.iter().map(|upper| &*upper.root);
        self.lowers.root_fds().chain(upper).any(|root| {
            let magic = rustix::fs::fstatfs(root).map(|stat| stat.f_type);
            magic.is_ok_and(|magic| STACKED.contains(&magic))
        })
    }

    /// Whether the data of a file that was below has been copied up since.
    pub fn is_copied_up(&self, id: NodeId) -> Result<bool> {
        let node = self.node(id)?;
        let complete = node.state.lock().complete;
        Ok(complete)
    }
}
