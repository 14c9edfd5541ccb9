//! Stories in the overlay itself, without FUSE.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use plyfs::overlay::{Attr, Caller, Entry, Flow, NodeId, Overlay, RenameFlags, SetAttr};
use plyfs::sys::object::NewTime;
use plyfs::sys::{FileKind, Time};

use crate::promise::{Attributes, Fields, Moment};
use crate::story::Tree;
use crate::support::Field;
use crate::support::posix::USER;

/// A union that is open here. What it has looked up it keeps, as the kernel does.
pub struct Facade(pub Overlay);

const ROOT: Caller = Caller { uid: 0, gid: 0, thread: 0 };

/// Longer than any file of a story.
const LARGEST: usize = 4096;

impl Facade {
    fn find(&self, path: &Path) -> Option<Entry> {
        let mut at = Entry { node: NodeId::ROOT, attr: self.0.attr(NodeId::ROOT).unwrap() };
        for name in path.iter().filter(|name| *name != ".") {
            at = self.0.lookup(at.node, name).unwrap()?;
        }
        Some(at)
    }

    fn node(&self, path: &str) -> NodeId {
        self.find(Path::new(path)).unwrap_or_else(|| panic!("{path} is missing")).node
    }

    /// The directory that `path` is in, and its name there.
    fn place<'p>(&self, path: &'p str) -> (NodeId, &'p OsStr) {
        let path = Path::new(path);
        let dir = self.find(path.parent().unwrap()).expect("a directory").node;
        (dir, path.file_name().unwrap())
    }

    fn set(&self, caller: Caller, path: &str, change: &SetAttr) {
        self.0.set_attr(caller, self.node(path), change).unwrap();
    }

    fn put(&self, path: &str, offset: usize, text: &str) {
        let written = self.0.write(self.node(path), offset as u64, text.as_bytes(), None).unwrap();
        assert_eq!(written, text.len());
    }

    fn records(&self) -> Vec<(PathBuf, Fields, Attributes, Option<Vec<u8>>)> {
        let mut records = Vec::new();
        let mut names: BTreeMap<u64, BTreeSet<PathBuf>> = BTreeMap::new();
        let mut unread = vec![PathBuf::new()];
        while let Some(path) = unread.pop() {
            let entry = self.find(&path).expect("a listed entry");
            let content =
                (entry.attr.kind() == FileKind::Regular).then(|| self.content(entry.node));
            if entry.attr.kind().is_dir() {
                unread.extend(self.names(entry.node).iter().map(|name| path.join(name)));
            } else {
                names.entry(entry.attr.ino).or_default().insert(path.clone());
            }
            let fields = self.fields(&entry, content.as_deref());
            records.push((path, fields, self.attributes(entry.node), content));
        }
        // As in a snapshot: the first of several paths that there are.
        for (_, fields, ..) in &mut records {
            let inode: u64 = fields[&Field::Inode].parse().unwrap();
            let paths = names.get(&inode).filter(|paths| paths.len() > 1);
            if let Some(first) = paths.and_then(BTreeSet::first) {
                fields.insert(Field::Links, first.display().to_string());
            }
        }
        records
    }

    fn names(&self, dir: NodeId) -> Vec<PathBuf> {
        let mut names = Vec::new();
        let listed = self.0.read_dir(dir, 0, |entry| {
            names.extend((entry.name != "." && entry.name != "..").then(|| entry.name.into()));
            Flow::Continue
        });
        listed.unwrap();
        names
    }

    fn content(&self, file: NodeId) -> Vec<u8> {
        let mut content = vec![0; LARGEST];
        let length =
            self.0.read(file, 0, &mut content).unwrap_or_else(|error| panic!("read: {error}"));
        content.truncate(length);
        content
    }

    fn fields(&self, entry: &Entry, content: Option<&[u8]>) -> Fields {
        let Attr { mode, uid, gid, size, nlink, rdev, ino, mtime, .. } = entry.attr;
        let mut fields = BTreeMap::from([
            (Field::Kind, format!("{:?}", entry.attr.kind())),
            (Field::Uid, uid.to_string()),
            (Field::Gid, gid.to_string()),
            (Field::Mode, format!("{:04o}", mode & 0o7777)),
            (Field::Mtime, format!("{}.{:09}", mtime.sec, mtime.nsec)),
            (Field::Rdev, rdev.to_string()),
            (Field::Inode, ino.to_string()),
        ]);
        if !entry.attr.kind().is_dir() {
            fields.insert(Field::Nlink, nlink.to_string());
            fields.insert(Field::Size, size.to_string());
        }
        if let Some(content) = content {
            fields.insert(Field::Content, content.escape_ascii().to_string());
        }
        if entry.attr.kind() == FileKind::Symlink {
            fields
                .insert(Field::Target, self.0.read_link(entry.node).unwrap().display().to_string());
        }
        fields
    }

    fn attributes(&self, node: NodeId) -> Attributes {
        let names = self.0.list_xattr(node).unwrap();
        names
            .iter()
            .map(|name| {
                let value = self.0.get_xattr(node, name).unwrap();
                (name.display().to_string(), value.escape_ascii().to_string())
            })
            .collect()
    }
}

impl Tree for Facade {
    fn act(&self, words: &[&str], by_user: bool) {
        let caller = if by_user { Caller { uid: USER, gid: USER, thread: 0 } } else { ROOT };
        let none = SetAttr::default();
        let exchange = RenameFlags { exchange: true, ..RenameFlags::default() };
        match *words {
            ["write", path, text] => {
                if self.find(Path::new(path)).is_some() {
                    self.set(caller, path, &SetAttr { size: Some(0), ..none });
                } else {
                    let (dir, name) = self.place(path);
                    self.0.create(caller, dir, name, 0o644, 0).unwrap();
                }
                self.put(path, 0, text);
            }
            ["overwrite", path, text] => self.put(path, 0, text),
            ["append", path, text] => self.put(path, self.size(path), text),
            ["append-sync" | "append-dsync", path, text] => {
                self.put(path, self.size(path), text);
                self.0.sync(self.node(path), words[0] == "append-dsync").unwrap();
            }
            ["overwrite-mapped", path] => {
                self.put(path, 0, "MMM");
                self.0.sync(self.node(path), true).unwrap();
            }
            ["truncate", path, size] => {
                self.set(caller, path, &SetAttr { size: Some(size.parse().unwrap()), ..none });
            }
            ["chmod", path, mode] => {
                let mode = u32::from_str_radix(mode, 8).unwrap();
                self.set(caller, path, &SetAttr { mode: Some(mode), ..none });
            }
            ["chown", path, id] => {
                let id = id.parse().ok();
                self.set(caller, path, &SetAttr { uid: id, gid: id, ..none });
            }
            ["touch", path, time] => {
                let (sec, _) = time.split_once('.').unwrap();
                let time = Some(NewTime::At(Time { sec: sec.parse().unwrap(), nsec: 250_000_000 }));
                self.set(caller, path, &SetAttr { atime: time, mtime: time, ..none });
            }
            ["xattr", path, value] => {
                let (name, value) = (OsStr::new("user.note"), value.as_bytes());
                self.0.set_xattr(caller, self.node(path), name, value, false, false).unwrap();
            }
            ["mkdir", path] => {
                let (dir, name) = self.place(path);
                self.0.make_dir(caller, dir, name, 0o755, 0).unwrap();
            }
            ["fifo", path] => {
                let ((dir, name), mode) = (self.place(path), 0o010_644);
                self.0.make_node(caller, dir, name, mode, 0, 0).unwrap();
            }
            ["symlink", target, path] => {
                let (dir, name) = self.place(path);
                self.0.symlink(caller, dir, name, OsStr::new(target)).unwrap();
            }
            ["link", path, new] => {
                let (dir, name) = self.place(new);
                self.0.link(self.node(path), dir, name).unwrap();
            }
            ["unlink", path] => {
                let (dir, name) = self.place(path);
                self.0.unlink(dir, name).unwrap();
            }
            ["rmdir", path] => {
                let (dir, name) = self.place(path);
                self.0.rmdir(dir, name).unwrap();
            }
            [how @ ("rename" | "exchange"), path, new] => {
                let ((dir, name), (new_dir, new_name)) = (self.place(path), self.place(new));
                let flags = if how == "exchange" { exchange } else { RenameFlags::default() };
                self.0.rename(dir, name, new_dir, new_name, flags).unwrap();
            }
            ["fsync", path] => self.0.sync(self.node(path), false).unwrap(),
            ["fdatasync", path] => self.0.sync(self.node(path), true).unwrap(),
            ["sync"] => rustix::fs::sync(),
            ref other => panic!("no such step: {other:?}"),
        }
    }

    fn size(&self, path: &str) -> usize {
        self.find(Path::new(path)).map_or(0, |entry| entry.attr.size as usize)
    }

    fn is_dir(&self, path: &str) -> bool {
        self.find(Path::new(path)).is_some_and(|entry| entry.attr.kind().is_dir())
    }

    fn moment(&self) -> Moment {
        Moment::from_records(self.records())
    }
}
