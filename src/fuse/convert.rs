//! Between the protocol's types and the union's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, Request, TimeOrNow};

use crate::overlay::{Attr, Caller, DirEntry, NodeId};
use crate::sys::object::NewTime;
use crate::sys::{Errno, FileKind, Time};

pub(super) fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), thread: request.pid() }
}

/// The one place where an error of the union becomes one of the protocol.
pub(super) fn errno(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

pub(super) fn kind(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

pub(super) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(attr.kind()),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: encoded_device(attr.rdev),
        blksize: attr.blksize,
        flags: 0,
    }
}

/// The attributes of a node that does not exist.
pub(super) fn absent() -> FileAttr {
    attr(&Attr {
        ino: 0,
        size: 0,
        blocks: 0,
        mode: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
    })
}

/// What is sent for an entry without attributes.
pub(super) fn dot(entry: &DirEntry<'_>) -> FileAttr {
    FileAttr { ino: INodeNo(entry.ino), kind: kind(entry.kind), ..absent() }
}

fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.sec.unsigned_abs());
    let whole = match time.sec < 0 {
        true => UNIX_EPOCH.checked_sub(seconds),
        false => UNIX_EPOCH.checked_add(seconds),
    };
    let exact = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nsec.into())));
    exact.unwrap_or(UNIX_EPOCH)
}

/// A time out of a request. The library turns `sec` below 0 and `nsec` into `sec - nsec` instead of
/// `sec + nsec`; this undoes it.
pub(super) fn new_time(time: TimeOrNow) -> NewTime {
    let TimeOrNow::SpecificTime(time) = time else { return NewTime::Now };
    NewTime::At(match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time { sec: after.as_secs().cast_signed(), nsec: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Time { sec: before.as_secs().cast_signed().wrapping_neg(), nsec: before.subsec_nanos() }
        }
    })
}

/// The device number in the kernel's 32 bits (`new_encode_dev` of linux/kdev_t.h).
fn encoded_device(rdev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The device number out of the kernel's 32 bits (`new_decode_dev`).
pub(super) fn device(encoded: u32) -> u64 {
    let major = (encoded & 0xf_ff00) >> 8;
    let minor = (encoded & 0xff) | ((encoded >> 12) & 0xf_ff00);
    rustix::fs::makedev(major, minor)
}

/// The attribute names that `caller` may know of, one after the other, each closed by a NUL.
pub(super) fn name_list(names: &[Box<OsStr>], caller: Caller) -> Vec<u8> {
    let seen = names.iter().filter(|name| caller.sees_attribute(name));
    seen.flat_map(|name| name.as_bytes().iter().copied().chain([0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_come_back() {
        for (major, minor) in [(1, 3), (8, 0), (259, 70_000), (0, 0)] {
            let rdev = rustix::fs::makedev(major, minor);
            assert_eq!(device(encoded_device(rdev)), rdev);
        }
    }

    #[test]
    fn times_before_1970_are_exact() {
        let time = Time { sec: -2, nsec: 800_000_000 };
        assert_eq!(UNIX_EPOCH.duration_since(system_time(time)).unwrap().as_millis(), 1200);
        // As the library builds it out of (-2, 800000000).
        let received = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(new_time(TimeOrNow::SpecificTime(received)), NewTime::At(time));
    }
}
