//! Upper layers move between programs: what one wrote, the next one reads, completely.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::privilege::skip;
use crate::support::{Field, Program, Snapshot, Union, assert_same};
use crate::workload::{self, Ability};
use crate::{isolated, needs_root};

/// What the kernel writes when it may use every mark it has.
const EVERY_MARK: &[&str] = &["redirect_dir=on", "metacopy=on", "index=on"];

#[test]
fn plyfs_reads_what_the_plain_kernel_wrote() {
    needs_root!();
    plyfs_reads(Program::Kernel, &["redirect_dir=off", "metacopy=off", "index=off"]);
}

#[test]
fn plyfs_reads_redirects_and_metacopies_of_the_kernel() {
    needs_root!();
    plyfs_reads(Program::Kernel, EVERY_MARK);
}

#[test]
fn plyfs_reads_what_the_kernel_wrote_in_a_user_namespace() {
    isolated!(UserNamespace, plyfs_reads(Program::Kernel, &["userxattr"]));
}

#[test]
fn plyfs_reads_what_fuse_overlayfs_1_wrote() {
    needs_root!();
    plyfs_reads(fuse_overlayfs_1(), &[]);
}

#[test]
fn plyfs_reads_what_fuse_overlayfs_1_wrote_in_a_user_namespace() {
    isolated!(UserNamespace, plyfs_reads(fuse_overlayfs_1(), &[]));
}

#[test]
fn plyfs_reads_what_fuse_overlayfs_2_wrote() {
    needs_root!();
    let Some(program) = fuse_overlayfs_2("plyfs_reads_what_fuse_overlayfs_2_wrote") else { return };
    plyfs_reads(program, &[]);
}

#[test]
fn the_kernel_reads_what_plyfs_wrote() {
    needs_root!();
    reads_plyfs(Program::Kernel, &["redirect_dir=off", "metacopy=off", "index=off"], &[]);
}

#[test]
fn the_kernel_reads_redirects_and_metacopies_of_plyfs() {
    needs_root!();
    let options = &["redirect_dir=on", "metacopy=on"];
    reads_plyfs(Program::Kernel, &["redirect_dir=on", "metacopy=on", "index=off"], options);
}

#[test]
fn the_kernel_reads_what_plyfs_wrote_in_a_user_namespace() {
    isolated!(UserNamespace, reads_plyfs(Program::Kernel, &["userxattr"], &[]));
}

#[test]
fn fuse_overlayfs_1_reads_what_plyfs_wrote() {
    needs_root!();
    reads_plyfs(fuse_overlayfs_1(), &[], &[]);
}

#[test]
fn fuse_overlayfs_1_reads_what_plyfs_wrote_in_a_user_namespace() {
    isolated!(UserNamespace, reads_plyfs(fuse_overlayfs_1(), &[], &[]));
}

#[test]
fn fuse_overlayfs_2_reads_what_plyfs_wrote() {
    needs_root!();
    let Some(program) = fuse_overlayfs_2("fuse_overlayfs_2_reads_what_plyfs_wrote") else { return };
    reads_plyfs(program, &[], &[]);
}

/// The union that plyfs leaves behind is the tree that the same work leaves on a plain filesystem.
#[test]
fn the_union_is_what_a_plain_directory_would_be() {
    needs_root!();
    let ability = ability(&Program::Plyfs);
    let mut union = layers(Program::Plyfs, &[], ability);
    let plain = plain_copy(&union, "plain");
    for root in [&plain, &union.path("")] {
        workload::run(root, ability);
    }
    assert_alike(&plain, &union.path(""), "before the remount");
    union.remount();
    assert_alike(&plain, &union.path(""), "after the remount");
}

/// `author` does the work; plyfs must see what the author sees, and go on from there.
fn plyfs_reads(author: Program, options: &[&str]) {
    let ability = ability(&author);
    let mut union = layers(author.clone(), options, ability);
    workload::run(&union.path(""), ability);
    // Mounted anew, the author too knows only what is written.
    union.switch(author, options);
    let theirs = union.snapshot();
    union.switch(Program::Plyfs, &[]);
    assert_same(&theirs, &union.snapshot(), "what the author shows, and plyfs");

    let plain = plain_copy(&union, "plain");
    for root in [&plain, &union.path("")] {
        workload::change_everything(root);
    }
    assert_alike(&plain, &union.path(""), "after one more change to everything");
    union.remount();
    assert_alike(&plain, &union.path(""), "after one more change to everything and a remount");
}

/// plyfs does the work; `reader` must see what plyfs sees.
fn reads_plyfs(reader: Program, reader_options: &[&str], options: &[&str]) {
    let ability = ability(&reader);
    let mut union = layers(Program::Plyfs, options, ability);
    workload::run(&union.path(""), ability);
    union.remount();
    let ours = union.snapshot();
    union.switch(reader, reader_options);
    assert_same(&ours, &union.snapshot(), "what plyfs shows, and the reader");
}

fn layers(program: Program, options: &[&str], ability: Ability) -> Union {
    let [top, bottom] = workload::lowers(ability);
    // The directory in which the work makes new things is there from the start.
    let mut builder = Union::new().lower(&top).lower(&bottom).upper("d create").program(program);
    for option in options {
        builder = builder.option(*option);
    }
    builder.mount()
}

/// What can be done where this program, too, writes or reads.
fn ability(program: &Program) -> Ability {
    // Only one id is mapped in a namespace of `unshare -Urm`.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let owners = map.split_whitespace().last() != Some("1");
    Ability { owners, sound: !matches!(program, Program::Peer(_)) }
}

fn fuse_overlayfs_1() -> Program {
    Program::Peer(PathBuf::from("/usr/bin/fuse-overlayfs"))
}

fn fuse_overlayfs_2(test: &str) -> Option<Program> {
    let path = std::env::var_os("PLYFS_PEER_FUSE_OVERLAYFS_2");
    if path.is_none() {
        skip(test, "PLYFS_PEER_FUSE_OVERLAYFS_2 does not name a fuse-overlayfs 2.0");
    }
    path.map(|path| Program::Peer(PathBuf::from(path)))
}

/// The union as it is now, on the filesystem of the scratch directory.
fn plain_copy(union: &Union, name: &str) -> PathBuf {
    let plain = union.scratch().join(name);
    let status = Command::new("cp").arg("-a").arg(union.path("")).arg(&plain).status().unwrap();
    assert!(status.success(), "cp -a: {status}");
    plain
}

/// Two trees on which the same work was done at different times.
fn assert_alike(plain: &Path, union: &Path, what: &str) {
    let [plain, union] = [plain, union].map(|root| Snapshot::of(root).without(&[Field::Mtime]));
    assert_same(&plain, &union, what);
}
