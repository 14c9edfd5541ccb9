//! Layers on every filesystem, alone and mixed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::needs_root;
use crate::support::posix::{as_ids, chmod, names, run};
use crate::support::privilege::skip;
use crate::support::{Builder, Field, Snapshot, Union, assert_same, tree};
use crate::volume::Kind;
use crate::workload::{self, Ability};

const ROOT: Ability = Ability { owners: true, sound: true };

/// Leaves the test, loudly, if this kernel does not have the filesystem.
macro_rules! needs {
    ($($kind:expr),*) => {
        needs_root!();
        for kind in [$($kind),*] {
            if !kind.is_known() {
                return skip(module_path!(), &format!("this kernel has no {kind:?}"));
            }
        }
    };
}

#[test]
fn lower_on_ext4() {
    needs!(Kind::Ext4);
    work_over_lower_on(Kind::Ext4);
}

#[test]
fn lower_on_tmpfs() {
    needs!(Kind::Tmpfs);
    work_over_lower_on(Kind::Tmpfs);
}

#[test]
fn lower_on_xfs() {
    needs!(Kind::Xfs);
    work_over_lower_on(Kind::Xfs);
}

#[test]
fn lower_on_btrfs() {
    needs!(Kind::Btrfs);
    work_over_lower_on(Kind::Btrfs);
}

#[test]
fn lower_on_squashfs() {
    needs!(Kind::Squashfs);
    work_over_lower_on(Kind::Squashfs);
}

#[test]
fn lower_on_erofs() {
    needs!(Kind::Erofs);
    work_over_lower_on(Kind::Erofs);
}

#[test]
fn upper_on_ext4() {
    needs!(Kind::Ext4);
    work_into_upper_on(Kind::Ext4);
}

#[test]
fn upper_on_tmpfs() {
    needs!(Kind::Tmpfs);
    work_into_upper_on(Kind::Tmpfs);
}

#[test]
fn upper_on_xfs() {
    needs!(Kind::Xfs);
    work_into_upper_on(Kind::Xfs);
}

#[test]
fn upper_on_btrfs() {
    needs!(Kind::Btrfs);
    work_into_upper_on(Kind::Btrfs);
}

/// The kernel asks for the ACL of everything whose owner somebody else is, and denies it where there is no answer.
#[test]
fn an_upper_without_extended_attributes_can_be_used_by_everybody() {
    needs!(Kind::Ramfs);
    let mut union = Union::new()
        .upper_on(|point| Kind::Ramfs.mount_empty(point))
        .lower("d open mode=0777\nf open/low text=low mode=0644\nd open/gone\nf open/gone/f")
        .mount();
    let open = union.path("open");
    as_ids(5000, 5000, || {
        fs::write(open.join("new"), "new").unwrap();
        fs::create_dir(open.join("dir")).unwrap();
        fs::rename(open.join("low"), open.join("dir/moved")).unwrap();
    });
    fs::remove_dir_all(open.join("gone")).unwrap();
    fs::create_dir(open.join("gone")).unwrap();
    for _ in 0..2 {
        as_ids(5001, 5001, || {
            assert_eq!(fs::read_to_string(open.join("new")).unwrap(), "new");
            assert_eq!(fs::read_to_string(open.join("dir/moved")).unwrap(), "low");
            assert_eq!(names(&open), ["dir", "gone", "new"]);
            assert_eq!(names(open.join("gone")), [""; 0]);
            assert!(fs::write(open.join("new"), "").is_err());
        });
        union.remount();
    }
}

/// The files of all layers have the same few inode numbers; in the union each has its own, and keeps it.
#[test]
fn inode_numbers_are_unique_over_filesystems_and_stay() {
    let all = [Kind::Ext4, Kind::Tmpfs, Kind::Xfs, Kind::Btrfs, Kind::Squashfs, Kind::Erofs];
    needs!(Kind::Ext4, Kind::Tmpfs, Kind::Xfs, Kind::Btrfs, Kind::Squashfs, Kind::Erofs);
    let mut builder = Union::new().upper_on(|point| Kind::Tmpfs.mount_empty(point));
    for kind in all {
        builder = lower_on(builder, kind, |dir| {
            for number in 0..50 {
                let file = dir.join(format!("{kind:?}-{}/{number}", number % 5));
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, format!("{kind:?}")).unwrap();
            }
            fs::create_dir_all(dir.join("merged")).unwrap();
            fs::write(dir.join(format!("merged/{kind:?}")), "").unwrap();
        });
    }
    let mut union = builder.mount();
    let numbers = inode_numbers(&union.path(""));
    assert_eq!(numbers.len(), all.len() * (50 + 5 + 1) + 2, "entries of the union");
    for path in numbers.values() {
        chmod(path, 0o700).unwrap();
    }
    assert_eq!(numbers, inode_numbers(&union.path("")), "after everything was copied up");
    union.remount();
    assert_eq!(numbers, inode_numbers(&union.path("")), "after a remount");
}

/// On a filesystem that can share data a copy takes no space.
#[test]
fn a_copy_up_within_one_btrfs_shares_the_data() {
    needs!(Kind::Btrfs);
    const SIZE: usize = 100 << 20;
    let builder = Union::new().upper_on(|point| Kind::Btrfs.mount_empty(point));
    let lower = builder.path().join("volume/lower");
    fs::create_dir(&lower).unwrap();
    fs::write(lower.join("large"), vec![b'L'; SIZE]).unwrap();
    let union = builder.lower_at(&lower).mount();
    let free = || {
        run("sync", ["-f".as_ref(), lower.as_os_str()]);
        let status = rustix::fs::statvfs(&lower).unwrap();
        status.f_bavail * status.f_frsize
    };
    let before = free();
    chmod(union.path("large"), 0o600).unwrap();
    assert_eq!(fs::metadata(union.upper("large")).unwrap().len(), SIZE as u64);
    assert!(
        before.saturating_sub(free()) < SIZE as u64 / 10,
        "{before} bytes were free, now {}",
        free()
    );
}

/// Who writes into a full upper layer is told so, and at once.
#[test]
fn a_full_upper_layer_stops_the_writer() {
    needs!(Kind::Tmpfs);
    let union = Union::new()
        .lower("f large text=\"\"")
        .upper_on(|point| {
            run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", point.to_str().unwrap()]);
        })
        .mount();
    let mut file = File::create(union.path("endless")).unwrap();
    let block = vec![b'e'; 64 << 10];
    let error = (0..1000).find_map(|_| file.write_all(&block).err()).expect("64 MB into 4 MB");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    drop(file);
    fs::remove_file(union.path("endless")).unwrap();
    fs::write(union.path("small"), "there is room again").unwrap();
}

/// A copy-up that does not fit fails, changes nothing and leaves nothing.
#[test]
fn a_copy_up_without_room_changes_nothing() {
    needs!(Kind::Tmpfs);
    let mut union = Union::new()
        .lower_with(|dir| fs::write(dir.join("large"), vec![b'l'; 8 << 20]).unwrap())
        .upper_on(|point| {
            run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", point.to_str().unwrap()]);
        })
        .mount();
    let before = union.snapshot();
    let error = File::options().append(true).open(union.path("large"));
    let error = error.and_then(|mut file| file.write_all(b"more").and_then(|()| file.sync_all()));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::StorageFull);
    fs::write(union.path("small"), "what was staged takes no room").unwrap();
    fs::remove_file(union.path("small")).unwrap();
    union.remount();
    let [before, after] = [before, union.snapshot()].map(|tree| tree.without(&[Field::Mtime]));
    assert_same(&before, &after, "before and after a copy-up without room");
}

fn work_over_lower_on(kind: Kind) {
    let [top, bottom] = workload::lowers(ROOT);
    let builder = Union::new().lower(&top);
    work(lower_on(builder, kind, |dir| tree::make(dir, &bottom)));
}

fn work_into_upper_on(kind: Kind) {
    let [top, bottom] = workload::lowers(ROOT);
    work(Union::new().upper_on(|point| kind.mount_empty(point)).lower(&top).lower(&bottom));
}

/// The same work in the union and in a plain copy of it, on the filesystem of the upper layer.
fn work(builder: Builder) {
    let mut union = builder.upper("d create").mount();
    let plain = union.upper("../plain");
    run("cp", ["-a".as_ref(), union.path("").as_os_str(), plain.as_os_str()]);
    for root in [&plain, &union.path("")] {
        workload::run(root, ROOT);
    }
    let compare = |union: &Union, what| {
        let [plain, union] =
            [&plain, &union.path("")].map(|root| Snapshot::of(root).without(&[Field::Mtime]));
        assert_same(&plain, &union, what);
    };
    compare(&union, "a plain directory, and the union");
    union.remount();
    compare(&union, "a plain directory, and the union after a remount");
}

/// Adds a layer below the others on a filesystem of its own.
fn lower_on(builder: Builder, kind: Kind, fill: impl FnOnce(&Path)) -> Builder {
    let source = builder.path().join(format!("source-{kind:?}"));
    let point = builder.path().join(format!("lower-{kind:?}"));
    for dir in [&source, &point] {
        fs::create_dir(dir).unwrap();
    }
    fill(&source);
    kind.mount_copy(&source, &point);
    builder.lower_at(point)
}

/// Every entry by its inode number, which must be its own, and the same in stat(2) and readdir(3).
fn inode_numbers(root: &Path) -> BTreeMap<u64, PathBuf> {
    let status = fs::symlink_metadata(root).unwrap();
    let mut numbers = BTreeMap::from([(status.ino(), root.to_owned())]);
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let found = fs::symlink_metadata(entry.path()).unwrap();
            assert_eq!(found.ino(), entry.ino(), "{}: stat and readdir", entry.path().display());
            assert_eq!(found.dev(), status.dev(), "{}: device", entry.path().display());
            if found.is_dir() {
                dirs.push(entry.path());
            }
            if let Some(other) = numbers.insert(found.ino(), entry.path()) {
                panic!("{} and {} are {}", other.display(), entry.path().display(), found.ino());
            }
        }
    }
    numbers
}
