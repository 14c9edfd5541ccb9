//! What keeps st_ino constant over copy-up and remount: the number that an upper object had as a lower one.
//!
//! Kept in the attribute `overlay.plyfs.ino` of the object, a decimal number. Symbolic links and special
//! files can have no `user.` attributes; where `trusted.` ones cannot be written, theirs are kept in
//! `workdir/plyfs/ino`, as symbolic links from the upper inode number to the number to show. Other readers
//! of the layer ignore both.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};

use super::dir_marks::{Namespaces, PREFIXES};
use super::{Name, owner_rights};
use crate::sys::{Errno, Object, Result, dir, open};

const MARK: &str = "plyfs.ino";
const DIRECTORY: &str = "ino";

/// The numbers of one upper layer.
pub struct InodeMarks {
    namespaces: Namespaces,
    /// `workdir/plyfs`.
    own: Arc<OwnedFd>,
    /// What is kept in the workdir: number to show by upper inode number.
    kept: Mutex<HashMap<u64, u64>>,
}

/// An inode number; 0 is none.
pub fn parse_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number != 0)
}

impl InodeMarks {
    /// Reads what is kept in our directory `own` of the workdir.
    pub fn open(own: Arc<OwnedFd>, namespaces: Namespaces) -> Result<Self> {
        let mut kept = HashMap::new();
        match open::child(own.as_fd(), OsStr::new(DIRECTORY), OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
            Ok(records) => {
                let records = Arc::new(records);
                dir::for_each(records.as_fd(), |entry| {
                    let record = Object::Child(records.clone(), Name::from(entry.name));
                    let shown = match record.read_link() {
                        Err(Errno::INVAL) => return Ok(()),
                        shown => shown?,
                    };
                    let number = |text: &OsStr| text.to_str().and_then(parse_number);
                    if let (Some(upper), Some(shown)) = (number(entry.name), number(&shown)) {
                        kept.insert(upper, shown);
                    }
                    Ok(())
                })?;
            }
        }
        Ok(Self { namespaces, own, kept: Mutex::new(kept) })
    }

    /// Stores the number to show for `object`.
    pub fn write(&self, object: &Object, shown: u64) -> Result<()> {
        match self.namespaces.set(object, MARK, shown.to_string().as_bytes()) {
            Err(Errno::OPNOTSUPP | Errno::PERM) => self.keep(object.stat()?.ino, shown),
            result => result,
        }
    }

    /// The number stored for `object`, if there is a valid one.
    pub fn read(&self, object: &Object) -> Result<Option<u64>> {
        for prefix in PREFIXES {
            if let Some(value) =
                owner_rights::xattr(object, OsStr::new(&format!("{prefix}{MARK}")))?
            {
                return Ok(std::str::from_utf8(&value).ok().and_then(parse_number));
            }
        }
        if self.kept.lock().is_empty() {
            return Ok(None);
        }
        let upper = object.stat()?.ino;
        Ok(self.kept.lock().get(&upper).copied())
    }

    /// Notes that the upper inode `upper` is a new object, whatever had the number before.
    pub fn renew(&self, upper: u64) -> Result<()> {
        if !self.kept.lock().contains_key(&upper) {
            return Ok(());
        }
        let name = upper.to_string();
        let records = self.records()?;
        rustix::fs::unlinkat(records, name.as_str(), AtFlags::empty())?;
        self.kept.lock().remove(&upper);
        Ok(())
    }

    fn keep(&self, upper: u64, shown: u64) -> Result<()> {
        self.renew(upper)?;
        let records = self.records()?;
        rustix::fs::symlinkat(shown.to_string(), records, upper.to_string())?;
        self.kept.lock().insert(upper, shown);
        Ok(())
    }

    fn records(&self) -> Result<OwnedFd> {
        match rustix::fs::mkdirat(&self.own, DIRECTORY, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        open::child(self.own.as_fd(), OsStr::new(DIRECTORY), OFlags::PATH | OFlags::DIRECTORY)
    }
}
