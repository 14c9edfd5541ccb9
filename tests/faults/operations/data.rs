//! Changes of data.

use std::ffi::OsStr;

use plyfs::overlay::{Allocate, Caller, SetAttr};

use super::scenarios;
use crate::scenario::{Act, NOTHING, Scenario};
use crate::union::{Answer, ROOT, Union, shown};

/// An upper layer as the kernel writes it for a change of attributes with `metacopy=on`: as long as the lower file,
/// and without its data.
pub const METACOPY: &str = r#"
f d/file text="             " mode=0600 trusted.overlay.metacopy=""
"#;

/// One name of a hard link that an earlier union without an index has changed.
pub const SPLIT: &str = "f links/first text=split";

pub const APPEND_TO_A_LINK: Act = |u| {
    let node = u.find("links/second");
    u.overlay.write(node, 9, b" and more", None)?;
    let long_ago = plyfs::sys::Time { sec: 1_000_000_030, nsec: 0 };
    let mtime = Some(plyfs::sys::object::NewTime::At(long_ago));
    u.overlay.set_attr(ROOT, node, &SetAttr { mtime, ..SetAttr::default() })?;
    Ok(String::new())
};

const WRITE: Act = |u| write(u, None);
const TRUNCATE: Act = |u| truncate(u, ROOT, 3);
const STRANGER: Caller = Caller { uid: 1000, gid: 1000, thread: 0 };

/// The nodes that an unlinked file has had, when its name is gone.
const UNLINK: Act = |u| u.overlay.unlink(u.nodes[1], OsStr::new("file")).map(|()| String::new());

fn write(union: &Union, unprivileged: Option<Caller>) -> Answer<String> {
    union.overlay.write(union.nodes[0], 2, b"WRITTEN", unprivileged).map(|count| count.to_string())
}

fn truncate(union: &Union, caller: Caller, size: u64) -> Answer<String> {
    let change = SetAttr { size: Some(size), ..SetAttr::default() };
    union.overlay.set_attr(caller, union.nodes[0], &change).map(|attr| shown(&attr))
}

scenarios! {
    write_to_a_lower_file: Scenario { nodes: &["d/file"], act: WRITE, ..NOTHING };
    write_to_an_upper_file: Scenario {
        upper: "f d/file text=upper",
        nodes: &["d/file"],
        act: WRITE,
        ..NOTHING
    };
    write_deep_in_lower_directories: Scenario { nodes: &["a/b/c/file"], act: WRITE, ..NOTHING };
    write_to_a_lower_file_as_a_stranger: Scenario {
        nodes: &["d/other"],
        act: |u| write(u, Some(STRANGER)),
        strips: true,
        ..NOTHING
    };
    write_to_an_upper_file_as_a_stranger: Scenario {
        upper: "f d/other text=upper mode=6711",
        nodes: &["d/other"],
        act: |u| write(u, Some(STRANGER)),
        strips: true,
        ..NOTHING
    };
    write_to_a_lower_hard_link: Scenario {
        nodes: &["links/second", "links/first"],
        act: WRITE,
        ..NOTHING
    };
    write_to_a_lower_hard_link_that_is_not_known_by_its_other_name: Scenario {
        nodes: &["links/second"],
        act: WRITE,
        ..NOTHING
    };
    write_to_the_other_name_of_a_changed_hard_link: Scenario {
        earlier: Some(APPEND_TO_A_LINK),
        nodes: &["links/first"],
        act: WRITE,
        ..NOTHING
    };
    write_to_one_half_of_a_split_hard_link: Scenario {
        upper: SPLIT,
        nodes: &["links/second"],
        act: WRITE,
        ..NOTHING
    };
    write_to_a_metacopy: Scenario { upper: METACOPY, nodes: &["d/file"], act: WRITE, ..NOTHING };
    truncate_a_metacopy: Scenario { upper: METACOPY, nodes: &["d/file"], act: TRUNCATE, ..NOTHING };
    truncate_a_lower_file: Scenario { nodes: &["d/file"], act: TRUNCATE, ..NOTHING };
    truncate_an_upper_file: Scenario {
        upper: "f d/file text=upper",
        nodes: &["d/file"],
        act: TRUNCATE,
        ..NOTHING
    };
    truncate_a_lower_file_as_a_stranger: Scenario {
        nodes: &["d/other"],
        act: |u| truncate(u, STRANGER, 1),
        strips: true,
        ..NOTHING
    };
    truncate_an_upper_file_as_a_stranger: Scenario {
        upper: "f d/other text=upper mode=6711",
        nodes: &["d/other"],
        act: |u| truncate(u, STRANGER, 1),
        strips: true,
        ..NOTHING
    };
    extend_a_lower_file: Scenario {
        nodes: &["d/file"],
        act: |u| truncate(u, ROOT, 1 << 20),
        ..NOTHING
    };
    allocate_in_a_lower_file: Scenario {
        nodes: &["d/file"],
        act: |u| u.overlay.allocate(u.nodes[0], Allocate(0), 0, 100).map(|()| String::new()),
        ..NOTHING
    };
    copy_from_a_lower_file_to_another: Scenario {
        // Elsewhere it is the caller, or his kernel, who reads and writes.
        grounds: &[crate::ground::Ground::Full],
        nodes: &["d/file", "d/other"],
        act: |u| u.overlay.copy_range(u.nodes[0], 0, u.nodes[1], 1, 5).map(|count| count.to_string()),
        ..NOTHING
    };
    prepare_a_lower_file_for_writing: Scenario {
        nodes: &["d/file"],
        act: |u| u.overlay.prepare_write(u.nodes[0], false).map(|()| String::new()),
        ..NOTHING
    };
    write_to_an_unlinked_lower_file: Scenario {
        nodes: &["d/file", "d"],
        before: Some(UNLINK),
        act: WRITE,
        ..NOTHING
    };
    write_to_an_unlinked_upper_file: Scenario {
        upper: "f d/file text=upper",
        nodes: &["d/file", "d"],
        before: Some(UNLINK),
        act: WRITE,
        ..NOTHING
    };
    write_to_a_lower_hard_link_without_a_name: Scenario {
        nodes: &["links/second", "links"],
        before: Some(|u| u.overlay.unlink(u.nodes[1], OsStr::new("second")).map(|()| String::new())),
        act: WRITE,
        ..NOTHING
    };
    sync_a_changed_file: Scenario {
        nodes: &["d/file"],
        before: Some(WRITE),
        act: |u| u.overlay.sync(u.nodes[0], false).map(|()| String::new()),
        ..NOTHING
    };
    sync_the_data_of_an_upper_file: Scenario {
        upper: "f d/file text=upper",
        nodes: &["d/file"],
        act: |u| u.overlay.sync(u.nodes[0], true).map(|()| String::new()),
        ..NOTHING
    };
    sync_a_directory: Scenario {
        upper: "d d",
        nodes: &["d"],
        act: |u| u.overlay.sync(u.nodes[0], false).map(|()| String::new()),
        ..NOTHING
    };
}
