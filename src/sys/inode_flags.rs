//! The inode flags of lsattr(1) and chattr(1): `FS_IOC_GETFLAGS` and `FS_IOC_SETFLAGS`.

use std::os::fd::BorrowedFd;

use rustix::fs::IFlags;

use super::Result;

/// The flags (`FS_*_FL`) of the file or directory open as `fd`.
pub fn get(fd: BorrowedFd<'_>) -> Result<u32> {
    rustix::fs::ioctl_getflags(fd).map(|flags| flags.bits())
}

/// Sets the flags (`FS_*_FL`) of the file or directory open as `fd`.
pub fn set(fd: BorrowedFd<'_>, flags: u32) -> Result<()> {
    rustix::fs::ioctl_setflags(fd, IFlags::from_bits_retain(flags))
}
