//! Files that the kernel reads and writes in the place of a FUSE daemon (`FUSE_DEV_IOC_BACKING_*` of linux/fuse.h).

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

use super::Result;

/// Takes back the registration `id` on the connection `device`.
#[allow(unsafe_code)]
pub fn close(device: BorrowedFd<'_>, id: u32) -> Result<()> {
    const CLOSE: Opcode = opcode::write::<u32>(229, 2);
    // SAFETY: `CLOSE` is FUSE_DEV_IOC_BACKING_CLOSE, which reads a u32.
    unsafe { ioctl(device, Setter::<CLOSE, u32>::new(id)) }
}

/// A regular file that exists in memory only.
pub fn memory_file() -> Result<OwnedFd> {
    rustix::fs::memfd_create("plyfs", MemfdFlags::CLOEXEC)
}
