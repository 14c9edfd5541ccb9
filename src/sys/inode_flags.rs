//! The inode flags of lsattr(1) and chattr(1): `FS_IOC_GETFLAGS` and `FS_IOC_SETFLAGS`, and the same with
//! project and extent size: `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`.

use std::os::fd::BorrowedFd;

use rustix::fs::IFlags;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

use super::Result;

/// The flags (`FS_*_FL`) of the file or directory open as `fd`.
pub fn get(fd: BorrowedFd<'_>) -> Result<u32> {
    rustix::fs::ioctl_getflags(fd).map(|flags| flags.bits())
}

/// Sets the flags (`FS_*_FL`) of the file or directory open as `fd`.
pub fn set(fd: BorrowedFd<'_>, flags: u32) -> Result<()> {
    rustix::fs::ioctl_setflags(fd, IFlags::from_bits_retain(flags))
}

/// `struct fsxattr` of linux/fs.h as the bytes that it is.
pub type Extended = [u8; 28];

/// The extended flags of the file or directory open as `fd`.
#[allow(unsafe_code)]
pub fn get_extended(fd: BorrowedFd<'_>) -> Result<Extended> {
    const GET: Opcode = opcode::read::<Extended>(b'X', 31);
    // SAFETY: `GET` is FS_IOC_FSGETXATTR, which fills a struct fsxattr of 28 bytes.
    unsafe { ioctl(fd, Getter::<GET, Extended>::new()) }
}

/// Sets the extended flags of the file or directory open as `fd`.
#[allow(unsafe_code)]
pub fn set_extended(fd: BorrowedFd<'_>, value: &Extended) -> Result<()> {
    const SET: Opcode = opcode::write::<Extended>(b'X', 32);
    // SAFETY: `SET` is FS_IOC_FSSETXATTR, which reads a struct fsxattr of 28 bytes.
    unsafe { ioctl(fd, Setter::<SET, Extended>::new(*value)) }
}
