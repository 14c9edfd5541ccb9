//! New names.

use std::ffi::OsStr;

use plyfs::overlay::Caller;
use rustix::fs::makedev;

use super::scenarios;
use crate::scenario::{Act, NOTHING, Scenario};
use crate::union::{ROOT, Union};

const STRANGER: Caller = Caller { uid: 1000, gid: 1000, thread: 0 };

const FILE: Act = |u| make(u, 0o100_644, 0, "new");
const DIRECTORY: Act =
    |u| Ok(u.enter(u.overlay.make_dir(ROOT, u.nodes[0], OsStr::new("new"), 0o755, 0o022)?));

fn make(union: &Union, mode: u32, rdev: u64, name: &str) -> crate::union::Answer<String> {
    let name = OsStr::new(name);
    Ok(union.enter(union.overlay.make_node(ROOT, union.nodes[0], name, mode, 0o022, rdev)?))
}

scenarios! {
    create_a_file_in_the_root: Scenario { nodes: &[""], act: FILE, ..NOTHING };
    create_a_file_in_a_lower_directory: Scenario { nodes: &["d"], act: FILE, ..NOTHING };
    create_a_file_in_an_upper_directory: Scenario { upper: "d new", nodes: &["new"], act: FILE, ..NOTHING };
    create_a_file_deep_in_lower_directories: Scenario { nodes: &["a/b/c"], act: FILE, ..NOTHING };
    create_a_file_of_another_owner: Scenario {
        nodes: &["d"],
        act: |u| Ok(u.enter(u.overlay.create(STRANGER, u.nodes[0], OsStr::new("new"), 0o4755, 0)?)),
        ..NOTHING
    };
    create_a_file_where_one_was_deleted: Scenario {
        upper: "w d/new",
        lowers: ["f d/new text=old", ""],
        nodes: &["d"],
        act: FILE,
        ..NOTHING
    };
    create_a_file_where_this_mount_deleted_one: Scenario {
        lowers: ["f d/new text=old", ""],
        nodes: &["d"],
        before: Some(|u| u.overlay.unlink(u.nodes[0], OsStr::new("new")).map(|()| String::new())),
        act: FILE,
        ..NOTHING
    };
    create_a_file_called_like_a_mark: Scenario {
        grounds: &[crate::ground::Ground::Full, crate::ground::Ground::Plain],
        upper: "f d/.wh.file",
        nodes: &["d"],
        act: |u| make(u, 0o100_644, 0, ".wh.file"),
        ..NOTHING
    };
    create_a_file_under_a_default_access_list: Scenario {
        nodes: &["d"],
        before: Some(|u| {
            let list = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x05\0\0\0\x04\0\x05\0\xff\xff\xff\xff\
                \x10\0\x07\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
            let name = OsStr::new("system.posix_acl_default");
            u.overlay.set_xattr(ROOT, u.nodes[0], name, list, false, false).map(|()| String::new())
        }),
        act: |u| Ok(u.enter(u.overlay.create(STRANGER, u.nodes[0], OsStr::new("new"), 0o664, 0o022)?)),
        ..NOTHING
    };
    make_a_fifo: Scenario { nodes: &["d"], act: |u| make(u, 0o010_640, 0, "new"), ..NOTHING };
    make_a_device: Scenario {
        nodes: &["d"],
        act: |u| make(u, 0o020_640, makedev(1, 3), "new"),
        ..NOTHING
    };
    make_a_fifo_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        nodes: &["d"],
        act: |u| make(u, 0o010_640, 0, "file"),
        ..NOTHING
    };
    make_a_symbolic_link: Scenario {
        nodes: &["d"],
        act: |u| Ok(u.enter(u.overlay.symlink(ROOT, u.nodes[0], OsStr::new("new"), OsStr::new("to"))?)),
        ..NOTHING
    };
    make_a_symbolic_link_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        nodes: &["d"],
        act: |u| Ok(u.enter(u.overlay.symlink(STRANGER, u.nodes[0], OsStr::new("file"), OsStr::new("to"))?)),
        ..NOTHING
    };
    make_a_directory: Scenario { nodes: &["d"], act: DIRECTORY, ..NOTHING };
    make_a_directory_in_the_root: Scenario { nodes: &[""], act: DIRECTORY, ..NOTHING };
    make_a_directory_where_one_was_deleted: Scenario {
        upper: "w gone",
        nodes: &[""],
        act: |u| Ok(u.enter(u.overlay.make_dir(STRANGER, u.nodes[0], OsStr::new("gone"), 0o755, 0o022)?)),
        ..NOTHING
    };
    link_a_lower_file: Scenario {
        nodes: &["d/file", "d"],
        act: |u| Ok(u.enter(u.overlay.link(u.nodes[0], u.nodes[1], OsStr::new("new"))?)),
        ..NOTHING
    };
    link_an_upper_file: Scenario {
        upper: "f d/file text=upper",
        nodes: &["d/file", ""],
        act: |u| Ok(u.enter(u.overlay.link(u.nodes[0], u.nodes[1], OsStr::new("new"))?)),
        ..NOTHING
    };
    link_a_lower_symbolic_link: Scenario {
        nodes: &["d/link", "d"],
        act: |u| Ok(u.enter(u.overlay.link(u.nodes[0], u.nodes[1], OsStr::new("new"))?)),
        ..NOTHING
    };
    link_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        nodes: &["d/other", "d"],
        act: |u| Ok(u.enter(u.overlay.link(u.nodes[0], u.nodes[1], OsStr::new("file"))?)),
        ..NOTHING
    };
    link_a_lower_hard_link: Scenario {
        nodes: &["links/second", "d"],
        act: |u| Ok(u.enter(u.overlay.link(u.nodes[0], u.nodes[1], OsStr::new("new"))?)),
        ..NOTHING
    };
    link_the_other_name_of_a_changed_hard_link: Scenario {
        earlier: Some(super::data::APPEND_TO_A_LINK),
        nodes: &["links/first", "d"],
        act: |u| Ok(u.enter(u.overlay.link(u.nodes[0], u.nodes[1], OsStr::new("new"))?)),
        ..NOTHING
    };
}
