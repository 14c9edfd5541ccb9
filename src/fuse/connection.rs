//! Sessions of the library on one connection to the kernel.
//!
//! The first does the INIT handshake. The library opens none without, and starts all threads of a session at once; but
//! any number of sessions can read from one connection. So the handshake of a further one is done with ourselves, over a
//! socket, and then what is behind its descriptor is exchanged for the device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fuser::{Config, Session, SessionACL};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::Adapter;
use crate::sys::process;

/// Does the handshake with the kernel. The session answers in one thread.
///
/// # Errors
/// Those of the handshake.
pub fn open(filesystem: Adapter, device: OwnedFd, acl: SessionACL) -> io::Result<Session<Adapter>> {
    Session::from_fd(filesystem, device, acl, Config::default())
}

/// One more session, of one thread, on the connection `device`; `filesystem` is a copy of the one that did the handshake.
///
/// # Errors
/// When there are no descriptors left.
pub fn join(
    filesystem: Adapter,
    device: BorrowedFd<'_>,
    acl: SessionACL,
) -> io::Result<Session<Adapter>> {
    // Messages of it keep their borders, as those of the device.
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::write(&ours, &init_request())?;
    let session = Session::from_fd(filesystem, theirs, acl, Config::default())?;
    // The answer is lost with the socket. It would say what was agreed with the kernel.
    process::redirect(session.as_fd(), device)?;
    Ok(session)
}

/// Has the kernel send again whatever a process that died has read and not answered (`FUSE_NOTIFY_RESEND`, Linux 6.9).
///
/// # Errors
/// `EINVAL` from older kernels.
pub fn resend(device: BorrowedFd<'_>) -> io::Result<()> {
    const RESEND: u32 = 7;
    // `fuse_out_header`: length, what kind of notice, and 0 for the number of a request.
    let notice: Vec<u8> = [16, RESEND, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    Ok(rustix::io::write(device, &notice).map(|_all| ())?)
}

/// FUSE_INIT of linux/fuse.h, version 7.31: `fuse_in_header` and `fuse_init_in`. The filesystem does not look at it.
fn init_request() -> Vec<u8> {
    const LENGTH: u32 = 40 + 64;
    const INIT: u32 = 26;
    let numbers = [LENGTH, INIT, 1].into_iter().chain([0; 7]).chain([7, 31]).chain([0; 14]);
    numbers.flat_map(u32::to_ne_bytes).collect()
}
