//! A directory of its own for each test, on a real disk, gone afterwards whatever happened.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};

/// A unique directory. On drop everything mounted below it is detached and the tree is removed.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty directory that every user may search.
    pub fn new() -> Self {
        let path = tempfile::Builder::new()
            .prefix("plyfs-")
            .tempdir_in(root())
            .expect("a scratch directory can be made")
            .keep();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory `name` inside and returns its path.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let inside: Vec<_> =
            mounts().into_iter().filter(|m| m.point.starts_with(&self.path)).collect();
        // Later mounts may lie upon earlier ones.
        for mount in inside.iter().rev() {
            detach(&mount.point);
        }
        if fs::remove_dir_all(&self.path).is_err() {
            open_up(&self.path);
            if let Err(error) = fs::remove_dir_all(&self.path) {
                eprintln!("cannot remove {}: {error}", self.path.display());
            }
        }
    }
}

/// Takes `point` out of the tree at once, busy or not.
pub fn detach(point: &Path) {
    if unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
        // An ordinary user has only this way; a failure shows when the tree cannot be removed.
        Command::new("fusermount3").args(["-uzq", "--"]).arg(point).status().ok();
    }
}

/// One line of the mount table of this process.
pub struct MountLine {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Type such as `fuse.plyfs`.
    pub kind: String,
    /// Minor device number: the name of a FUSE connection in sysfs.
    pub minor: u32,
}

/// The mount table, in the order of mounting.
pub fn mounts() -> Vec<MountLine> {
    let table = fs::read("/proc/self/mountinfo").unwrap();
    table.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountLine> {
    let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let device = std::str::from_utf8(words.get(2)?).ok()?;
    let minor = device.split_once(':')?.1.parse().ok()?;
    let dash = words.iter().position(|w| *w == b"-")?;
    let kind = String::from_utf8_lossy(words.get(dash + 1)?).into_owned();
    Some(MountLine { point: unescape(words[4]), kind, minor })
}

/// The kernel writes blanks, newlines and backslashes of paths as `\` and three octal digits.
fn unescape(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < word.len() {
        if word[at] == b'\\' && at + 3 < word.len() {
            let digits = &word[at + 1..at + 4];
            bytes.push(digits.iter().fold(0u8, |n, d| (n << 3) | (d - b'0')));
            at += 4;
        } else {
            bytes.push(word[at]);
            at += 1;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Where scratch directories go: on a real disk, and where other users can come too.
fn root() -> PathBuf {
    if let Some(chosen) = std::env::var_os("PLYFS_TEST_DIR") {
        return PathBuf::from(chosen);
    }
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&target).unwrap();
    if target.ancestors().all(searchable) { target } else { PathBuf::from("/var/tmp") }
}

fn searchable(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
}

/// Gives the owner back the right to list and empty every directory.
fn open_up(dir: &Path) {
    if fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).is_err() {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
