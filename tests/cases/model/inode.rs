//! One object of the model, and what changes in it belong together.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::{Applied, Ino, Outcome};
use crate::cases::acl::{ACCESS, Acl, DEFAULT};
use crate::cases::layer::Meta;
use crate::cases::text::{Text, t};

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

    pub(super) fn acl(&self, name: &str) -> Option<Acl> {
        self.xattrs.get(&t(name)).map(Acl::parse)
    }

    /// An access list sets the permission bits, and is kept if it says more than they can.
    pub(super) fn set_access(&mut self, acl: &Acl) {
        self.mode = self.mode & !0o777 | acl.mode();
        if acl.is_extended() {
            self.xattrs.insert(t(ACCESS), acl.value());
        } else {
            self.xattrs.remove(&t(ACCESS));
        }
    }

    pub(super) fn set_mode(&mut self, mode: u32) {
        self.mode = mode;
        if let Some(mut acl) = self.acl(ACCESS) {
            acl.set_mode(mode);
            self.xattrs.insert(t(ACCESS), acl.value());
        }
    }

    pub(super) fn set_acl(&mut self, name: &Text, value: &Text) -> Applied {
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
    pub(super) fn inherit(&mut self, parent: &Inode, umask: u32) {
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

    pub(super) fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    /// Whether the kernel lets an object of this type have the attribute.
    pub(super) fn can_have_xattr(&self, name: &Text) -> bool {
        match self.kind {
            Kind::File(_) | Kind::Dir(_) => true,
            Kind::Symlink(_) => name.0.starts_with(b"trusted."),
            _ => !name.0.starts_with(b"user."),
        }
    }

    /// A write or truncation by an unprivileged caller, or any change of owner, drops the set-id
    /// bits. Set-group-id without group execution is kept by those who may set it.
    pub(super) fn drop_set_id(&mut self, (uid, gid): (u32, u32)) {
        if self.is_dir() {
            return;
        }
        self.drop_capability();
        self.mode &= !SET_UID;
        if self.mode & GROUP_EXEC != 0 || uid != 0 && gid != self.gid {
            self.mode &= !SET_GID;
        }
    }

    pub(super) fn has_capability(&self) -> bool {
        self.xattrs.contains_key(&t(CAPABILITY))
    }

    /// Any write drops capabilities, whoever writes.
    pub(super) fn drop_capability(&mut self) {
        self.xattrs.remove(&t(CAPABILITY));
    }

    pub(super) fn data(&self) -> &[u8] {
        match &self.kind {
            Kind::File(data) => data,
            _ => unreachable!("only admitted on regular files"),
        }
    }

    pub(super) fn data_mut(&mut self) -> &mut Vec<u8> {
        match &mut self.kind {
            Kind::File(data) => data,
            _ => unreachable!("only admitted on regular files"),
        }
    }
}

pub(super) fn is_acl(name: &Text) -> bool {
    *name == t(ACCESS) || *name == t(DEFAULT)
}
