//! Marks in extended attributes that nobody can understand, or that mean nothing to some readers.

use std::fs;

use rustix::io::Errno;

use crate::needs_root;
use crate::support::posix::{errno, get_xattr, names, text, xattrs};
use crate::support::{Program, Union};

const LOWER: &str = "
f d/file text=lower
f other/file text=lower
";

/// Reads a directory: opening it is no message to plyfs.
fn list(union: &Union, dir: &str) -> std::io::Result<usize> {
    fs::read_dir(union.path(dir))?.try_fold(0, |count, entry| entry.map(|_| count + 1))
}

#[test]
fn marks_that_nobody_reads_are_removed() {
    needs_root!();
    let upper = "d d trusted.overlay.opaque=n
        f d/origin trusted.overlay.origin=junk
        f d/number trusted.overlay.plyfs.ino=many
        f d/links trusted.overlay.nlink=several";
    let mut union = Union::new().lower(LOWER).upper(upper).layers();
    let found = "links-value upper/d/links
        number-value upper/d/number
        opaque-value upper/d
        origin-value upper/d/origin";
    union.check(&[]).expect(4, found);
    union.check(&["--repair"]).expect(1, found);
    union.check(&[]).expect(0, "");
    for path in ["d", "d/origin", "d/number", "d/links"] {
        assert!(xattrs(union.upper(path)).is_empty(), "{path}");
    }
    union.switch(Program::Kernel, &[]);
    assert_eq!(names(union.path("d")), ["file", "links", "number", "origin"]);
}

/// fuse-overlayfs takes everything that begins with y for opaque: removing it would show what was deleted.
#[test]
fn an_opaque_mark_that_a_peer_reads_is_left_to_a_human() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).upper("d d trusted.overlay.opaque=yes").layers();
    union.check(&["--repair"]).expect(4, "opaque-value upper/d");
    union.switch(Program::Peer("/usr/bin/fuse-overlayfs".into()), &[]);
    assert!(names(union.path("d")).is_empty());
    union.switch(Program::Plyfs, &[]);
    assert_eq!(names(union.path("d")), ["file"]);
}

#[test]
fn a_link_count_of_garbage_is_removed_once_for_all_names() {
    needs_root!();
    let upper = "f a text=x trusted.overlay.nlink=junk\nh b to=a";
    let mut union = Union::new().lower(LOWER).upper(upper).layers();
    // Two names of one inode: the second is clean once the first is.
    let checked = union.check(&["--repair"]);
    assert_eq!((checked.status, checked.findings.len()), (1, 1), "{checked:?}");
    union.start();
    assert_eq!(text(union.path("b")), "x");
}

#[test]
fn an_impure_mark_of_garbage_is_written_anew() {
    needs_root!();
    let union = Union::new().lower(LOWER).upper("d d trusted.overlay.impure=n").layers();
    union.check(&["--repair"]).expect(1, "impure-value upper/d");
    assert_eq!(get_xattr(union.upper("d"), "trusted.overlay.impure").unwrap(), b"y");
}

#[test]
fn a_redirect_of_garbage_makes_the_directory_unreadable_and_is_left() {
    needs_root!();
    let upper = "d d trusted.overlay.redirect=/other/../../etc\nf d/new text=new";
    let mut union = Union::new().lower(LOWER).upper(upper).mount();
    assert_eq!(errno(list(&union, "d")), Errno::IO);
    union.unmount();
    union.check(&["--repair"]).expect(4, "redirect-value upper/d");
    assert!(!xattrs(union.upper("d")).is_empty());
}

#[test]
fn a_metacopy_mark_of_garbage_is_an_error_to_the_kernel() {
    needs_root!();
    let upper = "f d/file text=xxxxx trusted.overlay.metacopy=jun";
    let mut union = Union::new().lower(LOWER).upper(upper).layers();
    union.check(&["--repair"]).expect(4, "metacopy-value upper/d/file");
    union.switch(Program::Kernel, &["metacopy=on"]);
    assert_eq!(errno(fs::read(union.path("d/file"))), Errno::IO);
}

#[test]
fn stored_owners_are_told_where_they_count_and_where_they_do_not() {
    needs_root!();
    let name = "user.containers.override_stat";
    let upper =
        format!("d . {name}=0:0:755\nf good {name}=5:6:0640:file\nf bad/file {name}=me:you:rw");
    let mut union = Union::new().lower(LOWER).upper(&upper).mount();
    assert_eq!(crate::support::posix::owner(union.path("good")), (5, 6));
    assert_eq!(errno(fs::metadata(union.path("bad/file"))), Errno::IO);
    union.unmount();
    let found = "override-value upper/bad/file\nstored-attributes upper";
    union.check(&["--repair"]).expect(4, found);

    let upper = format!("f one {name}=5:6:0640\nf two {name}=5:6:0640");
    let mut union = Union::new().lower(LOWER).upper(&upper).layers();
    let checked = union.check(&[]);
    assert_eq!((checked.status, checked.findings.len()), (0, 1), "{checked:?}");
    assert!(checked.found().starts_with("unread-attributes upper/"));
    union.start();
    assert_eq!(crate::support::posix::owner(union.path("one")), (0, 0));
}

#[test]
fn attributes_of_fuse_overlayfs_are_noted_once() {
    needs_root!();
    let upper = "f one user.fuseoverlayfs.origin=/a\nf two user.fuseoverlayfs.origin=/b";
    let mut union = Union::new().lower(LOWER).upper(upper).layers();
    let checked = union.check(&[]);
    assert_eq!((checked.status, checked.findings.len()), (0, 1), "{checked:?}");
    assert!(checked.found().starts_with("peer-attribute upper/"));
    union.switch(Program::Kernel, &[]);
    assert_eq!(xattrs(union.path("one")), ["user.fuseoverlayfs.origin"]);
    union.switch(Program::Plyfs, &[]);
    assert!(xattrs(union.path("one")).is_empty());
}

#[test]
fn flags_of_chattr_that_are_none_are_removed() {
    needs_root!();
    let union = Union::new().lower(LOWER).upper("d d trusted.overlay.protattr=x").layers();
    union.check(&["--repair"]).expect(1, "protection-value upper/d");
    assert_eq!(get_xattr(union.upper("d"), "trusted.overlay.protattr"), Err(Errno::NODATA));
    let union = Union::new().lower(LOWER).upper("d d trusted.overlay.protattr=ai").layers();
    union.check(&[]).expect(0, "");
}
