//! A complete record of a layer, to prove that it was never touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};

use crate::cases::case::Check;

/// Everything but access times. The change time is part of it, so that even a change that was
/// undone shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    ino: u64,
    mode: u32,
    nlink: u64,
    owner: (u32, u32),
    rdev: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Record>);

impl Snapshot {
    pub fn take(root: &Path) -> std::io::Result<Snapshot> {
        let mut records = BTreeMap::new();
        let mut queue = vec![root.to_path_buf()];
        while let Some(path) = queue.pop() {
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                for entry in fs::read_dir(&path)? {
                    queue.push(entry?.path());
                }
            }
            records.insert(path.clone(), record(&path, &meta)?);
        }
        Ok(Snapshot(records))
    }

    /// An error that names the first path that differs now.
    pub fn check(&self, root: &Path) -> Check {
        let now = Snapshot::take(root).map_err(|error| format!("reading a layer: {error}"))?;
        let both = self.0.keys().chain(now.0.keys());
        match both.into_iter().find(|path| self.0.get(*path) != now.0.get(*path)) {
            None => Ok(()),
            Some(path) => Err(format!(
                "layer changed at {path:?}: was {:?}, is {:?}",
                self.0.get(path),
                now.0.get(path)
            )),
        }
    }
}

fn record(path: &Path, meta: &fs::Metadata) -> std::io::Result<Record> {
    let content = if meta.is_file() {
        fs::read(path)?
    } else if meta.is_symlink() {
        fs::read_link(path)?.into_os_string().into_encoded_bytes()
    } else {
        Vec::new()
    };
    Ok(Record {
        ino: meta.ino(),
        mode: meta.mode(),
        nlink: meta.nlink(),
        owner: (meta.uid(), meta.gid()),
        rdev: meta.rdev(),
        size: meta.size(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        ctime: (meta.ctime(), meta.ctime_nsec()),
        content,
        xattrs: xattrs(path)?,
    })
}

fn xattrs(path: &Path) -> std::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0; 4096];
    let len = llistxattr(path, list.as_mut_slice())?;
    let names = list[..len].split(|&b| b == 0).filter(|name| !name.is_empty());
    let mut all = BTreeMap::new();
    for name in names {
        let mut value = vec![0; 4096];
        let len = lgetxattr(path, name, value.as_mut_slice())?;
        value.truncate(len);
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}
