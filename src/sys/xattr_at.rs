//! getxattrat(2) and listxattrat(2) of Linux 6.13: attributes of a name in a directory, without the way through
//! `/proc/self/fd`, which takes three times as long.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::path::Arg;

use super::{Errno, Name, Result, process};

// The same on every processor (asm-generic/unistd.h).
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;

/// `struct xattr_args` of linux/xattr.h.
#[repr(C, align(8))]
struct Args {
    value: u64,
    size: u32,
    flags: u32,
}

/// The value of an attribute, put into `value`; its length. `None` where the system has no such call.
pub(super) fn get(
    dir: BorrowedFd<'_>,
    name: &Name,
    attribute: &OsStr,
    value: &mut [u8],
) -> Option<Result<usize>> {
    let size = u32::try_from(value.len()).ok()?;
    let args = Args { value: value.as_mut_ptr() as u64, size, flags: 0 };
    call(name, |name| {
        attribute.into_with_c_str(|attribute| {
            // SAFETY: both names are C strings, and `args` points to `value`; all of them live during the call.
            // The kernel writes no more than `size` bytes.
            Ok(unsafe {
                libc::syscall(
                    SYS_GETXATTRAT,
                    dir.as_raw_fd(),
                    name.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    attribute.as_ptr(),
                    &raw const args,
                    size_of::<Args>(),
                )
            })
        })
    })
}

/// The names of all attributes, put into `list`, each with a zero byte behind it; their length. `None` where the
/// system has no such call.
pub(super) fn list(dir: BorrowedFd<'_>, name: &Name, list: &mut [u8]) -> Option<Result<usize>> {
    call(name, |name| {
        // SAFETY: the name is a C string, and the kernel writes no more than the length of `list`, which lives
        // during the call.
        Ok(unsafe {
            libc::syscall(
                SYS_LISTXATTRAT,
                dir.as_raw_fd(),
                name.as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
                list.as_mut_ptr(),
                list.len(),
            )
        })
    })
}

/// Whether the system was found not to know these calls.
static UNKNOWN: AtomicBool = AtomicBool::new(false);

fn call(name: &Name, call: impl FnOnce(&CStr) -> Result<libc::c_long>) -> Option<Result<usize>> {
    if UNKNOWN.load(Ordering::Relaxed) {
        return None;
    }
    let result = (&**name).into_with_c_str(|name| match call(name)? {
        -1 => Err(process::last_errno()),
        length => Ok(length as usize),
    });
    match result {
        Err(Errno::NOSYS) => {
            UNKNOWN.store(true, Ordering::Relaxed);
            None
        }
        // What a filter of system calls may say; who may not read an attribute is told something else.
        Err(Errno::PERM) => None,
        result => Some(result),
    }
}
