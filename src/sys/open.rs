//! Opening: always close-on-exec, never following a link out of the place that was asked for.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Errno, Result};

/// The longest relative path that is handed to the kernel in one call, in bytes (PATH_MAX is 4096 with
/// the closing NUL).
const LONGEST_PATH: usize = 4000;

/// Opens the directory at a path given by a user (links are followed) as a mere reference.
pub fn directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the directory at a path given by a user for reading its entries, locking and syncing.
pub fn directory_for_reading(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Reopens a directory reference for reading its entries and syncing.
pub fn reopen_directory(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, ".", flags, Mode::empty())
}

/// Opens the regular file behind a reference for reading.
pub fn reopen(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::fs::open(proc_path(file), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens `name` in `dir` with `flags`; a symbolic link is never followed.
pub fn child(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Creates the regular file `name` in `dir`, which must not exist, open for reading and writing.
pub fn create(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode))
}

/// Creates a file without a name on the filesystem of `dir`, open for reading and writing.
///
/// # Errors
/// `EOPNOTSUPP` (or `EISDIR` on old filesystems) where `O_TMPFILE` does not exist.
pub fn unnamed(dir: BorrowedFd<'_>, mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::openat(dir, ".", flags, Mode::from_raw_mode(mode))
}

/// Opens the directory reached from `base` through `names` without leaving it: no links, no `..`.
///
/// `cross_mounts` is whether other filesystems mounted below `base` may be entered. Any depth works,
/// also beyond PATH_MAX.
pub fn descend<'a>(
    base: BorrowedFd<'_>,
    names: impl IntoIterator<Item = &'a OsStr>,
    cross_mounts: bool,
) -> Result<OwnedFd> {
    descend_as(base, names, cross_mounts, OFlags::PATH)
}

/// The same, with the directory opened for reading its entries too.
pub fn descend_for_reading<'a>(
    base: BorrowedFd<'_>,
    names: impl IntoIterator<Item = &'a OsStr>,
    cross_mounts: bool,
) -> Result<OwnedFd> {
    descend_as(base, names, cross_mounts, OFlags::RDONLY)
}

fn descend_as<'a>(
    base: BorrowedFd<'_>,
    names: impl IntoIterator<Item = &'a OsStr>,
    cross_mounts: bool,
    access: OFlags,
) -> Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    let mut path: Vec<u8> = Vec::new();
    for name in names {
        if !path.is_empty() && path.len() + 1 + name.len() > LONGEST_PATH {
            let from = at.as_ref().map_or(base, AsFd::as_fd);
            at = Some(step(from, &path, cross_mounts, OFlags::PATH)?);
            path.clear();
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
    }
    if path.is_empty() {
        path.push(b'.');
    }
    step(at.as_ref().map_or(base, AsFd::as_fd), &path, cross_mounts, access)
}

fn step(base: BorrowedFd<'_>, path: &[u8], cross_mounts: bool, access: OFlags) -> Result<OwnedFd> {
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    if !cross_mounts {
        resolve |= ResolveFlags::NO_XDEV;
    }
    loop {
        match rustix::fs::openat2(base, path, flags, Mode::empty(), resolve) {
            // A rename or mount elsewhere on the system raced with the walk (openat2(2)).
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
}

/// The path of an open descriptor of this process; it reaches the very object, whatever its name is now.
pub fn proc_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stat::stat_fd;

    #[test]
    fn descend_reaches_beyond_path_max_and_refuses_links() {
        let root = tempfile::tempdir().unwrap();
        let base = directory(root.path()).unwrap();
        let name = "n".repeat(255);
        let mut at = directory(root.path()).unwrap();
        for _ in 0..40 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
            at = child(at.as_fd(), OsStr::new(&name), OFlags::PATH).unwrap();
        }
        let names = vec![OsStr::new(&name); 40];
        let reached = descend(base.as_fd(), names, true).unwrap();
        assert_eq!(stat_fd(reached.as_fd()), stat_fd(at.as_fd()));

        std::os::unix::fs::symlink("/", root.path().join("link")).unwrap();
        let refused = descend(base.as_fd(), [OsStr::new("link"), OsStr::new("etc")], true);
        assert_eq!(refused.err(), Some(Errno::LOOP));
        let refused = descend(base.as_fd(), [OsStr::new("..")], true);
        assert_eq!(refused.err(), Some(Errno::XDEV));
    }
}
