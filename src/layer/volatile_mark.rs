//! The mark of an upper layer that is used without syncing: `workdir/work/incompat/volatile`, the kernel's, over which
//! neither it nor a peer mounts (overlayfs.rst, "Volatile mount").
//!
//! Beside it lies `boot`, our own: a symbolic link to the id of the boot of the machine during which the mark was made.
//! As long as that has not ended nothing can have been lost, whoever was killed; so we can mount again.
//!
//! The mark is not synced, as the kernel does not. On a filesystem that keeps the order of changes of names, where
//! anything survives that was changed after it was made, it does too.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::owner_rights::{self, WRITE_AND_SEARCH};
use super::workdir::Workdir;
use crate::sys::{Errno, Object, Result, open, process};

/// The directories down to the mark.
const PATH: [&str; 3] = ["work", "incompat", "volatile"];
/// The file that the kernel puts in it.
const DIRTY: &str = "dirty";
const BOOT: &str = "boot";

/// What is known of an upper layer's data by its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolatileMark {
    /// No mark: every sync was carried out.
    Absent,
    /// Not synced, and all still there.
    ThisBoot,
    /// Not synced, and the machine has been started anew since.
    OtherBoot,
    /// The mark of another program, which does not say when it was made.
    Foreign,
}

/// Reads the mark in the workdir `work`.
pub fn read(work: &Arc<OwnedFd>) -> Result<VolatileMark> {
    read_at(work, || process::boot_id().ok())
}

/// The same, where `boot` finds out the id of this boot, if that is known.
fn read_at(work: &Arc<OwnedFd>, boot: impl FnOnce() -> Option<String>) -> Result<VolatileMark> {
    let mark = match PATH.iter().try_fold(work.clone(), |dir, name| enter(dir, name)) {
        Ok(mark) => Object::Child(mark, OsStr::new(BOOT).into()),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(VolatileMark::Absent),
        Err(error) => return Err(error),
    };
    Ok(match mark.read_link() {
        Ok(id) if boot().is_some_and(|boot| id == *boot) => VolatileMark::ThisBoot,
        Ok(_) => VolatileMark::OtherBoot,
        Err(Errno::NOENT | Errno::INVAL) => VolatileMark::Foreign,
        Err(error) => return Err(error),
    })
}

/// Makes the mark in the workdir `work`, which has none, in one step.
pub fn make(work: &Arc<OwnedFd>, stage: &Workdir) -> Result<()> {
    make_at(work, stage, process::boot_id().ok().as_deref())
}

fn make_at(work: &Arc<OwnedFd>, stage: &Workdir, boot: Option<&str>) -> Result<()> {
    let staged = stage.stage_dir(0o700)?;
    let mark = staged.object().pin()?;
    open::create(mark.as_fd(), OsStr::new(DIRTY), 0o600)?;
    if let Some(boot) = boot {
        rustix::fs::symlinkat(boot, &mark, BOOT)?;
    }
    let [outer @ .., name] = PATH;
    let mut at = work.clone();
    for name in outer {
        match enter(at.clone(), name) {
            Err(Errno::NOENT) => {
                let dir = Object::Own(at.clone());
                owner_rights::lend(&[&dir], WRITE_AND_SEARCH, || {
                    rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o700))
                })?;
                at = enter(at, name)?;
            }
            entered => at = entered?,
        }
    }
    let incompat = Object::Own(at.clone());
    owner_rights::lend(&[&incompat], WRITE_AND_SEARCH, || {
        staged.publish_new(at.as_fd(), OsStr::new(name))
    })
}

/// Takes the mark away for good, after everything in the layer has been synced.
pub fn remove(work: &Arc<OwnedFd>) -> Result<()> {
    let [outer @ .., name] = PATH;
    let incompat = outer.iter().try_fold(work.clone(), |dir, name| enter(dir, name))?;
    let mark = enter(incompat.clone(), name)?;
    for inside in [DIRTY, BOOT] {
        match rustix::fs::unlinkat(&mark, inside, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::unlinkat(&incompat, name, AtFlags::REMOVEDIR)?;
    rustix::fs::fsync(open::reopen_directory(incompat.as_fd())?)
}

/// The directory `name` in `dir`, which the kernel may have made without any permissions.
fn enter(dir: Arc<OwnedFd>, name: &str) -> Result<Arc<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let opened = match open::child(dir.as_fd(), OsStr::new(name), flags) {
        Err(Errno::ACCESS) => {
            let object = Object::Own(dir.clone());
            owner_rights::lend(&[&object], WRITE_AND_SEARCH, || {
                open::child(dir.as_fd(), OsStr::new(name), flags)
            })
        }
        result => result,
    };
    opened.map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_during_which_boot_it_was_made() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let work = Arc::new(open::directory(root.path()).unwrap());
        let stage = Workdir::open(&work).unwrap();
        let read = |boot: Option<&str>| read_at(&work, || boot.map(ToOwned::to_owned));
        assert_eq!(read(Some("a")), Ok(VolatileMark::Absent));
        make_at(&work, &stage, Some("a")).unwrap();
        assert!(root.path().join("work/incompat/volatile/dirty").is_file());
        assert_eq!(read(Some("a")), Ok(VolatileMark::ThisBoot));
        for later in [Some("b"), None] {
            assert_eq!(read(later), Ok(VolatileMark::OtherBoot));
        }
        remove(&work).unwrap();
        assert_eq!(read(Some("a")), Ok(VolatileMark::Absent));
        make_at(&work, &stage, None).unwrap();
        assert_eq!(read(Some("a")), Ok(VolatileMark::Foreign));
    }
}
