//! What lies in the workdir, and link counts.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use crate::needs_root;
use crate::support::posix::{append, get_xattr, ino, set_xattr, text};
use crate::support::{Program, Union};

const LOWER: &str = "
f first text=links
h second to=first
f other text=other
";

/// A union in which one name of a hard link has been changed, and the index entry of it.
fn with_index() -> (Union, PathBuf) {
    let mut union = Union::new().lower(LOWER).mount();
    // A name that has been seen is linked to the copy too.
    assert_eq!(text(union.path("second")), "links");
    append(union.path("first"), " and more");
    union.unmount();
    let mut entries = fs::read_dir(union.work("index")).unwrap();
    let entry = entries.next().unwrap().unwrap().path();
    (union, entry)
}

#[test]
fn what_a_crash_leaves_is_noted_and_removed() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).mount();
    union.unmount();
    fs::create_dir_all(union.work("plyfs/stage/7/below")).unwrap();
    fs::write(union.work("plyfs/stage/8"), "half").unwrap();
    fs::create_dir_all(union.work("plyfs/nlink")).unwrap();
    symlink("-1", union.work("plyfs/nlink/00fb1d.new")).unwrap();
    let found = "link-record-unfinished work/plyfs/nlink/00fb1d.new
        stage-leftover work/plyfs/stage/7
        stage-leftover work/plyfs/stage/8";
    union.check(&[]).expect(0, found);
    union.check(&["--repair"]).expect(0, found);
    union.check(&[]).expect(0, "");
}

#[test]
fn a_record_of_garbage_is_removed() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).mount();
    fs::remove_file(union.path("first")).unwrap();
    union.unmount();
    let records = union.work("plyfs/nlink");
    let record = fs::read_dir(&records).unwrap().next().unwrap().unwrap().path();
    union.check(&[]).expect(0, "");
    fs::remove_file(&record).unwrap();
    symlink("many", &record).unwrap();
    let name = record.file_name().unwrap().to_str().unwrap();
    union.check(&["--repair"]).expect(1, &format!("link-record work/plyfs/nlink/{name}"));
    union.start();
    assert_eq!(text(union.path("second")), "links");
}

#[test]
fn records_of_inode_numbers_are_about_files_that_exist() {
    needs_root!();
    let union = Union::new().lower(LOWER).upper("l link to=other").layers();
    let records = union.work("plyfs/ino");
    fs::create_dir_all(&records).unwrap();
    let live = records.join(ino(union.upper("link")).to_string());
    symlink("77", &live).unwrap();
    symlink("78", records.join("1")).unwrap();
    union.check(&["--repair"]).expect(0, "number-record-stale work/plyfs/ino/1");
    assert!(live.is_symlink());

    fs::write(records.join("2"), "a file").unwrap();
    union.check(&["--repair"]).expect(0, "number-record work/plyfs/ino/2");
}

#[test]
fn an_index_entry_without_a_name_is_removed_by_the_check_or_the_next_mount() {
    needs_root!();
    let (union, entry) = with_index();
    union.check(&[]).expect(0, "");
    set_xattr(&entry, "trusted.overlay.nlink", b"U-1").unwrap();
    let name = entry.file_name().unwrap().to_str().unwrap();
    let mut left = fs::read_dir(union.upper("")).unwrap();
    for name in left.by_ref() {
        fs::remove_file(name.unwrap().path()).unwrap();
    }
    union.check(&["--repair"]).expect(0, &format!("index-orphan work/index/{name}"));
    assert!(!entry.exists());
}

#[test]
fn an_index_entry_tells_the_origin_that_it_is_named_after() {
    needs_root!();
    let (union, entry) = with_index();
    set_xattr(&entry, "trusted.overlay.origin", b"").unwrap();
    fs::write(union.work("index/junk"), "").unwrap();
    let name = entry.file_name().unwrap().to_str().unwrap();
    let found = format!("index-foreign work/index/junk\nindex-origin work/index/{name}");
    union.check(&["--repair"]).expect(4, &found);
}

/// With a count that is too low the last name but one would be taken for the last.
#[test]
fn a_link_count_below_the_number_of_names_is_counted_anew() {
    needs_root!();
    let (mut union, entry) = with_index();
    let names = fs::metadata(union.upper("first")).unwrap().nlink() - 1;
    set_xattr(&entry, "trusted.overlay.nlink", b"U-2").unwrap();
    union.start();
    assert_eq!(fs::metadata(union.path("first")).unwrap().nlink(), names - 1);
    union.unmount();
    let checked = union.check(&["--repair"]);
    assert_eq!((checked.status, checked.findings.len()), (1, 1), "{checked:?}");
    assert!(checked.found().starts_with("links-low upper/"));
    assert_eq!(get_xattr(&entry, "trusted.overlay.nlink").unwrap(), b"U-1");
    union.start();
    assert_eq!(fs::metadata(union.path("first")).unwrap().nlink(), names);
}

#[test]
fn hard_links_of_the_kernel_are_sound() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).program(Program::Kernel).option("index=on").mount();
    append(union.path("first"), " and more");
    fs::remove_file(union.path("second")).unwrap();
    fs::hard_link(union.path("first"), union.path("third")).unwrap();
    union.unmount();
    union.check(&[]).expect(0, "");
    union.switch(Program::Plyfs, &[]);
    assert_eq!(text(union.path("third")), "links and more");
}

#[test]
fn the_mark_of_a_volatile_mount_is_found() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).program(Program::Kernel).option("volatile").mount();
    fs::write(union.path("new"), "").unwrap();
    union.unmount();
    union.check(&["--repair"]).expect(4, "volatile work/work/incompat/volatile");
    union.switch(Program::Plyfs, &["volatile"]);
}
