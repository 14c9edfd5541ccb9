//! The messages of the protocol, one short method for each.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags, PollNotifier,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use super::convert::{self, caller, errno, kind, new_time, node};
use super::reply::{reply_count, reply_empty, reply_xattr};
use super::resumed::{gone, is_resent};
use super::statistics::{self, Message};
use super::{Adapter, GENERATION, READ_BUFFER};
use super::{labels, negotiate, upgrade};
use crate::overlay::{Allocate, Delay, Flow, NodeId, RenameFlags, SHORTEST_VIEW, SeekTo, SetAttr};
use crate::sys::Errno;

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Asked again it is by ourselves, for one more session.
        if self.agreed.get().is_none() {
            let agreed = negotiate::negotiate(&self.policy, self.overlay.is_stacked(), config)?;
            self.agreed.get_or_init(|| agreed);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _served = self.begin(Message::Lookup);
        match self.overlay.lookup(self.node(parent), name) {
            Ok(Some(entry)) => self.reply_entry(Ok(entry), reply),
            // Node 0 tells the kernel that it may remember the absence.
            Ok(None) => {
                reply.entry_with_ttls(&Duration::ZERO, &self.ttl(), &convert::absent(), GENERATION);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        let mut served = self.begin(Message::Forget);
        // The library takes a message about many apart.
        served.turn.more_may_follow();
        self.lost_writes.forget(ino);
        self.collected_times.forget(ino);
        let node = self.known(ino);
        match self.resumed {
            Some(_) => self.overlay.forget_taken_over(node, count),
            None => self.overlay.forget(node, count),
        }
        if let Some(files) = &self.passthrough {
            files.forget(ino);
            files.aliases.forget(node, self.overlay.identity(node).ok().as_ref());
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, file: Option<FileHandle>, reply: ReplyAttr) {
        let _served = self.begin(Message::Getattr);
        if file.is_some()
            && let Some(lost) = self.lost_writes.take(ino)
        {
            return reply.error(errno(lost));
        }
        self.lost_writes.remind(ino);
        self.reply_attr(ino, self.overlay.attr(self.node(ino)), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _served = self.begin(Message::Setattr);
        let (atime, mtime) = (atime.map(new_time), mtime.map(new_time));
        if size == Some(0) {
            self.lost_writes.forget(ino);
        }
        let change =
            SetAttr { mode, uid, gid, size, atime, mtime, collected: self.policy.writeback };
        if self.policy.writeback {
            self.collected_times.note(ino, &change);
        }
        let changed = self.overlay.set_attr(caller(request), self.node(ino), &change);
        self.reply_attr(ino, changed, reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let _served = self.begin(Message::Readlink);
        use std::os::unix::ffi::OsStrExt;
        match self.overlay.read_link(self.node(ino)) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _served = self.begin(Message::Mknod);
        let (parent, rdev) = (self.node(parent), convert::device(rdev));
        let made = self.overlay.make_node(caller(request), parent, name, mode, umask, rdev);
        self.reply_entry(self.made(request, parent, name, made), reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let _served = self.begin(Message::Mkdir);
        let parent = self.node(parent);
        let made = self.overlay.make_dir(caller(request), parent, name, mode, umask);
        self.reply_entry(self.made(request, parent, name, made), reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _served = self.begin(Message::Unlink);
        let node = self.node(parent);
        self.revive_child(parent, name);
        reply_empty(gone(request, Errno::NOENT, self.overlay.unlink(node, name)), reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _served = self.begin(Message::Rmdir);
        let node = self.node(parent);
        self.revive_child(parent, name);
        reply_empty(gone(request, Errno::NOENT, self.overlay.rmdir(node, name)), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _served = self.begin(Message::Symlink);
        let (parent, target) = (self.node(parent), target.as_os_str());
        let made = self.overlay.symlink(caller(request), parent, name, target);
        self.reply_entry(self.made(request, parent, name, made), reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _served = self.begin(Message::Rename);
        // A whiteout that the caller wants to see cannot exist in a union, which takes it for its own;
        // kernel overlayfs refuses it in the same way.
        if flags.contains(fuser::RenameFlags::RENAME_WHITEOUT) {
            return reply.error(errno(Errno::INVAL));
        }
        let flags = RenameFlags {
            no_replace: flags.contains(fuser::RenameFlags::RENAME_NOREPLACE),
            exchange: flags.contains(fuser::RenameFlags::RENAME_EXCHANGE),
        };
        let (from, to) = (self.node(parent), self.node(new_parent));
        self.revive_child(parent, name);
        self.revive_child(new_parent, new_name);
        reply_empty(self.renamed(request, (from, name), (to, new_name), flags), reply);
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let _served = self.begin(Message::Link);
        let parent = self.node(parent);
        let made = self.overlay.link(self.node(ino), parent, name);
        self.reply_entry(self.made(request, parent, name, made), reply);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _served = self.begin(Message::Open);
        if let Some(files) = &self.passthrough {
            return self.reply_passthrough(files, caller(request), ino, flags.0, reply);
        }
        if self.agreed().zero_open {
            return reply.error(errno(Errno::NOSYS));
        }
        let prepared = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => Ok(()),
            _ => self.overlay.prepare_write(self.node(ino), flags.0 & libc::O_APPEND != 0),
        };
        match prepared.and_then(|()| self.overlay.note_open(self.node(ino))) {
            Ok(()) => reply.opened(FileHandle(0), self.policy.pages.of_opened()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _served = self.begin(Message::Opendir);
        match self.agreed().zero_opendir {
            true => reply.error(errno(Errno::NOSYS)),
            false => reply.opened(FileHandle(0), FopenFlags::empty()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let _served = self.begin(Message::Flush);
        reply.error(errno(Errno::NOSYS));
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        flags: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _served = self.begin(Message::Release);
        if let Some(files) = &self.passthrough {
            files.release(handle, flags, self.keeps_registrations());
        }
        self.overlay.note_close(self.node(ino));
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        let _served = self.begin(Message::Releasedir);
        reply.ok();
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
        let _served = self.begin(Message::Read);
        let size = size as usize;
        if size >= SHORTEST_VIEW {
            match self.overlay.view(self.node(ino), offset, size) {
                Ok(Some(view)) => return reply.data(&view),
                Ok(None) => {}
                Err(error) => return reply.error(errno(error)),
            }
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match self.overlay.read(self.node(ino), offset, &mut buffer[..size]) {
                Ok(count) => reply.data(&buffer[..count]),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        open_flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _served = self.begin(Message::Write);
        let kills = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let unprivileged = kills.then(|| caller(request));
        if flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            let written = self.keep_time(ino, || self.write_collected(ino, offset, data));
            return reply_count(written, reply);
        }
        let written =
            self.keep_time(ino, || self.overlay.write(self.node(ino), offset, data, unprivileged));
        self.after_direct_write(ino, open_flags, offset, &written);
        reply_count(written, reply);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let served = self.begin(Message::Fsync);
        served.turn.expect_delay(Delay::Long);
        reply_empty(self.overlay.sync(self.node(ino), data_only), reply);
    }

    fn fsyncdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let served = self.begin(Message::Fsyncdir);
        served.turn.expect_delay(Delay::Long);
        reply_empty(self.overlay.sync(self.node(ino), data_only), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        after: u64,
        mut reply: ReplyDirectory,
    ) {
        let _served = self.begin(Message::Readdir);
        if self.has_lost_place(ino, after) {
            return reply.error(errno(Errno::STALE));
        }
        let read = self.overlay.read_dir(self.node(ino), after, |entry| {
            flow(reply.add(INodeNo(entry.ino), entry.cookie, kind(entry.kind), entry.name))
        });
        match read {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        after: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _served = self.begin(Message::Readdirplus);
        if self.has_lost_place(ino, after) {
            return reply.error(errno(Errno::STALE));
        }
        let read = self.overlay.read_dir_plus(self.node(ino), after, |entry, full| {
            let (ttl, shown) = match full {
                Some(full) => self.shown(full),
                None => (Duration::ZERO, convert::dot(&entry)),
            };
            // Node 0 tells the kernel to take name and number and to look at nothing else.
            let node = if full.is_some() { shown.ino } else { INodeNo(0) };
            flow(reply.add(node, entry.cookie, entry.name, &ttl, &shown, GENERATION))
        });
        match read {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let _served = self.begin(Message::Statfs);
        match self.overlay.stat_fs() {
            Ok(stat) => reply.statfs(
                stat.blocks,
                stat.free,
                stat.available,
                stat.files,
                stat.free_files,
                stat.block_size,
                stat.longest_name,
                stat.fragment_size,
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _served = self.begin(Message::Setxattr);
        if !self.policy.xattr {
            return reply.error(errno(Errno::OPNOTSUPP));
        }
        if is_of_root(ino, name, statistics::ATTRIBUTE) {
            return reply.error(errno(Errno::PERM));
        }
        // What was set before is set again.
        let flags = if is_resent(request) { 0 } else { flags };
        let create = flags & libc::XATTR_CREATE != 0;
        let replace = flags & libc::XATTR_REPLACE != 0;
        let set =
            self.overlay.set_xattr(caller(request), self.node(ino), name, value, create, replace);
        reply_empty(set, reply);
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let _served = self.begin(Message::Getxattr);
        let value = match self.policy.xattr {
            _ if is_of_root(ino, name, statistics::ATTRIBUTE) => {
                self.reporter().json().map(String::into_bytes).map_err(|_| Errno::IO)
            }
            _ if is_of_root(ino, name, upgrade::ATTRIBUTE) => self.upgrade(request, size),
            true if self.labels => self.overlay.get_xattr(self.node(ino), name),
            true => {
                let value = self.overlay.get_xattr(self.node(ino), name);
                value.map_err(|error| labels::absent(name, error))
            }
            false => Err(Errno::OPNOTSUPP),
        };
        reply_xattr(value, size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _served = self.begin(Message::Listxattr);
        let names = match self.policy.xattr {
            true => self.overlay.list_xattr(self.node(ino)),
            false => Err(Errno::OPNOTSUPP),
        };
        reply_xattr(names.map(|names| convert::name_list(&names, caller(request))), size, reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _served = self.begin(Message::Removexattr);
        if !self.policy.xattr {
            return reply.error(errno(Errno::OPNOTSUPP));
        }
        let removed = self.overlay.remove_xattr(self.node(ino), name);
        reply_empty(gone(request, Errno::NODATA, removed), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _served = self.begin(Message::Create);
        let parent = self.node(parent);
        let made = self.overlay.create(caller(request), parent, name, mode, umask);
        match self.made(request, parent, name, made) {
            Ok(entry) => {
                if let Some(files) = &self.passthrough {
                    return self.reply_created(files, caller(request), &entry, flags, reply);
                }
                let (ttl, shown) = self.shown(&entry);
                let flags = self.policy.pages.of_opened() | FopenFlags::FOPEN_NOFLUSH;
                reply.created(&ttl, &shown, GENERATION, FileHandle(0), flags);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        // The kernel asks once, and takes every file for ready from then on.
        reply.error(errno(Errno::NOSYS));
    }

    fn ioctl(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        input: &[u8],
        output_size: u32,
        reply: ReplyIoctl,
    ) {
        let _served = self.begin(Message::Ioctl);
        match self.inode_flags(ino, command, input, output_size) {
            Ok(output) => reply.ioctl(0, &output),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _served = self.begin(Message::Fallocate);
        let mode = Allocate(mode.cast_unsigned());
        let allocate = || self.overlay.allocate(self.node(ino), mode, offset, length);
        reply_empty(self.keep_time(ino, allocate), reply);
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _served = self.begin(Message::Lseek);
        if self.policy.writeback {
            // The kernel would not send what it has first; like this it takes the whole file for data.
            return reply.error(errno(Errno::NOSYS));
        }
        let to = match (u64::try_from(offset), whence) {
            (Ok(offset), libc::SEEK_DATA) => SeekTo::Data(offset),
            (Ok(offset), libc::SEEK_HOLE) => SeekTo::Hole(offset),
            (Err(_), libc::SEEK_DATA | libc::SEEK_HOLE) => return reply.error(errno(Errno::NXIO)),
            _ => return reply.error(errno(Errno::INVAL)),
        };
        match self.overlay.seek(self.node(ino), to) {
            Ok(found) => reply.offset(found.cast_signed()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn copy_file_range(
        &self,
        _: &Request,
        source: INodeNo,
        _: FileHandle,
        source_offset: u64,
        target: INodeNo,
        _: FileHandle,
        target_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _served = self.begin(Message::CopyFileRange);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(1 << 30);
        let (from, to) = (self.node(source), self.node(target));
        let copied = self.keep_time(target, || {
            self.overlay.copy_range(from, source_offset, to, target_offset, length)
        });
        reply_count(copied, reply);
    }
}

fn is_of_root(ino: INodeNo, name: &OsStr, attribute: &str) -> bool {
    node(ino) == NodeId::ROOT && name == attribute
}

fn flow(full: bool) -> Flow {
    if full { Flow::Stop } else { Flow::Continue }
}
