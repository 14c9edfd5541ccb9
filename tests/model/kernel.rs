//! A plain directory of the host as a subject: what the kernel's own filesystem says is what the
//! model must say. This proves the model, not plyfs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Stat, Timespec,
    Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat, copy_file_range, fallocate, fstat,
    fsync, ftruncate, getxattr, linkat, listxattr, major, makedev, minor, mkdirat, mknodat, open,
    openat, readlinkat, removexattr, renameat_with, setxattr, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, pread, pwrite};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use rustix::thread::CapabilitySet;

use crate::cases::acl::DEFAULT;
use crate::cases::caller::acting_as;
use crate::cases::layer::own_ids;
use crate::cases::op::Redirect;
use crate::cases::op::{Allocate, How, New, Set, Whence, stranger};
use crate::subject::{Answer, Attr, Changes, DirEntry, Entry, Node, Subject};

pub struct HostDir {
    root: PathBuf,
    /// Open objects by inode number, with their references. Never reused while open.
    nodes: RefCell<HashMap<Node, (Rc<OwnedFd>, u64)>>,
    root_node: Node,
}

/// Read-only layers mounted by kernel overlayfs, attached nowhere and gone on drop.
pub struct OverlayMount(OwnedFd);

impl OverlayMount {
    /// `empty` is one more lower layer, because the kernel wants two.
    pub fn new(layers: &[PathBuf], empty: &Path) -> Result<OverlayMount, Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in layers.iter().map(PathBuf::as_path).chain([empty]) {
            fsconfig_set_string(&context, "lowerdir+", layer)?;
        }
        fsconfig_set_string(&context, "redirect_dir", "follow")?;
        fsconfig_set_string(&context, "metacopy", "on")?;
        fsconfig_create(&context)?;
        let (flags, attributes) = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
        Ok(OverlayMount(fsmount(&context, flags, attributes)?))
    }

    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

impl HostDir {
    pub fn open(root: PathBuf) -> Result<HostDir, Errno> {
        let fd = open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        let root_node = fstat(&fd)?.st_ino;
        let nodes = RefCell::new(HashMap::from([(root_node, (Rc::new(fd), 1))]));
        Ok(HostDir { root, nodes, root_node })
    }

    fn fd(&self, node: Node) -> Rc<OwnedFd> {
        self.nodes.borrow()[&node].0.clone()
    }

    /// The object of a node, even if it has no name.
    fn path(&self, node: Node) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd(node).as_raw_fd()))
    }

    fn file(&self, node: Node, flags: OFlags) -> Answer<OwnedFd> {
        open(self.path(node), flags, Mode::empty())
    }

    /// Makes something as its caller would. The kernel's rule: a default access list of the
    /// directory takes the place of the umask.
    fn made_by<T>(&self, new: New, parent: Node, act: impl FnOnce(Mode) -> T) -> T {
        let has_default = self.get_xattr(parent, OsStr::new(DEFAULT)).is_ok();
        let umask = if has_default { 0 } else { new.umask };
        let mode = Mode::from_raw_mode(new.mode & !umask);
        acting_as(new.caller, CapabilitySet::empty(), || act(mode))
    }

    /// Kernel overlayfs lists whiteouts in directories that are not merged, where none should be.
    fn is_listed_whiteout(&self, dir: Node, entry: &rustix::fs::DirEntry) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        openat(self.fd(dir), entry.file_name(), flags, Mode::empty()).err() == Some(Errno::NOENT)
    }

    fn entry(&self, parent: Node, name: &OsStr) -> Answer<Entry> {
        let fd = openat(self.fd(parent), name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let attr = attr(&fstat(&fd)?);
        self.nodes.borrow_mut().entry(attr.ino).or_insert((Rc::new(fd), 0)).1 += 1;
        Ok(Entry { node: attr.ino, attr })
    }
}

fn attr(stat: &Stat) -> Attr {
    let device = FileType::from_raw_mode(stat.st_mode);
    let device = device.is_char_device() || device.is_block_device();
    let rdev = if device { (major(stat.st_rdev), minor(stat.st_rdev)) } else { (0, 0) };
    Attr {
        ino: stat.st_ino,
        size: stat.st_size as u64,
        mode: stat.st_mode,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev,
        atime: (stat.st_atime, stat.st_atime_nsec as u32),
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
    }
}

fn time(time: Option<(i64, u32)>) -> Timespec {
    match time {
        Some((tv_sec, nsec)) => Timespec { tv_sec, tv_nsec: nsec.into() },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    }
}

impl Subject for HostDir {
    fn root(&self) -> Node {
        self.root_node
    }

    fn lookup(&self, parent: Node, name: &OsStr) -> Answer<Option<Entry>> {
        match self.entry(parent, name) {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(Some),
        }
    }

    fn forget(&self, node: Node, count: u64) {
        let mut nodes = self.nodes.borrow_mut();
        let references = &mut nodes.get_mut(&node).unwrap().1;
        *references -= count;
        if *references == 0 {
            nodes.remove(&node);
        }
    }

    fn node_count(&self) -> usize {
        self.nodes.borrow().len()
    }

    fn attr(&self, node: Node) -> Answer<Attr> {
        Ok(attr(&fstat(self.fd(node))?))
    }

    fn set_attr(&self, node: Node, changes: &Changes) -> Answer<Attr> {
        // A link in /proc leads to a symbolic link itself, so that nothing more is followed.
        let path = self.path(node);
        if let Some(mode) = changes.mode {
            chmodat(CWD, &path, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            let (uid, gid) = (changes.uid.map(Uid::from_raw), changes.gid.map(Gid::from_raw));
            chownat(CWD, &path, uid, gid, AtFlags::empty())?;
        }
        if let Some(size) = changes.size {
            let file = self.file(node, OFlags::WRONLY)?;
            let (caller, without) = match changes.caller {
                0 => (own_ids(), CapabilitySet::empty()),
                uid => ((uid, uid), CapabilitySet::FSETID),
            };
            acting_as(caller, without, || ftruncate(&file, size))?;
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            let times = Timestamps {
                last_access: time(changes.atime),
                last_modification: time(changes.mtime),
            };
            utimensat(CWD, &path, &times, AtFlags::empty())?;
        }
        self.attr(node)
    }

    fn read_link(&self, node: Node) -> Answer<Vec<u8>> {
        Ok(readlinkat(self.fd(node), "", Vec::new())?.into_bytes())
    }

    fn create(&self, parent: Node, name: &OsStr, new: New) -> Answer<Entry> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        self.made_by(new, parent, |mode| openat(self.fd(parent), name, flags, mode))?;
        self.entry(parent, name)
    }

    fn make_node(&self, parent: Node, name: &OsStr, new: New, rdev: (u32, u32)) -> Answer<Entry> {
        let kind = FileType::from_raw_mode(new.mode);
        let device = makedev(rdev.0, rdev.1);
        self.made_by(new, parent, |mode| mknodat(self.fd(parent), name, kind, mode, device))?;
        self.entry(parent, name)
    }

    fn make_dir(&self, parent: Node, name: &OsStr, new: New) -> Answer<Entry> {
        self.made_by(new, parent, |mode| mkdirat(self.fd(parent), name, mode))?;
        self.entry(parent, name)
    }

    fn symlink(&self, parent: Node, name: &OsStr, target: &[u8], new: New) -> Answer<Entry> {
        self.made_by(new, parent, |_| symlinkat(target, self.fd(parent), name))?;
        self.entry(parent, name)
    }

    fn link(&self, node: Node, parent: Node, name: &OsStr) -> Answer<Entry> {
        linkat(CWD, self.path(node), self.fd(parent), name, AtFlags::SYMLINK_FOLLOW)?;
        self.entry(parent, name)
    }

    fn unlink(&self, parent: Node, name: &OsStr) -> Answer<()> {
        unlinkat(self.fd(parent), name, AtFlags::empty())
    }

    fn remove_dir(&self, parent: Node, name: &OsStr) -> Answer<()> {
        unlinkat(self.fd(parent), name, AtFlags::REMOVEDIR)
    }

    fn rename(&self, from: (Node, &OsStr), to: (Node, &OsStr), how: How) -> Answer<()> {
        let flags = match how {
            How::Replace => RenameFlags::empty(),
            How::NoReplace => RenameFlags::NOREPLACE,
            How::Exchange => RenameFlags::EXCHANGE,
        };
        renameat_with(self.fd(from.0), from.1, self.fd(to.0), to.1, flags)
    }

    fn read(&self, node: Node, offset: u64, len: usize) -> Answer<Vec<u8>> {
        let mut data = vec![0; len];
        let count = pread(self.file(node, OFlags::RDONLY)?, data.as_mut_slice(), offset)?;
        data.truncate(count);
        Ok(data)
    }

    fn write(&self, node: Node, offset: u64, data: &[u8], kill_privileges: bool) -> Answer<usize> {
        let file = self.file(node, OFlags::WRONLY)?;
        let (caller, without) = match kill_privileges {
            true => (stranger(), CapabilitySet::FSETID),
            false => (own_ids(), CapabilitySet::empty()),
        };
        acting_as(caller, without, || pwrite(&file, data, offset))
    }

    fn allocate(&self, node: Node, how: Allocate, offset: u64, len: u64) -> Answer<()> {
        fallocate(self.file(node, OFlags::WRONLY)?, how.flags(), offset, len)
    }

    fn copy_range(&self, from: (Node, u64), to: (Node, u64), len: usize) -> Answer<usize> {
        let source = self.file(from.0, OFlags::RDONLY)?;
        let target = self.file(to.0, OFlags::WRONLY)?;
        let (mut from_at, mut to_at) = (from.1, to.1);
        copy_file_range(source, Some(&mut from_at), target, Some(&mut to_at), len)
    }

    fn seek(&self, node: Node, offset: u64, whence: Whence) -> Answer<u64> {
        let position = match whence {
            Whence::Data => SeekFrom::Data(offset),
            Whence::Hole => SeekFrom::Hole(offset),
        };
        rustix::fs::seek(self.file(node, OFlags::RDONLY)?, position)
    }

    fn sync(&self, node: Node) -> Answer<()> {
        fsync(self.file(node, OFlags::RDONLY)?)
    }

    fn read_dir(&self, node: Node, after: u64, limit: usize) -> Answer<Vec<DirEntry>> {
        let mut dir = Dir::new(self.file(node, OFlags::RDONLY | OFlags::DIRECTORY)?)?;
        dir.seek(after as i64)?;
        let mut entries = Vec::new();
        for entry in dir {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || self.is_listed_whiteout(node, &entry) {
                continue;
            }
            if entries.len() == limit {
                break;
            }
            entries.push(DirEntry {
                name: name.to_vec(),
                ino: entry.ino(),
                kind: entry.file_type().as_raw_mode(),
                cookie: entry.offset() as u64,
            });
        }
        Ok(entries)
    }

    fn read_dir_plus(&self, node: Node) -> Answer<Vec<(DirEntry, Entry)>> {
        let entries = self.read_dir(node, 0, usize::MAX)?.into_iter();
        entries
            .map(|entry| {
                let found =
                    self.entry(node, crate::cases::text::Text(entry.name.clone()).as_os())?;
                Ok((entry, found))
            })
            .collect()
    }

    fn get_xattr(&self, node: Node, name: &OsStr) -> Answer<Vec<u8>> {
        let mut value = vec![0; 4096];
        let len = getxattr(self.path(node), name, value.as_mut_slice())?;
        value.truncate(len);
        Ok(value)
    }

    fn list_xattr(&self, node: Node) -> Answer<Vec<Vec<u8>>> {
        let mut list = vec![0; 4096];
        let len = listxattr(self.path(node), list.as_mut_slice())?;
        let names = list[..len].split(|&b| b == 0).filter(|name| !name.is_empty());
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    fn set_xattr(&self, node: Node, name: &OsStr, value: &[u8], set: Set) -> Answer<()> {
        let flags = match set {
            Set::Always => XattrFlags::empty(),
            Set::IfAbsent => XattrFlags::CREATE,
            Set::IfPresent => XattrFlags::REPLACE,
        };
        setxattr(self.path(node), name, value, flags)
    }

    fn remove_xattr(&self, node: Node, name: &OsStr) -> Answer<()> {
        removexattr(self.path(node), name)
    }

    fn reopen(&mut self, _: Option<Redirect>) -> Result<(), String> {
        *self = HostDir::open(self.root.clone()).map_err(|errno| errno.to_string())?;
        Ok(())
    }
}
