//! Attributes: what they are, and how they are changed.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::fs::XattrFlags;

use super::copy_up::{Cut, Wanted};
use super::locate::Located;
use super::node::{Node, NodeId};
use super::{Caller, Overlay, acl};
use crate::layer::stat_override::{self, Overridden};
use crate::layer::undo::undo;
use crate::layer::{Upper, owner_rights};
use crate::sys::object::NewTime;
use crate::sys::{Errno, FileKind, Object, Result, Stat, Time};

/// The attributes of an object as the mount shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Allocated units of 512 bytes.
    pub blocks: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names; 1 for a directory that is merged from several layers.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Preferred size of an I/O in bytes; of a directory, what a program should take of its names at once.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
}

impl Attr {
    /// The object's type.
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode)
    }
}

/// A change of attributes; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits, 0..=0o7777; type bits are ignored.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<NewTime>,
    /// Last change of the contents.
    pub mtime: Option<NewTime>,
    /// Whether times alone may be what the kernel tells of writes that it has collected (`writeback=1`).
    pub collected: bool,
}

impl SetAttr {
    fn is_empty(&self) -> bool {
        let ids = self.uid.is_none() && self.gid.is_none();
        self.mode.is_none() && ids && self.size.is_none() && !self.has_times()
    }

    fn has_times(&self) -> bool {
        self.atime.is_some() || self.mtime.is_some()
    }

    fn is_times(&self) -> bool {
        self.has_times() && Self { atime: None, mtime: None, ..*self }.is_empty()
    }
}

/// The attribute that holds a file's capabilities.
pub(super) const CAPABILITY: &str = "security.capability";

/// Bytes that a name of middle length takes of an answer with attributes (`struct fuse_direntplus`).
const LISTED_NAME: u64 = 176;
/// Bytes of a directory for each name in it, as filesystems count them: 32 and more on ext4, 24 on btrfs, 20 on tmpfs.
const STORED_NAME: u64 = 32;
/// What the C library reads of a directory at once, at least and at most.
const LEAST_LISTING: u64 = 32 << 10;
const LARGEST_LISTING: u64 = 1 << 20;

/// What a program should read at once of a directory with these attributes, of which the lower layers are known to have
/// `listed` names: all of it, where it is no more than the C library takes, since each piece is a message, and only the
/// first comes with attributes for sure.
fn listing_size(stat: &Stat, listed: u32) -> u32 {
    let names = u64::from(listed).max(stat.size / STORED_NAME);
    let wanted = names.saturating_mul(LISTED_NAME).min(LARGEST_LISTING).next_power_of_two();
    if wanted > LEAST_LISTING { (wanted as u32).max(stat.blksize) } else { stat.blksize }
}

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

impl Overlay {
    pub(super) fn stat(&self, located: &Located) -> Result<Stat> {
        match located {
            Located::Lower(place) => self.lowers.stat(place),
            Located::Upper(object) => self.upper_stat(object),
        }
    }

    pub(super) fn upper_stat(&self, object: &Object) -> Result<Stat> {
        let stat = object.stat()?;
        let upper = self.writable()?;
        match upper.overriding {
            Some(form) => form.apply(upper.keeper, object, stat),
            None => Ok(stat),
        }
    }

    /// The attributes of a node.
    pub fn attr(&self, id: NodeId) -> Result<Attr> {
        let node = self.node(id)?;
        self.node_attr(&node)
    }

    pub(super) fn node_attr(&self, node: &Node) -> Result<Attr> {
        let stat = self.at(node, |located| {
            let stat = self.stat(&located)?;
            if let Located::Lower(_) = located {
                self.check_identity(node, &stat)?;
            }
            Ok(stat)
        })?;
        Ok(self.shown(node, stat))
    }

    /// `stat`, which is that of the backing object of `node`, as the mount shows it.
    pub(super) fn shown(&self, node: &Node, stat: Stat) -> Attr {
        let data = node.known_data_source().flatten();
        let data = data.and_then(|place| self.lowers.stat(&place).ok());
        Attr {
            ino: node.ino,
            size: stat.size,
            blocks: data.map_or(stat.blocks, |data| data.blocks),
            mode: stat.mode,
            nlink: self.link_count(node, &stat),
            uid: self.ids.shown_uid(stat.uid),
            gid: self.ids.shown_gid(stat.gid),
            rdev: stat.rdev,
            blksize: match node.dir.as_deref() {
                Some(dir) => listing_size(&stat, dir.listed),
                None => stat.blksize,
            },
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
        }
    }

    fn link_count(&self, node: &Node, stat: &Stat) -> u32 {
        let Some(dir) = &node.dir else {
            return stat.nlink.saturating_add_signed(node.link_bias());
        };
        if !node.is_root() && node.first_name().is_none() {
            return 0;
        }
        let upper = node.is_upper();
        let (candidates, read) = {
            let dir = dir.contents.read();
            (dir.candidates(), dir.is_read())
        };
        // An upper directory may turn out to be opaque; the answer must not change when it is read.
        let merged = match (upper, candidates) {
            (_, 0) | (false, 1) => false,
            // (A directory that this process may not read says what a merged one says.)
            (true, _) if !read => !self.contents(node).is_ok_and(|found| found.stack.is_empty()),
            _ => true,
        };
        if merged { 1 } else { stat.nlink }
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, id: NodeId) -> Result<std::ffi::OsString> {
        let node = self.node(id)?;
        if node.kind != FileKind::Symlink {
            return Err(Errno::INVAL);
        }
        self.at(&node, |located| match located {
            Located::Upper(object) => {
                stat_override::read_link(self.writable()?.overriding, &object)
            }
            Located::Lower(place) => self.lowers.read_link(&place),
        })
    }

    /// Changes attributes and returns all of them as they are then.
    ///
    /// Set-id bits and capabilities are cleared as POSIX wants it: by a change of size that `caller` is
    /// not privileged for, and by every change of owner.
    pub fn set_attr(&self, caller: Caller, id: NodeId, change: &SetAttr) -> Result<Attr> {
        let node = self.node(id)?;
        let upper = self.writable()?;
        if change.size.is_some() && node.kind != FileKind::Regular {
            return Err(if node.kind.is_dir() { Errno::ISDIR } else { Errno::INVAL });
        }
        self.permit_set_attr(&node, change)?;
        // Times alone are what the kernel has collected (`writeback=1`), and come in between.
        let lost_capabilities =
            !change.is_times() && std::mem::take(&mut node.state.lock().lost_capabilities);
        match change.size {
            Some(size) => self.truncate(caller, &node, size)?,
            None => self.copy_up(&node, Wanted::Attributes)?,
        }
        if change.uid.is_some() || change.gid.is_some() {
            self.change_owner(upper, &node, change.uid, change.gid)?;
        }
        if let Some(mode) = change.mode {
            let changed = self.change_mode(upper, &node, mode & 0o7777);
            node.state.lock().set_id.changed();
            changed?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            self.at(&node, |at| at.upper()?.set_times(change.atime, change.mtime))?;
        }
        let before_privileged_write = lost_capabilities && caller.uid == 0;
        if change.is_empty() && !node.kind.is_dir() && !before_privileged_write {
            // What the kernel sends before a write that takes set-id bits away, and for a chown(2) that
            // changes neither owner nor group. Before any write to a file with capabilities it takes
            // those away and sends the same: then root keeps set-id bits.
            self.drop_privileges(caller, &node)?;
        }
        self.forget_inherited(&node);
        self.node_attr(&node)
    }

    /// Sets the time of the last change of the contents of a file that the upper layer has.
    pub fn set_change_time(&self, id: NodeId, mtime: NewTime) -> Result<()> {
        let node = self.node(id)?;
        self.at(&node, |at| at.upper()?.set_times(None, Some(mtime)))
    }

    fn truncate(&self, caller: Caller, node: &Arc<Node>, size: u64) -> Result<()> {
        if self.copy_up_cut(node, Cut { size, caller })? {
            return Ok(());
        }
        let fd = self.data(node, true)?;
        // First, as everywhere in the kernel: what a stranger has changed must never keep them.
        if caller.uid != 0 {
            self.drop_privileges(caller, node)?;
        }
        rustix::fs::ftruncate(fd, size)
    }

    fn change_owner(
        &self,
        upper: &Upper,
        node: &Node,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        if self.ids.squashes() {
            return Ok(());
        }
        let stored = |id: Option<u32>, map: &dyn Fn(u32) -> Option<u32>| match id {
            Some(id) => map(id).map(Some).ok_or(Errno::INVAL),
            None => Ok(None),
        };
        let uid = stored(uid, &|uid| self.ids.stored_uid(uid))?;
        let gid = stored(gid, &|gid| self.ids.stored_gid(gid))?;
        let object = self.upper_object(node)?;
        if let Some(form) = upper.overriding {
            let old = form.apply(upper.keeper, &object, object.stat()?)?;
            let kept =
                if node.kind.is_dir() { old.permissions() } else { without_set_id(old.mode) };
            let mut stored = overridden(&old, kept);
            stored.uid = uid.unwrap_or(old.uid);
            stored.gid = gid.unwrap_or(old.gid);
            // What the filesystem does by itself when it changes an owner.
            match object.remove_xattr(OsStr::new(CAPABILITY)) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
            return form.store(&object, &stored);
        }
        object.set_owner(uid, gid)
    }

    fn change_mode(&self, upper: &Upper, node: &Node, mode: u32) -> Result<()> {
        if node.kind == FileKind::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        let object = self.upper_object(node)?;
        if let Some(form) = upper.overriding {
            let old = form.apply(upper.keeper, &object, object.stat()?)?;
            let acl = change_acl(&object, mode)?;
            return form.store(&object, &overridden(&old, mode)).inspect_err(|_| {
                undo(acl.map_or(Ok(()), |acl| set_acl(&object, &acl)));
            });
        }
        owner_rights::set_permissions(&object, mode)
    }

    /// Clears set-id bits for a change of contents by somebody who may not keep them. (Capabilities are
    /// taken away by the layer's own filesystem, whoever writes.)
    pub(super) fn drop_privileges(&self, caller: Caller, node: &Node) -> Result<()> {
        let (before, complete) = {
            let state = node.state.lock();
            (state.set_id, state.complete)
        };
        if before.are_absent() {
            return Ok(());
        }
        let object = self.upper_object(node)?;
        let stat = self.upper_stat(&object)?;
        let kept = self.stripped_permissions(caller, &stat);
        self.keep_permissions(&object, &stat, kept)?;
        // A metacopy file can be without them only for as long as it is being filled.
        if complete && kept & (S_ISUID | S_ISGID) == 0 && self.writable()?.overriding.is_none() {
            node.state.lock().set_id.were_absent(before);
        }
        Ok(())
    }

    /// Clears the set-group-id bit after a change of permissions by somebody outside of the group, as chmod(2) does.
    pub(super) fn drop_group_bit(&self, caller: Caller, node: &Node) -> Result<()> {
        let object = self.upper_object(node)?;
        let stat = self.upper_stat(&object)?;
        let permissions = stat.permissions();
        if permissions & S_ISGID == 0 || caller.may_keep_group_bit(self.ids.shown_gid(stat.gid)) {
            return Ok(());
        }
        self.keep_permissions(&object, &stat, permissions & !S_ISGID)
    }

    /// Has an ACL set by `set`, and the permissions that are stored in an attribute say the same. Elsewhere the layer's
    /// filesystem sees to that.
    pub(super) fn with_permissions_of_acl(
        &self,
        node: &Node,
        acl: &[u8],
        set: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Some(form) = self.writable()?.overriding else { return set() };
        let object = self.upper_object(node)?;
        let stat = self.upper_stat(&object)?;
        let kept = stat.permissions() & !0o777 | acl::permissions(acl)?;
        self.keep_permissions(&object, &stat, kept)?;
        set().inspect_err(|_| {
            undo(form.store(&object, &overridden(&stat, stat.permissions())));
        })
    }

    fn keep_permissions(&self, object: &Object, stat: &Stat, kept: u32) -> Result<()> {
        if kept == stat.permissions() {
            return Ok(());
        }
        match self.writable()?.overriding {
            Some(form) => form.store(object, &overridden(stat, kept)),
            None => owner_rights::set_permissions(object, kept),
        }
    }

    /// The permission bits that a file with the attributes `stat` has after `caller` has cut it.
    pub(super) fn permissions_after(&self, caller: Caller, stat: &Stat) -> u32 {
        match caller.uid {
            0 => stat.permissions(),
            _ => self.stripped_permissions(caller, stat),
        }
    }

    fn stripped_permissions(&self, caller: Caller, stat: &Stat) -> u32 {
        let mut kept = without_set_id(stat.mode);
        if kept & S_ISGID != 0 && !caller.may_keep_group_bit(self.ids.shown_gid(stat.gid)) {
            // As the kernel's setattr_should_drop_sgid.
            kept &= !S_ISGID;
        }
        kept
    }
}

/// Does with the ACL of an object what chmod(2) does, where its filesystem does not see that. What it was, if there is one.
fn change_acl(object: &Object, mode: u32) -> Result<Option<Vec<u8>>> {
    let old = match object.xattr(OsStr::new(acl::ACCESS)) {
        Err(Errno::OPNOTSUPP) => None,
        acl => acl?,
    };
    if let Some(old) = &old {
        set_acl(object, &acl::with_permissions(old, mode)?)?;
    }
    Ok(old)
}

fn set_acl(object: &Object, acl: &[u8]) -> Result<()> {
    object.set_xattr(OsStr::new(acl::ACCESS), acl, XattrFlags::empty())
}

/// The permission bits of `mode` that are left when set-id bits are cleared; set-group-id without group execution
/// is not one (it used to mean mandatory locking).
fn without_set_id(mode: u32) -> u32 {
    let permissions = mode & 0o7777;
    let mut cleared = S_ISUID;
    if permissions & S_IXGRP != 0 {
        cleared |= S_ISGID;
    }
    permissions & !cleared
}

/// What to store for an object with the attributes `stat`, but for its permissions.
pub(super) fn overridden(stat: &Stat, permissions: u32) -> Overridden {
    Overridden {
        uid: stat.uid,
        gid: stat.gid,
        permissions,
        kind: Some(stat.kind()),
        rdev: stat.rdev,
    }
}
