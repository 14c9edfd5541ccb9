//! One copy-up that many threads ask for at once.

use std::fs;
use std::sync::Barrier;

use plyfs::overlay::{NodeId, Overlay};

use crate::stage::{Stage, lookup, write_file};

/// How many threads change one file at once; each of them has a range of its own.
const WRITERS: usize = 8;
/// Bytes of a file: more than one copy step, so that the others come while the data is moving.
const LENGTH: usize = 1 << 20;
const RANGE: usize = LENGTH / WRITERS;
/// Files for one run.
const FILES: usize = 16;
/// Directories, one inside the other.
const DEPTH: usize = 6;

fn content(lower: u8, writers: std::ops::Range<usize>) -> Vec<u8> {
    let mut content = vec![lower; LENGTH];
    for writer in writers {
        content[writer * RANGE..][..RANGE].fill(b'0' + writer as u8);
    }
    content
}

fn read_all(union: &Overlay, node: NodeId) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH + 1];
    let length = union.read(node, 0, &mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

/// Lower files, each of which has all these names.
fn stage(names: impl Fn(usize) -> Vec<String>) -> Stage {
    Stage::new(|lower| {
        for file in 0..FILES {
            let names = names(file);
            fs::write(lower.join(&names[0]), content(b'l', 0..0)).unwrap();
            for name in &names[1..] {
                fs::hard_link(lower.join(&names[0]), lower.join(name)).unwrap();
            }
        }
    })
}

/// Has every file changed by all writers at once, each by one of its names and while two others read it.
fn change_all(union: &Overlay, names: impl Fn(usize) -> Vec<String>) {
    for file in 0..FILES {
        let names = names(file);
        let all_there = Barrier::new(WRITERS + 2);
        std::thread::scope(|scope| {
            for thread in 0..WRITERS + 2 {
                let (name, all_there) = (&names[thread % names.len()], &all_there);
                scope.spawn(move || {
                    let node = lookup(union, NodeId::ROOT, name).unwrap().node;
                    all_there.wait();
                    if thread < WRITERS {
                        let own = [b'0' + thread as u8; RANGE];
                        let offset = (thread * RANGE) as u64;
                        assert_eq!(union.write(node, offset, &own, None), Ok(RANGE));
                    } else {
                        for _ in 0..5 {
                            expect_whole(&read_all(union, node));
                        }
                    }
                    union.forget(node, 1);
                });
            }
        });
        for name in &names {
            let node = lookup(union, NodeId::ROOT, name).unwrap().node;
            assert!(read_all(union, node) == content(b'l', 0..WRITERS), "{name}");
            union.forget(node, 1);
        }
    }
}

/// Every byte is that of the lower file or of its writer, and none is missing.
fn expect_whole(found: &[u8]) {
    assert_eq!(found.len(), LENGTH);
    for (writer, range) in found.chunks(RANGE).enumerate() {
        let known = |byte: &u8| *byte == b'l' || *byte == b'0' + writer as u8;
        assert!(range.iter().all(known), "in the range of writer {writer}");
    }
}

fn expect_copied_once(union: &Overlay) {
    let figures = union.figures();
    let copied = (figures.copy_ups, figures.metacopies, figures.copied_bytes);
    assert_eq!(copied, (FILES as u64, 0, (FILES * LENGTH) as u64));
}

#[test]
fn a_file_that_eight_write_to_is_copied_up_once() {
    let names = |file| vec![format!("f{file}")];
    let stage = stage(names);
    let union = stage.open();
    change_all(&union, names);
    expect_copied_once(&union);
}

#[test]
fn a_file_that_eight_write_to_by_four_names_is_copied_up_once() {
    let names = |file| (0..4).map(|name| format!("f{file}-{name}")).collect();
    let stage = stage(names);
    let union = stage.open();
    change_all(&union, names);
    expect_copied_once(&union);
}

#[test]
fn directories_in_which_eight_make_files_are_copied_up_once() {
    let stage = Stage::new(|lower| {
        let dirs: Vec<_> = (0..DEPTH).map(|depth| depth.to_string()).collect();
        fs::create_dir_all(lower.join(dirs.join("/"))).unwrap();
    });
    let union = stage.open();
    let mut deepest = NodeId::ROOT;
    for depth in 0..DEPTH {
        deepest = lookup(&union, deepest, &depth.to_string()).unwrap().node;
    }
    let all_there = Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (union, all_there) = (&union, &all_there);
            scope.spawn(move || {
                all_there.wait();
                write_file(union, deepest, &format!("new-{writer}"), b"new").unwrap();
            });
        }
    });
    assert_eq!(union.figures().copy_ups, DEPTH as u64);
    for writer in 0..WRITERS {
        assert!(lookup(&union, deepest, &format!("new-{writer}")).is_some());
    }
}
