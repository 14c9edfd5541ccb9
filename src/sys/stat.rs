//! File attributes as the kernel reports them.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags, StatxTimestamp};

use super::{Errno, Result};

/// A point in time: seconds since 1970 (negative before it) and 0..1,000,000,000 nanoseconds after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub sec: i64,
    /// Nanoseconds that follow `sec`, also when `sec` is negative.
    pub nsec: u32,
}

/// The type of a filesystem object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// The kind in the type bits of `mode` (as in `st_mode`); unknown bits are taken for a regular file.
    pub fn from_mode(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            _ => Self::Regular,
        }
    }

    /// The type bits of `st_mode` for this kind.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
        }
    }

    /// Whether this is a directory.
    pub fn is_dir(self) -> bool {
        self == Self::Directory
    }
}

/// More names than a file of any filesystem has. Room is left for sums and differences of such counts.
const MOST_LINKS: u64 = 1 << 30;

/// The attributes of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The filesystem that the object lies on.
    pub dev: u64,
    /// The inode number on that filesystem.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names, at most 2^30.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Allocated units of 512 bytes.
    pub blocks: u64,
    /// Preferred size of an I/O in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
}

impl Stat {
    /// The object's type.
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode)
    }

    /// The permission bits, including set-id and sticky.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
}

impl From<rustix::fs::Stat> for Stat {
    fn from(raw: rustix::fs::Stat) -> Self {
        let time = |sec, nsec| Time { sec, nsec: nsec as u32 };
        Self {
            dev: raw.st_dev,
            ino: raw.st_ino,
            mode: raw.st_mode,
            nlink: raw.st_nlink.min(MOST_LINKS) as u32,
            uid: raw.st_uid,
            gid: raw.st_gid,
            rdev: raw.st_rdev,
            size: raw.st_size as u64,
            blocks: raw.st_blocks as u64,
            blksize: raw.st_blksize as u32,
            atime: time(raw.st_atime, raw.st_atime_nsec as i64),
            mtime: time(raw.st_mtime, raw.st_mtime_nsec as i64),
            ctime: time(raw.st_ctime, raw.st_ctime_nsec as i64),
        }
    }
}

impl From<Statx> for Stat {
    fn from(raw: Statx) -> Self {
        let time = |at: StatxTimestamp| Time { sec: at.tv_sec, nsec: at.tv_nsec };
        Self {
            dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
            ino: raw.stx_ino,
            mode: raw.stx_mode.into(),
            nlink: u64::from(raw.stx_nlink).min(MOST_LINKS) as u32,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            rdev: rustix::fs::makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
            size: raw.stx_size,
            blocks: raw.stx_blocks,
            blksize: raw.stx_blksize,
            atime: time(raw.stx_atime),
            mtime: time(raw.stx_mtime),
            ctime: time(raw.stx_ctime),
        }
    }
}

/// The attributes of `name` in the directory `dir`, never following a link or triggering an automount.
pub fn stat_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statat(dir, name, flags).map(Stat::from)
}

/// The attributes of the object that `fd` (which may be `O_PATH`) refers to.
pub fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat> {
    rustix::fs::fstat(fd).map(Stat::from)
}

/// What chattr(1) forbids to change of an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Things can be added and nothing else (`+a`).
    pub append_only: bool,
    /// Nothing can be changed (`+i`).
    pub immutable: bool,
}

impl From<StatxAttributes> for Flags {
    fn from(attributes: StatxAttributes) -> Self {
        Self {
            append_only: attributes.contains(StatxAttributes::APPEND),
            immutable: attributes.contains(StatxAttributes::IMMUTABLE),
        }
    }
}

/// The magic number of erofs (linux/magic.h).
const EROFS: u64 = 0xe0f5_e1e2;

impl Flags {
    /// These of an object on the filesystem that `fd` is on. erofs says of everything that it is immutable
    /// (fs/erofs/inode.c, `erofs_getattr`), and has no such flag.
    fn on(self, fd: BorrowedFd<'_>) -> Result<Self> {
        let immutable = self.immutable && rustix::fs::fstatfs(fd)?.f_type as u64 != EROFS;
        Ok(Self { immutable, ..self })
    }
}

/// The attributes and the flags of `name` in the directory `dir`, never following a link or triggering an automount.
pub fn look_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(Stat, Flags)> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let answer = rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS);
    told_by(answer, dir, || stat_at(dir, name))
}

/// The attributes and the flags of the object that `fd` (which may be `O_PATH`) refers to.
pub fn look_fd(fd: BorrowedFd<'_>) -> Result<(Stat, Flags)> {
    let answer = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    told_by(answer, fd, || stat_fd(fd))
}

/// What statx(2) tells of something on the filesystem of `fd`; where a filter of system calls does not let it, nobody can
/// tell the flags.
fn told_by(
    answer: Result<Statx>,
    fd: BorrowedFd<'_>,
    stat: impl FnOnce() -> Result<Stat>,
) -> Result<(Stat, Flags)> {
    match answer {
        Err(Errno::NOSYS | Errno::PERM) => Ok((stat()?, Flags::default())),
        answer => {
            let raw = answer?;
            Ok((Stat::from(raw), Flags::from(raw.stx_attributes).on(fd)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn kinds_and_mode_bits_are_inverse() {
        use FileKind::*;
        for kind in [Regular, Directory, Symlink, CharDevice, BlockDevice, Fifo, Socket] {
            assert_eq!(FileKind::from_mode(kind.mode_bits() | 0o644), kind);
        }
    }

    #[test]
    fn both_calls_tell_the_same() {
        let dir = std::fs::File::open(env!("CARGO_MANIFEST_DIR")).unwrap();
        let name = OsStr::new("Cargo.toml");
        let (stat, flags) = look_at(dir.as_fd(), name).unwrap();
        assert_eq!((stat, flags), (stat_at(dir.as_fd(), name).unwrap(), Flags::default()));
        assert_eq!(look_fd(dir.as_fd()).unwrap().0, stat_fd(dir.as_fd()).unwrap());
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(look_fd(null.as_fd()).unwrap().0, stat_fd(null.as_fd()).unwrap());
    }
}
