//! Mounts as the kernel sees them: which one is this, detach exactly that one, and a view of a
//! directory that no later mount can cover.
#![allow(unsafe_code)]

use std::ffi::c_uint;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::{Errno, Result};
use rustix::mount::{OpenTreeFlags, UnmountFlags, open_tree, unmount};
use serde::{Deserialize, Serialize};

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): a mount id that is never given out twice.
const STATX_MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Which mount a path led to. Equal only for one and the same mount while its filesystem lives;
/// since Linux 6.8 for ever, because mount ids are no longer reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountIdentity {
    /// Major and minor number of the filesystem, as in the third field of a mountinfo line.
    pub device: (u32, u32),
    /// 0 before Linux 5.8, where only the filesystem can be told apart.
    id: u64,
}

impl MountIdentity {
    /// The mount on which `file` (any descriptor, also `O_PATH`) is open.
    ///
    /// Answered from what the kernel knows: a FUSE daemon may ask this about its own mount.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn of(file: impl AsFd) -> Result<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = statx(file, c"", flags, STATX_MNT_ID_UNIQUE | StatxFlags::MNT_ID)?;
        let known = StatxFlags::from_bits_retain(stat.stx_mask);
        let has_id = known.intersects(STATX_MNT_ID_UNIQUE | StatxFlags::MNT_ID);
        Ok(Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            id: if has_id { stat.stx_mnt_id } else { 0 },
        })
    }
}

/// Detaches the mount whose root is open as `root`, busy or not, whatever its path is by now and
/// whatever took its place there. Open the root for this call: a mount that has covered it since
/// goes instead, as umount2(2) takes the topmost one.
///
/// # Errors
/// Those of umount2(2): `EPERM` without the right to, `EINVAL` where `root` is no mount root;
/// `ENOENT` where /proc is not mounted.
pub fn detach(root: BorrowedFd<'_>) -> Result<()> {
    unmount(format!("/proc/self/fd/{}", root.as_raw_fd()), UnmountFlags::DETACH)
}

/// A detached, private view of `directory` (any descriptor, also `O_PATH`) without the mounts
/// below it: what is mounted later on a path inside it, our own mount too, does not appear there.
/// Access times are not updated through it where that may be asked for; nothing can be written
/// through it if `read_only`.
///
/// rename(2) and link(2) between two views fail with `EXDEV` even on one filesystem.
///
/// `None` where it is not permitted or not known: without CAP_SYS_ADMIN over the mount namespace,
/// on a directory below which a user namespace must not look, before Linux 5.12.
///
/// # Errors
/// Anything else that open_tree(2) and mount_setattr(2) report.
pub fn private_clone(directory: BorrowedFd<'_>, read_only: bool) -> Result<Option<OwnedFd>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let view = match open_tree(directory, c"", flags) {
        Ok(view) => view,
        Err(Errno::PERM | Errno::INVAL | Errno::NOSYS) => return Ok(None),
        Err(error) => return Err(error),
    };
    let wanted = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let noatime = wanted | libc::MOUNT_ATTR_NOATIME;
    // A user namespace must not change the atime mode that it inherited (MNT_LOCK_ATIME).
    let applied = match set_private(&view, noatime, libc::MOUNT_ATTR__ATIME) {
        Err(Errno::PERM) => set_private(&view, wanted, 0),
        other => other,
    };
    match applied {
        Ok(()) => Ok(Some(view)),
        Err(Errno::PERM | Errno::INVAL | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Changes the attributes of the detached mount `view` and takes it out of its peer group: mounts
/// propagate into detached clones too (Linux 6.15).
fn set_private(view: &OwnedFd, set: u64, clear: u64) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string, `attributes` is read only during the call and its size is
    // passed with it; the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            view.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as c_uint,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rustix::fs::{Mode, OFlags, openat};
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    /// Runs `test` as root of a mount namespace of its own, on a thread that ends with it; false
    /// where that is not permitted.
    fn in_own_namespace(test: impl FnOnce() + Send + 'static) -> bool {
        std::thread::spawn(|| {
            let flags = UnshareFlags::NEWNS | UnshareFlags::FS;
            // SAFETY: changes the namespace and working directory of this short-lived thread.
            if unsafe { unshare_unsafe(flags) }.is_err() {
                return false;
            }
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change(c"/", private).unwrap();
            test();
            true
        })
        .join()
        .unwrap()
    }

    #[test]
    fn identity_tells_mounts_of_one_filesystem_apart() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().to_owned();
        let ran = in_own_namespace(move || {
            let under = MountIdentity::of(File::open(&path).unwrap()).unwrap();
            mount_bind(&path, &path).unwrap();
            let over = MountIdentity::of(File::open(&path).unwrap()).unwrap();
            assert_eq!(under.device, over.device);
            assert_ne!(under, over);
            assert_eq!(over, MountIdentity::of(File::open(&path).unwrap()).unwrap());
        });
        if !ran {
            eprintln!("not run: needs the right to unshare a mount namespace");
        }
    }

    #[test]
    fn detach_takes_the_open_mount_and_not_its_successor() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().to_owned();
        let ran = in_own_namespace(move || {
            let tmpfs = || mount(c"t", &path, c"tmpfs", MountFlags::empty(), None).unwrap();
            tmpfs();
            let first = File::open(&path).unwrap();
            detach(first.as_fd()).unwrap();
            tmpfs();
            fs::write(path.join("second"), "").unwrap();
            assert_eq!(detach(first.as_fd()), Err(Errno::INVAL));
            assert!(path.join("second").exists());
        });
        if !ran {
            eprintln!("not run: needs the right to unshare a mount namespace");
        }
    }

    #[test]
    fn a_private_clone_sees_no_mounts_below_it_whenever_they_came() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().to_owned();
        let ran = in_own_namespace(move || {
            // A shared mount: what is mounted on it propagates to its copies.
            mount_bind(&path, &path).unwrap();
            mount_change(&path, MountPropagationFlags::SHARED).unwrap();
            for name in ["before", "after"] {
                fs::create_dir(path.join(name)).unwrap();
                fs::write(path.join(name).join("below"), "").unwrap();
            }
            let cover = |name: &str| {
                mount(c"t", path.join(name), c"tmpfs", MountFlags::empty(), None).unwrap();
                assert!(!path.join(name).join("below").exists());
            };
            cover("before");
            let directory = File::open(&path).unwrap();
            let view = private_clone(directory.as_fd(), true).unwrap().unwrap();
            cover("after");
            for name in ["before/below", "after/below"] {
                openat(&view, name, OFlags::RDONLY, Mode::empty()).unwrap();
            }
            let create = OFlags::CREATE | OFlags::WRONLY;
            let mode = Mode::from_raw_mode(0o600);
            assert_eq!(openat(&view, "new", create, mode).unwrap_err(), Errno::ROFS);
            let writable = private_clone(directory.as_fd(), false).unwrap().unwrap();
            openat(&writable, "new", create, mode).unwrap();
        });
        if !ran {
            eprintln!("not run: needs the right to unshare a mount namespace");
        }
    }
}
