//! Carries operations out on a directory by system calls, as programs do.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Timespec, Timestamps,
    UTIME_OMIT, Uid, XattrFlags, chmodat, chownat, copy_file_range, fallocate, fcntl_getfl, fstat,
    fsync, ftruncate, getxattr, linkat, listxattr, makedev, mkdirat, mknodat, open, openat,
    readlinkat, removexattr, renameat_with, setxattr, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec, pread, pwrite};
use rustix::process::umask;
use rustix::thread::CapabilitySet;

use crate::answer::{Answer, Question, error_name, names, stat_answer};
use crate::cases::caller::acting_as;
use crate::cases::layer::{Data, Leaf, own_ids};
use crate::cases::op::{Change, How, New, Op, Set, Target, Whence, stranger};
use crate::cases::text::Text;
use crate::support::mode;
use crate::support::snapshot::printable;

type Result<T> = std::result::Result<T, Errno>;

/// A program that works in one directory and keeps some of its files open.
pub struct Program {
    root: OwnedFd,
    held: HashMap<u8, OwnedFd>,
    /// Seconds since 1970.
    started: i64,
}

impl Program {
    pub fn new(root: &Path, started: i64) -> Program {
        let root =
            open(root, OFlags::CLOEXEC | OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Program { root, held: HashMap::new(), started }
    }

    /// Where it keeps something open.
    pub fn slots(&self) -> impl Iterator<Item = u8> {
        self.held.keys().copied()
    }

    /// What the operation answers. Those that are about mounts or about several operations do
    /// nothing here.
    pub fn perform(&mut self, op: &Op) -> Answer {
        match self.call(op) {
            Ok(mut answer) => {
                answer.insert(Question::Error, "none".into());
                answer
            }
            Err(errno) => Answer::from([(Question::Error, error_name(errno))]),
        }
    }

    fn call(&mut self, op: &Op) -> Result<Answer> {
        match op {
            Op::Lookup(path) => self.stat(&Target::At(path.clone())),
            Op::Create(path, new) => {
                let flags = OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
                self.make(path, *new, |mode| openat(&self.root, name(path), flags, mode).map(drop))
            }
            Op::MakeDir(path, new) => {
                self.make(path, *new, |mode| mkdirat(&self.root, name(path), mode))
            }
            Op::MakeNode(path, leaf, new) => {
                let (kind, device) = node_type(leaf);
                self.make(path, *new, |mode| mknodat(&self.root, name(path), kind, mode, device))
            }
            Op::MakeSymlink(path, to, new) => {
                self.make(path, *new, |_| symlinkat(to.as_os(), &self.root, name(path)))
            }
            Op::MakeUnnamed(path, new, data) => {
                self.make(path, *new, |mode| self.make_unnamed(path, mode, *data))
            }
            Op::Link(target, path) => {
                let object = self.object(target)?;
                let flags = AtFlags::SYMLINK_FOLLOW;
                linkat(CWD, link_to(&object), &self.root, name(path), flags)?;
                self.stat(&Target::At(path.clone()))
            }
            Op::Unlink(path) => done(unlinkat(&self.root, name(path), AtFlags::empty())),
            Op::RemoveDir(path) => done(unlinkat(&self.root, name(path), AtFlags::REMOVEDIR)),
            Op::Rename(from, to, how) => {
                let flags = match how {
                    How::Replace => RenameFlags::empty(),
                    How::NoReplace => RenameFlags::NOREPLACE,
                    How::Exchange => RenameFlags::EXCHANGE,
                };
                done(renameat_with(&self.root, name(from), &self.root, name(to), flags))
            }
            Op::SetAttr(target, change) => self.change(target, change),
            Op::Stat(target) => self.stat(target),
            Op::ReadLink(target) => {
                value(&printable(readlinkat(self.object(target)?, "", Vec::new())?.as_bytes()))
            }
            Op::ReadDir(path) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = openat(&self.root, name(path), flags, Mode::empty())?;
                Ok(Answer::from([(Question::Names, names(dir)?)]))
            }
            Op::Hold(path, slot) => {
                let object = self.hold(path, *slot)?;
                self.held.insert(*slot, object);
                self.stat(&Target::Held(*slot))
            }
            Op::Release(slot) => {
                self.held.remove(slot);
                Ok(Answer::new())
            }
            Op::SetXattr(..) | Op::GetXattr(..) | Op::ListXattr(_) | Op::RemoveXattr(..) => {
                self.attribute(op)
            }
            Op::Write(..) | Op::MapWrite(..) | Op::Read(..) | Op::Allocate(..) => self.data(op),
            Op::CopyRange(..) | Op::Seek(..) | Op::Sync(_) => self.data(op),
            Op::ReadSome(..) | Op::ReadRest | Op::Forget(_) => Ok(Answer::new()),
            Op::Remount | Op::RemountTo(_) | Op::Seal => Ok(Answer::new()),
        }
    }

    fn data(&self, op: &Op) -> Result<Answer> {
        match op {
            Op::Write(target, at, data, unprivileged) => {
                // At the end as those do who append.
                let end = fstat(self.object(target)?)?.st_size as u64;
                let append = if end == *at { OFlags::APPEND } else { OFlags::empty() };
                let file = self.file(target, OFlags::WRONLY | append)?;
                let (caller, without) = match unprivileged {
                    true => (stranger(), CapabilitySet::FSETID),
                    false => (own_ids(), CapabilitySet::empty()),
                };
                value(&acting_as(caller, without, || pwrite(&file, &data.bytes(), *at))?)
            }
            Op::MapWrite(target, at, fill, len) => {
                let file = self.file(target, OFlags::RDWR)?;
                value(&map_write(&file, *at, *fill, *len))
            }
            Op::Read(target, at, len) => {
                let mut data = vec![0; *len];
                let file = self.file(target, OFlags::RDONLY)?;
                let count = pread(file, data.as_mut_slice(), *at)?;
                value(&printable(&data[..count]))
            }
            Op::Allocate(target, how, at, len) => {
                done(fallocate(self.file(target, OFlags::WRONLY)?, how.flags(), *at, *len))
            }
            Op::CopyRange(from, from_at, to, to_at, len) => {
                let source = self.file(from, OFlags::RDONLY)?;
                let target = self.file(to, OFlags::WRONLY)?;
                let (mut from_at, mut to_at) = (*from_at, *to_at);
                let (from_at, to_at) = (Some(&mut from_at), Some(&mut to_at));
                value(&copy_file_range(source, from_at, target, to_at, *len)?)
            }
            Op::Seek(target, at, whence) => {
                let position = match whence {
                    Whence::Data => SeekFrom::Data(*at),
                    Whence::Hole => SeekFrom::Hole(*at),
                };
                let file = self.file(target, OFlags::RDONLY)?;
                let found = rustix::fs::seek(&file, position);
                value(&if may_be_found(&file, *at, *whence, found)? { Ok(0) } else { found })
            }
            Op::Sync(target) => done(fsync(self.file(target, OFlags::RDONLY)?)),
            _ => unreachable!("not about data"),
        }
    }

    fn attribute(&self, op: &Op) -> Result<Answer> {
        match op {
            Op::SetXattr(target, name, text, set) => {
                let flags = match set {
                    Set::Always => XattrFlags::empty(),
                    Set::IfAbsent => XattrFlags::CREATE,
                    Set::IfPresent => XattrFlags::REPLACE,
                };
                let object = self.object(target)?;
                done(setxattr(link_to(&object), name.as_os(), &text.0, flags))
            }
            Op::GetXattr(target, name) => {
                let mut text = vec![0; 4096];
                let object = self.object(target)?;
                let len = getxattr(link_to(&object), name.as_os(), text.as_mut_slice())?;
                value(&printable(&text[..len]))
            }
            Op::ListXattr(target) => {
                let mut list = vec![0; 4096];
                let object = self.object(target)?;
                let len = listxattr(link_to(&object), list.as_mut_slice())?;
                let names = list[..len].split(|&b| b == 0).filter(|name| !name.is_empty());
                let listed = |name| (Question::Attribute(printable(name)), "listed".into());
                Ok(names.map(listed).collect())
            }
            Op::RemoveXattr(target, name) => {
                let object = self.object(target)?;
                done(removexattr(link_to(&object), name.as_os()))
            }
            _ => unreachable!("not about attributes"),
        }
    }

    /// Makes something as its caller would, under his umask.
    fn make(&self, path: &Text, new: New, make: impl FnOnce(Mode) -> Result<()>) -> Result<Answer> {
        let before = umask(Mode::from_raw_mode(new.umask));
        let mode = Mode::from_raw_mode(new.mode);
        let made = acting_as(new.caller, CapabilitySet::empty(), || make(mode));
        umask(before);
        made?;
        self.stat(&Target::At(path.clone()))
    }

    /// Programs do without `O_TMPFILE` where there is none.
    fn make_unnamed(&self, path: &Text, mode: Mode, data: Data) -> Result<()> {
        let (parent, _) = path.split_last().unwrap();
        let flags = OFlags::CLOEXEC | OFlags::TMPFILE | OFlags::WRONLY;
        match openat(&self.root, name(&parent), flags, mode) {
            Ok(file) => {
                pwrite(&file, &data.bytes(), 0)?;
                linkat(CWD, link_to(&file), &self.root, name(path), AtFlags::SYMLINK_FOLLOW)
            }
            Err(Errno::OPNOTSUPP) => {
                let flags = OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
                let file = openat(&self.root, name(path), flags, mode)?;
                pwrite(&file, &data.bytes(), 0).map(drop)
            }
            Err(errno) => Err(errno),
        }
    }

    fn change(&self, target: &Target, change: &Change) -> Result<Answer> {
        let object = self.object(target)?;
        let path = link_to(&object);
        match change {
            Change::Permissions(mode) => {
                chmodat(CWD, path, Mode::from_raw_mode(mode.0), AtFlags::empty())?;
            }
            Change::Owner(uid, gid) => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                chownat(CWD, path, uid, gid, AtFlags::empty())?;
            }
            Change::Size(size, uid) => {
                let (caller, without) = match uid {
                    0 => (own_ids(), CapabilitySet::empty()),
                    _ => (stranger(), CapabilitySet::FSETID),
                };
                let cut = if *size == 0 { OFlags::TRUNC } else { OFlags::empty() };
                acting_as(caller, without, || {
                    ftruncate(self.file(target, OFlags::WRONLY | cut)?, *size)
                })?;
            }
            Change::Times(atime, mtime) => {
                let times =
                    Timestamps { last_access: time(*atime), last_modification: time(*mtime) };
                utimensat(CWD, path, &times, AtFlags::empty())?;
            }
        }
        let mut answer = self.stat(target)?;
        if let Change::Times(Some(_), _) = change {
            let stat = fstat(&object)?;
            let atime = format!("{}.{:09}", stat.st_atime, stat.st_atime_nsec);
            answer.insert(Question::AccessTime, atime);
        }
        Ok(answer)
    }

    /// The answers of stat(2).
    fn stat(&self, target: &Target) -> Result<Answer> {
        Ok(stat_answer(&fstat(self.object(target)?)?, self.started))
    }

    /// Slots differ in how they keep files: open for writing, by name only, open for reading. With passthrough a lower
    /// file that is open for reading cannot be opened for writing by its descriptor.
    fn hold(&self, path: &Text, slot: u8) -> Result<OwnedFd> {
        let object = self.object(&Target::At(path.clone()))?;
        let kind = FileType::from_raw_mode(fstat(&object)?.st_mode);
        let flags = match (kind, slot) {
            (FileType::RegularFile, 0) => OFlags::RDWR,
            (FileType::RegularFile, 2) if mode::has(&["io=passthrough"]).is_none() => {
                OFlags::RDONLY
            }
            (FileType::Directory, 0 | 2) => OFlags::RDONLY | OFlags::DIRECTORY,
            _ => return Ok(object),
        };
        openat(&self.root, name(path), flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// A descriptor that names an object.
    fn object(&self, target: &Target) -> Result<OwnedFd> {
        let flags = OFlags::CLOEXEC | OFlags::PATH | OFlags::NOFOLLOW;
        match target {
            Target::At(path) => openat(&self.root, name(path), flags, Mode::empty()),
            Target::Held(slot) => dup(self.held.get(slot).ok_or(Errno::BADF)?),
        }
    }

    /// The file opened, or the descriptor that is kept of it, if that will do.
    fn file(&self, target: &Target, flags: OFlags) -> Result<OwnedFd> {
        let Target::Held(slot) = target else {
            let Target::At(path) = target else { unreachable!("the other one") };
            return openat(
                &self.root,
                name(path),
                flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            );
        };
        let held = self.held.get(slot).ok_or(Errno::BADF)?;
        let has = fcntl_getfl(held)?;
        let named_only = has.contains(OFlags::PATH);
        let fits = |flags: OFlags| has & OFlags::ACCMODE == flags;
        if !named_only && (fits(OFlags::RDWR) || fits(flags)) {
            return dup(held);
        }
        open(link_to(held), flags | OFlags::CLOEXEC, Mode::empty())
    }
}

/// dup(2), not for other programs.
fn dup(fd: &OwnedFd) -> Result<OwnedFd> {
    fcntl_dupfd_cloexec(fd, 0)
}

fn done(result: Result<()>) -> Result<Answer> {
    result.map(|()| Answer::new())
}

fn value(value: &impl std::fmt::Debug) -> Result<Answer> {
    Ok(Answer::from([(Question::Value, format!("{value:?}"))]))
}

/// A path as system calls want it.
fn name(path: &Text) -> PathBuf {
    if path.0.is_empty() { PathBuf::from(".") } else { PathBuf::from(path.as_os()) }
}

/// The name of an object that may have none.
fn link_to(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn time(time: Option<(i64, u32)>) -> Timespec {
    match time {
        Some((tv_sec, nsec)) => Timespec { tv_sec, tv_nsec: nsec.into() },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    }
}

fn node_type(leaf: &Leaf) -> (FileType, u64) {
    match leaf {
        Leaf::Fifo => (FileType::Fifo, 0),
        Leaf::Socket => (FileType::Socket, 0),
        Leaf::Char(major, minor) => (FileType::CharacterDevice, makedev(*major, *minor)),
        Leaf::Block(major, minor) => (FileType::BlockDevice, makedev(*major, *minor)),
        Leaf::File(_) | Leaf::Metacopy(..) | Leaf::Symlink(_) => unreachable!("not for mknod(2)"),
    }
}

/// Holes are the filesystem's choice: what it calls a hole must read as NULs.
fn may_be_found(file: &OwnedFd, at: u64, whence: Whence, found: Result<u64>) -> Result<bool> {
    let mut data = vec![0; fstat(file)?.st_size as usize];
    pread(file, data.as_mut_slice(), 0)?;
    let size = data.len() as u64;
    let is_hole = |from: u64, to: u64| data[from as usize..to as usize].iter().all(|&b| b == 0);
    Ok(match (found, whence) {
        _ if at >= size => found == Err(Errno::NXIO),
        (Err(errno), Whence::Data) => errno == Errno::NXIO && is_hole(at, size),
        (Ok(found), Whence::Data) => at <= found && found < size && is_hole(at, found),
        (Ok(found), Whence::Hole) => {
            at <= found && (found == size || found < size && is_hole(found, found + 1))
        }
        (Err(_), Whence::Hole) => false,
    })
}

/// Another program maps the file; says how that went.
fn map_write(file: &OwnedFd, at: u64, fill: u8, len: usize) -> String {
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let end = at as usize + len;
    let map = format!("mmap -rw 0 {end}");
    let write = format!("mwrite -S {fill} {at} {len}");
    let output = Command::new("xfs_io").args(["-c", &map, "-c", &write, &path]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).replace(&path, "file");
    format!("{} {errors}", output.status)
}
