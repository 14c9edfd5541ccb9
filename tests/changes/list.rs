//! `plyfs diff`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::story::{BASE, CHANGES, Store, change, succeeded};
use crate::support::posix::run;
use crate::support::{Program, Scratch, Union, tree};
use crate::{isolated, needs_root, not_with};

fn diff(upper: &Path, lowers: &[PathBuf]) -> String {
    let mut words = vec!["diff".into(), upper.as_os_str().to_owned()];
    words.extend(lowers.iter().map(|lower| lower.as_os_str().to_owned()));
    let scratch = Scratch::new();
    let mut command = std::process::Command::new(crate::support::mount::program());
    let output = command.args(&words).current_dir(scratch.path()).output().unwrap();
    succeeded("diff", &output)
}

/// Makes [`change`] through `program`, and lists what has come of it.
fn changed_by(program: Program, options: &[&str]) -> String {
    let mut builder = Union::new().program(program).lower(BASE);
    for option in options {
        builder = builder.option(*option);
    }
    let mut union = builder.mount();
    change(&union.path(""));
    let mounted = union.lowers().to_vec();
    union.unmount();
    let list = diff(&union.upper(""), &mounted);
    assert_eq!(list, diff(&union.upper(""), &mounted), "not the same twice");
    list
}

#[test]
fn every_change_is_listed() {
    not_with!("packed");
    needs_root!();
    assert_eq!(changed_by(Program::Plyfs, &[]), CHANGES);
}

#[test]
fn every_change_is_listed_where_renamed_directories_lead_elsewhere() {
    not_with!("packed");
    needs_root!();
    assert_eq!(changed_by(Program::Plyfs, &["redirect_dir=on", "metacopy=on"]), CHANGES);
}

#[test]
fn every_change_of_an_ordinary_user_is_listed() {
    not_with!("packed");
    isolated!(User, assert_eq!(changed_by(Program::Plyfs, &[]), CHANGES));
}

#[test]
fn every_change_is_listed_where_marks_are_files() {
    not_with!("packed");
    needs_root!();
    let mut union =
        Union::new().lower(BASE).environment("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1").mount();
    change(&union.path(""));
    union.unmount();
    assert_eq!(diff(&union.upper(""), union.lowers()), CHANGES);
}

#[test]
fn every_change_through_the_kernel_is_listed() {
    needs_root!();
    let options = ["redirect_dir=on", "index=on", "metacopy=on"];
    assert_eq!(changed_by(Program::Kernel, &options), CHANGES);
}

#[test]
fn every_change_through_fuse_overlayfs_is_listed() {
    needs_root!();
    let peer = PathBuf::from("/usr/bin/fuse-overlayfs");
    if !peer.exists() {
        crate::support::privilege::skip("fuse-overlayfs", "it is not installed");
        return;
    }
    // Of a lower file with two names it puts one into the layer, which may be the other one.
    let list = changed_by(Program::Peer(peer), &[]);
    let one_of_two = ["C /etc/hard\n", "C /linked\n"].map(|line| CHANGES.replace(line, ""));
    assert!(one_of_two.contains(&list), "{list}");
}

#[test]
fn a_mounted_layer_is_listed_too() {
    not_with!("packed", "writeback=1");
    needs_root!();
    let union = Union::new().lower(BASE).mount();
    change(&union.path(""));
    assert_eq!(diff(&union.upper(""), union.lowers()), CHANGES);
}

#[test]
fn without_lower_layers_what_was_copied_up_is_changed() {
    not_with!("packed");
    needs_root!();
    let mut union = Union::new().lower("f a text=a\nf b text=b\nd d\nf d/gone").mount();
    fs::write(union.path("a"), "changed").unwrap();
    fs::write(union.path("new"), "").unwrap();
    fs::remove_file(union.path("d/gone")).unwrap();
    fs::remove_file(union.path("b")).unwrap();
    fs::write(union.path("b"), "another").unwrap();
    union.unmount();
    let list = "C /a\nA /b\nC /d\nD /d/gone\nA /new\n";
    assert_eq!(diff(&union.upper(""), &[]), list);
}

#[test]
fn names_of_a_changed_file_that_the_layer_does_not_have_are_listed() {
    not_with!("packed");
    needs_root!();
    let layer = "f d/a text=a\nh e/b to=d/a\nh c to=d/a\nf e/other text=x\nh other to=e/other";
    let mut union = Union::new().lower(layer).mount();
    fs::write(union.path("d/a"), "changed").unwrap();
    fs::rename(union.path("d/a"), union.path("d/renamed")).unwrap();
    union.unmount();
    let list = "C /c\nC /d\nD /d/a\nA /d/renamed\nC /e\nC /e/b\n";
    assert_eq!(diff(&union.upper(""), union.lowers()), list);
    union.start();
    fs::remove_file(union.path("c")).unwrap();
    union.unmount();
    assert_eq!(diff(&union.upper(""), union.lowers()), list.replace("C /c", "D /c"));
}

#[test]
fn names_of_a_file_that_was_changed_by_a_name_that_is_gone_are_listed() {
    not_with!("packed");
    needs_root!();
    let layer = "f d/a text=a\nh e/b to=d/a\nh c to=d/a\nf other text=x\nh gone to=other";
    let mut union = Union::new().lower(layer).mount();
    fs::write(union.path("d/a"), "changed").unwrap();
    fs::remove_file(union.path("d/a")).unwrap();
    fs::write(union.path("other"), "changed").unwrap();
    fs::remove_file(union.path("other")).unwrap();
    fs::remove_file(union.path("gone")).unwrap();
    union.unmount();
    let (upper, work) = (union.upper(""), union.work(""));
    let lowers = union.lowers().iter().map(|lower| lower.as_os_str());
    let list = |workdir: &[&std::ffi::OsStr]| {
        let mut command = std::process::Command::new(crate::support::mount::program());
        command.arg("diff").args(workdir).arg(&upper).args(lowers.clone());
        succeeded("diff", &command.output().unwrap())
    };
    let missed = "C /d\nD /d/a\nD /gone\nD /other\n";
    assert_eq!(list(&[]), missed);
    let changes = "C /c\nC /d\nD /d/a\nC /e\nC /e/b\nD /gone\nD /other\n";
    assert_eq!(list(&["--workdir".as_ref(), work.as_os_str()]), changes);
    // Where `plyfs mount --upper` has it, it need not be named.
    fs::rename(&work, upper.with_file_name("upper.work")).unwrap();
    assert_eq!(list(&[]), changes);
    fs::rename(upper.with_file_name("upper.work"), &work).unwrap();
}

#[test]
fn whiteouts_for_nothing_are_left_out() {
    let scratch = Scratch::new();
    let (upper, lower) = (scratch.dir("upper"), scratch.dir("lower"));
    tree::make(&upper, "f .wh.a text=\nf d/.wh.b text=\nf d/.wh.there text=");
    tree::make(&lower, "f d/there");
    assert_eq!(diff(&upper, std::slice::from_ref(&lower)), "C /d\nD /d/there\n");
    assert_eq!(diff(&upper, &[]), "D /a\nA /d\nD /d/b\nD /d/there\n");
    let unchanged = scratch.dir("unchanged");
    run("cp", ["-aT".as_ref(), lower.as_os_str(), unchanged.as_os_str()]);
    assert_eq!(diff(&unchanged, std::slice::from_ref(&lower)), "");
}

#[test]
fn names_are_one_line_each_and_whole_in_json() {
    let store = Store::new();
    let upper = store.scratch.dir("upper");
    tree::make(
        &upper,
        r#"f "a\nb\x1b[2J" text=x
f "\xff" text=x"#,
    );
    assert_eq!(store.says("diff upper"), "A /a\\nb\\u{1b}[2J\nA /\\xff\n");
    let lines = store.says("diff --json upper");
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], serde_json::json!({ "kind": "A", "path": "/a\nb\u{1b}[2J" }));
    assert_eq!(lines[1]["path_hex"], "2fff");
    assert_eq!(store.says("diff --format json upper"), store.says("diff --json upper"));
}
