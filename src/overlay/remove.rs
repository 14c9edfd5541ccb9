//! Deleting. What lower layers have is never copied up for it: a whiteout says that it is gone.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::copy_up::Wanted;
use super::directory::Contents;
use super::node::{Node, NodeId};
use super::protection::Intent;
use super::{Overlay, Result};
use crate::layer::Upper;
use crate::sys::{Errno, Object};

/// A name that goes, and what has it.
#[derive(Clone, Copy)]
struct Going<'a> {
    parent: &'a Arc<Node>,
    name: &'a OsStr,
    node: &'a Arc<Node>,
}

impl Overlay {
    /// Deletes a name of anything but a directory.
    ///
    /// # Errors
    /// `EISDIR`, `ENOENT`, `EROFS`.
    pub fn unlink(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        self.pins.with_space(|| self.remove(parent, name, false))
    }

    /// Deletes an empty directory.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOTEMPTY`, `ENOENT`, `EROFS`.
    pub fn rmdir(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        self.pins.with_space(|| self.remove(parent, name, true))
    }

    fn remove(&self, parent: NodeId, name: &OsStr, directory: bool) -> Result<()> {
        let upper = self.writable()?;
        let parent = self.node(parent)?;
        self.refresh(&parent)?;
        let node = {
            let contents = self.contents(&parent)?;
            let entry = contents.names.visible(name).ok_or(Errno::NOENT)?;
            self.enter_node(&parent, &contents, entry)?.0
        };
        let removed = match (directory, node.kind.is_dir()) {
            (false, true) => Err(Errno::ISDIR),
            (true, false) => Err(Errno::NOTDIR),
            _ => self.refresh_dir(&node).and_then(|()| {
                self.permit(&parent, Intent::Change)?;
                self.permit(&node, Intent::Change)?;
                self.remove_entered(upper, Going { parent: &parent, name, node: &node })
            }),
        };
        self.forget(node.id, 1);
        removed
    }

    fn remove_entered(&self, upper: &Upper, going: Going<'_>) -> Result<()> {
        let Going { parent, name, node } = going;
        self.copy_up(parent, Wanted::Attributes)?;
        self.remember_data(node)?;
        let mut contents = self.contents_mut(parent)?;
        if !node.has_name(parent, name) {
            return Err(Errno::NOENT);
        }
        let was_pinned = node.state.lock().pinned.is_some();
        let removed = match node.kind.is_dir() {
            true => self.rmdir_entered(upper, going, &mut contents),
            false => self.unlink_entered(upper, going, &mut contents),
        };
        removed.inspect_err(|_| self.unpin_unless(was_pinned, node))
    }

    fn unlink_entered(
        &self,
        upper: &Upper,
        going: Going<'_>,
        contents: &mut Contents,
    ) -> Result<()> {
        let Going { parent, name, node } = going;
        let entry = contents.names.visible(name).ok_or(Errno::NOENT)?;
        let (in_upper, below) = (entry.layer.is_upper(), entry.below);
        let dir = self.upper_dir(parent)?;
        if in_upper {
            let object = Object::Child(dir.clone(), entry.name.clone());
            self.pin_if_last(node, parent, name, &object)
                .and_then(|()| upper.delete_file(dir.as_fd(), name, below))
                .inspect_err(|_| node.stay(parent, name))?;
        } else {
            self.free_mark_name(upper, contents, &dir, name)?;
            upper.delete_lower(dir.as_fd(), name)?;
        }
        self.lose_name(upper, going, contents, in_upper);
        Ok(())
    }

    fn rmdir_entered(
        &self,
        upper: &Upper,
        going: Going<'_>,
        contents: &mut Contents,
    ) -> Result<()> {
        let Going { parent, name, node } = going;
        let mut inner = self.contents_mut(node)?;
        if !inner.names.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        let entry = contents.names.visible(name).ok_or(Errno::NOENT)?;
        let (in_upper, below) = (entry.layer.is_upper(), entry.below);
        let dir = self.upper_dir(parent)?;
        if in_upper {
            self.pin(node, &Object::Own(self.upper_dir(node)?))?;
            upper.delete_dir(dir.as_fd(), name, below)?;
        } else {
            self.free_mark_name(upper, contents, &dir, name)?;
            upper.delete_lower(dir.as_fd(), name)?;
        }
        inner.delete();
        drop(inner);
        self.lose_name(upper, going, contents, in_upper);
        Ok(())
    }

    /// Notes that an upper name, found at `object`, is about to go, and keeps the node reachable if it is the
    /// last one that is known.
    pub(super) fn pin_if_last(
        &self,
        node: &Node,
        parent: &Node,
        name: &OsStr,
        object: &Object,
    ) -> Result<()> {
        let indexed = matches!(node.state.lock().place, super::node_state::Place::Indexed(_));
        if node.leave(parent, name) || indexed { Ok(()) } else { self.pin(node, object) }
    }

    /// Notes everywhere that `node` has lost a name. `in_upper` is whether the name was an upper one, so
    /// that the inode's own link count knows.
    fn lose_name(&self, upper: &Upper, going: Going<'_>, contents: &mut Contents, in_upper: bool) {
        let Going { parent, name, node } = going;
        contents.names.remove(name, upper.form);
        node.remove_name(parent, name);
        if !node.kind.is_dir() {
            self.lost_name(node, in_upper);
        }
    }

    /// Adjusts what is stored about the names of a non-directory that has lost one.
    ///
    /// The name is gone whatever happens here. A count that cannot be stored is too high at the next mount,
    /// and an index entry that cannot be removed is removed then: neither is the caller's failure.
    pub(super) fn lost_name(&self, node: &Node, in_upper: bool) {
        let counted = if in_upper { Ok(()) } else { self.count_lower_name(node) };
        if let Err(error) = counted.and_then(|()| self.drop_unused_index(node)) {
            log::warn!("a link count could not be stored: {error}");
        }
    }
}
