//! The overlay core as a subject, through its facade.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use plyfs::layer::stat_override::StatOverride;
use plyfs::overlay::{
    Allocate as Mode, Caller, Config, Flow, NodeId, Overlay, RedirectPolicy, RenameFlags, SeekTo,
    SetAttr, UpperDirs,
};
use plyfs::sys::Time;
use plyfs::sys::object::NewTime;
use rustix::fs::{major, makedev, minor};
use rustix::io::Errno;

use crate::cases::op::Redirect;
use crate::cases::op::{Allocate, How, New, Set, Whence, stranger};
use crate::mode;
use crate::setup::Setup;
use crate::subject::{Answer, Attr, Changes, DirEntry, Entry, Node, Subject};

pub struct Union {
    config: Config,
    /// `None` only while it is reopened: two mounts of one upper layer are refused.
    overlay: Option<Overlay>,
}

impl Union {
    pub fn open(
        setup: Setup,
        layers: &[PathBuf],
        data_only: &[PathBuf],
        work: &Path,
    ) -> Result<Union, String> {
        let data_only = data_only.to_vec();
        let upper = UpperDirs { upper: layers[0].clone(), work: work.to_path_buf() };
        let redirect = setup.rules().redirect.map_or(RedirectPolicy::default(), policy);
        let config = if setup == Setup::ReadOnly {
            Config { lower: layers.to_vec(), data_only, ..Config::default() }
        } else {
            // Syncing costs the time of thousands of cases; where it is free, it is done.
            let root = rustix::process::geteuid().is_root();
            let stored = if root { StatOverride::Security } else { StatOverride::User };
            let volatile = !matches!(setup, Setup::UpperInMemory(_));
            Config {
                lower: layers[1..].to_vec(),
                data_only,
                upper: Some(upper),
                volatile,
                redirect,
                force_dot_whiteouts: setup == Setup::DotFiles,
                store_attributes: (setup == Setup::StoredAttributes).then_some(stored),
                ..Config::default()
            }
        };
        let mut union = Union { config: mode::applied(config), overlay: None };
        union.reopen(None)?;
        Ok(union)
    }

    fn overlay(&self) -> &Overlay {
        self.overlay.as_ref().unwrap()
    }
}

fn policy(redirect: Redirect) -> RedirectPolicy {
    match redirect {
        Redirect::Copy => RedirectPolicy::Copy,
        Redirect::Mark => RedirectPolicy::Redirect,
        Redirect::Refuse => RedirectPolicy::Refuse,
    }
}

fn attr(attr: &plyfs::overlay::Attr) -> Attr {
    let is_device = matches!(attr.mode & 0o170_000, 0o020_000 | 0o060_000);
    Attr {
        ino: attr.ino,
        size: attr.size,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: if is_device { (major(attr.rdev), minor(attr.rdev)) } else { (0, 0) },
        atime: (attr.atime.sec, attr.atime.nsec),
        mtime: (attr.mtime.sec, attr.mtime.nsec),
    }
}

fn entry(entry: plyfs::overlay::Entry) -> Entry {
    Entry { node: entry.node.0, attr: attr(&entry.attr) }
}

fn caller(new: New) -> Caller {
    Caller { uid: new.caller.0, gid: new.caller.1, thread: 0 }
}

fn time((sec, nsec): (i64, u32)) -> NewTime {
    NewTime::At(Time { sec, nsec })
}

impl Subject for Union {
    fn root(&self) -> Node {
        NodeId::ROOT.0
    }

    fn lookup(&self, parent: Node, name: &OsStr) -> Answer<Option<Entry>> {
        Ok(self.overlay().lookup(NodeId(parent), name)?.map(entry))
    }

    fn forget(&self, node: Node, count: u64) {
        self.overlay().forget(NodeId(node), count);
    }

    fn node_count(&self) -> usize {
        self.overlay().node_count()
    }

    fn attr(&self, node: Node) -> Answer<Attr> {
        Ok(attr(&self.overlay().attr(NodeId(node))?))
    }

    fn set_attr(&self, node: Node, changes: &Changes) -> Answer<Attr> {
        let change = SetAttr {
            mode: changes.mode,
            uid: changes.uid,
            gid: changes.gid,
            size: changes.size,
            atime: changes.atime.map(time),
            mtime: changes.mtime.map(time),
            collected: false,
        };
        let caller = Caller { uid: changes.caller, gid: changes.caller, thread: 0 };
        Ok(attr(&self.overlay().set_attr(caller, NodeId(node), &change)?))
    }

    fn read_link(&self, node: Node) -> Answer<Vec<u8>> {
        Ok(self.overlay().read_link(NodeId(node))?.into_vec())
    }

    fn create(&self, parent: Node, name: &OsStr, new: New) -> Answer<Entry> {
        self.overlay().create(caller(new), NodeId(parent), name, new.mode, new.umask).map(entry)
    }

    fn make_node(&self, parent: Node, name: &OsStr, new: New, rdev: (u32, u32)) -> Answer<Entry> {
        let rdev = makedev(rdev.0, rdev.1);
        self.overlay()
            .make_node(caller(new), NodeId(parent), name, new.mode, new.umask, rdev)
            .map(entry)
    }

    fn make_dir(&self, parent: Node, name: &OsStr, new: New) -> Answer<Entry> {
        self.overlay().make_dir(caller(new), NodeId(parent), name, new.mode, new.umask).map(entry)
    }

    fn symlink(&self, parent: Node, name: &OsStr, target: &[u8], new: New) -> Answer<Entry> {
        let target = OsStr::from_bytes(target);
        self.overlay().symlink(caller(new), NodeId(parent), name, target).map(entry)
    }

    fn link(&self, node: Node, parent: Node, name: &OsStr) -> Answer<Entry> {
        self.overlay().link(NodeId(node), NodeId(parent), name).map(entry)
    }

    fn unlink(&self, parent: Node, name: &OsStr) -> Answer<()> {
        self.overlay().unlink(NodeId(parent), name)
    }

    fn remove_dir(&self, parent: Node, name: &OsStr) -> Answer<()> {
        self.overlay().rmdir(NodeId(parent), name)
    }

    fn rename(&self, from: (Node, &OsStr), to: (Node, &OsStr), how: How) -> Answer<()> {
        let flags =
            RenameFlags { no_replace: how == How::NoReplace, exchange: how == How::Exchange };
        self.overlay().rename(NodeId(from.0), from.1, NodeId(to.0), to.1, flags)
    }

    fn read(&self, node: Node, offset: u64, len: usize) -> Answer<Vec<u8>> {
        let mut data = vec![0; len];
        let count = self.overlay().read(NodeId(node), offset, &mut data)?;
        data.truncate(count);
        Ok(data)
    }

    fn write(&self, node: Node, offset: u64, data: &[u8], kill_privileges: bool) -> Answer<usize> {
        let (uid, gid) = stranger();
        let unprivileged = kill_privileges.then_some(Caller { uid, gid, thread: 0 });
        self.overlay().write(NodeId(node), offset, data, unprivileged)
    }

    fn allocate(&self, node: Node, how: Allocate, offset: u64, len: u64) -> Answer<()> {
        self.overlay().allocate(NodeId(node), Mode(how.flags().bits()), offset, len)
    }

    fn copy_range(&self, from: (Node, u64), to: (Node, u64), len: usize) -> Answer<usize> {
        let copied = self.overlay().copy_range(NodeId(from.0), from.1, NodeId(to.0), to.1, len);
        if copied != Err(Errno::XDEV) {
            return copied;
        }
        // The kernel reads and writes by itself then (fuse_copy_file_range).
        match self.read(from.0, from.1, len)? {
            data if data.is_empty() => Ok(0),
            data => self.write(to.0, to.1, &data, false),
        }
    }

    fn seek(&self, node: Node, offset: u64, whence: Whence) -> Answer<u64> {
        let to = match whence {
            Whence::Data => SeekTo::Data(offset),
            Whence::Hole => SeekTo::Hole(offset),
        };
        self.overlay().seek(NodeId(node), to)
    }

    fn sync(&self, node: Node) -> Answer<()> {
        self.overlay().sync(NodeId(node), false)
    }

    fn read_dir(&self, node: Node, after: u64, limit: usize) -> Answer<Vec<DirEntry>> {
        let mut entries = Vec::new();
        self.overlay().read_dir(NodeId(node), after, |entry| {
            if entry.name == "." || entry.name == ".." {
                return Flow::Continue;
            }
            if entries.len() == limit {
                return Flow::Stop;
            }
            entries.push(dir_entry(&entry));
            Flow::Continue
        })?;
        Ok(entries)
    }

    fn read_dir_plus(&self, node: Node) -> Answer<Vec<(DirEntry, Entry)>> {
        let mut entries: Vec<(DirEntry, Entry)> = Vec::new();
        loop {
            // A reply ends early at an entry that cannot be read; the error comes with the next.
            let before = entries.len();
            let after = entries.last().map_or(0, |(last, _)| last.cookie);
            self.overlay().read_dir_plus(NodeId(node), after, |listed, found| {
                entries.extend(found.map(|found| (dir_entry(&listed), entry(*found))));
                Flow::Continue
            })?;
            if entries.len() == before {
                return Ok(entries);
            }
        }
    }

    fn get_xattr(&self, node: Node, name: &OsStr) -> Answer<Vec<u8>> {
        self.overlay().get_xattr(NodeId(node), name)
    }

    fn list_xattr(&self, node: Node) -> Answer<Vec<Vec<u8>>> {
        let names = self.overlay().list_xattr(NodeId(node))?;
        Ok(names.into_iter().map(|name| name.as_bytes().to_vec()).collect())
    }

    fn set_xattr(&self, node: Node, name: &OsStr, value: &[u8], set: Set) -> Answer<()> {
        let (create, replace) = (set == Set::IfAbsent, set == Set::IfPresent);
        let root = Caller { uid: 0, gid: 0, thread: 0 };
        self.overlay().set_xattr(root, NodeId(node), name, value, create, replace)
    }

    fn remove_xattr(&self, node: Node, name: &OsStr) -> Answer<()> {
        self.overlay().remove_xattr(NodeId(node), name)
    }

    fn reopen(&mut self, redirect: Option<Redirect>) -> Result<(), String> {
        self.config.redirect = redirect.map_or(self.config.redirect, policy);
        self.overlay = None;
        self.overlay = Some(Overlay::open(&self.config).map_err(|error| error.to_string())?);
        Ok(())
    }
}

fn dir_entry(entry: &plyfs::overlay::DirEntry<'_>) -> DirEntry {
    DirEntry {
        name: entry.name.as_bytes().to_vec(),
        ino: entry.ino,
        kind: entry.kind.mode_bits(),
        cookie: entry.cookie,
    }
}
