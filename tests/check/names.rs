//! Whiteouts and `.wh.` files.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

use crate::needs_root;
use crate::support::posix::{errno, names, set_xattr, text};
use crate::support::{Program, Union, assert_same};

const LOWER: &str = "
f d/deleted text=old
f d/kept text=old
f top text=old
";

fn fuse_overlayfs() -> Program {
    Program::Peer("/usr/bin/fuse-overlayfs".into())
}

/// The kernel reads a directory that is opaque as it is.
#[test]
fn a_whiteout_in_an_opaque_directory_is_listed_by_the_kernel_and_removed() {
    needs_root!();
    let layers = Union::new().lower(LOWER).upper("o d\nw d/deleted\nf d/new text=new");
    let mut union = layers.program(Program::Kernel).mount();
    assert_eq!(names(union.path("d")), ["deleted", "new"]);
    assert_eq!(errno(fs::metadata(union.path("d/deleted"))), Errno::NOENT);
    union.unmount();

    union.check(&[]).expect(4, "whiteout-in-opaque upper/d/deleted");
    union.check(&["--repair"]).expect(1, "whiteout-in-opaque upper/d/deleted");
    union.check(&[]).expect(0, "");
    for program in [Program::Kernel, Program::Plyfs, fuse_overlayfs()] {
        union.switch(program, &[]);
        assert_eq!(names(union.path("d")), ["new"]);
    }
}

/// The whiteout is what keeps the name deleted for a kernel that does not read the mark of the directory.
#[test]
fn removing_a_whiteout_first_makes_the_directory_opaque_for_root() {
    needs_root!();
    for mark in ["user.overlay.opaque", "user.fuseoverlayfs.opaque"] {
        let layers = Union::new().lower(LOWER).upper(&format!("d d {mark}=y\nw d/deleted"));
        let mut union = layers.layers();
        union.check(&["--repair"]);
        assert!(!union.upper("d/deleted").exists(), "{mark}");
        union.switch(Program::Kernel, &[]);
        assert!(names(union.path("d")).is_empty(), "{mark}: {:?}", names(union.path("d")));
    }
}

#[test]
fn the_opaque_file_of_fuse_overlayfs_is_listed_by_the_kernel_and_removed() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).program(fuse_overlayfs()).mount();
    fs::remove_dir_all(union.path("d")).unwrap();
    fs::create_dir(union.path("d")).unwrap();
    fs::write(union.path("d/new"), "new").unwrap();
    // Under its writeback cache the times of what was just written are not yet those on disk.
    union.switch(fuse_overlayfs(), &[]);
    let theirs = union.snapshot();
    union.switch(Program::Kernel, &[]);
    assert_eq!(names(union.path("d")), [".wh..opq", ".wh..wh..opq", "new"]);
    union.unmount();

    let found = "opaque-file-beside-mark upper/d/.wh..wh..opq
        whiteout-in-opaque upper/d/.wh..opq";
    union.check(&[]).expect(4, found);
    union.check(&["--repair"]).expect(1, found);
    union.check(&[]).expect(0, "");
    for program in [fuse_overlayfs(), Program::Kernel, Program::Plyfs] {
        union.switch(program, &[]);
        assert_same(&theirs, &union.snapshot(), "before and after the repair");
    }
}

#[test]
fn whiteouts_by_name_are_noted_and_left() {
    needs_root!();
    let upper = "f .wh.top\nf d/.wh..wh..opq\nf d/.wh.kept";
    let mut union = Union::new().lower(LOWER).upper(upper).layers();
    let found = "dot-opaque upper/d/.wh..wh..opq
        dot-whiteout upper/.wh.top
        whiteout-in-opaque upper/d/.wh.kept";
    union.check(&[]).expect(4, found);
    union.switch(Program::Kernel, &[]);
    assert_eq!(names(union.path("")), [".wh.top", "d", "top"]);
    assert_eq!(names(union.path("d")), [".wh..wh..opq", ".wh.kept", "deleted", "kept"]);
    union.unmount();
    union.check(&["--repair"]);
    assert!(union.upper(".wh.top").exists());
    for program in [Program::Plyfs, fuse_overlayfs()] {
        union.switch(program, &[]);
        assert_eq!(names(union.path("")), ["d"]);
        assert!(names(union.path("d")).is_empty());
    }
}

#[test]
fn fuse_overlayfs_own_opaque_mark_is_noted() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).upper("d d user.fuseoverlayfs.opaque=y").layers();
    union.check(&["--repair"]).expect(0, "peer-opaque upper/d");
    union.switch(Program::Kernel, &[]);
    assert_eq!(names(union.path("d")), ["deleted", "kept"]);
    union.switch(fuse_overlayfs(), &[]);
    assert!(names(union.path("d")).is_empty());
}

/// What is right cannot be known: the name may have been about to be deleted, or have come back.
#[test]
fn a_name_beside_its_whiteout_is_left_to_a_human() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).upper("f .wh.top\nf top text=new").layers();
    union.check(&["--repair"]).expect(4, "hidden-name upper/.wh.top");
    assert_eq!(text(union.upper("top")), "new");
    union.switch(Program::Kernel, &[]);
    assert_eq!(names(union.path("")), [".wh.top", "d", "top"]);
    for program in [Program::Plyfs, fuse_overlayfs()] {
        union.switch(program, &[]);
        assert_eq!(names(union.path("")), ["d"]);
    }
}

#[test]
fn a_whiteout_in_both_forms_keeps_the_one_that_all_read() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).upper("f .wh.top\nw top").layers();
    union.check(&["--repair"]).expect(1, "dot-beside-whiteout upper/.wh.top");
    for program in [Program::Kernel, Program::Plyfs, fuse_overlayfs()] {
        union.switch(program, &[]);
        assert_eq!(names(union.path("")), ["d"]);
    }
}

#[test]
fn marks_for_impossible_names_and_leftovers_of_aufs_are_removed_unless_they_hold_something() {
    needs_root!();
    let upper = "f .wh.\nf .wh..\nf .wh... text=kept\nf .wh..wh.aufs\nd .wh..wh.orph\nf .wh..wh.plnk/17.2 text=linked";
    let mut union = Union::new().lower(LOWER).upper(upper).layers();
    let found = "aufs-leftover upper/.wh..wh.aufs
        aufs-leftover upper/.wh..wh.orph
        aufs-leftover upper/.wh..wh.plnk
        void-whiteout upper/.wh.
        void-whiteout upper/.wh..
        void-whiteout upper/.wh...";
    union.check(&["--repair"]).expect(4, found);
    let left = "aufs-leftover upper/.wh..wh.plnk\nvoid-whiteout upper/.wh...";
    union.check(&["--repair"]).expect(4, left);
    assert_eq!(names(union.upper("")), [".wh...", ".wh..wh.plnk"]);
    union.switch(Program::Kernel, &[]);
    assert_eq!(names(union.path("")), [".wh...", ".wh..wh.plnk", "d", "top"]);
}

#[test]
fn a_whiteout_by_attribute_counts_only_where_the_directory_says_so() {
    needs_root!();
    let upper = "d . user.overlay.opaque=x trusted.overlay.opaque=x
        f top trusted.overlay.whiteout=y user.overlay.whiteout=y
        f d/kept trusted.overlay.whiteout=y";
    let mut union = Union::new().lower(LOWER).upper(upper).layers();
    union.check(&["--repair"]).expect(4, "attribute-whiteout upper/d/kept");
    union.switch(Program::Plyfs, &[]);
    assert_eq!(names(union.path("")), ["d"]);
    assert_eq!(names(union.path("d")), ["deleted", "kept"]);
    assert_eq!(text(union.path("d/kept")), "");
}

#[test]
fn attributes_of_whiteouts_are_noted_once() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).upper("w top\nw d/kept").layers();
    for path in ["top", "d/kept"] {
        set_xattr(union.upper(path), "trusted.note", b"x").unwrap();
    }
    let checked = union.check(&[]);
    assert_eq!((checked.status, checked.findings.len()), (0, 1), "{checked:?}");
    assert!(checked.found().starts_with("whiteout-attributes upper/"), "{checked:?}");
    union.switch(Program::Kernel, &[]);
    assert_eq!(names(union.path("d")), ["deleted"]);
}

/// A user's file that is called like a mark is no mark.
#[test]
fn files_called_like_marks_are_no_finding() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).mount();
    for name in [".wh.top", ".wh.", ".wh..wh.aufs"] {
        fs::write(union.path(name), "a user's").unwrap();
    }
    fs::create_dir(union.path(".wh.dir")).unwrap();
    std::os::unix::fs::symlink("d", union.path(".wh.link")).unwrap();
    union.unmount();
    union.check(&[]).expect(0, "");
}

/// Links lead out of the layer; the check does not.
#[test]
fn links_are_not_followed() {
    needs_root!();
    let union = Union::new().lower(LOWER).layers();
    let outside = union.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join(".wh."), "").unwrap();
    std::os::unix::fs::symlink(&outside, union.upper("link")).unwrap();
    std::os::unix::fs::symlink(Path::new("/"), union.upper("root")).unwrap();
    union.check(&["--repair"]).expect(0, "");
    assert!(outside.join(".wh.").exists());
}
