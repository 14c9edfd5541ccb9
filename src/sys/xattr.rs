//! Extended attributes of an [`Object`], by its name or by way of `/proc/self/fd`, so that symbolic links, devices
//! and files that cannot be opened have theirs too.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::XattrFlags;

use super::{Errno, Object, Result, open, xattr_at};

/// The largest value and the largest list of names of the Linux kernel (`XATTR_SIZE_MAX`,
/// `XATTR_LIST_MAX`), in bytes.
pub const LARGEST: usize = 65536;

/// A first guess that nearly every value and list fits in, so that one call is enough.
const COMMON: usize = 512;

impl Object {
    /// The value of the attribute `name`, or `None` when it is not set or cannot exist here.
    ///
    /// # Errors
    /// Everything but `ENODATA` and `EOPNOTSUPP`.
    pub fn xattr(&self, name: &OsStr) -> Result<Option<Vec<u8>>> {
        match self.get_xattr(name) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of the attribute `name`.
    pub fn get_xattr(&self, name: &OsStr) -> Result<Vec<u8>> {
        sized(|buffer| {
            if let Self::Child(dir, child) = self
                && let Some(result) = xattr_at::get(dir.as_fd(), child, name, buffer)
            {
                return result;
            }
            match self.xattr_path() {
                (path, true) => rustix::fs::getxattr(path, name, buffer),
                (path, false) => rustix::fs::lgetxattr(path, name, buffer),
            }
        })
    }

    /// The names of all attributes that this process may see; empty where there can be none.
    pub fn xattr_names(&self) -> Result<Vec<Box<OsStr>>> {
        let list = sized(|buffer| {
            if let Self::Child(dir, child) = self
                && let Some(result) = xattr_at::list(dir.as_fd(), child, buffer)
            {
                return result;
            }
            match self.xattr_path() {
                (path, true) => rustix::fs::listxattr(path, buffer),
                (path, false) => rustix::fs::llistxattr(path, buffer),
            }
        });
        names_in(list)
    }

    /// Sets an attribute.
    pub fn set_xattr(&self, name: &OsStr, value: &[u8], flags: XattrFlags) -> Result<()> {
        let (path, follow) = self.xattr_path();
        match follow {
            true => rustix::fs::setxattr(path.as_slice(), name, value, flags),
            false => rustix::fs::lsetxattr(path.as_slice(), name, value, flags),
        }
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, name: &OsStr) -> Result<()> {
        let (path, follow) = self.xattr_path();
        match follow {
            true => rustix::fs::removexattr(path.as_slice(), name),
            false => rustix::fs::lremovexattr(path.as_slice(), name),
        }
    }

    /// The path for the xattr calls, and whether its last component is a magic link to be followed (it
    /// then leads to the object itself, also when that is a symbolic link).
    fn xattr_path(&self) -> (Vec<u8>, bool) {
        match self {
            Self::Own(fd) => (open::proc_path(fd.as_fd()).into_bytes(), true),
            Self::Child(dir, name) => {
                let mut path = open::proc_path(dir.as_fd()).into_bytes();
                path.push(b'/');
                path.extend_from_slice(name.as_bytes());
                (path, false)
            }
        }
    }
}

/// The names of all attributes of what is open, and not only as a reference: without the way through `/proc`.
///
/// # Errors
/// `EBADF` for a descriptor that is `O_PATH`.
pub fn names_of_open(fd: BorrowedFd<'_>) -> Result<Vec<Box<OsStr>>> {
    names_in(sized(|buffer| rustix::fs::flistxattr(fd, buffer)))
}

/// The names in an answer of listxattr(2); none where there can be none.
fn names_in(list: Result<Vec<u8>>) -> Result<Vec<Box<OsStr>>> {
    match list {
        Ok(list) => Ok(list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| Box::from(OsStr::from_bytes(name)))
            .collect()),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Calls `read` with a buffer of the common size, and again with the largest when that was too small.
fn sized(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut common = [0; COMMON];
    match read(&mut common) {
        Err(Errno::RANGE) => {}
        result => return Ok(common[..result?].to_vec()),
    }
    let mut buffer = vec![0; LARGEST];
    let length = read(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn values_of_any_length_come_back_whole() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        std::fs::write(root.path().join("file"), "x").unwrap();
        let dir = Arc::new(open::directory(root.path()).unwrap());
        let file = Object::Child(dir, OsStr::new("file").into());
        let name = OsStr::new("user.test");
        for object in [file.clone(), Object::Own(file.pin().unwrap())] {
            for length in [0, 1, COMMON, COMMON + 1, 2000] {
                let value = vec![b'v'; length];
                object.set_xattr(name, &value, XattrFlags::empty()).unwrap();
                assert_eq!(object.xattr(name).unwrap(), Some(value));
            }
            assert!(object.xattr_names().unwrap().iter().any(|found| &**found == name));
            object.remove_xattr(name).unwrap();
            assert_eq!(object.xattr(name).unwrap(), None);
        }
    }
}
