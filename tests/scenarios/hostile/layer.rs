//! A layer that fails when it is told to: a directory, shown through FUSE without any caching.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen,
    ReplyXattr, Request, Session,
};

use crate::support::posix::{get_xattr, xattrs};
use crate::support::{Scratch, tree};

/// What the layer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    Lookup,
    GetAttr,
    Open,
    Read,
    ReadDir,
    ReadLink,
    GetXattr,
    ListXattr,
}

/// What it does then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Do {
    /// Says EIO.
    Fail,
    /// Says EIO from this offset, or this entry of a directory, on.
    FailFrom(u64),
    /// Says nothing until [`FailingLayer::behave`].
    Hang,
    /// Says that it is something else.
    Pretend(FileType),
    /// Says that it has so many names.
    Links(u32),
}

/// What is wrong with the layer now: by what it is asked for and the name of the file.
#[derive(Default)]
struct Orders {
    now: Mutex<HashMap<(Ask, OsString), Do>>,
    changed: Condvar,
    /// Requests that have been answered with nothing yet.
    hanging: Mutex<usize>,
}

/// A mounted layer. To be dropped after the union over it.
pub struct FailingLayer {
    orders: Arc<Orders>,
    session: Option<BackgroundSession>,
    scratch: Scratch,
}

impl FailingLayer {
    /// A layer with the content that `text` describes, which behaves well as yet.
    pub fn new(text: &str) -> Self {
        let scratch = Scratch::new();
        let source = scratch.dir("source");
        tree::make(&source, text);
        let orders = Arc::new(Orders::default());
        let mirror = Mirror {
            paths: Mutex::new(HashMap::from([(INodeNo::ROOT.0, source.clone())])),
            orders: orders.clone(),
        };
        let mut config = Config::default();
        config.n_threads = Some(40);
        let session = Session::new(mirror, scratch.dir("layer"), &config).unwrap();
        Self { orders, session: Some(session.spawn().unwrap()), scratch }
    }

    /// Where it is mounted.
    pub fn point(&self) -> PathBuf {
        self.scratch.path().join("layer")
    }

    /// A path in the directory that the layer shows.
    pub fn source(&self, path: &str) -> PathBuf {
        self.scratch.path().join("source").join(path)
    }

    /// Has it do something wrong when it is asked for something of the file or directory `name`.
    pub fn order(&self, ask: Ask, name: &str, order: Do) {
        self.orders.now.lock().unwrap().insert((ask, name.into()), order);
    }

    /// Has it behave well again; what hangs is answered.
    pub fn behave(&self) {
        self.orders.now.lock().unwrap().clear();
        self.orders.changed.notify_all();
    }

    /// Waits until `count` requests hang.
    pub fn wait_for_hanging(&self, count: usize) {
        let hanging = self.orders.hanging.lock().unwrap();
        let patience = Duration::from_secs(20);
        let (hanging, waited) = self
            .orders
            .changed
            .wait_timeout_while(hanging, patience, |hanging| *hanging < count)
            .unwrap();
        assert!(!waited.timed_out(), "{hanging} requests hang, not {count}");
    }
}

impl Drop for FailingLayer {
    fn drop(&mut self) {
        self.behave();
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("{error}");
        }
    }
}

impl Orders {
    /// The order for a request, after the time that it hangs.
    fn get(&self, ask: Ask, name: &OsStr) -> Option<Do> {
        let key = (ask, name.to_owned());
        let mut now = self.now.lock().unwrap();
        let mut counted = false;
        while now.get(&key) == Some(&Do::Hang) {
            if !counted {
                *self.hanging.lock().unwrap() += 1;
                self.changed.notify_all();
                counted = true;
            }
            now = self.changed.wait(now).unwrap();
        }
        if counted {
            *self.hanging.lock().unwrap() -= 1;
        }
        now.get(&key).copied()
    }
}

/// The directory as a filesystem.
struct Mirror {
    paths: Mutex<HashMap<u64, PathBuf>>,
    orders: Arc<Orders>,
}

impl Mirror {
    fn path(&self, ino: INodeNo) -> PathBuf {
        self.paths.lock().unwrap().get(&ino.0).cloned().unwrap_or_default()
    }

    fn order(&self, ask: Ask, path: &Path) -> Result<Option<Do>, Errno> {
        match self.orders.get(ask, path.file_name().unwrap_or_default()) {
            Some(Do::Fail) => Err(Errno::EIO),
            order => Ok(order),
        }
    }

    fn attr(&self, ask: Ask, path: &Path) -> Result<FileAttr, Errno> {
        let order = self.order(ask, path)?;
        let meta = fs::symlink_metadata(path).map_err(Errno::from)?;
        let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds as u64);
        let mut attr = FileAttr {
            ino: INodeNo(meta.ino()),
            size: meta.len(),
            blocks: meta.blocks(),
            atime: time(meta.atime()),
            mtime: time(meta.mtime()),
            ctime: time(meta.ctime()),
            crtime: SystemTime::UNIX_EPOCH,
            kind: kind(meta.file_type()),
            perm: (meta.mode() & 0o7777) as u16,
            nlink: meta.nlink() as u32,
            uid: meta.uid(),
            gid: meta.gid(),
            rdev: meta.rdev() as u32,
            blksize: 4096,
            flags: 0,
        };
        match order {
            Some(Do::Pretend(kind)) => attr.kind = kind,
            Some(Do::Links(count)) => attr.nlink = count,
            _ => {}
        }
        Ok(attr)
    }
}

fn kind(kind: fs::FileType) -> FileType {
    match kind {
        kind if kind.is_dir() => FileType::Directory,
        kind if kind.is_symlink() => FileType::Symlink,
        kind if kind.is_char_device() => FileType::CharDevice,
        kind if kind.is_fifo() => FileType::NamedPipe,
        _ => FileType::RegularFile,
    }
}

impl Filesystem for Mirror {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let path = self.path(parent).join(name);
        match self.attr(Ask::Lookup, &path) {
            Ok(attr) => {
                self.paths.lock().unwrap().insert(attr.ino.0, path);
                reply.entry(&Duration::ZERO, &attr, Generation(0));
            }
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(Ask::GetAttr, &self.path(ino)) {
            Ok(attr) => reply.attr(&Duration::ZERO, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let path = self.path(ino);
        let target = self.order(Ask::ReadLink, &path);
        match target.and_then(|_| fs::read_link(path).map_err(Errno::from)) {
            Ok(target) => reply.data(target.as_os_str().as_bytes()),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.order(Ask::Open, &self.path(ino)) {
            Ok(_) => reply.opened(FileHandle(0), fuser::FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let path = self.path(ino);
        match self.order(Ask::Read, &path) {
            Ok(Some(Do::FailFrom(from))) if offset + u64::from(size) > from => {
                reply.error(Errno::EIO);
            }
            Ok(_) => {
                let mut buffer = vec![0; size as usize];
                match File::open(path).and_then(|file| file.read_at(&mut buffer, offset)) {
                    Ok(count) => reply.data(&buffer[..count]),
                    Err(error) => reply.error(error.into()),
                }
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let path = self.path(ino);
        let limit = match self.order(Ask::ReadDir, &path) {
            Ok(Some(Do::FailFrom(entry))) => entry,
            Ok(_) => u64::MAX,
            Err(error) => return reply.error(error),
        };
        if offset >= limit {
            return reply.error(Errno::EIO);
        }
        let mut entries: Vec<_> = match fs::read_dir(path) {
            Ok(entries) => entries.map(Result::unwrap).collect(),
            Err(error) => return reply.error(error.into()),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for (at, entry) in entries.iter().enumerate().skip(offset as usize) {
            let next = at as u64 + 1;
            let meta = entry.metadata().unwrap();
            let kind = kind(meta.file_type());
            if next > limit || reply.add(INodeNo(meta.ino()), next, kind, entry.file_name()) {
                break;
            }
        }
        reply.ok();
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let path = self.path(ino);
        let value = self.order(Ask::GetXattr, &path).and_then(|_| {
            get_xattr(&path, name.to_str().unwrap())
                .map_err(|error| Errno::from_i32(error.raw_os_error()))
        });
        answer(value, size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let path = self.path(ino);
        let names = self.order(Ask::ListXattr, &path);
        let names = names.map(|_| {
            xattrs(&path).iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect()
        });
        answer(names, size, reply);
    }
}

fn answer(value: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(error),
    }
}
