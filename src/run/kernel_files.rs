//! /proc and /sys: fresh where the kernel lets us have them, else those of the caller; without what says too much about
//! the machine or changes it (OCI runtime specification, "Linux default filesystems", and runc's default paths).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::error::RunError;
use super::root::{Root, in_container};
use crate::sys::mount_tree;

/// What no filesystem of a container that holds no programs needs.
pub const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// Hidden: nothing is to be read there.
const MASKED: [&str; 11] = [
    "proc/acpi",
    "proc/asound",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// To be read, not written.
const NOT_WRITABLE: [&str; 5] =
    ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// Puts both in place. /dev/null must be there by then.
///
/// # Errors
/// When one cannot be had at all.
pub fn attach(root: &Root) -> Result<(), RunError> {
    attach_one(root, "proc", "proc", PLAIN)?;
    attach_one(root, "sys", "sysfs", PLAIN | READ_ONLY)?;
    for path in MASKED.map(Path::new) {
        if let Some(place) = root.find(path)? {
            let cover = nothing_like(root, &place).map_err(in_container(path))?;
            root.attach(&cover, &place, path)?;
        }
    }
    for path in NOT_WRITABLE.map(Path::new) {
        if let Some(place) = root.find(path)? {
            let copy = read_only_copy(&place).map_err(in_container(path))?;
            root.attach(&copy, &place, path)?;
        }
    }
    Ok(())
}

fn attach_one(
    root: &Root,
    name: &str,
    fs_type: &str,
    attributes: MountAttrFlags,
) -> Result<(), RunError> {
    let place = root.own_directory(name)?;
    let mount = match mount_tree::fresh(fs_type, &[], attributes) {
        // /sys belongs to a network namespace, and /proc must not show what is hidden from the caller himself.
        Err(Errno::PERM) => mount_tree::copy(&Path::new("/").join(name)).and_then(|copy| {
            mount_tree::restrict(copy.as_fd(), attributes, true)?;
            Ok(copy)
        }),
        mount => mount,
    };
    root.attach(&mount.map_err(in_container(Path::new(name)))?, &place, Path::new(name))
}

/// An empty directory, or a file without anything in it.
fn nothing_like(root: &Root, place: &OwnedFd) -> Result<OwnedFd, Errno> {
    if FileType::from_raw_mode(fstat(place)?.st_mode) == FileType::Directory {
        return mount_tree::fresh("tmpfs", &[("size", "0"), ("mode", "555")], PLAIN | READ_ONLY);
    }
    let null = root.find(Path::new("dev/null")).ok().flatten().ok_or(Errno::NOENT)?;
    mount_tree::copy_of(null.as_fd())
}

fn read_only_copy(place: &OwnedFd) -> Result<OwnedFd, Errno> {
    let copy = mount_tree::copy_of(place.as_fd())?;
    mount_tree::restrict(copy.as_fd(), PLAIN | READ_ONLY, true)?;
    Ok(copy)
}
