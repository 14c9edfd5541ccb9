//! The filesystem under test, by node ids, as the kernel would drive it.

use std::ffi::OsStr;

use rustix::io::Errno;

use crate::cases::op::Redirect;
use crate::cases::op::{Allocate, How, New, Set, Whence};

pub type Node = u64;
pub type Answer<T> = Result<T, Errno>;

/// What `stat` tells; `mode` includes the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    pub ino: u64,
    pub size: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
}

impl Attr {
    /// The fields in which `self`, the expected one, differs from `actual`.
    pub fn differences(&self, actual: &Attr) -> String {
        let mut all = String::new();
        let mut compare = |field: &str, expected: String, actual: String| {
            if expected != actual {
                all += &format!("expected {field} {expected}, got {actual}; ");
            }
        };
        compare("mode", format!("{:#o}", self.mode), format!("{:#o}", actual.mode));
        compare("size", self.size.to_string(), actual.size.to_string());
        compare("nlink", self.nlink.to_string(), actual.nlink.to_string());
        compare("uid", self.uid.to_string(), actual.uid.to_string());
        compare("gid", self.gid.to_string(), actual.gid.to_string());
        compare("rdev", format!("{:?}", self.rdev), format!("{:?}", actual.rdev));
        all
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub node: Node,
    pub attr: Attr,
}

/// Attributes to change; `caller` is the user who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<(i64, u32)>,
    pub mtime: Option<(i64, u32)>,
    pub caller: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: Vec<u8>,
    pub ino: u64,
    /// The type bits of `st_mode`.
    pub kind: u32,
    pub cookie: u64,
}

/// A filesystem with one reference per `Entry` handed out, given back by `forget`.
pub trait Subject {
    fn root(&self) -> Node;
    fn lookup(&self, parent: Node, name: &OsStr) -> Answer<Option<Entry>>;
    fn forget(&self, node: Node, count: u64);
    /// Nodes in memory, the root included.
    fn node_count(&self) -> usize;
    fn attr(&self, node: Node) -> Answer<Attr>;
    fn set_attr(&self, node: Node, changes: &Changes) -> Answer<Attr>;
    fn read_link(&self, node: Node) -> Answer<Vec<u8>>;
    fn create(&self, parent: Node, name: &OsStr, new: New) -> Answer<Entry>;
    /// `mode` of `new` includes the type; `rdev` is major and minor number.
    fn make_node(&self, parent: Node, name: &OsStr, new: New, rdev: (u32, u32)) -> Answer<Entry>;
    fn make_dir(&self, parent: Node, name: &OsStr, new: New) -> Answer<Entry>;
    fn symlink(&self, parent: Node, name: &OsStr, target: &[u8], new: New) -> Answer<Entry>;
    fn link(&self, node: Node, parent: Node, name: &OsStr) -> Answer<Entry>;
    fn unlink(&self, parent: Node, name: &OsStr) -> Answer<()>;
    fn remove_dir(&self, parent: Node, name: &OsStr) -> Answer<()>;
    fn rename(&self, from: (Node, &OsStr), to: (Node, &OsStr), how: How) -> Answer<()>;
    fn read(&self, node: Node, offset: u64, len: usize) -> Answer<Vec<u8>>;
    fn write(&self, node: Node, offset: u64, data: &[u8], kill_privileges: bool) -> Answer<usize>;
    fn allocate(&self, node: Node, how: Allocate, offset: u64, len: u64) -> Answer<()>;
    fn copy_range(&self, from: (Node, u64), to: (Node, u64), len: usize) -> Answer<usize>;
    fn seek(&self, node: Node, offset: u64, whence: Whence) -> Answer<u64>;
    fn sync(&self, node: Node) -> Answer<()>;
    /// At most `limit` entries after a cookie (0: from the start), without `.` and `..`.
    fn read_dir(&self, node: Node, after: u64, limit: usize) -> Answer<Vec<DirEntry>>;
    /// All entries, each with a counted reference.
    fn read_dir_plus(&self, node: Node) -> Answer<Vec<(DirEntry, Entry)>>;
    fn get_xattr(&self, node: Node, name: &OsStr) -> Answer<Vec<u8>>;
    fn list_xattr(&self, node: Node) -> Answer<Vec<Vec<u8>>>;
    fn set_xattr(&self, node: Node, name: &OsStr, value: &[u8], set: Set) -> Answer<()>;
    fn remove_xattr(&self, node: Node, name: &OsStr) -> Answer<()>;
    /// Closes and reopens the filesystem, perhaps to rename directories in another way: all nodes but
    /// the root are gone.
    fn reopen(&mut self, redirect: Option<Redirect>) -> Result<(), String>;
}
