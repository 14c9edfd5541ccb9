//! Making changes survive a crash of the machine.
//!
//! A plain filesystem keeps the name of an existing file for ever. Here the name, and those of the directories it is
//! in, may be the work of a copy-up, of which whoever syncs the file knows nothing. So the first sync of a node goes
//! all the way up; later ones cost what they cost on the upper layer's filesystem.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::locate::Located;
use super::node::{Node, NodeId};
use super::node_state::{Place, Unsynced};
use super::{Overlay, Result};
use crate::layer::Upper;
use crate::sys::{FileKind, data, open};

impl Overlay {
    /// Makes a file or directory survive a crash of the machine; `data_only` is whether attributes that
    /// do not matter for reading it may be left out. Nothing happens on a volatile mount.
    pub fn sync(&self, id: NodeId, data_only: bool) -> Result<()> {
        let node = self.node(id)?;
        let Some(upper) = self.upper.as_ref().filter(|upper| !upper.volatile) else {
            return Ok(());
        };
        if !node.is_upper() {
            return Ok(());
        }
        if !self.pay_off(upper, &node, || self.sync_content(&node, false))? {
            self.sync_content(&node, data_only)?;
        }
        let mut unsynced = node.upper_parents();
        while let Some(dir) = unsynced.pop() {
            self.pay_off(upper, &dir, || Ok(()))?;
            unsynced.extend(dir.upper_parents());
        }
        Ok(())
    }

    /// Makes the name of a file survive a crash of the machine, unless that is done: after it, who syncs the data on
    /// the upper layer's filesystem, past the daemon, has synced enough to find it again.
    pub fn sync_name(&self, id: NodeId) -> Result<()> {
        let unsynced = self.node(id)?.state.lock().unsynced;
        if unsynced == Unsynced::Names { self.sync(id, true) } else { Ok(()) }
    }

    /// Has the data of a file get onto the disk soon that is about to replace a lower one. Many programs replace files
    /// without syncing, and would often be left with an empty one after a crash. A filesystem that knows of the
    /// replaced file may do this by itself, as ext4 does; here it has never heard of it.
    ///
    /// To be called without a directory's lock.
    pub(super) fn write_out(&self, upper: &Upper, node: &Node) {
        if upper.volatile || node.kind != FileKind::Regular {
            return;
        }
        let started = self.data(node, false).and_then(|fd| data::start_writing(fd.as_fd()));
        if let Err(error) = started {
            // A sync will tell whom it concerns.
            log::debug!("{}: cannot be written out: {error}", node.path().display());
        }
    }

    /// Does what no sync of `node` has done yet, `content` first; false if there is nothing of that kind. Others who
    /// sync the same node meanwhile wait for the end of it.
    fn pay_off(
        &self,
        upper: &Upper,
        node: &Node,
        content: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        let unsynced = || node.state.lock().unsynced;
        if unsynced() == Unsynced::Nothing {
            return Ok(false);
        }
        let _only_one = node.copy_up.lock();
        match unsynced() {
            Unsynced::Nothing => return Ok(false),
            Unsynced::Attributes => content()?,
            Unsynced::Names => {
                content()?;
                self.sync_names(upper, node)?;
            }
        }
        node.state.lock().unsynced = Unsynced::Nothing;
        Ok(true)
    }

    fn sync_names(&self, upper: &Upper, node: &Node) -> Result<()> {
        for parent in node.upper_parents() {
            sync_directory(&*self.upper_dir(&parent)?)?;
        }
        match node.state.lock().place.clone() {
            Place::Indexed(_) => upper.index.sync(),
            Place::Upper | Place::Lower(_) => Ok(()),
        }
    }

    fn sync_content(&self, node: &Node, data_only: bool) -> Result<()> {
        match node.kind {
            FileKind::Regular => {
                let fd = self.open_for_sync(node)?;
                if data_only { rustix::fs::fdatasync(fd) } else { rustix::fs::fsync(fd) }
            }
            FileKind::Directory => sync_directory(&*self.upper_dir(node)?),
            _ => Ok(()),
        }
    }

    fn open_for_sync(&self, node: &Node) -> Result<Arc<OwnedFd>> {
        if self.at(node, |at| self.upper_data_source(node, &at.upper()?))?.is_some() {
            // Only its attributes can be lost.
            let open = |at: Located| self.open_upper(&at.upper()?, OFlags::RDONLY).map(Arc::new);
            return self.at(node, open);
        }
        self.data(node, false)
    }
}

impl Node {
    /// The directories in which the upper layer has a name of this node.
    fn upper_parents(&self) -> Vec<Arc<Self>> {
        let state = self.state.lock();
        let names = state.names.iter().filter(|name| name.in_upper);
        let mut parents: Vec<_> = names.map(|name| name.parent.clone()).collect();
        parents.sort_by_key(|parent| parent.id);
        parents.dedup_by_key(|parent| parent.id);
        parents
    }
}

fn sync_directory(dir: &OwnedFd) -> Result<()> {
    rustix::fs::fsync(open::reopen_directory(dir.as_fd())?)
}
