//! Calls that fail while a union is opened. One that fails once says nothing about what the filesystem can do.

use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt;

use plyfs::overlay::{Config, NodeId, Overlay};
use rustix::io::Errno;

use crate::layers::{Lowers, Uppers};
use crate::scenario::NOTHING;
use crate::syscalls::{Answer, Call, watch};

/// A union is opened with the call of index `nth` failing; the error that it gives, and the calls that there were.
fn open(config: &Config, nth: usize, errno: Errno) -> (Result<Overlay, String>, Vec<String>) {
    let mut calls = Vec::new();
    let answer = |call: &Call| {
        calls.push(call.to_string());
        if calls.len() == nth + 1 { Answer::Fail(errno) } else { Answer::Go }
    };
    let opened = watch(answer, || Overlay::open(config).map_err(|error| error.to_string()));
    (opened, calls)
}

/// Deletes a file of the lower layers.
fn delete(overlay: &Overlay) -> Result<(), Errno> {
    let dir = overlay.lookup(NodeId::ROOT, OsStr::new("d"))?.ok_or(Errno::NOENT)?.node;
    overlay.unlink(dir, OsStr::new("file"))
}

#[test]
fn a_call_that_fails_once_while_a_union_is_opened_decides_nothing() {
    let lowers = Lowers::new(&NOTHING);
    for used in [false, true] {
        for errno in [Errno::IO, Errno::MFILE, Errno::NOSPC] {
            for nth in 0.. {
                let uppers = Uppers::new(&NOTHING);
                let config = Config {
                    lower: lowers.paths(),
                    upper: Some(uppers.paths()),
                    ..Config::default()
                };
                if used {
                    drop(Overlay::open(&config).unwrap());
                }
                let (opened, calls) = open(&config, nth, errno);
                if calls.len() <= nth {
                    break;
                }
                let overlay = opened.or_else(|line| {
                    assert!(!line.contains('\n'), "{line}");
                    Overlay::open(&config)
                });
                let overlay = overlay.unwrap_or_else(|error| panic!("then {error}"));
                delete(&overlay).unwrap();
                let whiteout = uppers.paths().upper.join("d/file").symlink_metadata();
                assert!(
                    whiteout.is_ok_and(|found| found.file_type().is_char_device()),
                    "{errno:?} at {}: another form of whiteouts (used before: {used})",
                    calls[nth]
                );
            }
        }
    }
    assert_eq!(lowers.changes(), "");
}
