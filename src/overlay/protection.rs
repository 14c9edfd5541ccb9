//! Immutable and append-only files and directories (chattr(1)).
//!
//! To the kernel nothing of a FUSE filesystem has these flags, so what they forbid is forbidden here, with the errors of
//! fs/namei.c, fs/attr.c, fs/xattr.c and fs/open.c. An open for writing comes to no daemon, so its EPERM is one of the
//! write.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{FallocateFlags, OFlags};

use super::attr::SetAttr;
use super::copy_up::Wanted;
use super::locate::Located;
use super::node::{Node, NodeId};
use super::{Overlay, Result};
use crate::layer::Protection;
use crate::layer::undo::undo;
use crate::sys::inode_flags::{self, Extended};
use crate::sys::object::NewTime;
use crate::sys::stat::stat_fd;
use crate::sys::{Errno, FileKind, data};

/// What is remembered of the attributes of a node, so that nobody has to ask again.
#[derive(Default)]
pub(super) struct Remembered(AtomicU8);

impl Remembered {
    const BARE_BELOW: u8 = 1;
    const PROTECTION: u8 = 2;
    const APPEND_ONLY: u8 = 4;
    const IMMUTABLE: u8 = 8;

    /// Whether the object in a lower layer is known to have no extended attributes. Says nothing of one in the upper
    /// layer.
    pub fn bare_below(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Self::BARE_BELOW != 0
    }

    /// The object in the lower layer has no extended attributes.
    pub fn note_bare_below(&self) {
        self.0.fetch_or(Self::BARE_BELOW, Ordering::Relaxed);
    }

    /// The flags, if they are known. They are those of the copy too.
    pub fn protection(&self) -> Option<Protection> {
        let bits = self.0.load(Ordering::Relaxed);
        (bits & Self::PROTECTION != 0).then_some(Protection {
            append_only: bits & Self::APPEND_ONLY != 0,
            immutable: bits & Self::IMMUTABLE != 0,
        })
    }

    /// The flags are these.
    pub fn note_protection(&self, protection: Protection) {
        let mut bits = Self::PROTECTION;
        bits |= if protection.append_only { Self::APPEND_ONLY } else { 0 };
        bits |= if protection.immutable { Self::IMMUTABLE } else { 0 };
        // In between they are not known, and who asks has to look.
        self.0.fetch_and(Self::BARE_BELOW, Ordering::Relaxed);
        self.0.fetch_or(bits, Ordering::Relaxed);
    }
}

/// What somebody is about to do to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// To add something: a name in a directory, data behind the end of a file; and what comes with that, times of the
    /// call.
    Add,
    /// Anything else: to take a name out of a directory, to give it another name, to change data, attributes.
    Change,
}

impl Overlay {
    /// What the flags of a node are.
    pub(super) fn protection(&self, node: &Node) -> Result<Protection> {
        if !has_flags(node) {
            return Ok(Protection::NONE);
        }
        if let Some(known) = node.remembered.protection() {
            return Ok(known);
        }
        let (protection, below) = self.at(node, |located| match located {
            Located::Upper(object) => Ok((Protection::beside(&object)?, false)),
            Located::Lower(place) => Ok((self.lowers.look(&place)?.1, true)),
        })?;
        if !below || !self.lowers_may_change() {
            node.remembered.note_protection(protection);
        }
        Ok(protection)
    }

    /// Refuses what the flags of a node forbid.
    ///
    /// # Errors
    /// `EPERM`.
    pub(super) fn permit(&self, node: &Node, intent: Intent) -> Result<()> {
        let Protection { append_only, immutable } = self.protection(node)?;
        if immutable || (append_only && intent == Intent::Change) {
            return Err(Errno::PERM);
        }
        Ok(())
    }

    /// The same for a change of attributes.
    pub(super) fn permit_set_attr(&self, node: &Node, change: &SetAttr) -> Result<()> {
        let set = |time: Option<NewTime>| matches!(time, Some(NewTime::At(_)));
        let SetAttr { mode, uid, gid, size, atime, mtime, collected } = *change;
        let chosen = mode.is_some() || uid.is_some() || gid.is_some() || size.is_some();
        let times = (set(atime) || set(mtime)) && !collected;
        self.permit(node, if chosen || times { Intent::Change } else { Intent::Add })
    }

    /// The same for a change of the space of a file.
    pub(super) fn permit_allocate(&self, node: &Node, mode: FallocateFlags) -> Result<()> {
        let keeps = (mode - FallocateFlags::KEEP_SIZE).is_empty();
        self.permit(node, if keeps { Intent::Add } else { Intent::Change })
    }

    /// The same for a write. What the kernel has collected are whole pages, with what was there before: to an
    /// append-only file everything may be written that leaves what is in it as it is.
    pub(super) fn permit_write(&self, node: &Node, offset: u64, bytes: &[u8]) -> Result<()> {
        let protection = self.protection(node)?;
        if !protection.any() {
            return Ok(());
        }
        self.permit(node, Intent::Add)?;
        let file: &OwnedFd = &*self.data(node, false)?;
        let size = stat_fd(file.as_fd())?.size;
        let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut before = vec![0; there.min(bytes.len())];
        let read = data::read_at(file.as_fd(), &mut before, offset)?;
        let stays = read == before.len() && bytes.starts_with(&before);
        if stays { Ok(()) } else { Err(Errno::PERM) }
    }

    /// The inode flags of lsattr(1) (`FS_*_FL`) of a file or directory.
    ///
    /// # Errors
    /// `ENOTTY` for anything else, and where the layer's filesystem has none.
    pub fn inode_flags(&self, id: NodeId) -> Result<u32> {
        let node = self.node(id)?;
        let own = match self.open_for_flags(&node)? {
            Some(object) => inode_flags::get(object.as_fd())?,
            None => 0,
        };
        Ok(self.protection(&node)?.added_to(own))
    }

    /// Sets the inode flags of a file or directory.
    pub fn set_inode_flags(&self, id: NodeId, flags: u32) -> Result<()> {
        self.change_flags(id, Protection::in_flags(flags), |object| {
            inode_flags::set(object.as_fd(), Protection::cleared_in(flags))
        })
    }

    /// The inode flags together with project and extent size.
    pub fn extended_flags(&self, id: NodeId) -> Result<Extended> {
        let node = self.node(id)?;
        let own = match self.open_for_flags(&node)? {
            Some(object) => inode_flags::get_extended(object.as_fd())?,
            None => Extended::default(),
        };
        Ok(self.protection(&node)?.added_to_extended(&own))
    }

    /// Sets the inode flags together with project and extent size.
    pub fn set_extended_flags(&self, id: NodeId, value: &Extended) -> Result<()> {
        self.change_flags(id, Protection::in_extended(value), |object| {
            inode_flags::set_extended(object.as_fd(), &Protection::cleared_in_extended(value))
        })
    }

    /// Has `protection` stand beside a node and `set` its other flags.
    fn change_flags(
        &self,
        id: NodeId,
        protection: Protection,
        set: impl FnOnce(&OwnedFd) -> Result<()>,
    ) -> Result<()> {
        let node = self.node(id)?;
        let upper = self.writable()?;
        if has_flags(&node) {
            self.copy_up(&node, Wanted::Data)?;
        }
        let opened = self.open_for_flags(&node)?.ok_or(Errno::NOTTY)?;
        let flags = inode_flags::get(opened.as_fd())?;
        if Protection::in_flags(flags).any() {
            // Set from outside, or by a kernel before 5.14. Nothing can be kept beside such an inode.
            inode_flags::set(opened.as_fd(), Protection::cleared_in(flags))?;
        }
        let before = self.protection(&node)?;
        let store = |protection: Protection| {
            self.at(&node, |at| protection.store(upper.namespaces, &at.upper()?))
        };
        if protection != before {
            store(protection)?;
            node.remembered.note_protection(protection);
        }
        set(&opened).inspect_err(|_| {
            if protection != before {
                node.remembered.note_protection(before);
                undo(store(before));
            }
        })
    }

    /// Opens a file or directory; `None` if it is in a packed layer, where inodes have no flags.
    fn open_for_flags(&self, node: &Node) -> Result<Option<OwnedFd>> {
        if !has_flags(node) {
            return Err(Errno::NOTTY);
        }
        self.at(node, |located| match located {
            Located::Upper(object) => object.open(OFlags::RDONLY | OFlags::NONBLOCK).map(Some),
            Located::Lower(place) => self.lowers.open_inode(&place),
        })
    }
}

/// Whether its inode can have flags.
fn has_flags(node: &Node) -> bool {
    matches!(node.kind, FileKind::Regular | FileKind::Directory)
}
