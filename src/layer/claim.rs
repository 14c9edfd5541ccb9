//! Who uses an upper layer or a workdir: one mount, or one program that works on it, never two.
//!
//! plyfs locks both directories with flock(2) as long as it uses them. The kernel shows its mounts in
//! mountinfo(5), in each mount namespace its own. fuse-overlayfs leaves no sign.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::sys::mountinfo::{self, MountLine};
use crate::sys::stat::stat_fd;
use crate::sys::{Errno, Result, open};

/// How long a layer's previous mount may take to go: its process still ends when the next starts.
const PATIENCE: Duration = Duration::from_secs(3);

/// Takes the lock on a directory, which is held as long as the descriptor (open for reading) is.
///
/// # Errors
/// `EBUSY` when somebody else has it after three seconds. Filesystems without locks have none to take.
pub fn lock(dir: &OwnedFd) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::WOULDBLOCK) => return Err(Errno::BUSY),
            // Nothing can be known there.
            Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// A directory that no mount uses, and that plyfs mounts nowhere as long as this exists.
pub struct Claim {
    /// The directory.
    pub dir: Arc<OwnedFd>,
}

/// Why a directory cannot be claimed.
#[derive(Debug)]
pub enum ClaimError {
    /// Somebody uses it, as this says: a clause that goes after the path.
    InUse(String),
    /// It cannot be opened.
    System(Errno),
}

impl Claim {
    /// Takes the directory at `path` for this program alone.
    ///
    /// # Errors
    /// [`ClaimError::InUse`] for a mount of plyfs anywhere, and for one of the kernel in any mount
    /// namespace that this process may look into.
    pub fn take(path: &Path) -> std::result::Result<Self, ClaimError> {
        let dir = open::directory_for_reading(path).map_err(ClaimError::System)?;
        match lock(&dir) {
            Ok(()) => {}
            Err(Errno::BUSY) => {
                let how = "in use by plyfs, which holds its lock; unmount it first";
                return Err(ClaimError::InUse(how.into()));
            }
            Err(error) => return Err(ClaimError::System(error)),
        }
        if let Some(point) = kernel_mount(path, &dir).map_err(ClaimError::System)? {
            let how = format!(
                "the upperdir or workdir of the kernel's overlay on {}, says \
                 /proc/PID/mountinfo; unmount it first",
                point.display()
            );
            return Err(ClaimError::InUse(how));
        }
        Ok(Self { dir: Arc::new(dir) })
    }
}

/// Where the kernel has mounted an overlay with `dir`, which lies at `path`, as its upper or work directory.
fn kernel_mount(path: &Path, dir: &OwnedFd) -> Result<Option<PathBuf>> {
    let stat = stat_fd(dir.as_fd())?;
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    for process in one_process_a_namespace() {
        // It may have ended, or be somebody else's.
        let Ok(mounts) = mountinfo::read_from(&process.join("mountinfo")) else { continue };
        let is_it = |used: &Path| match used.strip_prefix("/") {
            Ok(inside) => open::directory(&process.join("root").join(inside))
                .and_then(|fd| stat_fd(fd.as_fd()))
                .is_ok_and(|used| (used.dev, used.ino) == (stat.dev, stat.ino)),
            // From where it was mounted nobody knows.
            Err(_) => real.ends_with(used),
        };
        let overlays = mounts.into_iter().filter(|mount| mount.fs_type == "overlay");
        for mount in overlays {
            if directories(&mount).iter().any(|used| is_it(used)) {
                return Ok(Some(mount.mountpoint));
            }
        }
    }
    Ok(None)
}

fn directories(mount: &MountLine) -> Vec<PathBuf> {
    ["upperdir", "workdir"]
        .iter()
        .filter_map(|name| mount.option(name))
        .map(PathBuf::from)
        .collect()
}

/// The directories in /proc of processes, of which each is in another mount namespace; this one first.
fn one_process_a_namespace() -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let own = PathBuf::from("/proc/self");
    let others = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let is_process = entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        is_process.then(|| entry.path())
    });
    let mut is_new = |process: &PathBuf| {
        fs::read_link(process.join(OsStr::new("ns/mnt"))).is_ok_and(|name| seen.insert(name))
    };
    std::iter::once(own).chain(others).filter(|process| is_new(process)).collect()
}
