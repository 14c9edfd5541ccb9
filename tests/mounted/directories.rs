//! Listing directories, also while they change.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;

use crate::support::Union;
use crate::support::posix::{errno, exists, ino, kind, lstat, mode, names, open_file};
use crate::{isolated, needs_root, not_with};

/// One directory entry as the kernel gave it.
struct Listed {
    name: String,
    ino: u64,
    kind: FileType,
    offset: i64,
}

fn open_dir(path: impl AsRef<Path>) -> Dir {
    Dir::new(open_file(path, OFlags::DIRECTORY).unwrap()).unwrap()
}

fn next(dir: &mut Dir) -> Option<Listed> {
    let entry = dir.read()?.unwrap();
    Some(Listed {
        name: entry.file_name().to_string_lossy().into_owned(),
        ino: entry.ino(),
        kind: entry.file_type(),
        offset: entry.offset(),
    })
}

fn rest(dir: &mut Dir) -> Vec<Listed> {
    std::iter::from_fn(|| next(dir)).collect()
}

fn many(dir: &Path, prefix: &str, count: u32) {
    fs::create_dir_all(dir).unwrap();
    for number in 0..count {
        fs::write(dir.join(format!("{prefix}{number}")), "").unwrap();
    }
}

#[test]
fn merged_listing_has_each_name_once_with_type_and_inode_of_stat() {
    needs_root!();
    let mut union = Union::new()
        .upper("f d/up\nd d/dir\nw d/gone\nf d/both")
        .lower("f d/low\nf d/both\nd d/dir\nl d/link to=x\np d/pipe\nf d/gone\nc d/null dev=1:3")
        .lower("f d/low\nf d/deep\nf d/dir/x\nb d/disk dev=8:1\ns d/socket\nf d/pipe")
        .mount();
    for dir in ["d", "d/dir", "."] {
        let listed = rest(&mut open_dir(union.path(dir)));
        let unique: BTreeSet<_> = listed.iter().map(|entry| &entry.name).collect();
        assert_eq!(unique.len(), listed.len());
        assert!(unique.contains(&".".to_owned()) && unique.contains(&"..".to_owned()));
        for entry in &listed {
            let path = union.path(dir).join(&entry.name);
            assert_eq!(entry.kind, kind(&path), "type of {}", entry.name);
            if dir != "." || entry.name != ".." {
                assert_eq!(entry.ino, ino(&path), "inode of {}", entry.name);
            }
        }
    }
    let all = ["both", "deep", "dir", "disk", "link", "low", "null", "pipe", "socket", "up"];
    assert_eq!(names(union.path("d")), all);
    union.remount();
    assert_eq!(names(union.path("d")), all);
}

#[test]
fn five_thousand_entries_are_removed_while_they_are_read() {
    needs_root!();
    for place in ["lower", "upper", "both"] {
        let mut union = Union::new()
            .lower_with(|dir| many(&dir.join("d"), "low", if place == "upper" { 0 } else { 5000 }))
            .upper_with(|dir| many(&dir.join("d"), "up", if place == "lower" { 0 } else { 5000 }))
            .unchecked_lowers()
            .mount();
        let mut dir = open_dir(union.path("d"));
        let mut removed = 0;
        while let Some(entry) = next(&mut dir) {
            if entry.name != "." && entry.name != ".." {
                fs::remove_file(union.path("d").join(&entry.name)).unwrap();
                removed += 1;
            }
        }
        assert_eq!(removed, if place == "both" { 10_000 } else { 5000 }, "{place}");
        drop(dir);
        fs::remove_dir(union.path("d")).unwrap();
        union.remount();
        assert!(!exists(union.path("d")), "{place}");
    }
}

#[test]
fn entries_come_once_and_all_while_others_come_and_go() {
    needs_root!();
    for place in ["lower", "upper"] {
        let fill = |dir: &Path| many(&dir.join("d"), "old", 4000);
        let builder = Union::new().unchecked_lowers();
        let union = match place {
            "lower" => builder.lower_with(fill),
            _ => builder.lower("d d").upper_with(fill),
        }
        .mount();
        let mut dir = open_dir(union.path("d"));
        let mut seen: Vec<String> = Vec::new();
        let mut count = 0;
        while let Some(entry) = next(&mut dir) {
            // Even numbers stay, odd ones go, new ones come.
            if count % 10 == 0 {
                fs::write(union.path(format!("d/new{count}")), "").unwrap();
                let victim = union.path(format!("d/old{}", 3999 - count / 10 * 2));
                fs::remove_file(victim).unwrap();
            }
            count += 1;
            seen.push(entry.name);
        }
        let unique: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(unique.len(), seen.len(), "{place}: names came twice");
        for number in (0..4000).step_by(2) {
            assert!(unique.contains(&format!("old{number}")), "{place}: old{number} is missing");
        }
    }
}

#[test]
fn reading_ends_although_every_name_read_is_renamed_or_copied() {
    needs_root!();
    let fill = |dir: &Path| many(&dir.join("d"), "old", 2000);
    let change = |union: &Union, what: &str, name: &str| {
        let [from, to] = [format!("d/{name}"), format!("d/{name}+")].map(|name| union.path(name));
        match what {
            "rename" => fs::rename(from, to).unwrap(),
            "there and back" => {
                fs::rename(&from, &to).unwrap();
                fs::rename(to, from).unwrap();
            }
            _ => drop(fs::File::create(to).unwrap()),
        }
    };
    for what in ["rename", "there and back", "create"] {
        let union = Union::new().lower("d d").upper_with(fill).mount();
        let mut dir = open_dir(union.path("d"));
        let mut count = 0;
        while let Some(entry) = next(&mut dir) {
            count += 1;
            assert!(count <= 2002, "{what}: reading does not end: {}", entry.name);
            if !entry.name.starts_with('.') {
                change(&union, what, &entry.name);
            }
        }
        let names = if what == "create" { 4000 } else { 2000 };
        dir.rewind();
        assert_eq!(rest(&mut dir).len(), names + 2, "{what}");
    }
}

#[test]
fn position_in_a_directory_can_be_kept_and_returned_to() {
    needs_root!();
    let union = Union::new()
        .lower_with(|dir| many(&dir.join("d"), "low", 700))
        .lower_with(|dir| many(&dir.join("d"), "deep", 700))
        .unchecked_lowers()
        .mount();
    let mut dir = open_dir(union.path("d"));
    let all = rest(&mut dir);
    assert_eq!(all.len(), 1402);
    let offsets: BTreeSet<_> = all.iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets.len(), all.len(), "two entries have one position");
    for index in [1400, 0, 700, 3, 1000, 1] {
        dir.seek(all[index].offset).unwrap();
        let after = rest(&mut dir);
        let expected: Vec<_> = all[index + 1..].iter().map(|entry| &entry.name).collect();
        assert_eq!(after.iter().map(|entry| &entry.name).collect::<Vec<_>>(), expected, "{index}");
    }
}

#[test]
fn rewound_directory_shows_what_is_new() {
    needs_root!();
    let union = Union::new().lower("f d/a\nf d/b").mount();
    let mut dir = open_dir(union.path("d"));
    assert_eq!(rest(&mut dir).len(), 4);
    fs::write(union.path("d/c"), "").unwrap();
    fs::remove_file(union.path("d/a")).unwrap();
    dir.rewind();
    let mut names: Vec<_> = rest(&mut dir).into_iter().map(|entry| entry.name).collect();
    names.sort();
    assert_eq!(names, [".", "..", "b", "c"]);
}

#[test]
fn listing_after_every_change_is_up_to_date() {
    needs_root!();
    let union = Union::new().lower("f d/a\nf d/b\nd d/e").mount();
    let list = || names(union.path("d"));
    assert_eq!(list(), ["a", "b", "e"]);
    fs::write(union.path("d/c"), "").unwrap();
    assert_eq!(list(), ["a", "b", "c", "e"]);
    fs::remove_file(union.path("d/a")).unwrap();
    assert_eq!(list(), ["b", "c", "e"]);
    fs::rename(union.path("d/b"), union.path("d/z")).unwrap();
    assert_eq!(list(), ["c", "e", "z"]);
    fs::rename(union.path("d/e"), union.path("e")).unwrap();
    assert_eq!(list(), ["c", "z"]);
    fs::write(union.path("d/a"), "").unwrap();
    fs::hard_link(union.path("d/a"), union.path("d/l")).unwrap();
    assert_eq!(list(), ["a", "c", "l", "z"]);
}

#[test]
fn removed_open_directory_is_empty_and_takes_no_names() {
    needs_root!();
    let union = Union::new().lower("d d\nd e").mount();
    fs::create_dir(union.path("new")).unwrap();
    for name in ["d", "new"] {
        let handle = open_file(union.path(name), OFlags::DIRECTORY).unwrap();
        fs::remove_dir(union.path(name)).unwrap();
        let listed = Dir::read_from(&handle).map(|mut dir| {
            std::iter::from_fn(|| dir.read())
                .map_while(Result::ok)
                .filter(|entry| !entry.file_name().to_bytes().starts_with(b"."))
                .count()
        });
        assert_eq!(listed.unwrap_or(0), 0, "{name}");
        let mode = rustix::fs::Mode::from_raw_mode(0o755);
        assert_eq!(rustix::fs::mkdirat(&handle, "x", mode), Err(Errno::NOENT), "{name}");
        assert!(rustix::fs::fstat(&handle).is_ok(), "{name}");
        fs::create_dir(union.path(name)).unwrap();
        assert_eq!(names(union.path(name)), [""; 0], "{name}");
    }
}

#[test]
fn parent_of_a_moved_directory_is_its_new_parent() {
    needs_root!();
    let union = Union::new().lower("f a/d/x\nd b").mount();
    let handle = open_file(union.path("a/d"), OFlags::DIRECTORY).unwrap();
    fs::rename(union.path("a/d"), union.path("b/d")).unwrap();
    let parent = rustix::fs::statat(&handle, "..", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(parent.st_ino, ino(union.path("b")));
    let mut dir = open_dir(union.path("b/d"));
    let dots = rest(&mut dir).into_iter().find(|entry| entry.name == "..").unwrap();
    assert_eq!(dots.ino, ino(union.path("b")));
}

#[test]
fn names_and_directories_are_not_confused() {
    needs_root!();
    let union = Union::new().lower("f file\nd dir").mount();
    assert_eq!(errno(fs::read_dir(union.path("file"))), Errno::NOTDIR);
    assert_eq!(errno(fs::read(union.path("dir"))), Errno::ISDIR);
    assert_eq!(errno(fs::metadata(union.path("file/x"))), Errno::NOTDIR);
    assert_eq!(errno(fs::write(union.path("dir"), "")), Errno::ISDIR);
    assert_eq!(lstat(union.path("dir/..")).st_ino, ino(union.path("")));
}

#[test]
fn merged_directory_that_may_not_be_listed_does_not_hide_its_neighbours() {
    not_with!("xattr_permissions");
    isolated!(User, {
        let layer = "d d mode=0300\nf d/x\nf c/x";
        // The proof would have to list the directory.
        let builder = Union::new().lower(&format!("{layer}\nf a")).lower(&format!("{layer}\nf e"));
        let mut union = builder.upper(layer).unchecked_lowers().mount();
        for _ in 0..2 {
            assert_eq!(names(union.path("")), ["a", "c", "d", "e"]);
            for name in ["a", "c", "d", "e"] {
                assert!(exists(union.path(name)), "{name}");
            }
            assert_eq!(mode(union.path("d")), 0o300);
            assert_eq!(errno(fs::read_dir(union.path("d"))), Errno::ACCESS);
            union.remount();
        }
    });
}
