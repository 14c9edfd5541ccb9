//! How often each operation waits for the disk, which is what docs/semantics.md says under "What survives a crash",
//! and opens a file.

use std::ffi::OsStr;

use plyfs::overlay::{Caller, Config, NodeId, Overlay, SetAttr, UpperDirs};

use crate::facade::Facade;
use crate::replay::WRITE_AND_WAIT;
use crate::story::steps;
use crate::support::privilege::skip;
use crate::support::{Scratch, tree};
use crate::syscalls::{Answer, watch};
use crate::volume::Kind;

const LOWER: &str = "
f a/b/c/file text=lower
f a/b/c/other text=lower
f a/b/c/third text=lower
f tree/one text=1
f tree/sub/two text=2
f links/first text=links
h links/second to=links/first
";

/// Each step with the calls that it makes to sync; `start` only has the kernel begin to write, and `settle` is what a
/// copy-up does: see `operations_sync_as_often_as_documented`.
const COSTS: &[(&str, &str)] = &[
    ("write new text", ""),
    ("fsync new", "fsync"),
    ("append new more", ""),
    ("fdatasync new", "fdatasync"),
    ("mkdir dir", ""),
    ("fsync dir", "fsync"),
    // A copy-up; its parents come up too.
    ("overwrite a/b/c/file X", "settle"),
    // Its first sync: the file and the four directories on the way to it.
    ("fdatasync a/b/c/file", "fsync fsync fsync fsync fsync"),
    ("overwrite a/b/c/file Y", ""),
    ("fdatasync a/b/c/file", "fdatasync"),
    ("chmod a/b/c/other 600", "settle"),
    ("fsync a/b/c/other", "fsync fsync"),
    ("write a/b/c/new text", ""),
    ("fsync a/b/c/new", "fsync"),
    ("unlink a/b/c/third", ""),
    ("fsync a/b/c", "fsync"),
    ("rename new a/b/c/other", ""),
    ("write new text", ""),
    ("rename new tree/one", "start"),
    ("append links/first more", "settle"),
    // With the directory of all its names that are known, and the index.
    ("fsync links/first", "fsync fsync fsync fsync"),
    // Each file in it is copied up.
    ("rename tree moved", "settle"),
    ("fsync .", "fsync"),
];

#[test]
fn operations_sync_as_often_as_documented() {
    crate::needs_root!();
    // What waits for data only is "write"; where that is not enough it is a sync.
    for (kind, settle) in [
        (Kind::Ext4, "write"),
        (Kind::Xfs, "write"),
        (Kind::Btrfs, "fsync"),
        (Kind::Tmpfs, "fsync"),
    ] {
        check_costs(kind, settle);
    }
}

fn check_costs(kind: Kind, settle: &str) {
    if !kind.is_known() {
        return skip(module_path!(), &format!("this kernel has no {kind:?}"));
    }
    let scratch = Scratch::new();
    kind.mount_empty(&scratch.dir("volume"));
    let [upper, work, lower] =
        ["volume/upper", "volume/work", "lower"].map(|name| scratch.dir(name));
    tree::make(&lower, LOWER);
    let config = |volatile| Config {
        lower: vec![lower.clone()],
        upper: Some(UpperDirs { upper: upper.clone(), work: work.clone() }),
        volatile,
        ..Config::default()
    };
    let overlay = Facade(Overlay::open(&config(false)).unwrap());
    for (text, expected) in COSTS {
        assert_eq!(syncs(&overlay, text), expected.replace("settle", settle), "{kind:?}: {text}");
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
                "sync_file_range" if call.args[3] == WRITE_AND_WAIT => calls.push("write"),
                "sync_file_range" => calls.push("start"),
                _ => {}
            }
            Answer::Go
        },
        || steps(text).iter().for_each(|step| step.perform(overlay)),
    );
    calls.join(" ")
}

#[test]
fn a_lower_file_is_read_to_its_end_by_one_call() {
    crate::needs_root!();
    let lower = Scratch::new();
    tree::make(lower.path(), "f small text=text");
    std::fs::write(lower.path().join("large"), vec![7; 1 << 20]).unwrap();
    let config = Config { lower: vec![lower.path().to_owned()], ..Config::default() };
    let overlay = Overlay::open(&config).unwrap();
    for (name, length) in [("small", 4), ("large", 1 << 20)] {
        let node = overlay.lookup(NodeId::ROOT, OsStr::new(name)).unwrap().unwrap().node;
        // Into the page cache, which somebody else may have emptied.
        let into_memory = || std::fs::read(lower.path().join(name)).unwrap();
        let mut calls = Vec::new();
        watch(
            |call| {
                if call.name.contains("read") && !call.name.starts_with("readlink") {
                    calls.push(call.name);
                }
                into_memory();
                Answer::Go
            },
            || assert_eq!(overlay.read(node, 0, &mut vec![0; 2 << 20]), Ok(length)),
        );
        assert_eq!(calls, ["preadv2"], "{name}");
    }
}

#[test]
fn a_file_is_opened_once_to_be_read() {
    crate::needs_root!();
    let scratch = Scratch::new();
    let [upper, work, lower] = ["upper", "work", "lower"].map(|name| scratch.dir(name));
    tree::make(&lower, "f below text=text");
    tree::make(&upper, "f above text=text");
    let overlay = Overlay::open(&Config {
        lower: vec![lower.clone()],
        upper: Some(UpperDirs { upper: upper.clone(), work }),
        ..Config::default()
    })
    .unwrap();
    for path in [lower.join("below"), upper.join("above")] {
        let name: &OsStr = path.file_name().unwrap();
        let node = overlay.lookup(NodeId::ROOT, name).unwrap().unwrap().node;
        let mut opened = 0;
        let read = watch(
            |call| {
                let its_name = call.paths().iter().any(|it| it.file_name() == Some(name));
                opened += u32::from(call.name.starts_with("open") && its_name);
                Answer::Go
            },
            || [0, 2].map(|offset| overlay.read(node, offset, &mut [0; 8])),
        );
        // Before it is opened, what it is is looked at by a descriptor that can do no more.
        assert_eq!((read, opened), ([Ok(4), Ok(2)], 2), "{}", path.display());
    }
}

#[test]
fn a_write_to_an_open_upper_file_is_one_system_call() {
    crate::needs_root!();
    let scratch = Scratch::new();
    let [upper, work, lower] = ["upper", "work", "lower"].map(|name| scratch.dir(name));
    tree::make(&upper, "f a text=text");
    let overlay = Overlay::open(&Config {
        lower: vec![lower],
        upper: Some(UpperDirs { upper, work }),
        ..Config::default()
    })
    .unwrap();
    let node = overlay.lookup(NodeId::ROOT, OsStr::new("a")).unwrap().unwrap().node;
    // Of a stranger the kernel says with every write that it takes set-id bits away.
    let [root, stranger] = [0, 1000].map(|id| Caller { uid: id, gid: id, thread: 0 });
    for caller in [None, Some(stranger)] {
        assert_eq!(overlay.write(node, 0, b"first", caller), Ok(5));
        let mut calls = Vec::new();
        let written = watch(
            |call| {
                calls.push(call.name);
                Answer::Go
            },
            || overlay.write(node, 5, b"second", caller),
        );
        assert_eq!((written, calls), (Ok(6), vec!["pwrite64"]), "{caller:?}");
    }
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    overlay.set_attr(root, node, &mode(0o4755)).unwrap();
    assert_eq!(overlay.write(node, 0, b"third", Some(stranger)), Ok(5));
    assert_eq!(overlay.attr(node).unwrap().mode & 0o7777, 0o755, "what was added since");
}
