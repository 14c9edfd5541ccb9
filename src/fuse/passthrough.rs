//! Regular files that the kernel reads and writes by itself (`io=passthrough`).
//!
//! OPEN is answered with the file that holds the data, registered with the kernel, and READ and WRITE are never sent.
//! The kernel's rules (fs/fuse/iomode.c): while an inode is open so, each open of it must name the same registration;
//! while it is open in the ordinary way, none may be so. Whatever breaks them gets EIO.
//!
//! So a file that is copied up while somebody reads the lower one would have to be two files. The next open gets
//! `ESTALE`, on which the kernel looks the name up again, and finds the node under another id (`aliases`).

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::{fmt, io};

use fuser::{BackingId, FileHandle, FopenFlags, INodeNo, OpenFlags, ReplyCreate, ReplyOpen};
use lru::LruCache;
use parking_lot::Mutex;

use super::aliases::Aliases;
use super::convert::errno;
use super::{Adapter, GENERATION, Pages};
use crate::overlay::{Caller, Entry, Identity, NodeId, SetAttr};
use crate::sys::{Errno, Result, backing};

/// The most files that nobody has open and that stay registered. Each holds an open file in the kernel.
const IDLE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// Why the kernel does not read and write files by itself: one line that says what to do.
#[derive(Debug)]
pub enum Unavailable {
    /// It cannot.
    Kernel,
    /// Not for this process.
    NotPermitted,
    /// For another reason.
    Refused(io::Error),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("option io: ")?;
        match self {
            Self::Kernel => {
                f.write_str("passthrough needs Linux 6.9 with CONFIG_FUSE_PASSTHROUGH")?;
            }
            Self::NotPermitted => {
                f.write_str("passthrough needs CAP_SYS_ADMIN in the initial user namespace")?;
            }
            Self::Refused(error) => write!(f, "passthrough is refused by the kernel: {error}")?,
        }
        f.write_str("; use io=auto")
    }
}

impl std::error::Error for Unavailable {}

/// Tries out whether files can be registered on the connection `device`.
///
/// # Errors
/// [`Unavailable`].
pub fn probe(device: BorrowedFd<'_>) -> io::Result<()> {
    let file = backing::memory_file()?;
    match BackingId::create_raw(device, &file) {
        Ok(id) => Ok(backing::close(device, id)?),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(io::Error::other(Unavailable::NotPermitted))
        }
        Err(error) => Err(io::Error::other(Unavailable::Refused(error))),
    }
}

/// A file that the kernel has registered, until the last of these goes.
#[derive(Clone)]
struct Registered {
    id: Arc<BackingId>,
    /// Whether it is in a lower layer.
    below: bool,
}

/// How an inode is open.
#[derive(Clone)]
enum Way {
    /// Reads and writes are messages.
    Messages,
    /// The kernel reads and writes the file itself.
    Direct(Registered),
}

/// An inode that is open.
#[derive(Default)]
struct Open {
    /// Answered opens that have not been released.
    opens: usize,
    way: Option<Way>,
}

/// An inode that is open or being opened, under one file handle for all.
struct Slot {
    ino: INodeNo,
    identity: Identity,
    /// Opens, those that are being answered among them.
    users: usize,
    /// Those of them through which the file can be changed by a mapping, of which nobody is told.
    mappable: usize,
    open: Arc<Mutex<Open>>,
}

impl Slot {
    fn new(ino: INodeNo, identity: Identity, kept: Option<Registered>) -> Self {
        let open = Open { opens: 0, way: kept.map(Way::Direct) };
        Self { ino, identity, users: 0, mappable: 0, open: Arc::new(Mutex::new(open)) }
    }
}

/// All files that are registered. A slot's own lock is held while its file is opened, and taken before this one.
#[derive(Default)]
pub(super) struct Passthrough {
    pub aliases: Aliases,
    inner: Mutex<Inner>,
}

struct Inner {
    slots: HashMap<u64, Slot>,
    /// The file handles of inodes.
    handles: HashMap<INodeNo, u64>,
    /// Files that stay registered for the next open.
    idle: LruCache<INodeNo, (Identity, Registered)>,
    made: u64,
}

impl Default for Inner {
    fn default() -> Self {
        let (slots, handles) = (HashMap::new(), HashMap::new());
        Self { slots, handles, idle: LruCache::new(IDLE), made: 0 }
    }
}

/// What an open is for.
#[derive(Clone, Copy)]
struct Purpose {
    writes: bool,
    truncates: bool,
    /// Whether only what is appended is written.
    appends: bool,
    /// Whether a mapping of it can be written to.
    mappable: bool,
    /// Whether what is written is to be on the disk with no more said.
    syncs: bool,
    direct: bool,
}

impl Purpose {
    fn of(flags: i32) -> Self {
        let truncates = flags & libc::O_TRUNC != 0;
        let mappable = flags & libc::O_ACCMODE == libc::O_RDWR;
        Self {
            writes: flags & libc::O_ACCMODE != libc::O_RDONLY || truncates,
            truncates,
            appends: flags & libc::O_APPEND != 0 && !truncates,
            mappable,
            syncs: flags & libc::O_DSYNC != 0,
            direct: flags & libc::O_DIRECT != 0,
        }
    }
}

impl Passthrough {
    /// The slot of an inode, with one more user.
    fn enter(
        &self,
        ino: INodeNo,
        identity: Identity,
        mappable: bool,
    ) -> (FileHandle, Arc<Mutex<Open>>) {
        let mut inner = self.inner.lock();
        let handle = inner.handle(ino, &identity);
        let kept = inner.kept(ino, &identity);
        let slot = inner.slots.entry(handle).or_insert_with(|| Slot::new(ino, identity, kept));
        slot.users += 1;
        slot.mappable += usize::from(mappable);
        (FileHandle(handle), slot.open.clone())
    }

    /// Takes a user of a slot away.
    fn leave(&self, handle: FileHandle, mappable: bool, keep: bool) {
        // Closing a registration is a system call: without the lock.
        let closed = self.inner.lock().leave(handle.0, mappable, keep);
        drop(closed);
    }

    /// Notes that an open has been released.
    pub fn release(&self, handle: FileHandle, flags: OpenFlags, keep: bool) {
        let open = self.inner.lock().slots.get(&handle.0).map(|slot| slot.open.clone());
        if let Some(open) = open {
            open.lock().opens -= 1;
            self.leave(handle, Purpose::of(flags.0).mappable, keep);
        }
    }

    /// Notes that the kernel has forgotten an inode. What it holds must not stay open: it may have been deleted.
    pub fn forget(&self, ino: INodeNo) {
        let closed = self.inner.lock().idle.pop(&ino);
        drop(closed);
    }

    /// Whether an inode may change without a message.
    pub fn is_mappable(&self, ino: INodeNo) -> bool {
        let inner = self.inner.lock();
        let slot = inner.handles.get(&ino).and_then(|handle| inner.slots.get(handle));
        slot.is_some_and(|slot| slot.mappable > 0)
    }
}

impl Inner {
    /// The handle under which an inode is open, or a new one.
    fn handle(&mut self, ino: INodeNo, identity: &Identity) -> u64 {
        if let Some(handle) = self.handles.get(&ino)
            // The kernel may release a file after it has forgotten the node, whose id may be another's by now.
            && self.slots.get(handle).is_some_and(|slot| slot.identity == *identity)
        {
            return *handle;
        }
        self.made += 1;
        self.handles.insert(ino, self.made);
        self.made
    }

    /// The registration that has been kept for a node.
    fn kept(&mut self, ino: INodeNo, identity: &Identity) -> Option<Registered> {
        let (owner, registered) = self.idle.pop(&ino)?;
        (owner == *identity).then_some(registered)
    }

    fn leave(&mut self, handle: u64, mappable: bool, keep: bool) -> Option<Registered> {
        let slot = self.slots.get_mut(&handle)?;
        slot.users -= 1;
        slot.mappable -= usize::from(mappable);
        if slot.users > 0 {
            return None;
        }
        let slot = self.slots.remove(&handle)?;
        let current = self.handles.get(&slot.ino) == Some(&handle);
        if current {
            self.handles.remove(&slot.ino);
        }
        let way = slot.open.lock().way.take();
        let Some(Way::Direct(registered)) = way else { return None };
        if !(current && keep) {
            return Some(registered);
        }
        let evicted = self.idle.push(slot.ino, (slot.identity, registered));
        evicted.map(|(_, (_, registered))| registered)
    }
}

impl Adapter {
    /// Answers an OPEN.
    pub(super) fn reply_passthrough(
        &self,
        files: &Passthrough,
        caller: Caller,
        ino: INodeNo,
        flags: i32,
        reply: ReplyOpen,
    ) {
        let node = self.node(ino);
        let opened = self.overlay.note_open(node).and_then(|()| {
            self.open_file(files, caller, ino, flags, |file| reply.open_backing(file))
                .inspect_err(|_| self.overlay.note_close(node))
        });
        match opened {
            Ok((handle, Way::Messages)) => reply.opened(handle, self.kept_pages(ino)),
            Ok((handle, Way::Direct(file))) => {
                reply.opened_passthrough(handle, FopenFlags::empty(), &file.id);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Answers a CREATE that has made the file of `entry`.
    pub(super) fn reply_created(
        &self,
        files: &Passthrough,
        caller: Caller,
        entry: &Entry,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let ino = self.newest(entry.node);
        let flags = flags & !libc::O_TRUNC;
        let opened = self.open_file(files, caller, ino, flags, |file| reply.open_backing(file));
        // After it is open, so that what is said of its attributes is right for as long as it is.
        let (ttl, shown) = self.shown(entry);
        let noflush = FopenFlags::FOPEN_NOFLUSH;
        match opened {
            Ok((handle, Way::Messages)) => {
                reply.created(&ttl, &shown, GENERATION, handle, noflush);
            }
            Ok((handle, Way::Direct(file))) => {
                reply.created_passthrough(&ttl, &shown, GENERATION, handle, noflush, &file.id);
            }
            Err(error) => {
                self.overlay.forget(entry.node, 1);
                reply.error(errno(error));
            }
        }
    }

    fn open_file(
        &self,
        files: &Passthrough,
        caller: Caller,
        ino: INodeNo,
        flags: i32,
        register: impl Fn(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Result<(FileHandle, Way)> {
        let purpose = Purpose::of(flags);
        let node = self.node(ino);
        let identity = self.overlay.identity(node)?;
        let (handle, open) = files.enter(ino, identity.clone(), purpose.mappable);
        let way = self.prepare(caller, node, &open, purpose).and_then(|()| {
            let mut open = open.lock();
            let way = self.way(node, &mut open, purpose, register)?;
            open.opens += 1;
            Ok(way)
        });
        match &way {
            // What is cached was to last until the next message about the file.
            Ok(_) if purpose.mappable => self.forget_attributes(ino),
            Ok(_) => {}
            Err(error) => {
                files.leave(handle, purpose.mappable, self.keeps_registrations());
                if *error == Errno::STALE {
                    files.aliases.retire(ino, node, identity);
                    self.forget_attributes(ino);
                }
            }
        }
        Ok((handle, way?))
    }

    /// Makes a file ready for what it is opened for.
    fn prepare(
        &self,
        caller: Caller,
        node: NodeId,
        open: &Mutex<Open>,
        purpose: Purpose,
    ) -> Result<()> {
        if !purpose.writes {
            return Ok(());
        }
        // Nothing is to be cut by an open that fails.
        if open.lock().reads_below() {
            return Err(Errno::STALE);
        }
        if purpose.truncates {
            let cut = SetAttr { size: Some(0), ..SetAttr::default() };
            self.overlay.set_attr(caller, node, &cut)?;
        }
        self.overlay.prepare_write(node, purpose.appends)?;
        // Syncs of mappings and synchronous writes go past the daemon.
        if purpose.syncs || purpose.mappable {
            self.overlay.sync_name(node)?;
        }
        Ok(())
    }

    /// The way in which a file is open, or is to be opened now.
    fn way(
        &self,
        node: NodeId,
        open: &mut Open,
        purpose: Purpose,
        register: impl Fn(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Result<Way> {
        if open.is_below() && self.overlay.is_copied_up(node)? {
            if open.opens > 0 {
                return Err(Errno::STALE);
            }
            open.way = None;
        }
        match &open.way {
            Some(Way::Messages) if open.opens > 0 => Ok(Way::Messages),
            Some(Way::Direct(file)) if !purpose.direct => Ok(Way::Direct(file.clone())),
            Some(Way::Direct(file)) if self.overlay.backing(node)?.allows_direct() => {
                Ok(Way::Direct(file.clone()))
            }
            Some(Way::Direct(_)) if open.opens > 0 => Err(Errno::INVAL),
            _ => {
                let way = self.new_way(node, purpose, register)?;
                open.way = Some(way.clone());
                Ok(way)
            }
        }
    }

    fn new_way(
        &self,
        node: NodeId,
        purpose: Purpose,
        register: impl Fn(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Result<Way> {
        let found = self.overlay.backing(node)?;
        // There is nothing to read in it, and nobody has to be told when it is copied up: it may be a lock.
        let empty = found.below && found.size == 0;
        if empty || purpose.direct && !found.allows_direct() {
            return Ok(Way::Messages);
        }
        match register(found.file.as_fd()) {
            Ok(id) => Ok(Way::Direct(Registered { id: Arc::new(id), below: found.below })),
            Err(error) => {
                // ELOOP, above all: its filesystem is itself stacked too high.
                log::debug!("node {}: not read by the kernel itself: {error}", node.0);
                Ok(Way::Messages)
            }
        }
    }

    /// What the kernel is to do with the pages that it has of a file whose reads are messages. They are right: an
    /// open in the other way has dropped all that were there before it.
    fn kept_pages(&self, ino: INodeNo) -> FopenFlags {
        match self.policy.pages == Pages::Kept && !self.changes_unseen(ino) {
            true => FopenFlags::FOPEN_KEEP_CACHE,
            false => FopenFlags::empty(),
        }
    }

    /// Whether files stay registered when they are closed: not where layers may change underneath.
    pub(super) fn keeps_registrations(&self) -> bool {
        self.policy.timeout.is_none()
    }
}

impl Open {
    fn is_below(&self) -> bool {
        matches!(&self.way, Some(Way::Direct(file)) if file.below)
    }

    /// Whether somebody reads a lower file.
    fn reads_below(&self) -> bool {
        self.opens > 0 && self.is_below()
    }
}
