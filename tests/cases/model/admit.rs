//! Which operations reach a filesystem: the kernel stops all others before.

use super::inode::{Inode, Kind, is_acl};
use super::{Ino, ROOT, Tree};
use crate::cases::layer::Leaf;
use crate::cases::op::{Change, Op, Target};
use crate::cases::text::Text;

impl Tree {
    /// Whether the kernel would pass `op` on to the filesystem at all.
    pub fn admits(&self, op: &Op) -> bool {
        let exists = |target: &Target| self.target(target).is_some();
        let creatable = |path: &Text| self.parent(path).is_some();
        match op {
            Op::Lookup(path) => creatable(path),
            Op::Unlink(path) | Op::RemoveDir(path) => creatable(path) && self.entry(path).is_ok(),
            Op::Create(path, _) | Op::MakeDir(path, _) | Op::MakeSymlink(path, ..) => {
                creatable(path)
            }
            Op::MakeUnnamed(path, _, data) => creatable(path) && data.len > 0,
            Op::MakeNode(path, leaf, _) => {
                let special =
                    matches!(leaf, Leaf::Fifo | Leaf::Socket | Leaf::Char(..) | Leaf::Block(..));
                creatable(path) && special
            }
            Op::Link(target, path) => {
                let linkable = |ino: Ino| !self.inodes[ino].is_dir();
                self.target(target).is_some_and(linkable) && creatable(path)
            }
            Op::Rename(from, to, _) => {
                let apart = !from.is_within(to) && !to.is_within(from);
                let one_fault = || self.entry(to).is_ok() || self.existing(from).is_ok();
                let names_fit = || self.entry(from).is_ok() && one_fault();
                creatable(from) && creatable(to) && apart && names_fit()
            }
            Op::Write(target, _, data, _) => self.file(target).is_some() && data.len > 0,
            Op::MapWrite(target, at, _, len) => {
                let within = |size: usize| *at as usize + len <= size;
                // Whether writing back takes privileges away from the file differs.
                let plain = |file: &Inode| file.mode < 0o2000 && !file.has_capability();
                let fits = |file: &Inode| within(file.data().len()) && plain(file);
                *len > 0 && self.file(target).is_some_and(fits)
            }
            Op::Read(target, ..) | Op::Seek(target, ..) => self.file(target).is_some(),
            Op::SetAttr(target, Change::Permissions(_)) => self
                .target(target)
                .is_some_and(|ino| !matches!(self.inodes[ino].kind, Kind::Symlink(_))),
            Op::SetAttr(target, Change::Size(..)) => self.file(target).is_some(),
            Op::SetAttr(target, Change::Owner(uid, gid)) => {
                exists(target) && (uid.is_some() || gid.is_some())
            }
            Op::SetAttr(target, Change::Times(atime, mtime)) => {
                exists(target) && (atime.is_some() || mtime.is_some())
            }
            Op::Allocate(target, _, _, len) => {
                *len > 0 && self.file(target).is_some_and(|file| file.mode < 0o2000)
            }
            Op::CopyRange(from, from_at, to, to_at, len) => {
                let apart = from_at.abs_diff(*to_at) >= *len as u64;
                *len > 0
                    && self.file(from).is_some()
                    && self.file(to).is_some_and(|file| file.mode < 0o2000)
                    && (self.target(from) != self.target(to) || apart)
            }
            Op::ReadLink(target) => self
                .target(target)
                .is_some_and(|ino| matches!(self.inodes[ino].kind, Kind::Symlink(_))),
            Op::Sync(target) => self.target(target).is_some_and(|ino| {
                self.inodes[ino].is_file() || self.inodes[ino].is_dir() && !self.is_dead(ino)
            }),
            Op::Stat(target) | Op::ListXattr(target) => exists(target),
            Op::SetXattr(target, name, ..) | Op::GetXattr(target, name) => {
                self.target(target).is_some_and(|ino| self.inodes[ino].can_have_xattr(name))
            }
            // Whether removing an absent access list is an error differs between filesystems.
            Op::RemoveXattr(target, name) => self.target(target).is_some_and(|ino| {
                let inode = &self.inodes[ino];
                inode.can_have_xattr(name) && !is_acl(name) || inode.xattrs.contains_key(name)
            }),
            Op::ReadDir(path) | Op::ReadSome(path, _) => {
                self.resolve(path).is_some_and(|ino| self.inodes[ino].is_dir())
            }
            Op::Hold(path, _) => self.resolve(path).is_some(),
            Op::Release(slot) => self.held.contains_key(slot),
            Op::Forget(path) => self.resolve(path).is_some_and(|ino| ino != ROOT),
            Op::ReadRest | Op::Remount => true,
            Op::RemountTo(_) | Op::Seal => self.rules.redirect.is_some(),
        }
    }
}
