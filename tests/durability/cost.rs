//! How often each operation waits for the disk: what docs/semantics.md says under "What survives a crash".

use plyfs::overlay::{Config, Overlay, UpperDirs};

use crate::facade::Facade;
use crate::story::steps;
use crate::support::{Scratch, tree};
use crate::syscalls::{Answer, watch};

const LOWER: &str = "
f a/b/c/file text=lower
f a/b/c/other text=lower
f a/b/c/third text=lower
f tree/one text=1
f tree/sub/two text=2
f links/first text=links
h links/second to=links/first
";

/// Each step with the calls that it makes to sync; `start` only has the kernel begin to write.
const COSTS: &[(&str, &str)] = &[
    ("write new text", ""),
    ("fsync new", "fsync"),
    ("append new more", ""),
    ("fdatasync new", "fdatasync"),
    ("mkdir dir", ""),
    ("fsync dir", "fsync"),
    // A copy-up; its parents come up too.
    ("overwrite a/b/c/file X", "fsync"),
    // Its first sync: the file and the four directories on the way to it.
    ("fdatasync a/b/c/file", "fsync fsync fsync fsync fsync"),
    ("overwrite a/b/c/file Y", ""),
    ("fdatasync a/b/c/file", "fdatasync"),
    ("chmod a/b/c/other 600", "fsync"),
    ("fsync a/b/c/other", "fsync fsync"),
    ("write a/b/c/new text", ""),
    ("fsync a/b/c/new", "fsync"),
    ("unlink a/b/c/third", ""),
    ("fsync a/b/c", "fsync"),
    ("rename new a/b/c/other", ""),
    ("write new text", ""),
    ("rename new tree/one", "start"),
    ("append links/first more", "fsync"),
    // With the directory of all its names that are known, and the index.
    ("fsync links/first", "fsync fsync fsync fsync"),
    // Each file in it is copied up.
    ("rename tree moved", "fsync"),
    ("fsync .", "fsync"),
];

#[test]
fn operations_sync_as_often_as_documented() {
    crate::needs_root!();
    let scratch = Scratch::new();
    let [upper, work, lower] = ["upper", "work", "lower"].map(|name| scratch.dir(name));
    tree::make(&lower, LOWER);
    let config = |volatile| Config {
        lower: vec![lower.clone()],
        upper: Some(UpperDirs { upper: upper.clone(), work: work.clone() }),
        volatile,
        ..Config::default()
    };
    let overlay = Facade(Overlay::open(&config(false)).unwrap());
    for (text, expected) in COSTS {
        assert_eq!(syncs(&overlay, text), *expected, "{text}");
    }
    drop(overlay);
    let overlay = Facade(Overlay::open(&config(true)).unwrap());
    for text in ["append links/second volatile", "fsync links/second", "chmod a 700", "fsync a"] {
        assert_eq!(syncs(&overlay, text), "", "volatile: {text}");
    }
}

/// The calls that a step makes to get something onto the disk.
fn syncs(overlay: &Facade, text: &str) -> String {
    let mut calls = Vec::new();
    watch(
        |call| {
            match call.name {
                "fsync" | "fdatasync" | "syncfs" | "sync" => calls.push(call.name),
                "sync_file_range" => calls.push("start"),
                _ => {}
            }
            Answer::Go
        },
        || steps(text).iter().for_each(|step| step.perform(overlay)),
    );
    calls.join(" ")
}
