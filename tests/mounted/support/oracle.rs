//! A plain directory as the judge: the same operations on the same tree must have the same results.

use std::path::Path;

use super::scratch::Scratch;
use super::snapshot::{Field, Snapshot, assert_same};
use super::tree;
use super::union::{Builder, Union};

/// Runs `operations` on the tree `text` in a plain directory, then in unions that hold that tree in
/// the lower layer, in the upper layer, in one layer under a layer with the same directories, and in
/// the lower layer of a union that writes whiteouts as `.wh.` files.
///
/// Fails unless the returned observations and the trees are alike, and still after a remount.
pub fn same_as_plain(text: &str, operations: impl Fn(&Path) -> String) {
    same_as_plain_without(&[], text, operations);
}

/// As [`same_as_plain`], not looking at some of the fields.
pub fn same_as_plain_without(fields: &[Field], text: &str, operations: impl Fn(&Path) -> String) {
    let scratch = Scratch::new();
    let plain = scratch.dir("plain");
    tree::make(&plain, text);
    let expected = operations(&plain);
    let tree = Snapshot::of(&plain).without(&[Field::Mtime]).without(fields);
    for (place, builder) in places(text) {
        let mut union = builder.mount();
        let observed = operations(&union.path(""));
        let lines = expected.lines().zip(observed.lines()).filter(|(a, b)| a != b);
        let wrong: Vec<_> = lines.map(|(a, b)| format!("expected {a}\n    seen {b}")).collect();
        assert!(expected == observed, "the tree being in {place}:\n{}", wrong.join("\n"));
        let look = |union: &Union| union.snapshot().without(&[Field::Mtime]).without(fields);
        let now = look(&union);
        assert_same(&tree, &now, &format!("plain directory and union, the tree being in {place}"));
        union.remount();
        assert_same(&now, &look(&union), &format!("remount, the tree being in {place}"));
    }
}

/// The same tree in different places of the stack.
fn places(text: &str) -> [(&'static str, Builder); 4] {
    let directories: Vec<_> = text.lines().filter(|line| line.starts_with("d ")).collect();
    let names = ("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1");
    [
        ("the lower layer", Union::new().lower(text)),
        ("the upper layer", Union::new().lower("").upper(text)),
        ("a layer under others", Union::new().lower(&directories.join("\n")).lower(text)),
        (
            "the lower layer and whiteouts being names",
            Union::new().environment(names.0, names.1).lower(text),
        ),
    ]
}
