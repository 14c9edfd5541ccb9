//! The model: a plain POSIX tree in memory, and what each operation does to it.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use crate::acl::{ACCESS, Acl, DEFAULT};
use crate::case::Redirect;
use crate::layer::{Data, Leaf, Meta, own_ids};
use crate::op::{Allocate, Change, How, New, Op, Set, Target, stranger};
use crate::text::{Text, t};

/// Index of an inode of the model; never reused.
pub type Ino = usize;

pub const ROOT: Ino = 0;
/// The attribute that holds file capabilities.
pub const CAPABILITY: &str = "security.capability";
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o0010;

/// What is known of a modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    Exact(i64, u32),
    /// Set by an operation of this run.
    Recent,
    /// POSIX leaves open whether the last operation set it.
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File(Vec<u8>),
    Dir(BTreeMap<Text, Ino>),
    Symlink(Text),
    Fifo,
    Socket,
    Char(u32, u32),
    Block(u32, u32),
}

#[derive(Clone, Debug)]
pub struct Inode {
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub xattrs: BTreeMap<Text, Text>,
    pub mtime: Stamp,
    /// Names that the layer of this inode has but the union hides: they count as links.
    pub hidden_links: u32,
    /// Directories: a lower layer has a part in it.
    pub has_lower: bool,
}

impl Inode {
    pub fn new(kind: Kind) -> Inode {
        Inode {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            xattrs: BTreeMap::new(),
            mtime: Stamp::Recent,
            hidden_links: 0,
            has_lower: false,
        }
    }

    pub fn set_meta(&mut self, meta: &Meta) {
        self.mode = if matches!(self.kind, Kind::Symlink(_)) { 0o777 } else { meta.mode.0 };
        (self.uid, self.gid) = meta.owner;
        self.xattrs = meta.xattrs.clone();
        self.mtime = Stamp::Exact(meta.mtime.0, meta.mtime.1);
        if let Some(access) = self.acl(ACCESS) {
            self.set_access(&access);
        }
    }

    fn acl(&self, name: &str) -> Option<Acl> {
        self.xattrs.get(&t(name)).map(Acl::parse)
    }

    /// An access list sets the permission bits, and is kept if it says more than they can.
    fn set_access(&mut self, acl: &Acl) {
        self.mode = self.mode & !0o777 | acl.mode();
        if acl.is_extended() {
            self.xattrs.insert(t(ACCESS), acl.value());
        } else {
            self.xattrs.remove(&t(ACCESS));
        }
    }

    fn set_mode(&mut self, mode: u32) {
        self.mode = mode;
        if let Some(mut acl) = self.acl(ACCESS) {
            acl.set_mode(mode);
            self.xattrs.insert(t(ACCESS), acl.value());
        }
    }

    fn set_acl(&mut self, name: &Text, value: &Text) -> Applied {
        if *name == t(ACCESS) {
            self.set_access(&Acl::parse(value));
        } else if self.is_dir() {
            self.xattrs.insert(name.clone(), value.clone());
        } else {
            return Err(Errno::ACCESS);
        }
        Ok(Outcome::Done)
    }

    /// What a new object in the directory `parent` gets from it: its group if set-gid, and its
    /// default access list instead of the umask.
    fn inherit(&mut self, parent: &Inode, umask: u32) {
        if parent.mode & SET_GID != 0 {
            self.gid = parent.gid;
            self.mode |= if self.is_dir() { SET_GID } else { 0 };
        }
        match parent.acl(DEFAULT) {
            _ if matches!(self.kind, Kind::Symlink(_)) => self.mode = 0o777,
            None => self.mode &= !umask,
            Some(mut acl) => {
                if self.is_dir() {
                    self.xattrs.insert(t(DEFAULT), acl.value());
                }
                acl.set_mode(self.mode & acl.mode());
                self.set_access(&acl);
            }
        }
    }

    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir(_))
    }

    fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    /// Whether the kernel lets an object of this type have the attribute.
    fn can_have_xattr(&self, name: &Text) -> bool {
        match self.kind {
            Kind::File(_) | Kind::Dir(_) => true,
            Kind::Symlink(_) => name.0.starts_with(b"trusted."),
            _ => !name.0.starts_with(b"user."),
        }
    }

    /// A write or truncation by an unprivileged caller, or any change of owner, drops the set-id
    /// bits. Set-group-id without group execution is kept by those who may set it.
    fn drop_set_id(&mut self, (uid, gid): (u32, u32)) {
        if self.is_dir() {
            return;
        }
        self.drop_capability();
        self.mode &= !SET_UID;
        if self.mode & GROUP_EXEC != 0 || uid != 0 && gid != self.gid {
            self.mode &= !SET_GID;
        }
    }

    /// Any write drops capabilities, whoever writes.
    fn drop_capability(&mut self) {
        self.xattrs.remove(&t(CAPABILITY));
    }

    fn data_mut(&mut self) -> &mut Vec<u8> {
        match &mut self.kind {
            Kind::File(data) => data,
            _ => unreachable!("only admitted on regular files"),
        }
    }
}

/// What an operation gives back, apart from an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Count(usize),
    Bytes(Text),
    Names(BTreeSet<Text>),
    /// An object (or its absence) whose attributes are to be compared.
    Object(Option<Ino>),
}

/// How the filesystem under test differs from a plain one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whiteouts are `.wh.` files: no new name may look like one.
    pub dot_files: bool,
    /// No writable layer: every change is EROFS.
    pub read_only: bool,
    /// How a directory that has a lower part is renamed; `None` if there is no such thing.
    pub redirect: Option<Redirect>,
}

#[derive(Clone, Debug)]
pub struct Tree {
    pub inodes: Vec<Inode>,
    pub held: BTreeMap<u8, Ino>,
    pub rules: Rules,
}

type Applied = Result<Outcome, Errno>;

impl Tree {
    /// A tree of nothing but a root directory.
    pub fn new() -> Tree {
        let root = Inode::new(Kind::Dir(BTreeMap::new()));
        Tree { inodes: vec![root], held: BTreeMap::new(), rules: Rules::default() }
    }

    pub fn add(&mut self, inode: Inode) -> Ino {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    pub fn entries(&self, dir: Ino) -> &BTreeMap<Text, Ino> {
        match &self.inodes[dir].kind {
            Kind::Dir(entries) => entries,
            _ => unreachable!("not a directory"),
        }
    }

    pub fn entries_mut(&mut self, dir: Ino) -> &mut BTreeMap<Text, Ino> {
        match &mut self.inodes[dir].kind {
            Kind::Dir(entries) => entries,
            _ => unreachable!("not a directory"),
        }
    }

    /// Every path with its inode, parents first, the root included.
    pub fn paths(&self) -> Vec<(Text, Ino)> {
        let mut paths = vec![(Text::default(), ROOT)];
        let mut next = 0;
        while let Some((path, ino)) = paths.get(next).cloned() {
            if let Kind::Dir(entries) = &self.inodes[ino].kind {
                paths.extend(entries.iter().map(|(name, &child)| (path.join(name), child)));
            }
            next += 1;
        }
        paths
    }

    /// The number of names an inode has in the tree.
    pub fn names_of(&self, ino: Ino) -> u32 {
        self.paths().iter().map(|(_, it)| u32::from(*it == ino)).sum()
    }

    pub fn resolve(&self, path: &Text) -> Option<Ino> {
        path.components().try_fold(ROOT, |at, name| match &self.inodes[at].kind {
            Kind::Dir(entries) => entries.get(&name).copied(),
            _ => None,
        })
    }

    /// The directory that holds or would hold `path`, and the last name.
    pub fn parent(&self, path: &Text) -> Option<(Ino, Text)> {
        let (parent, name) = path.split_last()?;
        let dir = self.resolve(&parent)?;
        self.inodes[dir].is_dir().then_some((dir, name))
    }

    /// The directories on the way to `path`.
    pub fn ancestors(&self, path: &Text) -> Vec<Ino> {
        let paths = self.paths().into_iter();
        paths.filter(|(it, _)| path.is_within(it) && it != path).map(|(_, ino)| ino).collect()
    }

    pub fn target(&self, target: &Target) -> Option<Ino> {
        match target {
            Target::At(path) => self.resolve(path),
            Target::Held(slot) => self.held.get(slot).copied(),
        }
    }

    fn file(&self, target: &Target) -> Option<&Inode> {
        self.target(target).map(|ino| &self.inodes[ino]).filter(|inode| inode.is_file())
    }

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
            Op::RemountTo(_) => self.rules.redirect.is_some(),
        }
    }

    /// Whether no path leads to the inode any more.
    pub fn is_dead(&self, ino: Ino) -> bool {
        ino != ROOT && self.names_of(ino) == 0
    }

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
            Op::Link(target, path) => self.link(target, path),
            Op::Unlink(path) => self.unlink(path),
            Op::RemoveDir(path) => self.remove_dir(path),
            Op::Rename(from, to, how) => self.rename(from, to, *how),
            Op::Write(target, at, data, kill) => self.write(target, *at, *data, *kill),
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
    fn entry(&self, path: &Text) -> Result<(Ino, Text, Option<Ino>), Errno> {
        let (dir, name) = self.parent(path).unwrap();
        if name.0.len() > 255 {
            return Err(Errno::NAMETOOLONG);
        }
        let found = self.entries(dir).get(&name).copied();
        Ok((dir, name, found))
    }

    fn existing(&self, path: &Text) -> Result<(Ino, Text, Ino), Errno> {
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

fn is_acl(name: &Text) -> bool {
    *name == t(ACCESS) || *name == t(DEFAULT)
}
