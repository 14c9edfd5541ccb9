//! One object of a filesystem and its attributes, whether or not it can be opened.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::stat::{FileKind, Flags, Stat, Time, look_at, look_fd, stat_at, stat_fd};
use super::{Errno, Name, Result, open};

/// An object, named by an open directory and a name in it, or by a descriptor of its own (which may be
/// `O_PATH`). All operations act on the object itself and never follow a symbolic link.
#[derive(Clone, Debug)]
pub enum Object {
    /// The object called so in this directory.
    Child(Arc<OwnedFd>, Name),
    /// The object that the descriptor refers to.
    Own(Arc<OwnedFd>),
}

/// A new value for one of the two settable times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// The time of the call.
    Now,
    /// This time.
    At(Time),
}

impl Object {
    /// The attributes.
    pub fn stat(&self) -> Result<Stat> {
        match self {
            Self::Child(dir, name) => stat_at(dir.as_fd(), name),
            Self::Own(fd) => stat_fd(fd.as_fd()),
        }
    }

    /// The attributes, and what chattr(1) forbids to change.
    pub fn look(&self) -> Result<(Stat, Flags)> {
        match self {
            Self::Child(dir, name) => look_at(dir.as_fd(), name),
            Self::Own(fd) => look_fd(fd.as_fd()),
        }
    }

    /// Opens the regular file or directory with `flags`.
    ///
    /// # Errors
    /// `EIO` for anything else, which is looked at first: to open a FIFO can wait for ever, and to open a
    /// device can do anything.
    pub fn open(&self, flags: OFlags) -> Result<OwnedFd> {
        Ok(self.open_sized(flags)?.0)
    }

    /// The same, and the size in bytes that it had then.
    pub fn open_sized(&self, flags: OFlags) -> Result<(OwnedFd, u64)> {
        let pinned = self.pin()?;
        let stat = stat_fd(pinned.as_fd())?;
        match stat.kind() {
            FileKind::Regular | FileKind::Directory => {}
            _ => return Err(Errno::IO),
        }
        let path = open::proc_path(pinned.as_fd());
        let fd = rustix::fs::open(path.as_str(), flags | OFlags::CLOEXEC, Mode::empty())?;
        Ok((fd, stat.size))
    }

    /// A descriptor that keeps the object alive and reachable after its last name is gone.
    pub fn pin(&self) -> Result<Arc<OwnedFd>> {
        match self {
            Self::Child(dir, name) => open::child(dir.as_fd(), name, OFlags::PATH).map(Arc::new),
            Self::Own(fd) => Ok(fd.clone()),
        }
    }

    /// The target of a symbolic link.
    pub fn read_link(&self) -> Result<OsString> {
        let target = match self {
            Self::Child(dir, name) => rustix::fs::readlinkat(dir, &**name, Vec::new())?,
            Self::Own(fd) => rustix::fs::readlinkat(fd, "", Vec::new())?,
        };
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Sets the permission bits (0..=0o7777) of anything but a symbolic link.
    pub fn set_permissions(&self, permissions: u32) -> Result<()> {
        // chmod(2) follows links, and before Linux 6.6 nothing else is there: go through a reference to the object,
        // which cannot be a link that points elsewhere.
        if let Self::Child(dir, name) = self {
            match set_permissions_at(dir.as_fd(), name, permissions) {
                Err(Errno::NOSYS | Errno::PERM) => {}
                result => return result,
            }
        }
        let pinned = self.pin()?;
        let path = open::proc_path(pinned.as_fd());
        rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(permissions))
    }

    /// Sets owner and group; `None` leaves one as it is.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let uid = uid.map(Uid::from_raw);
        let gid = gid.map(Gid::from_raw);
        match self {
            Self::Child(dir, name) => {
                rustix::fs::chownat(dir, &**name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Own(fd) => rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    /// Sets the times of last access and last change; `None` leaves one as it is.
    pub fn set_times(&self, atime: Option<NewTime>, mtime: Option<NewTime>) -> Result<()> {
        let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
        match self {
            Self::Child(dir, name) => {
                rustix::fs::utimensat(dir, &**name, &times, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Own(fd) => {
                match rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH) {
                    // Kernels before 5.8 know no AT_EMPTY_PATH here.
                    Err(Errno::INVAL | Errno::NOENT) => {
                        let path = open::proc_path(fd.as_fd());
                        rustix::fs::utimensat(
                            rustix::fs::CWD,
                            path.as_str(),
                            &times,
                            AtFlags::empty(),
                        )
                    }
                    result => result,
                }
            }
        }
    }

    /// Does something in this directory, and sets its times back to what they were before.
    pub fn keeping_times<T>(&self, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.stat()?;
        let result = step()?;
        self.set_times(Some(NewTime::At(before.atime)), Some(NewTime::At(before.mtime)))?;
        Ok(result)
    }
}

/// fchmodat2(2), which a filter of system calls may refuse.
fn set_permissions_at(dir: BorrowedFd<'_>, name: &Name, permissions: u32) -> Result<()> {
    static UNKNOWN: AtomicBool = AtomicBool::new(false);
    if UNKNOWN.load(Ordering::Relaxed) {
        return Err(Errno::NOSYS);
    }
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the name is a C string that lives during the call; the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2,
            dir.as_raw_fd(),
            name.as_ptr(),
            permissions,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = super::process::last_errno();
    UNKNOWN.store(error == Errno::NOSYS, Ordering::Relaxed);
    Err(error)
}

fn timespec(time: Option<NewTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(NewTime::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(NewTime::At(time)) => Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn only_files_and_directories_are_opened() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", root.path().join("link")).unwrap();
        let dir = Arc::new(open::directory(root.path()).unwrap());
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&dir, "fifo", rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let open = |name| Object::Child(dir.clone(), OsStr::new(name).into()).open(OFlags::RDONLY);
        assert!(open("file").is_ok() && open(".").is_ok());
        for other in ["link", "fifo"] {
            assert_eq!(open(other).err(), Some(Errno::IO), "{other}");
        }
    }

    #[test]
    fn attributes_of_a_link_are_its_own() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", root.path().join("link")).unwrap();
        let dir = Arc::new(open::directory(root.path()).unwrap());
        let link = Object::Child(dir, OsStr::new("link").into());
        let pinned = Object::Own(link.pin().unwrap());
        for (object, sec) in [(&link, -2), (&pinned, 77)] {
            let time = Time { sec, nsec: 800_000_000 };
            object.set_times(None, Some(NewTime::At(time))).unwrap();
            assert_eq!(object.stat().unwrap().mtime, time);
            assert_eq!(object.read_link().unwrap(), "file");
        }
    }
}
