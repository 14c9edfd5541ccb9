//! Upper layers move between programs: what one wrote, the next one reads, completely.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::privilege::skip;
use crate::support::{Field, Program, Snapshot, Union, assert_same};
use crate::workload::{self, Ability};
use crate::{isolated, needs_root};

/// What the kernel writes and reads when it may use every mark it has.
const EVERY_MARK: &[&str] = &["redirect_dir=on", "metacopy=on", "index=on"];

const NO_MARK: &[&str] = &["redirect_dir=off", "metacopy=off", "index=off"];

/// A difference between two trees that is as it should be.
struct Exception {
    /// Part of its line in the list of differences.
    line: &'static str,
    reason: &'static str,
}

/// Marks in the `user` namespace are for user namespaces: the kernel mounting as root takes them for attributes of the
/// user, and plyfs writes them so that the layer can move there.
const USER_MARKS: Exception = Exception {
    line: "\"user.overlay.opaque\"",
    reason: "to the kernel as root this is an attribute like any other",
};

/// The other name of this file was changed, or deleted, by somebody who keeps no index. How many names are left is not
/// written anywhere.
const CHANGED_LINK: Exception = Exception {
    line: "\"links/fourth\": Nlink: Some(\"1\") and Some(\"2\")",
    reason: "the other name was copied up without a note of it",
};
const DELETED_LINK: Exception = Exception {
    line: "\"links/sixth\": Nlink: Some(\"1\") and Some(\"2\")",
    reason: "the other name was deleted without a note that a reader knows of",
};

const NO_INDEX: Exception = Exception {
    line: "\"links/",
    reason: "a lower name of a file that was changed under another is in the index only",
};

const REVEALED: Exception = Exception {
    line: "\"recreate/dir/sub/old\": only in the second",
    reason: "fuse-overlayfs 2.0 shows what lies below a directory that is in an opaque one",
};

#[test]
fn plyfs_reads_what_the_plain_kernel_wrote() {
    needs_root!();
    plyfs_reads(Program::Kernel, NO_MARK, &[USER_MARKS], &[CHANGED_LINK, DELETED_LINK]);
}

#[test]
fn plyfs_reads_every_mark_of_the_kernel() {
    needs_root!();
    plyfs_reads(Program::Kernel, EVERY_MARK, &[USER_MARKS], &[]);
}

#[test]
fn plyfs_reads_what_the_kernel_wrote_in_a_user_namespace() {
    isolated!(
        UserNamespace,
        plyfs_reads(Program::Kernel, &["userxattr"], &[], &[CHANGED_LINK, DELETED_LINK])
    );
}

#[test]
fn plyfs_reads_what_fuse_overlayfs_1_wrote() {
    needs_root!();
    plyfs_reads(fuse_overlayfs_1(), &[], &[CHANGED_LINK], &[CHANGED_LINK]);
}

#[test]
fn plyfs_reads_what_fuse_overlayfs_1_wrote_in_a_user_namespace() {
    isolated!(
        UserNamespace,
        plyfs_reads(fuse_overlayfs_1(), &[], &[CHANGED_LINK], &[CHANGED_LINK])
    );
}

#[test]
fn plyfs_reads_what_fuse_overlayfs_2_wrote() {
    needs_root!();
    let Some(program) = fuse_overlayfs_2("plyfs_reads_what_fuse_overlayfs_2_wrote") else { return };
    let revealed = Exception { line: "\"recreate/dir/sub/old\": only in the first", ..REVEALED };
    plyfs_reads(program, &[], &[revealed], &[CHANGED_LINK, DELETED_LINK]);
}

#[test]
fn the_kernel_reads_what_plyfs_wrote() {
    needs_root!();
    let options = &["redirect_dir=off", "metacopy=off", "index=on"];
    reads_plyfs(Program::Kernel, options, &[], &[USER_MARKS, DELETED_LINK]);
}

#[test]
fn the_kernel_reads_redirects_and_metacopies_of_plyfs() {
    needs_root!();
    let options = &["redirect_dir=on", "metacopy=on"];
    reads_plyfs(Program::Kernel, EVERY_MARK, options, &[USER_MARKS, DELETED_LINK]);
}

#[test]
fn the_kernel_reads_what_plyfs_wrote_in_a_user_namespace() {
    isolated!(UserNamespace, reads_plyfs(Program::Kernel, &["userxattr"], &[], &[NO_INDEX]));
}

#[test]
fn fuse_overlayfs_1_reads_what_plyfs_wrote() {
    needs_root!();
    reads_plyfs(fuse_overlayfs_1(), &[], &[], &[NO_INDEX]);
}

#[test]
fn fuse_overlayfs_1_reads_what_plyfs_wrote_in_a_user_namespace() {
    isolated!(UserNamespace, reads_plyfs(fuse_overlayfs_1(), &[], &[], &[NO_INDEX]));
}

#[test]
fn fuse_overlayfs_2_reads_what_plyfs_wrote() {
    needs_root!();
    let Some(program) = fuse_overlayfs_2("fuse_overlayfs_2_reads_what_plyfs_wrote") else { return };
    reads_plyfs(program, &[], &[], &[NO_INDEX, REVEALED]);
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
    assert_same(&timeless(&plain), &timeless(union.path("")), "before the remount");
    union.remount();
    assert_same(&timeless(&plain), &timeless(union.path("")), "after the remount");
}

/// `author` does the work; plyfs must see what the author sees, and go on from there.
fn plyfs_reads(
    author: Program,
    options: &[&str],
    exceptions: &[Exception],
    exceptions_afterwards: &[Exception],
) {
    let ability = ability(&author);
    let mut union = layers(author.clone(), options, ability);
    workload::run(&union.path(""), ability);
    // Mounted anew, the author too knows only what is written.
    union.switch(author, options);
    let theirs = union.snapshot();
    union.switch(Program::Plyfs, &[]);
    assert_same_except(&theirs, &union.snapshot(), exceptions, "what the author shows, and plyfs");

    let plain = plain_copy(&union, "plain");
    for root in [&plain, &union.path("")] {
        workload::change_everything(root);
    }
    let compare = |union: &Union, what| {
        let [plain, union] = [&plain, &union.path("")].map(timeless);
        assert_same_except(&plain, &union, exceptions_afterwards, what);
    };
    compare(&union, "a plain directory and the union, after one more change to everything");
    union.remount();
    compare(&union, "a plain directory and the union, after one more change and a remount");
}

/// plyfs does the work; `reader` must see what plyfs sees.
fn reads_plyfs(
    reader: Program,
    reader_options: &[&str],
    options: &[&str],
    exceptions: &[Exception],
) {
    let ability = ability(&reader);
    let mut union = layers(Program::Plyfs, options, ability);
    workload::run(&union.path(""), ability);
    union.remount();
    let ours = union.snapshot();
    union.switch(reader, reader_options);
    assert_same_except(&ours, &union.snapshot(), exceptions, "what plyfs shows, and the reader");
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

/// A tree on which the same work is done as on another, at a different time.
fn timeless(root: impl AsRef<Path>) -> Snapshot {
    Snapshot::of(root.as_ref()).without(&[Field::Mtime])
}

/// Panics unless the trees differ in what is excepted, and in nothing else.
fn assert_same_except(first: &Snapshot, second: &Snapshot, exceptions: &[Exception], what: &str) {
    let difference = first.difference(second);
    let unexpected: Vec<_> = difference
        .lines()
        .filter(|line| !exceptions.iter().any(|exception| line.contains(exception.line)))
        .collect();
    assert!(unexpected.is_empty(), "{what}:\n{}", unexpected.join("\n"));
    for Exception { line, reason } in exceptions {
        assert!(difference.contains(line), "{what}: no longer different in {line} ({reason})");
    }
}
