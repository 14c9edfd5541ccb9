//! What a directory tree looks like to a program, so that two trees can be compared.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, lgetxattr, llistxattr, major, minor, openat,
    readlinkat, statat,
};
use rustix::io::Errno;

/// What is recorded of each entry, besides its extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// File type.
    Kind,
    /// Permission bits in octal, not of symbolic links.
    Mode,
    /// Owner.
    Uid,
    /// Group.
    Gid,
    /// Number of links, not of directories.
    Nlink,
    /// Size in bytes, not of directories.
    Size,
    /// Short content as it is, longer content as a hash; the name of the error if unreadable.
    Content,
    /// Device number of a device.
    Rdev,
    /// Where a symbolic link points.
    Target,
    /// Time of last modification to the nanosecond.
    Mtime,
    /// The first path of the same file in this tree, where there are several.
    Links,
    /// Time of last status change; only in [`Snapshot::exact`].
    Ctime,
    /// Device and inode number; only in [`Snapshot::exact`].
    Inode,
}

#[derive(Clone, Default, PartialEq)]
struct Record {
    fields: BTreeMap<Field, String>,
    xattrs: BTreeMap<String, String>,
}

/// A tree: path below its root (the root is the empty path) to what is there.
#[derive(Clone, PartialEq)]
pub struct Snapshot {
    entries: BTreeMap<PathBuf, Record>,
}

impl Snapshot {
    /// Everything that a copy of the tree should have in common with it.
    pub fn of(root: &Path) -> Self {
        Self::exact(root).without(&[Field::Ctime, Field::Inode])
    }

    /// Everything, so that a tree which was touched in any way compares unequal.
    pub fn exact(root: &Path) -> Self {
        let mut walk = Walk::default();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, root, flags, Mode::empty())
            .unwrap_or_else(|error| panic!("open {}: {error}", root.display()));
        walk.entry(&dir, OsStr::new("."), PathBuf::new());
        walk.finish()
    }

    /// The tree that these entries make up, each with its path, fields and attributes.
    pub fn from_records(
        records: impl IntoIterator<Item = (PathBuf, BTreeMap<Field, String>, BTreeMap<String, String>)>,
    ) -> Self {
        let records = records.into_iter();
        let entries = records.map(|(path, fields, xattrs)| (path, Record { fields, xattrs }));
        Self { entries: entries.collect() }
    }

    /// The same with some fields left out.
    pub fn without(mut self, fields: &[Field]) -> Self {
        for record in self.entries.values_mut() {
            record.fields.retain(|field, _| !fields.contains(field));
        }
        self
    }

    /// The same without the extended attributes whose name starts with `prefix`.
    pub fn without_xattrs(mut self, prefix: &str) -> Self {
        for record in self.entries.values_mut() {
            record.xattrs.retain(|name, _| !name.starts_with(prefix));
        }
        self
    }

    /// The same without `path` and what is below it.
    pub fn without_path(mut self, path: impl AsRef<Path>) -> Self {
        self.entries.retain(|at, _| !at.starts_with(path.as_ref()));
        self
    }

    /// Leaves out some fields of one entry.
    pub fn forget(&mut self, path: &str, fields: &[Field]) {
        if let Some(record) = self.entries.get_mut(Path::new(path)) {
            record.fields.retain(|field, _| !fields.contains(field));
        }
    }

    /// All paths, sorted, the root excepted.
    pub fn paths(&self) -> Vec<&Path> {
        self.entries.keys().map(PathBuf::as_path).filter(|p| *p != Path::new("")).collect()
    }

    /// One field of one entry.
    pub fn field(&self, path: impl AsRef<Path>, field: Field) -> Option<&str> {
        self.entries.get(path.as_ref())?.fields.get(&field).map(String::as_str)
    }

    /// Everything about one entry, in one line.
    pub fn line(&self, path: &Path) -> Option<String> {
        let record = self.entries.get(path)?;
        Some(format!("{:?} {:?}", record.fields, record.xattrs))
    }

    /// What is recorded of each entry, and its extended attributes.
    #[allow(clippy::type_complexity)]
    pub fn entries(
        &self,
    ) -> impl Iterator<Item = (&Path, &BTreeMap<Field, String>, &BTreeMap<String, String>)> {
        self.entries.iter().map(|(path, it)| (path.as_path(), &it.fields, &it.xattrs))
    }

    /// One line for each difference; empty if the trees are alike.
    pub fn difference(&self, other: &Self) -> String {
        let mut lines = String::new();
        let paths = self.entries.keys().chain(other.entries.keys());
        for path in paths.collect::<std::collections::BTreeSet<_>>() {
            match (self.entries.get(path), other.entries.get(path)) {
                (Some(_), None) => writeln!(lines, "{path:?}: only in the first").unwrap(),
                (None, Some(_)) => writeln!(lines, "{path:?}: only in the second").unwrap(),
                (Some(a), Some(b)) => {
                    compare(&mut lines, path, &a.fields, &b.fields);
                    compare(&mut lines, path, &a.xattrs, &b.xattrs);
                }
                (None, None) => {}
            }
        }
        lines
    }
}

fn compare<K: Ord + std::fmt::Debug>(
    lines: &mut String,
    path: &Path,
    first: &BTreeMap<K, String>,
    second: &BTreeMap<K, String>,
) {
    for key in first.keys().chain(second.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (a, b) = (first.get(key), second.get(key));
        if a != b {
            writeln!(lines, "{path:?}: {key:?}: {a:?} and {b:?}").unwrap();
        }
    }
}

/// Panics with all differences if the trees are not alike.
pub fn assert_same(first: &Snapshot, second: &Snapshot, what: &str) {
    let difference = first.difference(second);
    assert!(difference.is_empty(), "{what}:\n{difference}");
}

/// Bytes for a message: text as it is, the rest escaped.
pub fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Content up to this many bytes is shown as it is.
const SHORT: usize = 200;

#[derive(Default)]
struct Walk {
    entries: BTreeMap<PathBuf, Record>,
    /// The paths of each (device, inode) that is no directory.
    links: BTreeMap<(u64, u64), Vec<PathBuf>>,
}

impl Walk {
    fn entry(&mut self, dir: &OwnedFd, name: &OsStr, path: PathBuf) {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .unwrap_or_else(|error| panic!("stat {}: {error}", path.display()));
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut record = Record { fields: attributes(&stat, kind), xattrs: xattrs(dir, name) };
        match kind {
            FileType::RegularFile => {
                record.fields.insert(Field::Content, content(dir, name));
            }
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new()).unwrap();
                record.fields.insert(Field::Target, printable(target.as_bytes()));
            }
            _ => {}
        }
        self.entries.insert(path.clone(), record);
        if kind == FileType::Directory {
            self.children(dir, name, &path);
        } else {
            self.links.entry((stat.st_dev, stat.st_ino)).or_default().push(path);
        }
    }

    fn children(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(parent, name, flags, Mode::empty())
            .unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
        for entry in Dir::read_from(&dir).unwrap() {
            let entry = entry.unwrap_or_else(|error| panic!("list {}: {error}", path.display()));
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                assert!(
                    !self.entries.contains_key(&path.join(name)),
                    "{} listed twice",
                    path.join(name).display()
                );
                self.entry(&dir, name, path.join(name));
            }
        }
    }

    fn finish(mut self) -> Snapshot {
        for paths in self.links.values_mut().filter(|paths| paths.len() > 1) {
            paths.sort();
            for path in paths.iter() {
                let record = self.entries.get_mut(path).unwrap();
                record.fields.insert(Field::Links, printable(paths[0].as_os_str().as_bytes()));
            }
        }
        Snapshot { entries: self.entries }
    }
}

/// What stat(2) tells.
pub fn attributes(stat: &Stat, kind: FileType) -> BTreeMap<Field, String> {
    let mut fields = BTreeMap::from([
        (Field::Kind, format!("{kind:?}")),
        (Field::Uid, stat.st_uid.to_string()),
        (Field::Gid, stat.st_gid.to_string()),
        (Field::Mtime, format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec)),
        (Field::Ctime, format!("{}.{:09}", stat.st_ctime, stat.st_ctime_nsec)),
        (Field::Inode, format!("{}:{}", stat.st_dev, stat.st_ino)),
    ]);
    if kind != FileType::Symlink {
        fields.insert(Field::Mode, format!("{:04o}", stat.st_mode & 0o7777));
    }
    if kind != FileType::Directory {
        fields.insert(Field::Nlink, stat.st_nlink.to_string());
        fields.insert(Field::Size, stat.st_size.to_string());
    }
    if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        let device = format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev));
        fields.insert(Field::Rdev, device);
    }
    fields
}

fn content(dir: &OwnedFd, name: &OsStr) -> String {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let result = openat(dir, name, flags, Mode::empty()).map_err(std::io::Error::from);
    match result.and_then(|fd| digest(File::from(fd))) {
        Ok(text) => text,
        Err(error) => format!("{:?}", Errno::from_io_error(&error)),
    }
}

fn digest(mut file: File) -> std::io::Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut head = Vec::new();
    let mut total = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        if total < SHORT {
            head.extend_from_slice(&buffer[..count]);
        }
        hasher.write(&buffer[..count]);
        total += count;
    }
    if total <= SHORT {
        return Ok(printable(&head));
    }
    Ok(format!("{total} bytes, hash {:016x}", hasher.finish()))
}

/// Attributes of an entry, named through its directory so that no path can be too long.
fn xattrs(dir: &OwnedFd, name: &OsStr) -> BTreeMap<String, String> {
    let path = Path::new("/proc/self/fd").join(dir.as_fd().as_raw_fd().to_string()).join(name);
    let mut names = vec![0; 64 * 1024];
    let length = match llistxattr(&path, &mut names[..]) {
        Ok(length) => length,
        Err(error) => return BTreeMap::from([("listxattr".into(), format!("{error:?}"))]),
    };
    let names = names[..length].split(|&b| b == 0).filter(|name| !name.is_empty());
    names.map(|name| (printable(name), xattr(&path, name))).collect()
}

fn xattr(path: &Path, name: &[u8]) -> String {
    let mut value = vec![0; 64 * 1024];
    match lgetxattr(path, name, &mut value[..]) {
        Ok(length) => printable(&value[..length]),
        Err(error) => format!("{error:?}"),
    }
}
