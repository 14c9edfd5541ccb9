//! Inode numbers: one for each object, and the same for as long as it lives, mounted again or not.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::cases::case::Check;
use crate::support::posix::lstat;

/// A file of the plain directory for all time: its number, which is used again after its end, and
/// when it was made.
type Object = (u64, i64, u32);

/// The inode numbers that plyfs shows for the objects of the plain directory.
#[derive(Default)]
pub struct Identities {
    known: HashMap<Object, u64>,
}

impl Identities {
    /// Compares the objects at `paths` with what was known of them.
    pub fn check<'a>(
        &mut self,
        plain: &Path,
        plyfs: &Path,
        paths: impl Iterator<Item = &'a PathBuf>,
    ) -> Check {
        let mut objects = BTreeMap::new();
        for path in paths {
            let object = object(&plain.join(path));
            let number = lstat(plyfs.join(path)).st_ino;
            let before = *self.known.entry(object).or_insert(number);
            if before != number {
                return Err(format!("{path:?}: st_ino was {before}, is {number}"));
            }
            if *objects.entry(number).or_insert(object) != object {
                return Err(format!("{path:?}: st_ino {number} is that of another file"));
            }
        }
        Ok(())
    }
}

fn object(path: &Path) -> Object {
    let mask = StatxFlags::INO | StatxFlags::BTIME;
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, mask).unwrap();
    (stat.stx_ino, stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)
}
