//! /dev: the devices that every program expects, those of the machine, and none else.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::error::RunError;
use super::ids::Ids;
use super::kernel_files::PLAIN;
use super::root::{Root, in_container};
use crate::sys::{mount_tree, open};

/// Devices by their names in /dev. They are mounts of the machine's: an ordinary user can make none.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links by name and target.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The group of terminals, by custom.
const TTY_GROUP: u32 = 5;

/// Puts /dev in place; gives the directory of its terminals.
///
/// # Errors
/// When something of it cannot be had.
pub fn attach(root: &Root, ids: &Ids) -> Result<OwnedFd, RunError> {
    let place = root.own_directory("dev")?;
    let refused = |error| in_container(Path::new("dev"))(error);
    let limits = [("mode", "755"), ("size", "65536k")];
    // The devices are mounts of their own; others that somebody makes here are none.
    let dev = mount_tree::fresh("tmpfs", &limits, without_exec(PLAIN)).map_err(refused)?;
    root.attach(&dev, &place, Path::new("dev"))?;
    for name in DEVICES {
        let device = mount_tree::copy(&Path::new("/dev").join(name));
        let device = device.map_err(RunError::system(format!("/dev/{name}")))?;
        let made = open::create(dev.as_fd(), OsStr::new(name), 0o666).map_err(refused)?;
        mount_tree::attach(device.as_fd(), made.as_fd()).map_err(refused)?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).map_err(refused)?;
    }
    let terminals = terminals(ids).map_err(in_container(Path::new("dev/pts")))?;
    attach_below(&dev, "pts", &terminals)?;
    let shared = [("mode", "1777"), ("size", "65536k")];
    let memory = mount_tree::fresh("tmpfs", &shared, PLAIN).map_err(refused)?;
    attach_below(&dev, "shm", &memory)?;
    match mount_tree::fresh("mqueue", &[], PLAIN) {
        Ok(queues) => attach_below(&dev, "mqueue", &queues)?,
        // Not in every kernel.
        Err(Errno::NODEV | Errno::PERM) => {}
        Err(error) => return Err(in_container(Path::new("dev/mqueue"))(error)),
    }
    Ok(terminals)
}

/// Gives the terminal of the container its second name.
///
/// # Errors
/// Those of making and attaching it.
pub fn attach_console(root: &Root, terminal: &OwnedFd) -> Result<(), RunError> {
    let path = Path::new("dev/console");
    let place = root.file(path)?;
    let console = mount_tree::copy_of(terminal.as_fd()).map_err(in_container(path))?;
    root.attach(&console, &place, path)
}

fn without_exec(attributes: MountAttrFlags) -> MountAttrFlags {
    attributes.difference(MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

/// A new instance of the filesystem of pseudoterminals.
fn terminals(ids: &Ids) -> Result<OwnedFd, Errno> {
    let attributes = PLAIN.difference(MountAttrFlags::MOUNT_ATTR_NODEV);
    let group = TTY_GROUP.to_string();
    let mut options = vec![("ptmxmode", "0666"), ("mode", "0620")];
    if ids.has_group(TTY_GROUP) {
        options.push(("gid", &group));
    }
    mount_tree::fresh("devpts", &options, attributes)
}

fn attach_below(dev: &OwnedFd, name: &str, mount: &OwnedFd) -> Result<(), RunError> {
    let attach = || {
        mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
        let place = openat(dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        mount_tree::attach(mount.as_fd(), place.as_fd())
    };
    attach().map_err(in_container(&Path::new("dev").join(name)))
}
