//! `plyfs convert`: the same union before and after, to the readers of either form.

use std::path::Path;
use std::process::{Command, Output};

use crate::needs_root;
use crate::support::mount::program;
use crate::support::posix::{names, run, set_xattr, xattrs};
use crate::support::{Program, Snapshot, Union, assert_same};

const LOWER: &str = "
f d/deleted text=old
f d/kept text=old
f opaque/below text=old
f opaque/sub/below text=old
f gone/below text=old
f top text=old
";

/// Deletions and an opaque directory in the form of the kernel.
const KERNEL: &str = "w d/deleted\nw gone\nw top\nd opaque trusted.overlay.opaque=y mtime=1000000000\nf opaque/new text=new\n\
    f d/new text=new mtime=1000000001\nl link to=d\nd d mtime=1000000002";

fn fuse_overlayfs() -> Program {
    Program::Peer("/usr/bin/fuse-overlayfs".into())
}

fn convert(layer: &Path, form: &str) -> Output {
    Command::new(program()).args(["convert", "--to", form]).arg(layer).output().unwrap()
}

/// Converts and returns the number of steps.
fn steps(layer: &Path, form: &str) -> usize {
    let output = convert(layer, form);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{form}: {}", String::from_utf8_lossy(&output.stderr));
    let steps = text.rsplit_once(": ").unwrap().1.split(' ').next().unwrap();
    steps.parse().unwrap()
}

fn refused(layer: &Path, form: &str, problem: &str) {
    let before = Snapshot::exact(layer);
    let output = convert(layer, form);
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{form}: {line}");
    assert!(line.contains(problem) && line.ends_with("; nothing was changed\n"), "{form}: {line}");
    assert_same(&before, &Snapshot::exact(layer), "a refused layer");
}

/// How a program shows the union, without the marks of others that it takes for a user's.
fn shown(union: &mut Union, program: Program, options: &[&str]) -> Snapshot {
    union.switch(program, options);
    let tree = union.snapshot();
    union.unmount();
    tree
}

/// Who reads a form, and with which options.
fn reader(form: &str) -> (Program, &'static [&'static str]) {
    match form {
        "kernel" => (Program::Kernel, &[]),
        "userxattr" => (Program::Kernel, &["userxattr"]),
        _ => (fuse_overlayfs(), &[]),
    }
}

/// Goes through all forms, from each to each, and compares what their readers and plyfs show.
#[test]
fn every_form_becomes_every_other() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).upper(KERNEL).layers();
    let expected = shown(&mut union, Program::Kernel, &[]);
    assert_same(&expected, &shown(&mut union, Program::Plyfs, &[]), "the kernel and plyfs");
    let upper = union.upper("");
    let way = [
        "wh",
        "kernel",
        "userxattr",
        "fuse-overlayfs",
        "kernel",
        "fuse-overlayfs",
        "userxattr",
        "wh",
        "userxattr",
        "kernel",
        "wh",
        "fuse-overlayfs",
        "wh",
    ];
    for form in way {
        assert!(steps(&upper, form) > 0, "{form}");
        assert_eq!(steps(&upper, form), 0, "{form} again");
        let (program, options) = reader(form);
        assert_same(&expected, &shown(&mut union, program, options), form);
        assert_same(
            &expected,
            &shown(&mut union, Program::Plyfs, &[]),
            &format!("{form} by plyfs"),
        );
        assert_eq!(names(union.scratch()), ["log", "lower0", "merged", "upper", "work"], "{form}");
    }
}

#[test]
fn what_fuse_overlayfs_wrote_becomes_the_kernels() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).program(fuse_overlayfs()).mount();
    run(
        "sh",
        [
            "-ec",
            "cd \"$0\"; rm -r opaque gone top; mkdir opaque; echo new > opaque/new; rm d/deleted",
            union.path("").to_str().unwrap(),
        ],
    );
    union.remount();
    let theirs = union.snapshot();
    union.unmount();
    assert!(steps(&union.upper(""), "kernel") > 0);
    assert_same(&theirs, &shown(&mut union, Program::Kernel, &[]), "fuse-overlayfs and the kernel");
    union.check(&[]).expect(0, "");
}

#[test]
fn whiteouts_by_attribute_become_devices_and_files() {
    needs_root!();
    let upper = "d d user.overlay.opaque=x\nf d/deleted user.overlay.whiteout=y\nf d/new text=new";
    for (form, deleted) in [("kernel", "deleted"), ("wh", ".wh.deleted")] {
        let mut union = Union::new().lower(LOWER).upper(upper).layers();
        let before = shown(&mut union, Program::Plyfs, &[]);
        assert!(steps(&union.upper(""), form) > 0);
        let mut expected = vec![deleted, "new"];
        expected.sort_unstable();
        assert_eq!(names(union.upper("d")), expected);
        assert!(xattrs(union.upper("d")).is_empty(), "{form}");
        let (program, options) = reader(form);
        assert_same(&before, &shown(&mut union, program, options), form);
    }
}

#[test]
fn redirects_and_links_move_between_the_kernels_namespaces() {
    needs_root!();
    let upper = "d moved user.overlay.redirect=/d\nw d\nf a user.overlay.nlink=U+0 user.overlay.plyfs.ino=77\nf .wh.file text=x user.overlay.plyfs.literal=y";
    let mut union = Union::new().lower(LOWER).upper(upper).layers();
    let before = shown(&mut union, Program::Plyfs, &[]);
    assert!(steps(&union.upper(""), "kernel") > 0);
    assert_eq!(xattrs(union.upper("moved")), ["trusted.overlay.redirect"]);
    assert_eq!(xattrs(union.upper(".wh.file")), ["trusted.overlay.plyfs.literal"]);
    assert_same(&before, &shown(&mut union, Program::Plyfs, &[]), "plyfs");
    assert_same(&before, &shown(&mut union, Program::Kernel, &["redirect_dir=on"]), "kernel");
}

#[test]
fn what_a_form_cannot_say_is_refused() {
    needs_root!();
    let long = "n".repeat(252);
    let cases: &[(&str, &[&str], &str)] = &[
        (
            "d a/b trusted.overlay.redirect=/d",
            &["userxattr", "fuse-overlayfs", "wh"],
            "upper/a/b: a redirect",
        ),
        (
            "f a text=x trusted.overlay.metacopy=\"\"",
            &["userxattr", "fuse-overlayfs", "wh"],
            "upper/a: a metacopy",
        ),
        (
            "f a/.wh.b trusted.overlay.plyfs.literal=y",
            &["fuse-overlayfs", "wh"],
            "upper/a/.wh.b: called like",
        ),
        ("d a/.wh.b", &["fuse-overlayfs", "wh"], "upper/a/.wh.b: called like"),
        (&format!("w a/{long}"), &["wh"], "a deletion that no .wh. file"),
        ("w a/.wh..opq", &["wh"], "upper/a/.wh..opq: a deletion"),
        ("f a/.wh.b\nf a/b text=x", &["kernel", "wh"], "upper/a/.wh.b: the name that it hides"),
        ("f .wh.", &["kernel", "wh"], "upper/.wh.: a mark for no name"),
        ("d . user.containers.override_stat=0:0:755", &["kernel", "userxattr"], "owners and modes"),
        (
            "d a trusted.overlay.redirect=/a user.overlay.redirect=/b",
            &["kernel"],
            "upper/a: marks of two",
        ),
        (
            "d a trusted.overlay.origin=\"\" user.overlay.opaque=y",
            &["userxattr"],
            "upper/a: marks of two",
        ),
    ];
    for (upper, forms, problem) in cases {
        for form in *forms {
            let union = Union::new().lower(LOWER).upper(upper).layers();
            refused(&union.upper(""), form, problem);
        }
    }
}

/// In a user namespace nobody may write what root's kernel reads.
#[test]
fn marks_that_may_not_be_written_are_refused() {
    crate::isolated!(UserNamespace, {
        let union = Union::new().lower(LOWER).upper("d d user.overlay.opaque=y").layers();
        refused(&union.upper(""), "kernel", "trusted.overlay.opaque cannot be written here");
        assert!(steps(&union.upper(""), "fuse-overlayfs") > 0);
        assert!(steps(&union.upper(""), "userxattr") > 0);
    });
}

/// Killed at each step, on the way there and back, the layer shows the same union, and the next try ends it.
#[cfg(feature = "fault-points")]
#[test]
fn a_rewrite_that_is_killed_leaves_the_same_union_and_goes_on() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).upper(KERNEL).layers();
    let upper = union.upper("");
    let expected = shown(&mut union, Program::Plyfs, &[]).without(&[crate::support::Field::Mtime]);
    for form in ["wh", "userxattr", "fuse-overlayfs", "kernel"] {
        let mut killed = 0;
        loop {
            let mut command = Command::new(program());
            command
                .args(["convert", "--to", form])
                .arg(&upper)
                .env("PLYFS_FAULT", "convert.step:1");
            if command.output().unwrap().status.success() {
                break;
            }
            killed += 1;
            let now = shown(&mut union, Program::Plyfs, &[]);
            assert_same(
                &expected,
                &now.without(&[crate::support::Field::Mtime]),
                &format!("{form}: {killed}"),
            );
        }
        assert!(killed > 1, "{form}: {killed}");
        let (program, options) = reader(form);
        let now = shown(&mut union, program, options);
        assert_same(&expected, &now.without(&[crate::support::Field::Mtime]), form);
    }
    assert_eq!(names(union.scratch()), ["log", "lower0", "merged", "upper", "work"]);
}

/// What a user has called like the mark of an opaque directory is his, in an opaque directory too.
#[test]
fn what_is_called_like_the_mark_of_an_opaque_directory_stays() {
    needs_root!();
    let file = "f d/.wh..wh..opq text=text user.overlay.plyfs.literal=y";
    for (own, kept) in [(file, Some("text")), ("d d/.wh..wh..opq", None)] {
        let upper = format!("d d user.overlay.opaque=y\n{own}");
        let mut union = Union::new().lower(LOWER).upper(&upper).layers();
        let before = shown(&mut union, Program::Plyfs, &[]);
        assert!(steps(&union.upper(""), "kernel") > 0);
        let path = union.upper("d/.wh..wh..opq");
        assert_eq!(std::fs::read_to_string(&path).ok().as_deref(), kept, "{own}");
        assert!(path.exists(), "{own}");
        assert_same(&before, &shown(&mut union, Program::Plyfs, &[]), own);
    }
}

/// A layer with a private attribute of a user keeps that.
#[test]
fn attributes_of_users_stay() {
    needs_root!();
    let union = Union::new().lower(LOWER).upper("f a").layers();
    for name in ["user.note", "trusted.overlay.overlay.opaque", "trusted.note"] {
        set_xattr(union.upper("a"), name, b"x").unwrap();
    }
    let before = xattrs(union.upper("a"));
    for form in ["wh", "userxattr", "fuse-overlayfs", "kernel"] {
        assert_eq!(steps(&union.upper(""), form), 0, "{form}");
        assert_eq!(xattrs(union.upper("a")), before, "{form}");
    }
}
