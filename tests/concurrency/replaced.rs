//! Files that are replaced, moved and deleted while others have them open.

use std::ffi::OsStr;
use std::fs;

use plyfs::overlay::NodeId;

use crate::stage::{Stage, at_once, lookup, read, rename, write_file};

/// Every content is as long as this and of one letter.
const LENGTH: usize = 3000;

/// Who has a file open reads that file, whoever takes its name away in the same moment.
#[test]
fn open_files_are_read_whole_while_others_take_their_names() {
    let stage = Stage::new(|lower| {
        for name in ["0", "1", "2"] {
            fs::write(lower.join(name), vec![b'l'; LENGTH]).unwrap();
        }
    });
    let union = stage.open();
    at_once(8, |thread, goes_on| {
        let mut round = 0;
        while goes_on() {
            round += 1;
            let name = ((thread + round) % 3).to_string();
            if thread < 3 {
                // Replaces, as editors and package managers do; each name has one who does.
                let name = thread.to_string();
                let new = format!("new-{name}");
                let letter = b'a' + (round % 26) as u8;
                write_file(&union, NodeId::ROOT, &new, &vec![letter; LENGTH]).unwrap();
                rename(&union, &new, &name).unwrap();
                if round % 5 == 0 {
                    union.unlink(NodeId::ROOT, OsStr::new(&name)).unwrap();
                }
            } else if thread == 7 {
                // Descriptors of those in use are closed.
                crowd_out(&union);
            } else if let Some(entry) = lookup(&union, NodeId::ROOT, &name) {
                let first = read(&union, entry.node).unwrap();
                // (A new file has no content for a moment, and no name that is looked up here.)
                assert_eq!(first.len(), LENGTH, "{name}");
                assert!(first.iter().all(|byte| *byte == first[0]), "{name}");
                for _ in 0..10 {
                    let attr = union.attr(entry.node).unwrap();
                    assert_eq!((attr.ino, attr.size), (entry.attr.ino, LENGTH as u64), "{name}");
                    assert!(read(&union, entry.node).unwrap() == first, "{name} has changed");
                }
                union.forget(entry.node, 1);
            }
        }
    });
}

/// Reads so many other files that every descriptor is closed.
fn crowd_out(union: &plyfs::overlay::Overlay) {
    for number in 0..50 {
        let name = format!("other-{number}");
        match lookup(union, NodeId::ROOT, &name) {
            Some(entry) => {
                read(union, entry.node).unwrap();
                union.forget(entry.node, 1);
            }
            None => write_file(union, NodeId::ROOT, &name, b"other").unwrap(),
        }
    }
}
