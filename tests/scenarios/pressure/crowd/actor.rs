//! One who does something at random, again and again.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{RenameFlags, XattrFlags, lsetxattr};
use rustix::io::Errno;

use super::DIRS;
use super::file::{self, Tag, UNIT};
use crate::support::posix::{chmod, mkdir, rename_with, try_lstat};

/// Names in each directory; the first are directories at first, inside which there are the same names.
const NAMES: u64 = 4;
/// Largest file, in units.
const UNITS: u64 = 4096;
/// Files that one holds open, deleted or not.
const OPEN: usize = 6;

/// What may come of any call with a path while others change what it leads through.
const USUAL: [Errno; 2] = [Errno::NOENT, Errno::NOTDIR];

pub struct Actor<'r> {
    root: &'r Path,
    random: u64,
    /// A name that no other uses.
    own: String,
    /// For tags that no other has.
    next: u64,
    open: Vec<(Tag, File, PathBuf, u64)>,
}

impl<'r> Actor<'r> {
    /// `seed` is different for each.
    pub fn new(root: &'r Path, seed: u64) -> Self {
        let next = (seed % 1000 + 1) * 1_000_000_000;
        Self { root, random: seed, own: format!("new-{seed}"), next, open: Vec::new() }
    }

    /// A random number below `bound` (the generator is splitmix64).
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn dir(&mut self) -> PathBuf {
        let dir = self.root.join(DIRS[self.below(DIRS.len() as u64) as usize]);
        if self.below(4) == 0 { dir.join("0") } else { dir }
    }

    fn path(&mut self) -> PathBuf {
        let name = self.below(NAMES).to_string();
        self.dir().join(name)
    }

    pub fn act(&mut self) {
        let path = self.path();
        match self.below(20) {
            0..3 => self.make(&path),
            3..6 => self.keep_open(&path),
            6..9 => self.change_open(),
            9..11 => self.rename(&path),
            11 => {
                let to = self.path();
                usual(fs::hard_link(&path, to), &[Errno::EXIST, Errno::PERM], "link");
            }
            12 => {
                usual(fs::remove_file(&path), &[Errno::ISDIR], "unlink");
            }
            13 => self.make_or_remove_dir(&path),
            14 => {
                let mode = 0o700 | self.below(0o100) as u32;
                usual(chmod(&path, mode).map_err(Into::into), &[], "chmod");
            }
            15 => {
                let set = lsetxattr(&path, "user.any", b"any", XattrFlags::empty());
                usual(set.map_err(Into::into), &[], "setxattr");
            }
            16 => {
                usual(try_lstat(&path).map_err(Into::into), &[], "stat");
            }
            17 => self.replace(&path),
            _ => self.list(),
        }
    }

    /// A new file, which others can open before anything is in it.
    fn make(&mut self, path: &Path) {
        let made = File::options().read(true).write(true).create_new(true).mode(0o644).open(path);
        let Some(file) = usual(made, &[Errno::EXIST], "create") else { return };
        let tag = self.fill(&file);
        if self.below(2) == 0 {
            self.hold(tag, file, path);
        }
    }

    fn fill(&mut self, file: &File) -> Tag {
        self.next += 1;
        let (tag, units) = (Tag::new(self.next), 1 + self.below(UNITS));
        tag.write(file, 0, units * UNIT).unwrap();
        tag
    }

    /// Makes a file under another name and puts it in the place of what is there.
    fn replace(&mut self, path: &Path) {
        let new = self.root.join(DIRS[0]).join(&self.own);
        let file = File::options().write(true).create_new(true).open(&new).unwrap();
        self.fill(&file);
        let renamed = fs::rename(&new, path);
        if usual(renamed, &[Errno::ISDIR], "rename onto").is_none() {
            fs::remove_file(new).unwrap();
        }
    }

    fn keep_open(&mut self, path: &Path) {
        let opened = File::options().read(true).write(true).open(path);
        let Some(file) = usual(opened, &[Errno::ISDIR], "open") else { return };
        let Some(tag) = file::read_tag(&file, path) else { return };
        self.hold(tag, file, path);
    }

    fn hold(&mut self, tag: Tag, file: File, path: &Path) {
        if self.open.len() == OPEN {
            let oldest = self.below(OPEN as u64) as usize;
            self.open.swap_remove(oldest);
        }
        let ino = file.metadata().unwrap().ino();
        self.open.push((tag, file, path.to_owned(), ino));
    }

    /// Uses an open file, wherever its names are by now: nothing of it may fail.
    fn change_open(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let which = self.below(self.open.len() as u64) as usize;
        let (what, offset, units) = (self.below(6), self.below(UNITS), 1 + self.below(64));
        let (tag, file, path, ino) = &self.open[which];
        let done = match what {
            0 => tag.write(file, offset * UNIT, units * UNIT),
            1 => file.set_len((1 + offset) * UNIT),
            2 => tag.set_attribute(file).map_err(Into::into),
            3 => file.set_permissions(fs::Permissions::from_mode(0o600 | offset as u32 & 0o77)),
            4 => file.sync_data(),
            _ => Ok(()),
        };
        done.unwrap_or_else(|error| panic!("{what} of open {}: {error}", path.display()));
        file::expect_only(*tag, file, path);
        assert_eq!(file.metadata().unwrap().ino(), *ino, "{}", path.display());
        if self.below(4) == 0 {
            self.open.swap_remove(which);
        }
    }

    fn rename(&mut self, from: &Path) {
        let to = self.path();
        let flags = match self.below(4) {
            0 => RenameFlags::NOREPLACE,
            1 => RenameFlags::EXCHANGE,
            _ => RenameFlags::empty(),
        };
        let mut expected = vec![Errno::EXIST, Errno::NOTEMPTY, Errno::ISDIR];
        // A directory into itself; one that a lower layer has, where there are no redirects.
        expected.extend([Errno::INVAL, Errno::XDEV]);
        usual(rename_with(from, &to, flags).map_err(Into::into), &expected, "rename");
    }

    fn make_or_remove_dir(&mut self, path: &Path) {
        match self.below(2) {
            0 => usual(mkdir(path, 0o755).map_err(Into::into), &[Errno::EXIST], "mkdir"),
            _ => usual(fs::remove_dir(path), &[Errno::NOTEMPTY], "rmdir"),
        };
    }

    /// Whoever lists a directory sees no name twice, and all those that nobody touches.
    fn list(&mut self) {
        let dir = self.dir();
        let Some(entries) = usual(fs::read_dir(&dir), &[], "opendir") else { return };
        let mut seen = BTreeSet::new();
        for entry in entries {
            // Of a directory that is deleted meanwhile.
            let Some(entry) = usual(entry, &[], "readdir") else { return };
            let name = entry.file_name();
            assert!(seen.insert(name.clone()), "{} has {name:?} twice", dir.display());
        }
        let layers: &[u64] = match dir.file_name().and_then(|name| name.to_str()) {
            Some("lower") => &[1, 2],
            Some("merged") => &[1, 2, 3],
            Some("upper") => &[3],
            _ => &[],
        };
        for layer in layers {
            let name = format!("stays-{layer}");
            assert!(seen.contains(std::ffi::OsStr::new(&name)), "{}: {seen:?}", dir.display());
        }
    }
}

/// The value, or nothing after an error that others can cause; any other error ends the test.
fn usual<T: Debug>(result: io::Result<T>, others: &[Errno], call: &str) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let errno = Errno::from_io_error(&error).unwrap();
            assert!(USUAL.contains(&errno) || others.contains(&errno), "{call}: {error}");
            None
        }
    }
}
