//! A lower layer whose owner exchanges two files while one of them is copied up: the copy has attributes and data of
//! one of them, never the rights of the one with the data of the other.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;

use plyfs::overlay::{Config, NodeId, Overlay, SetAttr};
use plyfs::sys::object::NewTime;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::layers::{Lowers, Uppers};
use crate::scenario::{NOTHING, Scenario};
use crate::syscalls::{Answer, Call, watch};
use crate::union::ROOT;

const FILES: Scenario = Scenario {
    lowers: [
        "f d/one text=one mode=0600 user.is=one\nf d/other text=other mode=4711 own=3:4 user.is=other",
        "",
    ],
    ..NOTHING
};

#[test]
fn a_copy_never_mixes_two_files_that_change_places() {
    rustix::process::umask(rustix::fs::Mode::empty());
    for nth in 0.. {
        let (lowers, uppers) = (Lowers::new(&FILES), Uppers::new(&FILES));
        let [one, other] = ["d/one", "d/other"].map(|name| lowers.paths()[0].join(name));
        let config =
            Config { lower: lowers.paths(), upper: Some(uppers.paths()), ..Config::default() };
        let overlay = Overlay::open(&config).unwrap();
        let look = |dir, name: &str| overlay.lookup(dir, OsStr::new(name)).unwrap().unwrap().node;
        let node = look(look(NodeId::ROOT, "d"), "one");
        let mut calls = 0;
        let answer = |_: &Call| {
            if calls == nth {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
            }
            calls += 1;
            Answer::Go
        };
        let touch = SetAttr { atime: Some(NewTime::Now), ..SetAttr::default() };
        let changed = watch(answer, || overlay.set_attr(ROOT, node, &touch));
        if calls <= nth {
            return;
        }
        match changed {
            Ok(_) => {}
            Err(error) => assert!(matches!(error, Errno::IO | Errno::NOENT), "{nth}: {error}"),
        }
        let copy = uppers.paths().upper.join("d/one");
        let Ok(attributes) = copy.symlink_metadata() else { continue };
        let text = fs::read_to_string(&copy).unwrap();
        let mut is = [0; 8];
        let length = rustix::fs::getxattr(&copy, "user.is", &mut is).unwrap();
        assert_eq!(text.as_bytes(), &is[..length], "exchanged at call {nth}");
        let rights = (attributes.mode() & 0o7777, attributes.uid());
        let expected = if text == "one" { (0o600, 0) } else { (0o4711, 3) };
        assert_eq!(rights, expected, "exchanged at call {nth}, {text}");
    }
}
