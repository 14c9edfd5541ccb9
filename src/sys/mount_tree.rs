//! Mounts that are descriptors before they are anywhere: made or copied, restricted, and attached to an open place.
//!
//! No path is looked up between the check of a place and its use.
#![allow(unsafe_code)]

use std::ffi::c_uint;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// A new filesystem of type `fs_type` with these options, mounted nowhere yet.
///
/// # Errors
/// Those of fsopen(2), fsconfig(2) and fsmount(2): `EPERM` where this namespace may not have one.
pub fn fresh(
    fs_type: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let filesystem = fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        fsconfig_set_string(&filesystem, *name, *value)?;
    }
    fsconfig_create(&filesystem)?;
    fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A copy of the mounts at and below `path`, attached nowhere yet. Symbolic links are followed.
///
/// # Errors
/// Those of open_tree(2).
pub fn copy(path: &Path) -> Result<OwnedFd> {
    open_tree(CWD, path, COPY | OpenTreeFlags::AT_RECURSIVE)
}

/// The same of an open place.
///
/// # Errors
/// Those of open_tree(2).
pub fn copy_of(place: BorrowedFd<'_>) -> Result<OwnedFd> {
    open_tree(place, c"", COPY | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH)
}

const COPY: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Attaches `mount` to the open place `target` (`O_PATH` will do), a directory to a directory and a file to a file.
///
/// # Errors
/// Those of move_mount(2).
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Adds `attributes` to `mount`, and to all mounts below it if `recursive`.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn restrict(mount: BorrowedFd<'_>, attributes: MountAttrFlags, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: attributes.bits().into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, `attributes` is read only during the call and its size is passed with it; the
    // descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags as c_uint,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}
