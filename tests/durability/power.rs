//! A machine that loses its power: the filesystem of the upper layer stops at once (the shutdown ioctl), and what comes
//! back is what its device holds.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::support::posix::run;
use crate::support::scratch::detach;
use crate::support::{Builder, Union};
use crate::volume::{Kind, image_of};

/// What the filesystem still gets onto its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing: the log ends where the last sync left it.
    AtOnce,
    /// All of its log and none of the data that is in memory: the worst that happens some seconds after a
    /// change, when the log has been written and data has not.
    AfterLog,
}

/// Where the layers are that lose their power: `volume` in the scratch directory.
pub fn builder(kind: Kind) -> Builder {
    Union::new().upper_on(|point| kind.mount_empty(point)).unchecked_lowers()
}

/// Cuts the power of the filesystem below `union`, and mounts all of it again.
pub fn cut(union: &mut Union, kind: Kind, how: Cut) {
    cut_off(union, kind, how);
    union.start();
}

/// Cuts the power of the filesystem below `union`, ends its daemon, and mounts the filesystem again.
pub fn cut_off(union: &mut Union, kind: Kind, how: Cut) {
    let point = union.scratch().join("volume");
    let command = match how {
        Cut::AtOnce => "shutdown",
        Cut::AfterLog => "shutdown -f",
    };
    run("xfs_io", ["-x", "-c", command].map(OsStr::new).into_iter().chain([point.as_os_str()]));
    union.kill();
    detach(&point);
    mount_copy(kind, &point);
}

/// Mounts what is on the device on `point`: on a copy of it, since others may have copies of the mount and keep the dead
/// filesystem alive.
fn mount_copy(kind: Kind, point: &Path) {
    let image = image_of(point);
    let copy = image.with_extension("copy");
    run("cp", ["--sparse=always".as_ref(), image.as_os_str(), copy.as_os_str()]);
    fs::rename(&copy, &image).unwrap();
    let options = if kind == Kind::Xfs { "loop,nouuid" } else { "loop" };
    run("mount", ["-o".as_ref(), options.as_ref(), image.as_os_str(), point.as_os_str()]);
}
