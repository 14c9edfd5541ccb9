//! What changes nothing.

use std::ffi::OsStr;
use std::fmt::Write as _;

use plyfs::overlay::{Flow, SeekTo};

use super::data::{APPEND_TO_A_LINK, METACOPY};
use super::scenarios;
use crate::scenario::{NOTHING, Scenario};
use crate::union::{Answer, Union, shown};

const UPPER: &str = "f d/file text=upper\nf new/inside text=x\nw d/other\nl d/link to=upper";

fn lookup(union: &Union, name: &str) -> Answer<String> {
    let entry = union.overlay.lookup(union.nodes[0], OsStr::new(name))?;
    Ok(entry.map_or("absent".into(), |entry| union.enter(entry)))
}

fn read(union: &Union) -> Answer<String> {
    let mut buffer = [0; 100];
    let length = union.overlay.read(union.nodes[0], 0, &mut buffer)?;
    Ok(buffer[..length].escape_ascii().to_string())
}

scenarios! {
    look_a_lower_file_up: Scenario { nodes: &["d"], act: |u| lookup(u, "file"), ..NOTHING };
    look_an_upper_file_up: Scenario { upper: UPPER, nodes: &["d"], act: |u| lookup(u, "file"), ..NOTHING };
    look_a_directory_up: Scenario { nodes: &["tree"], act: |u| lookup(u, "sub"), ..NOTHING };
    look_an_absent_name_up: Scenario { nodes: &["d"], act: |u| lookup(u, "absent"), ..NOTHING };
    look_a_lower_hard_link_up: Scenario { nodes: &["links"], act: |u| lookup(u, "first"), ..NOTHING };
    look_a_changed_hard_link_up: Scenario {
        earlier: Some(APPEND_TO_A_LINK),
        nodes: &["links"],
        act: |u| lookup(u, "first"),
        ..NOTHING
    };
    ask_for_attributes: Scenario {
        upper: UPPER,
        nodes: &["d/file"],
        act: |u| u.overlay.attr(u.nodes[0]).map(|attr| shown(&attr)),
        ..NOTHING
    };
    read_a_lower_file: Scenario { nodes: &["d/file"], act: read, ..NOTHING };
    read_an_upper_file: Scenario { upper: UPPER, nodes: &["d/file"], act: read, ..NOTHING };
    read_a_metacopy: Scenario { upper: METACOPY, nodes: &["d/file"], act: read, ..NOTHING };
    read_a_lower_symbolic_link: Scenario {
        nodes: &["d/link"],
        act: |u| u.overlay.read_link(u.nodes[0]).map(|target| format!("{target:?}")),
        ..NOTHING
    };
    seek_in_a_lower_file: Scenario {
        nodes: &["d/file"],
        act: |u| u.overlay.seek(u.nodes[0], SeekTo::Hole(0)).map(|at| at.to_string()),
        ..NOTHING
    };
    list_a_merged_directory: Scenario {
        upper: UPPER,
        nodes: &["d"],
        act: |u| {
            let mut names = Vec::new();
            u.overlay.read_dir(u.nodes[0], 0, |entry| {
                names.push(format!("{:?} {:?}", entry.name, entry.kind));
                Flow::Continue
            })?;
            names.sort();
            Ok(names.join(", "))
        },
        ..NOTHING
    };
    list_a_merged_directory_with_attributes: Scenario {
        upper: UPPER,
        nodes: &["d"],
        act: |u| {
            let mut names = Vec::new();
            u.overlay.read_dir_plus(u.nodes[0], 0, |entry, found| {
                u.hold(found.map(|found| found.node));
                names.push(format!("{:?} {:?}", entry.name, entry.kind));
                Flow::Continue
            })?;
            names.sort();
            Ok(names.join(", "))
        },
        ..NOTHING
    };
    read_attributes: Scenario {
        nodes: &["d/file"],
        act: |u| {
            let mut all = String::new();
            for name in u.overlay.list_xattr(u.nodes[0])? {
                let value = u.overlay.get_xattr(u.nodes[0], &name)?;
                write!(all, "{name:?} {}", value.escape_ascii()).unwrap();
            }
            Ok(all)
        },
        ..NOTHING
    };
    ask_for_inode_flags: Scenario {
        upper: UPPER,
        nodes: &["d/file"],
        act: |u| u.overlay.inode_flags(u.nodes[0]).map(|flags| flags.to_string()),
        ..NOTHING
    };
    ask_for_space: Scenario {
        act: |u| u.overlay.stat_fs().map(|stat| stat.longest_name.to_string()),
        ..NOTHING
    };
}
