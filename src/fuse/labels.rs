//! Labels of SELinux, on machines that have none.
//!
//! `ls -l` asks for the label of each file, and every answer costs a message: the kernel keeps none. It stops asking on a
//! filesystem that says it has no labels at all (coreutils, src/ls.c: `getfilecon_cache`).

use std::ffi::OsStr;
use std::path::Path;

use crate::sys::Errno;

/// Whether SELinux is at work in this kernel.
pub(super) fn are_used() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// What to answer instead of `error` when the attribute `name` was asked for and labels are not used.
pub(super) fn absent(name: &OsStr, error: Errno) -> Errno {
    match error {
        Errno::NODATA if name == "security.selinux" => Errno::OPNOTSUPP,
        error => error,
    }
}
