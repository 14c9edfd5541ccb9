//! Fresh layers on disk, and what is left in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use plyfs::overlay::UpperDirs;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::scenario::Scenario;
use crate::snapshot::Snapshot;
use crate::tree;

/// The time of everything that a scenario gives no other.
const LONG_AGO: i64 = 1_000_000_000;

/// The lower layers of a scenario, which no run may change.
pub struct Lowers {
    root: tempfile::TempDir,
    before: Snapshot,
}

/// The upper layer and work directory of one run.
pub struct Uppers {
    root: tempfile::TempDir,
}

impl Lowers {
    pub fn new(scenario: &Scenario) -> Self {
        let root = directory();
        for (name, text) in ["lower", "bottom"].into_iter().zip(scenario.lowers) {
            make(&root.path().join(name), text);
        }
        let before = Snapshot::exact(root.path());
        Self { root, before }
    }

    /// How they differ from what they were; empty if they do not.
    pub fn changes(&self) -> String {
        self.before.difference(&Snapshot::exact(self.root.path()))
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        ["lower", "bottom"].map(|name| self.root.path().join(name)).into()
    }
}

impl Uppers {
    pub fn new(scenario: &Scenario) -> Self {
        let root = directory();
        make(&root.path().join("upper"), scenario.upper);
        make(&root.path().join("work"), "");
        Self { root }
    }

    /// Where they lie; different in every run.
    pub fn root(&self) -> String {
        self.root.path().display().to_string()
    }

    pub fn paths(&self) -> UpperDirs {
        UpperDirs { upper: self.root.path().join("upper"), work: self.root.path().join("work") }
    }

    /// How many entries the work directory has of each kind: names made of a file handle differ from run to run.
    pub fn work(&self) -> BTreeMap<PathBuf, usize> {
        let mut counts = BTreeMap::new();
        for path in Snapshot::of(&self.root.path().join("work")).paths() {
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_handle = name.len() > 20 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            let path = if is_handle { path.with_file_name("HANDLE") } else { path.to_owned() };
            *counts.entry(path).or_default() += 1;
        }
        counts
    }
}

/// In memory where that is possible: there are thousands of them.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn make(layer: &Path, text: &str) {
    fs::create_dir(layer).unwrap();
    tree::make(layer, text);
    make_old(layer);
}

/// Gives everything below `dir`, and itself, a time long ago, unless it has one.
fn make_old(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            make_old(&entry.path());
        } else if entry.metadata().unwrap().modified().unwrap().elapsed().unwrap().as_secs() < 60 {
            set_time(&entry.path());
        }
    }
    set_time(dir);
}

fn set_time(path: &Path) {
    let time = Timespec { tv_sec: LONG_AGO, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
