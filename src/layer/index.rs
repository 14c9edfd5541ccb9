//! Hard links of lower files that stay links after copy-up: the index.
//!
//! A lower file with several names is copied up once, into `workdir/index` under a name made of its
//! identity, and linked from there to the name that was changed; every other name finds the copy by the
//! lower file's identity. Names and contents of the directory are the kernel's with `index=on`, so that
//! either reads what the other wrote. How far the upper inode's link count is from the union's is kept in
//! `overlay.nlink` as `U+n` or `L+n` (relative to the upper or the lower inode's).
//!
//! A name of a lower file that is deleted without a copy-up is counted in `workdir/plyfs/nlink`, a
//! symbolic link from the same identity to the (negative) difference.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode};

use super::dir_marks::{Namespaces, PREFIXES};
use super::{Name, origin};
use crate::sys::file_handle::{self, FileHandle};
use crate::sys::{Errno, Object, Result, dir, open};

const NLINK: &str = "nlink";
const ORIGIN: &str = "origin";

/// What identifies a lower inode over mounts.
pub struct Identity {
    handle: FileHandle,
    blob: Vec<u8>,
}

impl Identity {
    /// The identity of `object`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where its filesystem has no file handles.
    pub fn of(object: &Object) -> Result<Self> {
        let handle = file_handle::of(object)?;
        let uuid = file_handle::filesystem_uuid(object).unwrap_or([0; 16]);
        let blob = origin::encode(&handle, uuid).ok_or(Errno::OPNOTSUPP)?;
        Ok(Self { handle, blob })
    }
}

/// How the union's link count differs from that of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkCount {
    /// Relative to the upper inode's.
    Upper(i32),
    /// Relative to the lower inode's.
    Lower(i32),
}

impl LinkCount {
    fn parse(value: &[u8]) -> Option<Self> {
        let number = std::str::from_utf8(value.get(1..)?).ok()?.parse().ok()?;
        match value[0] {
            b'U' => Some(Self::Upper(number)),
            b'L' => Some(Self::Lower(number)),
            _ => None,
        }
    }
}

/// The index of one upper layer.
pub struct Index {
    work: Arc<OwnedFd>,
    own: Arc<OwnedFd>,
    namespaces: Namespaces,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    dir: Option<Arc<OwnedFd>>,
    copies: HashMap<FileHandle, Name>,
    dropped: HashMap<FileHandle, i32>,
}

impl Index {
    /// Reads the index kept in the workdir `work`; `own` is our directory in it.
    pub fn open(work: Arc<OwnedFd>, own: Arc<OwnedFd>, namespaces: Namespaces) -> Result<Self> {
        let mut known = Known::default();
        if let Some(dir) = open_existing(&work, "index")? {
            read_handles(&dir, |handle, name| {
                known.copies.insert(handle, name.clone());
                Ok(())
            })?;
            known.dir = Some(Arc::new(dir));
        }
        if let Some(dir) = open_existing(&own, "nlink")? {
            let dir = Arc::new(dir);
            read_handles(&dir, |handle, name| {
                let count = Object::Child(dir.clone(), name.clone()).read_link()?;
                let count = count.to_str().and_then(|text| text.parse().ok()).ok_or(Errno::IO)?;
                known.dropped.insert(handle, count);
                Ok(())
            })?;
        }
        Ok(Self { work, own, namespaces, known: Mutex::new(known) })
    }

    /// Whether nothing is indexed, so that identities need not be asked for.
    pub fn is_empty(&self) -> bool {
        let known = self.known.lock();
        known.copies.is_empty() && known.dropped.is_empty()
    }

    /// The copy of the lower inode `identity`, by its name in the index.
    pub fn copy_of(&self, identity: &Identity) -> Option<Name> {
        self.known.lock().copies.get(&identity.handle).cloned()
    }

    /// The difference of the link count of a lower inode that is not copied up (0 or negative).
    pub fn dropped(&self, identity: &Identity) -> i32 {
        self.known.lock().dropped.get(&identity.handle).copied().unwrap_or(0)
    }

    /// The object of an index entry.
    pub fn object(&self, name: &Name) -> Result<Object> {
        let dir = self.known.lock().dir.clone().ok_or(Errno::NOENT)?;
        Ok(Object::Child(dir, name.clone()))
    }

    /// Enters a staged copy, by way of `link`, which links it to a name in a directory.
    pub fn add(
        &self,
        identity: &Identity,
        copy: &Object,
        link: impl FnOnce(&OwnedFd, &OsStr) -> Result<()>,
    ) -> Result<Name> {
        self.namespaces.set(copy, ORIGIN, &identity.blob)?;
        let dir = self.dir()?;
        let name = Name::from(OsString::from(origin::index_name(&identity.blob)));
        link(&dir, &name)?;
        let mut known = self.known.lock();
        known.copies.insert(identity.handle.clone(), name.clone());
        Ok(name)
    }

    /// Takes an entry out when no name of its inode is left in the union.
    pub fn remove(&self, name: &Name) -> Result<()> {
        let dir = {
            let mut known = self.known.lock();
            known.copies.retain(|_, copy| copy != name);
            known.dir.clone().ok_or(Errno::NOENT)?
        };
        rustix::fs::unlinkat(dir, &**name, AtFlags::empty())
    }

    /// Stores how far the union's link count is above that of the indexed upper inode.
    pub fn set_bias(&self, name: &Name, bias: i32) -> Result<()> {
        self.set_bias_of(&self.object(name)?, bias)
    }

    /// The same for a copy that is not entered yet.
    pub fn set_bias_of(&self, copy: &Object, bias: i32) -> Result<()> {
        self.namespaces.set(copy, NLINK, format!("U{bias:+}").as_bytes())
    }

    /// Stores the difference of the link count of a lower inode that is not copied up.
    pub fn set_dropped(&self, identity: &Identity, count: i32) -> Result<()> {
        match rustix::fs::mkdirat(&self.own, "nlink", Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let dir = open::child(self.own.as_fd(), OsStr::new("nlink"), rustix::fs::OFlags::PATH)?;
        let name = origin::index_name(&identity.blob);
        let fresh = format!("{name}.new");
        rustix::fs::symlinkat(count.to_string(), &dir, fresh.as_str())?;
        rustix::fs::renameat(&dir, fresh.as_str(), &dir, name.as_str())?;
        self.known.lock().dropped.insert(identity.handle.clone(), count);
        Ok(())
    }

    fn dir(&self) -> Result<Arc<OwnedFd>> {
        let mut known = self.known.lock();
        if let Some(dir) = &known.dir {
            return Ok(dir.clone());
        }
        rustix::fs::mkdirat(&self.work, "index", Mode::from_raw_mode(0o700))?;
        let dir = open_existing(&self.work, "index")?.ok_or(Errno::NOENT)?;
        Ok(known.dir.insert(Arc::new(dir)).clone())
    }
}

/// The stored link count of an upper inode, if it is an indexed one.
pub fn link_count(object: &Object) -> Result<Option<LinkCount>> {
    for prefix in PREFIXES {
        if let Some(value) = object.xattr(OsStr::new(&format!("{prefix}{NLINK}")))? {
            return LinkCount::parse(&value).ok_or(Errno::IO).map(Some);
        }
    }
    Ok(None)
}

fn open_existing(parent: &OwnedFd, name: &str) -> Result<Option<OwnedFd>> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    match open::child(parent.as_fd(), OsStr::new(name), flags) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Calls `each` with every entry whose name is an identity that this machine understands.
fn read_handles(
    dir: &OwnedFd,
    mut each: impl FnMut(FileHandle, &Name) -> Result<()>,
) -> Result<()> {
    dir::for_each(dir.as_fd(), |entry| {
        let blob =
            std::str::from_utf8(entry.name.as_bytes()).ok().and_then(origin::from_index_name);
        match blob.as_deref().and_then(origin::decode) {
            Some(handle) => each(handle, &Name::from(entry.name)),
            None => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_counts_are_read_in_both_forms() {
        assert_eq!(LinkCount::parse(b"U+2"), Some(LinkCount::Upper(2)));
        assert_eq!(LinkCount::parse(b"L-1"), Some(LinkCount::Lower(-1)));
        for bad in [&b""[..], b"U", b"X+1", b"U+x"] {
            assert_eq!(LinkCount::parse(bad), None);
        }
    }
}
