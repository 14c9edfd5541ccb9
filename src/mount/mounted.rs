//! Our mount while it is mounted, wherever it is by now: to be detached if it is still there, and
//! nothing else to be touched.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{PidfdFlags, WaitOptions, pidfd_open, waitpid};

use super::abandoned;
use super::error::{MountError, text};
use crate::sys::mount::{MountIdentity, detach};
use crate::sys::{mountinfo, process};

/// A mount made by this process. It stays when this value is dropped: only [`Mounted::detach`]
/// takes it away.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    identity: MountIdentity,
    /// A copy of the FUSE device: tells whether the kernel still has our filesystem.
    device: OwnedFd,
}

/// What became of a mount that was to be detached.
#[derive(Debug, PartialEq, Eq)]
pub enum Detached {
    /// It is gone from the tree; who had something open there keeps the filesystem alive.
    Now,
    /// It was gone before, or is where this process cannot reach it: in another mount namespace, or
    /// below another mount.
    OutOfReach,
}

impl Mounted {
    /// Remembers what has just been mounted at `path` (absolute) through `device`.
    ///
    /// # Errors
    /// When the mountpoint cannot be opened or the device not be copied.
    pub fn remember(path: &Path, device: &OwnedFd) -> Result<Self, MountError> {
        let unmountable = |error: Errno| MountError::Mount(path.to_owned(), error);
        let identity = MountIdentity::of(open_root(path).map_err(unmountable)?);
        Ok(Self {
            path: path.to_owned(),
            identity: identity.map_err(unmountable)?,
            device: device.try_clone().map_err(MountError::system("copying a descriptor"))?,
        })
    }

    /// The mount that another process, whose `device` this is, has made at `path` (absolute).
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn inherited(
        path: &Path,
        identity: MountIdentity,
        device: &OwnedFd,
    ) -> Result<Self, MountError> {
        let device = device.try_clone().map_err(MountError::system("copying a descriptor"))?;
        Ok(Self { path: path.to_owned(), identity, device })
    }

    /// Which mount it is.
    pub fn identity(&self) -> MountIdentity {
        self.identity
    }

    /// Major and minor number of the filesystem.
    pub fn device(&self) -> (u32, u32) {
        self.identity.device
    }

    /// The same for another process.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn try_clone(&self) -> Result<Self, MountError> {
        let device = self.device.try_clone().map_err(MountError::system("copying a descriptor"))?;
        Ok(Self { path: self.path.clone(), identity: self.identity, device })
    }

    /// Where it was mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the kernel send what it has collected of open files and mappings, which nobody could store when we have ended. Waits
    /// `patience` at the longest.
    ///
    /// # Errors
    /// `ETIMEDOUT`; those of fork(2).
    pub fn write_out(&self, patience: Duration) -> Result<(), Errno> {
        let Some((_, root)) = self.find() else { return Ok(()) };
        // Not from this process: it could not end while it waits for an answer of its own.
        let child = process::sync_in_child(root.as_fd())?;
        drop(root);
        let ended = pidfd_open(child, PidfdFlags::empty())?;
        let timeout = Timespec::try_from(patience).map_err(|_range| Errno::INVAL)?;
        let mut fds = [PollFd::new(&ended, PollFlags::IN)];
        match retry_on_intr(|| poll(&mut fds, Some(&timeout)))? {
            0 => Err(Errno::TIMEDOUT),
            _ => waitpid(Some(child), WaitOptions::empty()).map(|_status| ()),
        }
    }

    /// Takes the mount out of the tree, even while it is in use.
    ///
    /// Sends our own filesystem no message, so it is safe from any thread of the daemon.
    ///
    /// # Errors
    /// Those of umount2(2), or of fusermount3 where only it may unmount.
    pub fn detach(&self) -> Result<Detached, MountError> {
        let Some((path, root)) = self.find() else { return Ok(Detached::OutOfReach) };
        // Asked with the root open, which keeps its filesystem: if ours lives now then it lived
        // when the root was opened, so its numbers were not yet somebody else's.
        if !self.is_connected() {
            return Ok(Detached::OutOfReach);
        }
        match detach(root.as_fd()) {
            Ok(()) => Ok(Detached::Now),
            // Somebody else has just unmounted it.
            Err(Errno::INVAL) => Ok(Detached::OutOfReach),
            Err(Errno::PERM | Errno::NOENT) => {
                drop(root);
                super::unmount::by_path(&path, true).map(|()| Detached::Now)
            }
            Err(error) => Err(MountError::Unmount(path, text(error).to_string())),
        }
    }

    /// Whether nobody else can reach the mount any more, as far as that can be known.
    pub fn is_abandoned(&self) -> bool {
        abandoned::is_abandoned(self.identity.device).unwrap_or_else(|error| {
            log::warn!("{}: who uses it is not known: {error}", self.path.display());
            false
        })
    }

    /// The path that leads to our mount now, and its root.
    fn find(&self) -> Option<(PathBuf, OwnedFd)> {
        let here = self.open_if_ours(&self.path);
        here.or_else(|| {
            let mounts = mountinfo::read().unwrap_or_else(|error| {
                log::warn!("/proc/self/mountinfo: {error}; a moved mount cannot be found");
                Vec::new()
            });
            let same = mounts.iter().filter(|mount| mount.device == self.identity.device);
            same.map(|mount| &mount.mountpoint).find_map(|path| self.open_if_ours(path))
        })
    }

    /// Opens `path` if it leads to our mount. A path that cannot be opened does not.
    fn open_if_ours(&self, path: &Path) -> Option<(PathBuf, OwnedFd)> {
        let root = open_root(path).ok()?;
        (MountIdentity::of(&root) == Ok(self.identity)).then(|| (path.to_owned(), root))
    }

    /// Whether the kernel still has our filesystem, in any namespace or held by any process.
    pub fn is_connected(&self) -> bool {
        let mut fds = [PollFd::new(&self.device, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match retry_on_intr(|| poll(&mut fds, Some(&now))) {
            Ok(_) => !fds[0].revents().contains(PollFlags::ERR),
            Err(_) => false,
        }
    }
}

/// The topmost mount's root at `path`. `O_PATH` sends no message to a FUSE filesystem.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The type of the mount on top at `path` (absolute), `None` if it is no mountpoint.
pub(super) fn type_on_top(path: &Path) -> Result<Option<String>, MountError> {
    mountinfo::type_on_top(path).map_err(MountError::system("/proc/self/mountinfo"))
}
