//! The contents of regular files: reading, writing and copying with holes kept.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;
use rustix::fs::SeekFrom;
use rustix::io::ReadWriteFlags;

use super::{Errno, Result, Stat};

/// Bytes moved by one call while copying through memory.
const CHUNK: usize = 1024 * 1024;
/// Bytes after which a copy begins to be written: enough for a disk to do at once.
const PIECE: u64 = 8 * 1024 * 1024;

/// When a copy gets onto the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// While the copy goes on, because somebody is going to wait for it.
    Early,
    /// When the kernel likes.
    Any,
}

/// An open file that is to be copied.
#[derive(Debug)]
pub struct Source {
    fd: OwnedFd,
    size: u64,
    /// Units of 512 bytes that it takes.
    blocks: u64,
    filesystem: u64,
}

impl Source {
    /// The regular file `fd`, which has these attributes.
    pub fn new(fd: OwnedFd, stat: &Stat) -> Self {
        Self { fd, size: stat.size, blocks: stat.blocks, filesystem: stat.dev }
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn may_have_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }
}

/// The filesystems that share no extents with the one that copies are made on.
#[derive(Debug, Default)]
pub struct Unshared(Mutex<Vec<u64>>);

impl Unshared {
    /// Has `target` share all data of `source`; whether it does.
    fn clone(&self, source: &Source, target: BorrowedFd<'_>) -> bool {
        if self.0.lock().contains(&source.filesystem) {
            return false;
        }
        let cloned = rustix::fs::ioctl_ficlone(target, &source.fd);
        if let Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV) = cloned {
            self.0.lock().push(source.filesystem);
        }
        cloned.is_ok()
    }
}

/// Reads at `offset` until `buffer` is full or the file ends; returns the number of bytes read.
///
/// # Errors
/// Also when something was read before: fewer bytes than asked for are always the end of the file.
pub fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads at `offset` what is in memory, in one go and without waiting for a disk; returns the number of bytes.
///
/// # Errors
/// `EAGAIN` when nothing is; `EOPNOTSUPP` where the filesystem cannot tell.
pub fn read_cached(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
    if buffer.is_empty() {
        return Ok(0);
    }
    let mut parts = [IoSliceMut::new(buffer)];
    rustix::io::preadv2(fd, &mut parts, offset, ReadWriteFlags::NOWAIT)
}

/// Has the data of a file get onto its disk soon, without waiting for it.
///
/// # Errors
/// Those of sync_file_range(2).
pub fn start_writing(file: BorrowedFd<'_>) -> Result<()> {
    sync_range(file, 0, 0, libc::SYNC_FILE_RANGE_WRITE)
}

/// Writes the data of a file and waits for that: not for what the filesystem has to note about it, nor for the cache of
/// the disk. See `write_order` for what follows from it.
///
/// # Errors
/// Those of fsync(2).
pub fn write_and_wait(file: BorrowedFd<'_>) -> Result<()> {
    // All three, or pages may be left out that others are writing.
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    match sync_range(file, 0, 0, all) {
        // A filter of system calls knows it not.
        Err(Errno::PERM | Errno::NOSYS) => rustix::fs::fsync(file),
        result => result,
    }
}

/// sync_file_range(2) of `length` bytes, or of all up to the end with 0.
fn sync_range(file: BorrowedFd<'_>, at: u64, length: u64, flags: libc::c_uint) -> Result<()> {
    let [at, length] = [at, length].map(u64::cast_signed);
    // SAFETY: the descriptor is open; no memory is passed.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), at, length, flags) };
    if result < 0 { Err(super::process::last_errno()) } else { Ok(()) }
}

/// Writes all of `bytes` at `offset`, or as much as fits; returns the number of bytes written.
pub fn write_at(fd: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pwrite(fd, &bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Copies the first `length` bytes of `source` into the empty file `target`: shared extents where the
/// filesystem can, else only the parts that hold data, so that holes stay holes. Afterwards `target` is
/// exactly as long as `length`, or as `source` where that is shorter or turns out to be.
pub fn copy(
    source: &Source,
    target: BorrowedFd<'_>,
    length: u64,
    writing: Writing,
    unshared: &Unshared,
) -> Result<()> {
    let length = length.min(source.size);
    if length == source.size && length > 0 && unshared.clone(source, target) {
        return Ok(());
    }
    let fd = source.fd.as_fd();
    let mut at = 0;
    while at < length {
        let next = match source.may_have_holes() {
            true => next_data(fd, at, length)?,
            false => Some((at, length)),
        };
        let Some((start, end)) = next else {
            // The end is a hole.
            return rustix::fs::ftruncate(target, length);
        };
        at = copy_extent(fd, target, (start, end), writing)?;
        if at < end {
            // The file is shorter than it says, or was cut behind our back: there is nothing to invent.
            return rustix::fs::ftruncate(target, at);
        }
    }
    Ok(())
}

/// The next range before `end` that holds data, or `None` when only a hole is left.
fn next_data(fd: BorrowedFd<'_>, from: u64, end: u64) -> Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(fd, SeekFrom::Data(from)) {
        Ok(start) if start >= end => return Ok(None),
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((from, end))),
        Err(error) => return Err(error),
    };
    let hole = rustix::fs::seek(fd, SeekFrom::Hole(start))?;
    Ok(Some((start, hole.min(end))))
}

/// Copies a range of data; returns where it ended, before its end only at the end of the file.
fn copy_extent(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    (start, end): (u64, u64),
    writing: Writing,
) -> Result<u64> {
    let mut at = start;
    while at < end {
        let stop = end.min(at + PIECE);
        let copied = copy_piece(source, target, at, stop)?;
        if copied < stop {
            return Ok(copied);
        }
        if writing == Writing::Early && stop < end {
            match sync_range(target, at, stop - at, libc::SYNC_FILE_RANGE_WRITE) {
                // It is all written in the end.
                Ok(()) | Err(Errno::PERM | Errno::NOSYS) => {}
                Err(error) => return Err(error),
            }
        }
        at = stop;
    }
    Ok(end)
}

/// Copies a range; returns where it ended, as [`copy_extent`] does.
fn copy_piece(source: BorrowedFd<'_>, target: BorrowedFd<'_>, start: u64, end: u64) -> Result<u64> {
    let mut at = start;
    while at < end {
        let (mut from, mut to) = (at, at);
        let want = usize::try_from(end - at).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), want) {
            Ok(0) => return copy_through_memory(source, target, at, end),
            Ok(count) => at += count as u64,
            Err(Errno::INTR) => {}
            Err(
                Errno::XDEV
                | Errno::INVAL
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::PERM
                | Errno::IO,
            ) => return copy_through_memory(source, target, at, end),
            Err(error) => return Err(error),
        }
    }
    Ok(end)
}

fn copy_through_memory(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    start: u64,
    end: u64,
) -> Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(CHUNK);
        let count = read_at(source, &mut buffer[..want], at)?;
        if count == 0 {
            return Ok(at);
        }
        let mut written = 0;
        while written < count {
            // What could not be written at once fails again, and then tells why.
            match write_at(target, &buffer[written..count], at + written as u64)? {
                0 => return Err(Errno::NOSPC),
                more => written += more,
            }
        }
        at += count as u64;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn source(file: &File) -> Source {
        let stat = crate::sys::stat::stat_fd(file.as_fd()).unwrap();
        Source::new(file.try_clone().unwrap().into(), &stat)
    }

    fn copy_all(from: &File, to: &File, length: u64) {
        copy(&source(from), to.as_fd(), length, Writing::Any, &Unshared::default()).unwrap();
    }

    fn files() -> (tempfile::TempDir, File, File) {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let open = |name| {
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(root.path().join(name))
                .unwrap()
        };
        let (source, target) = (open("source"), open("target"));
        (root, source, target)
    }

    #[test]
    fn holes_stay_holes() {
        let (_root, source, target) = files();
        source.set_len(64 << 20).unwrap();
        source.write_all_at(b"middle", 20 << 20).unwrap();
        copy_all(&source, &target, u64::MAX);
        let meta = target.metadata().unwrap();
        assert_eq!(meta.len(), 64 << 20);
        assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
        let mut found = [0; 6];
        target.read_exact_at(&mut found, 20 << 20).unwrap();
        assert_eq!(&found, b"middle");
    }

    #[test]
    fn a_file_that_ends_earlier_than_it_said_gives_a_copy_of_what_there_is() {
        let (_root, mut source, target) = files();
        source.write_all(b"0123456789").unwrap();
        let said = Source { size: 4096, blocks: 8, ..self::source(&source) };
        let unshared = Unshared(Mutex::new(vec![said.filesystem]));
        copy(&said, target.as_fd(), 4096, Writing::Any, &unshared).unwrap();
        assert_eq!(target.metadata().unwrap().len(), 10);
    }

    #[test]
    fn a_shorter_length_cuts_the_copy() {
        let (_root, mut source, target) = files();
        source.write_all(b"0123456789").unwrap();
        copy_all(&source, &target, 4);
        assert_eq!(target.metadata().unwrap().len(), 4);
    }

    #[test]
    fn the_way_through_memory_copies_the_same() {
        let (_root, mut source, target) = files();
        let text: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        source.write_all(&text).unwrap();
        copy_through_memory(source.as_fd(), target.as_fd(), 0, text.len() as u64).unwrap();
        let mut found = vec![0; text.len()];
        target.read_exact_at(&mut found, 0).unwrap();
        assert!(found == text);
    }
}
