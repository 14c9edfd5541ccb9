//! What a process takes off before it runs what it does not trust. All of it is about the calling thread: to be called
//! while the process has no other.
#![allow(unsafe_code)]

use rustix::io::{Errno, Result};
use rustix::thread::UnshareFlags;

/// Moves into new namespaces. A new pid namespace is that of the children.
///
/// # Errors
/// Those of unshare(2): `EPERM` without the right, `ENOSPC` at the limits of /proc/sys/user.
pub fn unshare(namespaces: UnshareFlags) -> Result<()> {
    // SAFETY: no other thread relies on what is shared (see above), and descriptors stay shared with nobody.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}

/// Has every descriptor above 2 closed when the process executes another program.
///
/// # Errors
/// `ENOSYS` before Linux 5.11.
pub fn close_on_exec() -> Result<()> {
    // SAFETY: closes nothing; changes a flag of descriptors.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3 as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}

/// Leaves the session keyring of the caller for a new one. A kernel without keyrings has nothing to leave.
///
/// # Errors
/// `EDQUOT` and `ENOMEM` of keyctl(2).
pub fn leave_session_keyring() -> Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: without a name the call reads no memory.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0) };
    if id >= 0 {
        return Ok(());
    }
    match super::process::last_errno() {
        // Not built in, or kept from us by whoever confines us.
        Errno::NOSYS | Errno::PERM => Ok(()),
        error => Err(error),
    }
}
