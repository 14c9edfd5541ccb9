//! Renaming and exchanging.

use std::ffi::OsStr;

use plyfs::overlay::{RedirectPolicy, RenameFlags};

use super::data::APPEND_TO_A_LINK;
use super::scenarios;
use crate::scenario::{Act, NOTHING, Scenario};
use crate::union::{Answer, Union};

const PLAIN: RenameFlags = RenameFlags { no_replace: false, exchange: false };
const EXCHANGE: RenameFlags = RenameFlags { no_replace: false, exchange: true };

/// Renames within the first node, or from it to the second.
fn rename(union: &Union, from: &str, to: &str, flags: RenameFlags) -> Answer<String> {
    let (old, new) = (union.nodes[0], union.nodes[1]);
    union.overlay.rename(old, OsStr::new(from), new, OsStr::new(to), flags).map(|()| String::new())
}

const TREE: Act = |u| rename(u, "tree", "renamed", PLAIN);

scenarios! {
    rename_a_lower_file: Scenario {
        nodes: &["d", "d", "d/file"],
        act: |u| rename(u, "file", "renamed", PLAIN),
        ..NOTHING
    };
    rename_a_lower_file_to_another_directory: Scenario {
        nodes: &["a/b/c", "tree", "a/b/c/file"],
        act: |u| rename(u, "file", "moved", PLAIN),
        ..NOTHING
    };
    rename_an_upper_file: Scenario {
        upper: "f d/new text=new",
        nodes: &["d", "", "d/new"],
        act: |u| rename(u, "new", "moved", RenameFlags { no_replace: true, exchange: false }),
        ..NOTHING
    };
    rename_a_changed_file: Scenario {
        upper: "f d/file text=new",
        nodes: &["d", "d", "d/file"],
        act: |u| rename(u, "file", "moved", PLAIN),
        ..NOTHING
    };
    rename_a_new_file_over_a_lower_file: Scenario {
        upper: "f d/new text=new",
        nodes: &["d", "d", "d/new", "d/file"],
        act: |u| rename(u, "new", "file", PLAIN),
        ..NOTHING
    };
    rename_a_new_file_over_a_changed_one: Scenario {
        upper: "f d/new text=new\nf d/file text=changed",
        nodes: &["d", "d", "d/new", "d/file"],
        act: |u| rename(u, "new", "file", PLAIN),
        ..NOTHING
    };
    rename_a_lower_file_over_a_lower_file: Scenario {
        nodes: &["d", "d", "d/file", "d/other"],
        act: |u| rename(u, "file", "other", PLAIN),
        ..NOTHING
    };
    rename_a_changed_file_over_a_changed_one: Scenario {
        upper: "f d/file text=changed\nf d/other text=too",
        nodes: &["d", "d", "d/file", "d/other"],
        act: |u| rename(u, "file", "other", PLAIN),
        ..NOTHING
    };
    rename_a_new_file_to_a_deleted_name: Scenario {
        upper: "w d/file\nf d/new text=new",
        nodes: &["d", "d", "d/new"],
        act: |u| rename(u, "new", "file", PLAIN),
        ..NOTHING
    };
    rename_a_lower_file_to_a_deleted_name: Scenario {
        upper: "w d/file",
        nodes: &["d", "d", "d/other"],
        act: |u| rename(u, "other", "file", PLAIN),
        ..NOTHING
    };
    rename_a_fifo: Scenario {
        nodes: &["d", "d", "d/fifo"],
        act: |u| rename(u, "fifo", "renamed", PLAIN),
        ..NOTHING
    };
    rename_a_file_to_what_looks_like_a_mark: Scenario {
        grounds: &[crate::ground::Ground::Full, crate::ground::Ground::NoRenameWhiteout],
        nodes: &["d", "d", "d/file"],
        act: |u| rename(u, "file", ".wh.renamed", PLAIN),
        ..NOTHING
    };
    rename_a_lower_directory: Scenario { nodes: &["", "", "tree"], act: TREE, ..NOTHING };
    rename_a_lower_directory_with_a_redirect: Scenario {
        redirect: RedirectPolicy::Redirect,
        nodes: &["", "", "tree"],
        act: TREE,
        ..NOTHING
    };
    rename_a_redirected_directory: Scenario {
        redirect: RedirectPolicy::Redirect,
        earlier: Some(|u| {
            let (root, tree, renamed) = (u.find(""), OsStr::new("tree"), OsStr::new("renamed"));
            u.overlay.rename(root, tree, root, renamed, PLAIN).map(|()| String::new())
        }),
        nodes: &["", "d", "renamed"],
        act: |u| rename(u, "renamed", "again", PLAIN),
        ..NOTHING
    };
    rename_a_new_directory: Scenario {
        upper: "f new/inside text=x",
        nodes: &["", "d", "new/inside"],
        act: |u| rename(u, "new", "moved", PLAIN),
        ..NOTHING
    };
    rename_a_directory_to_a_deleted_name: Scenario {
        upper: "w gone\nf new/inside text=x",
        nodes: &["", "", "new"],
        act: |u| rename(u, "new", "gone", PLAIN),
        ..NOTHING
    };
    rename_a_directory_over_an_emptied_one: Scenario {
        upper: "w gone/old\nf new/inside text=x",
        nodes: &["", "", "new", "gone"],
        act: |u| rename(u, "new", "gone", PLAIN),
        ..NOTHING
    };
    rename_a_directory_over_an_empty_lower_one: Scenario {
        upper: "f new/inside text=x",
        nodes: &["", "d", "new", "d/empty"],
        act: |u| rename(u, "new", "empty", PLAIN),
        ..NOTHING
    };
    rename_a_lower_hard_link: Scenario {
        nodes: &["links", "d", "links/first", "links/second"],
        act: |u| rename(u, "first", "third", PLAIN),
        ..NOTHING
    };
    rename_the_other_name_of_a_changed_hard_link: Scenario {
        earlier: Some(APPEND_TO_A_LINK),
        nodes: &["links", "links", "links/first"],
        act: |u| rename(u, "first", "third", PLAIN),
        ..NOTHING
    };
    rename_over_a_name_of_a_changed_hard_link: Scenario {
        earlier: Some(APPEND_TO_A_LINK),
        nodes: &["d", "links", "d/file", "links/first"],
        act: |u| rename(u, "file", "first", PLAIN),
        ..NOTHING
    };
    exchange_two_lower_files: Scenario {
        nodes: &["d", "d", "d/file", "d/other"],
        act: |u| rename(u, "file", "other", EXCHANGE),
        ..NOTHING
    };
    exchange_a_lower_file_and_a_directory: Scenario {
        nodes: &["d", "", "d/file", "tree"],
        act: |u| rename(u, "file", "tree", EXCHANGE),
        ..NOTHING
    };
}
