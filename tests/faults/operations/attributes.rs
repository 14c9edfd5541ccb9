//! Changes of attributes.

use std::ffi::OsStr;

use plyfs::overlay::{Caller, SetAttr};
use plyfs::sys::Time;
use plyfs::sys::object::NewTime;

use super::data::{METACOPY, SPLIT};
use super::scenarios;
use crate::scenario::{Act, NOTHING, Scenario};
use crate::union::{Answer, ROOT, Union, shown};

fn set(union: &Union, caller: Caller, change: SetAttr) -> Answer<String> {
    union.overlay.set_attr(caller, union.nodes[0], &change).map(|attr| shown(&attr))
}

const NO_CHANGE: SetAttr = SetAttr {
    mode: None,
    uid: None,
    gid: None,
    size: None,
    atime: None,
    mtime: None,
    collected: false,
};
const MODE: Act = |u| set(u, ROOT, SetAttr { mode: Some(0o601), ..NO_CHANGE });
const OWNER: Act = |u| set(u, ROOT, SetAttr { uid: Some(7), gid: Some(8), ..NO_CHANGE });
const TIMES: Act = |u| {
    let time = |sec| Some(NewTime::At(Time { sec, nsec: 5 }));
    set(u, ROOT, SetAttr { atime: time(20), mtime: time(30), ..NO_CHANGE })
};
const SET: Act = |u| {
    u.overlay
        .set_xattr(ROOT, u.nodes[0], OsStr::new("user.new"), b"1", false, false)
        .map(|()| String::new())
};
const SET_ACCESS_LIST: Act = |u| {
    let list =
        b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x05\0\0\0\x04\0\x05\0\xff\xff\xff\xff\
        \x10\0\x07\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
    let name = OsStr::new("system.posix_acl_access");
    u.overlay.set_xattr(ROOT, u.nodes[0], name, list, false, false).map(|()| String::new())
};

/// Stored modes do not follow access lists: see the known defects.
const PLAIN_MODES: &[crate::ground::Ground] = &[
    crate::ground::Ground::Full,
    crate::ground::Ground::NoRenameWhiteout,
    crate::ground::Ground::Plain,
    crate::ground::Ground::DotFiles,
];

scenarios! {
    change_the_mode_of_a_lower_file: Scenario { nodes: &["d/file"], act: MODE, ..NOTHING };
    change_the_mode_of_an_upper_file: Scenario {
        upper: "f d/file text=upper",
        nodes: &["d/file"],
        act: MODE,
        ..NOTHING
    };
    change_the_mode_of_a_lower_directory: Scenario { nodes: &["tree/sub"], act: MODE, ..NOTHING };
    change_the_mode_of_the_root: Scenario { nodes: &[""], act: MODE, ..NOTHING };
    change_the_mode_of_a_lower_hard_link: Scenario {
        nodes: &["links/second", "links/first"],
        act: MODE,
        ..NOTHING
    };
    change_the_mode_of_a_metacopy: Scenario { upper: METACOPY, nodes: &["d/file"], act: MODE, ..NOTHING };
    change_the_mode_of_a_fifo: Scenario { nodes: &["d/fifo"], act: MODE, ..NOTHING };
    change_the_owner_of_a_lower_file: Scenario { nodes: &["d/other"], act: OWNER, ..NOTHING };
    change_the_owner_of_an_upper_file: Scenario {
        upper: "f d/other text=upper mode=4711",
        nodes: &["d/other"],
        act: OWNER,
        ..NOTHING
    };
    change_the_owner_of_a_lower_symbolic_link: Scenario { nodes: &["d/link"], act: OWNER, ..NOTHING };
    change_the_times_of_a_lower_file: Scenario { nodes: &["d/file"], act: TIMES, ..NOTHING };
    change_the_times_of_an_upper_file: Scenario {
        upper: "f d/file text=upper",
        nodes: &["d/file"],
        act: TIMES,
        ..NOTHING
    };
    drop_set_id_bits: Scenario {
        upper: "f d/other text=upper mode=6711",
        nodes: &["d/other"],
        act: |u| set(u, Caller { uid: 1000, gid: 1000, thread: 0 }, NO_CHANGE),
        ..NOTHING
    };
    set_an_attribute_of_a_lower_file: Scenario { nodes: &["d/file"], act: SET, ..NOTHING };
    set_an_attribute_of_an_upper_file: Scenario {
        upper: "f d/file text=upper",
        nodes: &["d/file"],
        act: SET,
        ..NOTHING
    };
    set_an_attribute_of_a_lower_directory: Scenario { nodes: &["tree"], act: SET, ..NOTHING };
    set_an_attribute_of_a_metacopy: Scenario { upper: METACOPY, nodes: &["d/file"], act: SET, ..NOTHING };
    set_an_attribute_of_one_half_of_a_split_hard_link: Scenario {
        upper: SPLIT,
        nodes: &["links/second"],
        act: SET,
        ..NOTHING
    };
    remove_an_attribute_of_a_lower_file: Scenario {
        nodes: &["d/file"],
        act: |u| u.overlay.remove_xattr(u.nodes[0], OsStr::new("user.note")).map(|()| String::new()),
        ..NOTHING
    };
    set_an_access_list_of_a_lower_file: Scenario {
        grounds: PLAIN_MODES,
        nodes: &["d/other"],
        act: SET_ACCESS_LIST,
        ..NOTHING
    };
    set_an_access_list_of_a_lower_directory: Scenario {
        grounds: PLAIN_MODES,
        nodes: &["tree/sub"],
        act: SET_ACCESS_LIST,
        ..NOTHING
    };
    set_inode_flags_of_a_lower_file: Scenario {
        nodes: &["d/file"],
        // FS_NODUMP_FL
        act: |u| u.overlay.set_inode_flags(u.nodes[0], 0x40).map(|()| String::new()),
        ..NOTHING
    };
}
