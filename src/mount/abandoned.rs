//! Mounts that nobody can reach any more.
//!
//! A daemon lives in the mount namespace that it was started in, and so keeps that namespace alive, with its
//! own mount in it, when everybody else has left: `buildah unshare` ends like this. The next mount of the same
//! upper layer asks for it to go; the daemon itself, which alone knows its mount, decides.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::sys::{mountinfo, open};

/// Asks a daemon to end if nobody but daemons like itself can reach its mount.
pub const QUESTION: Signal = Signal::USR2;

/// Sends the question to the daemon of this program that holds the lock of the layer at `path`, if one does.
/// Whoever takes the lock next finds out how that ended.
///
/// # Errors
/// What kept the question from being sent.
pub fn ask(path: &Path) -> io::Result<()> {
    let layer = open::directory_for_reading(path)?;
    match rustix::fs::flock(&layer, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {}
        result => return Ok(result?),
    }
    let inode = fs::File::from(layer).metadata()?;
    let device = (rustix::fs::major(inode.dev()), rustix::fs::minor(inode.dev()));
    let holder = holder(&fs::read_to_string("/proc/locks")?, device, inode.ino());
    match holder {
        // To any other program the signal would mean something else.
        Some(pid) if is_this_program(&directory_of(pid)) => Ok(kill_process(pid, QUESTION)?),
        _ => Ok(()),
    }
}

/// Whether the filesystem `device` is mounted in this process's namespace, and no process can reach it but
/// those that run this program.
///
/// # Errors
/// Those of reading /proc, where nothing is known then.
pub fn is_abandoned(device: (u32, u32)) -> io::Result<bool> {
    let has_it = |path: &Path| -> io::Result<bool> {
        let mounts = mountinfo::read_from(&path.join("mountinfo"))?;
        Ok(mounts.iter().any(|mount| mount.device == device))
    };
    if !has_it(Path::new("/proc/self"))? {
        return Ok(false);
    }
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        let is_process = process.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
        if is_process.is_none() || is_this_program(&process) {
            continue;
        }
        match has_it(&process) {
            Ok(false) => {}
            // It has ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {}
            // Whoever cannot be asked may be using it.
            Ok(true) | Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

fn directory_of(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

/// Whether the process whose directory in /proc this is goes by the same name as this one. (Which file it runs
/// is not told to another user namespace.)
fn is_this_program(process: &Path) -> bool {
    let name = |process: &Path| fs::read(process.join("comm"));
    matches!((name(process), name(Path::new("/proc/self"))), (Ok(one), Ok(other)) if one == other)
}

/// Who holds a flock(2) lock on an inode, by the lines of /proc/locks (proc_locks(5)):
/// `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`.
fn holder(locks: &str, (major, minor): (u32, u32), inode: u64) -> Option<Pid> {
    let place = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, at, ..] if at == place => {
                Pid::from_raw(pid.parse::<u32>().ok()?.cast_signed())
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fe:00:12 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 fe:00:12 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE -1 fe:00:13 0 EOF\n";
        let find = |inode| holder(locks, (0xfe, 0), inode).map(Pid::as_raw_pid);
        assert_eq!(find(12), Some(8));
        assert_eq!(find(13), None);
        assert_eq!(find(14), None);
    }
}
