//! What each operation does to the tree.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::inode::{Inode, Kind, Stamp, is_acl};
use super::{Applied, Ino, Outcome, Tree};
use crate::cases::layer::{Data, Leaf, own_ids};
use crate::cases::op::Redirect;
use crate::cases::op::{Allocate, Change, How, New, Op, Set, Target, stranger};
use crate::cases::text::Text;

impl Tree {
    /// Carries out an admitted operation.
    pub fn apply(&mut self, op: &Op) -> Applied {
        if self.rules.read_only && op.mutates() {
            return Err(Errno::ROFS);
        }
        match op {
            Op::Lookup(path) => self.lookup(path),
            Op::Create(path, new) => self.make(path, Kind::File(Vec::new()), *new),
            Op::MakeDir(path, new) => self.make(path, Kind::Dir(BTreeMap::new()), *new),
            Op::MakeNode(path, leaf, new) => self.make(path, special(leaf), *new),
            Op::MakeSymlink(path, to, new) => self.make(path, Kind::Symlink(to.clone()), *new),
            Op::MakeUnnamed(path, new, data) => self.make(path, Kind::File(data.bytes()), *new),
            Op::Link(target, path) => self.link(target, path),
            Op::Unlink(path) => self.unlink(path),
            Op::RemoveDir(path) => self.remove_dir(path),
            Op::Rename(from, to, how) => self.rename(from, to, *how),
            Op::Write(target, at, data, kill) => self.write(target, *at, *data, *kill),
            Op::MapWrite(target, at, byte, len) => self.map_write(target, *at, *byte, *len),
            Op::Read(target, at, len) => Ok(Outcome::Bytes(self.read(target, *at, *len))),
            Op::SetAttr(target, change) => self.set_attr(target, change),
            Op::Allocate(target, how, at, len) => self.allocate(target, *how, *at, *len),
            Op::CopyRange(from, from_at, to, to_at, len) => {
                self.copy_range((from, *from_at), (to, *to_at), *len)
            }
            Op::Stat(target) => Ok(Outcome::Object(self.target(target))),
            Op::ReadLink(target) => match &self.node(target).kind {
                Kind::Symlink(to) => Ok(Outcome::Bytes(to.clone())),
                _ => Err(Errno::INVAL),
            },
            Op::SetXattr(target, name, value, set) => self.set_xattr(target, name, value, *set),
            Op::GetXattr(target, name) => self.get_xattr(target, name),
            Op::ListXattr(target) => {
                Ok(Outcome::Names(self.node(target).xattrs.keys().cloned().collect()))
            }
            Op::RemoveXattr(target, name) => self.remove_xattr(target, name),
            Op::Hold(path, slot) => self.hold(path, *slot),
            Op::Release(slot) => {
                self.held.remove(slot);
                Ok(Outcome::Done)
            }
            Op::Remount => {
                self.held.clear();
                Ok(Outcome::Done)
            }
            Op::RemountTo(redirect) => {
                self.held.clear();
                self.rules.redirect = Some(*redirect);
                Ok(Outcome::Done)
            }
            Op::Seal => {
                self.held.clear();
                self.inodes.iter_mut().for_each(|inode| inode.has_lower = inode.is_dir());
                Ok(Outcome::Done)
            }
            Op::Seek(..)
            | Op::Sync(_)
            | Op::ReadDir(_)
            | Op::ReadSome(..)
            | Op::ReadRest
            | Op::Forget(_) => Ok(Outcome::Done),
        }
    }

    fn node(&self, target: &Target) -> &Inode {
        &self.inodes[self.target(target).unwrap()]
    }

    fn node_mut(&mut self, target: &Target) -> &mut Inode {
        let ino = self.target(target).unwrap();
        &mut self.inodes[ino]
    }

    fn touch(&mut self, dir: Ino) {
        self.inodes[dir].mtime = Stamp::Recent;
    }

    /// The entry at `path` with its directory.
    pub(super) fn entry(&self, path: &Text) -> Result<(Ino, Text, Option<Ino>), Errno> {
        let (dir, name) = self.parent(path).unwrap();
        if name.0.len() > 255 {
            return Err(Errno::NAMETOOLONG);
        }
        let found = self.entries(dir).get(&name).copied();
        Ok((dir, name, found))
    }

    pub(super) fn existing(&self, path: &Text) -> Result<(Ino, Text, Ino), Errno> {
        let (dir, name, found) = self.entry(path)?;
        Ok((dir, name, found.ok_or(Errno::NOENT)?))
    }

    /// Refuses a new name that the upper layer could not tell from a mark.
    fn check_name(&self, name: &Text) -> Result<(), Errno> {
        let mark = self.rules.dot_files && name.0.starts_with(b".wh.");
        if mark { Err(Errno::INVAL) } else { Ok(()) }
    }

    /// The place for a new name.
    fn absent(&self, path: &Text) -> Result<(Ino, Text), Errno> {
        let (dir, name, found) = self.entry(path)?;
        self.check_name(&name)?;
        if found.is_some() { Err(Errno::EXIST) } else { Ok((dir, name)) }
    }

    fn lookup(&self, path: &Text) -> Applied {
        Ok(Outcome::Object(self.entry(path)?.2))
    }

    fn hold(&mut self, path: &Text, slot: u8) -> Applied {
        let ino = self.resolve(path).unwrap();
        self.held.insert(slot, ino);
        Ok(Outcome::Object(Some(ino)))
    }

    fn make(&mut self, path: &Text, kind: Kind, new: New) -> Applied {
        let (dir, name) = self.absent(path)?;
        if kind == Kind::Char(0, 0) {
            return Err(Errno::PERM);
        }
        let parent = &self.inodes[dir];
        let mut inode = Inode::new(kind);
        inode.mode = new.mode;
        (inode.uid, inode.gid) = new.caller;
        inode.inherit(parent, new.umask);
        let ino = self.add(inode);
        self.entries_mut(dir).insert(name, ino);
        self.touch(dir);
        Ok(Outcome::Object(Some(ino)))
    }

    fn link(&mut self, target: &Target, path: &Text) -> Applied {
        let ino = self.target(target).unwrap();
        let (dir, name) = self.absent(path)?;
        if self.names_of(ino) + self.inodes[ino].hidden_links == 0 {
            return Err(Errno::NOENT);
        }
        self.entries_mut(dir).insert(name, ino);
        self.touch(dir);
        Ok(Outcome::Object(Some(ino)))
    }

    fn unlink(&mut self, path: &Text) -> Applied {
        let (dir, name, ino) = self.existing(path)?;
        if self.inodes[ino].is_dir() {
            return Err(Errno::ISDIR);
        }
        self.entries_mut(dir).remove(&name);
        self.touch(dir);
        Ok(Outcome::Done)
    }

    fn remove_dir(&mut self, path: &Text) -> Applied {
        let (dir, name, ino) = self.existing(path)?;
        if !self.inodes[ino].is_dir() {
            return Err(Errno::NOTDIR);
        }
        if !self.entries(ino).is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.entries_mut(dir).remove(&name);
        self.inodes[ino].mtime = Stamp::Any;
        self.touch(dir);
        Ok(Outcome::Done)
    }

    fn rename(&mut self, from: &Text, to: &Text, how: How) -> Applied {
        let (to_dir, to_name) = self.parent(to).unwrap();
        self.check_name(&to_name)?;
        let (from_dir, from_name, ino) = self.existing(from)?;
        let (_, _, replaced) = self.entry(to)?;
        match (how, replaced) {
            (How::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (How::Exchange, None) => return Err(Errno::NOENT),
            (_, Some(other)) if other == ino => return Ok(Outcome::Done),
            (How::Replace, Some(other)) => self.check_replace(ino, other)?,
            _ => {}
        }
        let exchanged = replaced.filter(|_| how == How::Exchange);
        for moved in [Some(ino), exchanged].into_iter().flatten() {
            match self.rules.redirect {
                Some(Redirect::Refuse) if self.inodes[moved].has_lower => return Err(Errno::XDEV),
                Some(Redirect::Copy) if self.inodes[moved].has_lower => self.copied_up(moved),
                _ => {}
            }
        }
        self.entries_mut(from_dir).remove(&from_name);
        if let (How::Exchange, Some(other)) = (how, replaced) {
            self.entries_mut(from_dir).insert(from_name, other);
        }
        if let (How::Replace, Some(other)) = (how, replaced) {
            self.inodes[other].mtime = Stamp::Any;
        }
        self.entries_mut(to_dir).insert(to_name, ino);
        self.touch(from_dir);
        self.touch(to_dir);
        Ok(Outcome::Done)
    }

    /// Notes that nothing of a directory is in lower layers any more.
    fn copied_up(&mut self, dir: Ino) {
        self.inodes[dir].has_lower = false;
        if let Kind::Dir(entries) = &self.inodes[dir].kind {
            entries.clone().into_values().for_each(|child| self.copied_up(child));
        }
    }

    /// A directory replaces only an empty directory, anything else only a non-directory.
    fn check_replace(&self, ino: Ino, other: Ino) -> Result<(), Errno> {
        match (self.inodes[ino].is_dir(), self.inodes[other].is_dir()) {
            (true, false) => Err(Errno::NOTDIR),
            (false, true) => Err(Errno::ISDIR),
            (true, true) if !self.entries(other).is_empty() => Err(Errno::NOTEMPTY),
            _ => Ok(()),
        }
    }

    fn read(&self, target: &Target, at: u64, len: usize) -> Text {
        let Kind::File(data) = &self.node(target).kind else { unreachable!("admitted") };
        let start = data.len().min(at as usize);
        let end = data.len().min(start + len);
        Text(data[start..end].to_vec())
    }

    fn write(&mut self, target: &Target, at: u64, data: Data, kill: bool) -> Applied {
        let inode = self.node_mut(target);
        store(inode.data_mut(), at as usize, &data.bytes());
        inode.mtime = Stamp::Recent;
        inode.drop_capability();
        if kill {
            inode.drop_set_id(stranger());
        }
        Ok(Outcome::Count(data.len))
    }

    fn map_write(&mut self, target: &Target, at: u64, byte: u8, len: usize) -> Applied {
        let inode = self.node_mut(target);
        inode.data_mut()[at as usize..][..len].fill(byte);
        inode.mtime = Stamp::Recent;
        Ok(Outcome::Done)
    }

    fn set_attr(&mut self, target: &Target, change: &Change) -> Applied {
        let ino = self.target(target).unwrap();
        let inode = &mut self.inodes[ino];
        match change {
            Change::Permissions(mode) => inode.set_mode(mode.0),
            Change::Owner(uid, gid) => {
                inode.uid = uid.unwrap_or(inode.uid);
                inode.gid = gid.unwrap_or(inode.gid);
                inode.drop_set_id(own_ids());
            }
            Change::Times(_, mtime) => {
                inode.mtime = mtime.map_or(inode.mtime, |(sec, nsec)| Stamp::Exact(sec, nsec));
            }
            Change::Size(size, uid) => {
                let data = inode.data_mut();
                let same = data.len() as u64 == *size;
                data.resize(*size as usize, 0);
                inode.mtime = if same { Stamp::Any } else { Stamp::Recent };
                inode.drop_capability();
                if *uid != 0 {
                    inode.drop_set_id((*uid, *uid));
                }
            }
        }
        Ok(Outcome::Object(Some(ino)))
    }

    fn allocate(&mut self, target: &Target, how: Allocate, at: u64, len: u64) -> Applied {
        let inode = self.node_mut(target);
        inode.mtime = Stamp::Any;
        inode.drop_capability();
        let data = inode.data_mut();
        let end = (at + len) as usize;
        match how {
            Allocate::Extend => data.resize(data.len().max(end), 0),
            Allocate::KeepSize => {}
            Allocate::PunchHole => {
                let (start, end) = (data.len().min(at as usize), data.len().min(end));
                data[start..end].fill(0);
            }
            Allocate::ZeroRange => {
                data.resize(data.len().max(end), 0);
                data[at as usize..end].fill(0);
            }
        }
        Ok(Outcome::Done)
    }

    fn copy_range(
        &mut self,
        (from, from_at): (&Target, u64),
        (to, to_at): (&Target, u64),
        len: usize,
    ) -> Applied {
        let data = self.read(from, from_at, len).0;
        let inode = self.node_mut(to);
        if data.is_empty() {
            inode.mtime = Stamp::Any;
            return Ok(Outcome::Count(0));
        }
        store(inode.data_mut(), to_at as usize, &data);
        inode.mtime = Stamp::Recent;
        inode.drop_capability();
        Ok(Outcome::Count(data.len()))
    }

    fn set_xattr(&mut self, target: &Target, name: &Text, value: &Text, set: Set) -> Applied {
        let inode = self.node_mut(target);
        if is_acl(name) {
            return inode.set_acl(name, value);
        }
        match (set, inode.xattrs.contains_key(name)) {
            (Set::IfAbsent, true) => return Err(Errno::EXIST),
            (Set::IfPresent, false) => return Err(Errno::NODATA),
            _ => {}
        }
        inode.xattrs.insert(name.clone(), value.clone());
        Ok(Outcome::Done)
    }

    fn get_xattr(&self, target: &Target, name: &Text) -> Applied {
        let value = self.node(target).xattrs.get(name).ok_or(Errno::NODATA)?;
        Ok(Outcome::Bytes(value.clone()))
    }

    fn remove_xattr(&mut self, target: &Target, name: &Text) -> Applied {
        let inode = self.node_mut(target);
        inode.xattrs.remove(name).ok_or(Errno::NODATA)?;
        Ok(Outcome::Done)
    }
}

fn special(leaf: &Leaf) -> Kind {
    match leaf {
        Leaf::Fifo => Kind::Fifo,
        Leaf::Socket => Kind::Socket,
        Leaf::Char(major, minor) => Kind::Char(*major, *minor),
        Leaf::Block(major, minor) => Kind::Block(*major, *minor),
        Leaf::File(_) | Leaf::Metacopy(..) | Leaf::Symlink(_) => unreachable!("admitted"),
    }
}

/// Puts `bytes` at an offset; what lies between the old end and them reads as NULs.
fn store(data: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    data.resize(data.len().max(at + bytes.len()), 0);
    data[at..at + bytes.len()].copy_from_slice(bytes);
}
