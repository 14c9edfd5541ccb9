//! Answering for a process that died: nodes and requests that the kernel knows, and this process does not.

use std::collections::HashSet;
use std::ffi::OsStr;

use fuser::{INodeNo, Notifier, Request};
use parking_lot::Mutex;

use super::Adapter;
use super::convert::node;
use crate::overlay::{Census, Entry, NodeId, RenameFlags};
use crate::sys::{Errno, Result};

/// The bit of a request's number that says that it has been sent before (`FUSE_UNIQUE_RESEND` of linux/fuse.h).
const RESENT: u64 = 1 << 63;

/// What another process left behind.
pub(super) struct Resumed {
    census: Mutex<Census>,
    /// Directories that somebody began to list since then: places in them mean something.
    listed: Mutex<HashSet<u64>>,
}

/// Whether somebody may have done what is asked for already. The kernel lets nobody else change the names meanwhile.
pub(super) fn is_resent(request: &Request) -> bool {
    u64::from(request.unique()) & RESENT != 0
}

impl Resumed {
    pub fn new(census: Census) -> Self {
        Self { census: Mutex::new(census), listed: Mutex::default() }
    }
}

impl Adapter {
    /// Has the union know the node behind an id of the kernel, if it still exists.
    pub(super) fn revive(&self, ino: INodeNo) {
        let Some(resumed) = &self.resumed else { return };
        if self.overlay.references(node(ino)).is_some() {
            return;
        }
        // Two who ask for the same node must not both count it.
        let census = resumed.census.lock();
        if self.overlay.references(node(ino)).is_some() {
            return;
        }
        // The reference is the kernel's, which gives it back with its own.
        self.overlay.revive(&census, node(ino));
    }

    /// The same for what a name leads to, which is about to lose the name.
    pub(super) fn revive_child(&self, parent: INodeNo, name: &OsStr) {
        let Some(resumed) = &self.resumed else { return };
        let _one_at_a_time = resumed.census.lock();
        if let Ok(Some(entry)) = self.overlay.lookup(node(parent), name)
            && self.overlay.references(entry.node) > Some(1)
        {
            self.overlay.forget(entry.node, 1);
        }
    }

    /// Has the kernel forget what it knows of listings, of which it may have the first part only.
    pub fn forget_listings(&self, notifier: &Notifier) {
        let Some(resumed) = &self.resumed else { return };
        let census = resumed.census.lock();
        for number in [1].iter().chain(census.directories()) {
            if let Err(error) = notifier.inval_inode(INodeNo(*number), 0, 0) {
                log::debug!("node {number}: its listing is not forgotten: {error}");
            }
        }
    }

    /// Whether `after` is a place in a listing that was begun in another order.
    pub(super) fn has_lost_place(&self, ino: INodeNo, after: u64) -> bool {
        let Some(resumed) = &self.resumed else { return false };
        let mut listed = resumed.listed.lock();
        if after == 0 {
            listed.insert(ino.0);
        }
        !listed.contains(&ino.0)
    }

    /// What has come of making something: if it was made before, that.
    pub(super) fn made(
        &self,
        request: &Request,
        parent: NodeId,
        name: &OsStr,
        made: Result<Entry>,
    ) -> Result<Entry> {
        match made {
            Err(Errno::EXIST) if is_resent(request) => {
                self.overlay.lookup(parent, name)?.ok_or(Errno::EXIST)
            }
            made => made,
        }
    }

    /// What has come of a rename: it may have been done before.
    pub(super) fn renamed(
        &self,
        request: &Request,
        (parent, name): (NodeId, &OsStr),
        (new_parent, new_name): (NodeId, &OsStr),
        flags: RenameFlags,
    ) -> Result<()> {
        let resent = is_resent(request);
        if resent && flags.exchange {
            // Nobody can say whether they have changed places.
            return Err(Errno::IO);
        }
        let exists = |parent, name| -> Result<bool> {
            let found = self.overlay.lookup(parent, name)?;
            Ok(found.map(|entry| self.overlay.forget(entry.node, 1)).is_some())
        };
        if resent && !exists(parent, name)? && exists(new_parent, new_name)? {
            return Ok(());
        }
        self.overlay.rename(parent, name, new_parent, new_name, flags)
    }
}

/// What has come of taking something away: it may have been gone before.
pub(super) fn gone(request: &Request, absent: Errno, gone: Result<()>) -> Result<()> {
    match gone {
        Err(error) if error == absent && is_resent(request) => Ok(()),
        gone => gone,
    }
}
