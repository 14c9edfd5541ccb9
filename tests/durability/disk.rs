//! What is on a disk: all inodes of the upper layer and the workdir, taken from a directory and put into another.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, chmodat, lgetxattr, llistxattr,
    lsetxattr, mknodat, utimensat,
};

/// An inode: its number, and when it was made, since numbers are used again.
pub type Key = (u64, u128);

/// An inode as it is in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    mode: u32,
    owner: (u32, u32),
    rdev: u64,
    times: [(i64, i64); 2],
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a file, and of a symbolic link.
    pub data: Arc<Vec<u8>>,
    /// Of a directory.
    entries: BTreeMap<OsString, Key>,
}

/// All inodes that have a name, and the root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    root: Key,
    pub inodes: BTreeMap<Key, Inode>,
}

/// The inode that has these attributes.
pub fn key(status: &Metadata) -> Key {
    let made = status.created().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    (status.ino(), made.as_nanos())
}

impl Inode {
    pub fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::RegularFile
    }
}

impl Disk {
    /// What is in `root` now.
    pub fn take(root: &Path) -> Self {
        let mut inodes = BTreeMap::new();
        let mut unread = vec![root.to_owned()];
        while let Some(path) = unread.pop() {
            let status = fs::symlink_metadata(&path).unwrap();
            let inode = inode(&path, &status).unwrap();
            unread.extend(inode.entries.keys().map(|name| path.join(name)));
            inodes.insert(key(&status), inode);
        }
        Self { root: key(&fs::symlink_metadata(root).unwrap()), inodes }
    }

    /// Puts it into the empty directory `root`.
    pub fn put(&self, root: &Path) {
        let mut made = BTreeMap::new();
        self.make(self.root, root, &mut made);
        // Now that nothing more is made in any directory, which would change its times.
        for (path, inode) in made.values() {
            inode.set_attributes(path);
        }
    }

    fn make(&self, at: Key, path: &Path, made: &mut BTreeMap<Key, (PathBuf, Inode)>) {
        let inode = &self.inodes[&at];
        match FileType::from_raw_mode(inode.mode) {
            FileType::Directory => {
                if at != self.root {
                    fs::create_dir(path).unwrap();
                }
                for (name, child) in &inode.entries {
                    match made.get(child) {
                        Some((other, _)) => fs::hard_link(other, path.join(name)).unwrap(),
                        None => self.make(*child, &path.join(name), made),
                    }
                }
            }
            FileType::RegularFile => fs::write(path, &**inode.data).unwrap(),
            FileType::Symlink => symlink(std::ffi::OsStr::from_bytes(&inode.data), path).unwrap(),
            kind => mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), inode.rdev).unwrap(),
        }
        made.insert(at, (path.to_owned(), inode.clone()));
    }
}

impl Inode {
    fn set_attributes(&self, path: &Path) {
        for (name, value) in &self.xattrs {
            lsetxattr(path, name.as_slice(), value, XattrFlags::empty()).unwrap();
        }
        lchown(path, Some(self.owner.0), Some(self.owner.1)).unwrap();
        if FileType::from_raw_mode(self.mode) != FileType::Symlink {
            let mode = Mode::from_raw_mode(self.mode & 0o7777);
            chmodat(CWD, path, mode, AtFlags::empty()).unwrap();
        }
        let [last_access, last_modification] =
            self.times.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
        let times = Timestamps { last_access, last_modification };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn inode(path: &Path, status: &Metadata) -> io::Result<Inode> {
    let kind = status.file_type();
    let mut entries = BTreeMap::new();
    let data = if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.insert(entry.file_name(), key(&fs::symlink_metadata(entry.path())?));
        }
        Vec::new()
    } else if kind.is_symlink() {
        fs::read_link(path)?.into_os_string().into_encoded_bytes()
    } else if kind.is_file() {
        fs::read(path)?
    } else {
        assert!(kind.is_fifo() || kind.is_char_device(), "{}", path.display());
        Vec::new()
    };
    Ok(Inode {
        mode: status.mode(),
        owner: (status.uid(), status.gid()),
        rdev: status.rdev(),
        times: [(status.atime(), status.atime_nsec()), (status.mtime(), status.mtime_nsec())],
        xattrs: xattrs(path)?,
        data: Arc::new(data),
        entries,
    })
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0; 4096];
    let length = llistxattr(path, list.as_mut_slice())?;
    let mut all = BTreeMap::new();
    for name in list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 4096];
        let length = lgetxattr(path, name, value.as_mut_slice())?;
        value.truncate(length);
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}
