//! Inode numbers: one for each file, always the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::needs_root;
use crate::support::Union;
use crate::support::posix::{append, chmod, ino, lstat, mknod, names, run, set_times};

const LOWER: &str = "f d/file text=x\nf d/sub/deep text=y\nl link to=x\np pipe\nf other\nd empty";

#[test]
fn inode_numbers_stay_over_copy_up_rename_and_remount() {
    needs_root!();
    inode_numbers_stay();
}

#[test]
fn inode_numbers_stay_for_an_ordinary_user() {
    crate::isolated!(User, inode_numbers_stay());
}

fn inode_numbers_stay() {
    let mut union = Union::new().lower(LOWER).lower("f d/second\nf empty/not").mount();
    let paths =
        ["d", "d/file", "d/sub", "d/sub/deep", "link", "pipe", "other", "empty", "d/second"];
    let before = numbers(&union, &paths);
    union.remount();
    assert_eq!(numbers(&union, &paths), before, "remount");
    append(union.path("d/file"), "+");
    append(union.path("d/sub/deep"), "+");
    set_times(union.path("link"), 1.0, 1.0).unwrap();
    chmod(union.path("pipe"), 0o600).unwrap();
    chmod(union.path("empty"), 0o700).unwrap();
    chmod(union.path("d/second"), 0o600).unwrap();
    assert_eq!(numbers(&union, &paths), before, "copy-up");
    union.remount();
    assert_eq!(numbers(&union, &paths), before, "copy-up and remount");
    fs::rename(union.path("d/file"), union.path("d/sub/file")).unwrap();
    fs::rename(union.path("link"), union.path("d/link")).unwrap();
    fs::rename(union.path("other"), union.path("another")).unwrap();
    let moved = [
        "d",
        "d/sub/file",
        "d/sub",
        "d/sub/deep",
        "d/link",
        "pipe",
        "another",
        "empty",
        "d/second",
    ];
    assert_eq!(numbers(&union, &moved), before, "rename");
    union.remount();
    assert_eq!(numbers(&union, &moved), before, "rename and remount");
}

#[test]
fn inode_numbers_stay_when_a_lower_directory_is_renamed() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).mount();
    let before = numbers(&union, &["d", "d/file", "d/sub", "d/sub/deep"]);
    fs::rename(union.path("d"), union.path("moved")).unwrap();
    let moved = ["moved", "moved/file", "moved/sub", "moved/sub/deep"];
    assert_eq!(numbers(&union, &moved), before, "rename");
    union.remount();
    assert_eq!(numbers(&union, &moved), before, "rename and remount");
}

#[test]
fn new_things_keep_their_inode_numbers_over_a_remount() {
    needs_root!();
    let mut union = Union::new().lower("f d/old").mount();
    fs::write(union.path("d/file"), "").unwrap();
    fs::create_dir(union.path("d/dir")).unwrap();
    mknod(union.path("d/pipe"), rustix::fs::FileType::Fifo, (0, 0)).unwrap();
    let paths = ["d", "d/file", "d/dir", "d/pipe", "d/old", ""];
    let before = numbers(&union, &paths);
    union.remount();
    assert_eq!(numbers(&union, &paths), before);
}

#[test]
fn all_things_of_several_filesystems_have_one_device_and_different_inode_numbers() {
    needs_root!();
    let tmpfs = |dir: &Path| {
        run("mount", ["-t", "tmpfs", "none", dir.to_str().unwrap()]);
    };
    let fill = |dir: &Path, layer: &str| {
        for number in 0..50 {
            fs::create_dir_all(dir.join(format!("dir{layer}{number}"))).unwrap();
            fs::write(dir.join(format!("dir{layer}{number}/f")), "").unwrap();
        }
    };
    let mut union = Union::new()
        .lower_with(|dir| {
            tmpfs(dir);
            fill(dir, "a");
        })
        .lower_with(|dir| {
            tmpfs(dir);
            fill(dir, "b");
        })
        .lower_with(|dir| fill(dir, "c"))
        .mount();
    fs::write(union.path("new"), "").unwrap();
    append(union.path("dira1/f"), "+");
    append(union.path("dirb2/f"), "+");
    let before = distinct(&union);
    union.remount();
    assert_eq!(distinct(&union), before);
}

#[test]
fn inode_numbers_fit_into_32_bits_when_asked_for() {
    needs_root!();
    let union = Union::new().option("ino32_t").lower(LOWER).lower("f second").mount();
    for (number, path) in distinct(&union) {
        assert!(number <= u64::from(u32::MAX), "{path:?} has {number}");
    }
}

/// Inode number to path of everything in the union, which must be of one device.
fn distinct(union: &Union) -> BTreeMap<u64, PathBuf> {
    let device = lstat(union.path("")).st_dev;
    let mut found = BTreeMap::new();
    for path in union.snapshot().paths() {
        let stat = lstat(union.path(path));
        assert_eq!(stat.st_dev, device, "{path:?}");
        let other = found.insert(stat.st_ino, path.to_owned());
        assert_eq!(other, None, "the same inode number as {path:?}");
    }
    found
}

fn numbers(union: &Union, paths: &[&str]) -> Vec<u64> {
    assert!(!names(union.path("")).is_empty());
    paths.iter().map(|path| ino(union.path(path))).collect()
}
