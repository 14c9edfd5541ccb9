//! Deleting.

use std::ffi::OsStr;

use super::data::APPEND_TO_A_LINK;
use super::scenarios;
use crate::ground::Ground;
use crate::scenario::{Act, NOTHING, Scenario};

const UNLINK_FILE: Act = |u| unlink(u, "file");

fn unlink(union: &crate::union::Union, name: &str) -> crate::union::Answer<String> {
    union.overlay.unlink(union.nodes[0], OsStr::new(name)).map(|()| String::new())
}

fn rmdir(union: &crate::union::Union, name: &str) -> crate::union::Answer<String> {
    union.overlay.rmdir(union.nodes[0], OsStr::new(name)).map(|()| String::new())
}

scenarios! {
    delete_a_lower_file: Scenario { nodes: &["d", "d/file"], act: UNLINK_FILE, ..NOTHING };
    delete_a_lower_file_of_the_root: Scenario {
        lowers: ["f file text=lower", ""],
        nodes: &[""],
        act: UNLINK_FILE,
        ..NOTHING
    };
    delete_a_file_deep_in_lower_directories: Scenario { nodes: &["a/b/c"], act: UNLINK_FILE, ..NOTHING };
    delete_a_changed_file: Scenario {
        upper: "f d/file text=upper",
        nodes: &["d", "d/file"],
        act: UNLINK_FILE,
        ..NOTHING
    };
    delete_a_new_file: Scenario {
        upper: "f d/new text=upper",
        nodes: &["d", "d/new"],
        act: |u| unlink(u, "new"),
        ..NOTHING
    };
    delete_a_symbolic_link: Scenario {
        upper: "l d/link to=upper",
        nodes: &["d", "d/link"],
        act: |u| unlink(u, "link"),
        ..NOTHING
    };
    delete_a_lower_file_called_like_a_mark: Scenario {
        lowers: ["f d/.wh.x text=lower trusted.overlay.plyfs.literal=y", ""],
        grounds: &[Ground::Full, Ground::Plain],
        nodes: &["d"],
        act: |u| unlink(u, ".wh.x"),
        ..NOTHING
    };
    delete_a_lower_hard_link: Scenario {
        nodes: &["links", "links/first", "links/second"],
        act: |u| unlink(u, "first"),
        ..NOTHING
    };
    delete_the_changed_name_of_a_hard_link: Scenario {
        earlier: Some(APPEND_TO_A_LINK),
        nodes: &["links", "links/second", "links/first"],
        act: |u| unlink(u, "second"),
        ..NOTHING
    };
    delete_the_other_name_of_a_changed_hard_link: Scenario {
        earlier: Some(APPEND_TO_A_LINK),
        nodes: &["links", "links/first"],
        act: |u| unlink(u, "first"),
        ..NOTHING
    };
    delete_the_last_name_of_a_changed_hard_link: Scenario {
        earlier: Some(|u| {
            APPEND_TO_A_LINK(u)?;
            u.overlay.unlink(u.find("links"), OsStr::new("first")).map(|()| String::new())
        }),
        nodes: &["links", "links/second"],
        act: |u| unlink(u, "second"),
        ..NOTHING
    };
    delete_an_upper_hard_link: Scenario {
        upper: "f d/one text=linked\nh d/two to=d/one",
        nodes: &["d", "d/one"],
        act: |u| unlink(u, "one"),
        ..NOTHING
    };
    delete_an_empty_lower_directory: Scenario {
        nodes: &["d", "d/empty"],
        act: |u| rmdir(u, "empty"),
        ..NOTHING
    };
    delete_an_emptied_lower_directory: Scenario {
        upper: "w gone/old",
        nodes: &["", "gone"],
        act: |u| rmdir(u, "gone"),
        ..NOTHING
    };
    delete_a_directory_emptied_by_this_mount: Scenario {
        nodes: &["", "gone"],
        before: Some(|u| u.overlay.unlink(u.nodes[1], OsStr::new("old")).map(|()| String::new())),
        act: |u| rmdir(u, "gone"),
        ..NOTHING
    };
    delete_a_new_directory: Scenario {
        upper: "d d/new",
        nodes: &["d", "d/new"],
        act: |u| rmdir(u, "new"),
        ..NOTHING
    };
    delete_an_opaque_directory: Scenario {
        upper: "o gone",
        nodes: &["", "gone"],
        act: |u| rmdir(u, "gone"),
        ..NOTHING
    };
}
