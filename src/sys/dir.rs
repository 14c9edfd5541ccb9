//! Reading the entries of a directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, RawDir};

use super::{FileKind, Result, open};

/// Bytes of directory entries fetched by one getdents64(2).
const BUFFER: usize = 64 * 1024;

/// One entry as the directory itself tells it.
#[derive(Clone, Copy, Debug)]
pub struct RawEntry<'a> {
    /// Its name; never `.` or `..`.
    pub name: &'a OsStr,
    /// Its type, or `None` on filesystems that do not keep types in directories.
    pub kind: Option<FileKind>,
    /// Its inode number; below a mountpoint that of the covered directory.
    pub ino: u64,
}

/// Calls `each` with every entry of the directory `dir` (which may be an `O_PATH` reference).
pub fn for_each(dir: BorrowedFd<'_>, each: impl FnMut(RawEntry<'_>) -> Result<()>) -> Result<()> {
    for_rest(open::reopen_directory(dir)?.as_fd(), each)
}

/// Calls `each` with every entry that has not been read yet from `reader`, a directory that is open for reading.
pub fn for_rest(
    reader: BorrowedFd<'_>,
    mut each: impl FnMut(RawEntry<'_>) -> Result<()>,
) -> Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut entries = RawDir::new(reader, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            each(RawEntry { name, kind: kind(entry.file_type()), ino: entry.ino() })?;
        }
    }
    Ok(())
}

/// Whether the directory `dir` has no entries at all.
pub fn is_empty(dir: BorrowedFd<'_>) -> Result<bool> {
    let mut empty = true;
    for_each(dir, |_| {
        empty = false;
        Ok(())
    })?;
    Ok(empty)
}

fn kind(raw: FileType) -> Option<FileKind> {
    Some(match raw {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        _ => return None,
    })
}
