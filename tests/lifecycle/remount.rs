//! `-o remount`, as mount(8) asks a mount helper for it.

use std::fs;
use std::io::ErrorKind;

use crate::stage::{Stage, fails, is_root, succeeds};

/// Whether mountinfo shows the union as read-only, as a mount and as a filesystem.
fn is_read_only(stage: &Stage) -> bool {
    let mounts = stage.mounts();
    let fields: Vec<&str> = mounts[0].split(' ').collect();
    let has_ro = |field: &str| field.split(',').any(|word| word == "ro");
    assert_eq!(has_ro(fields[5]), has_ro(fields[fields.len() - 1]), "{mounts:?}");
    has_ro(fields[5])
}

#[test]
fn a_union_is_made_read_only_and_writable_again_while_it_serves() {
    if !is_root("remounting") {
        return;
    }
    let stage = Stage::new();
    succeeds(&mut stage.plyfs(&stage.writable()));
    let daemon = stage.daemon();
    let new = stage.mountpoint().join("new");
    // What mount(8) passes for `mount -o remount,ro`: the options the mount has, and the change.
    succeeds(
        &mut stage
            .plyfs("rw,noatime,user_id=0,group_id=0,default_permissions,allow_other,remount,ro"),
    );
    assert!(is_read_only(&stage));
    assert_eq!(fs::write(&new, "").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(stage.read(), "hello");
    succeeds(&mut stage.plyfs(&format!("{},remount,rw,nosuid", stage.writable())));
    assert!(!is_read_only(&stage));
    assert!(stage.mounts()[0].contains("nosuid"), "{:?}", stage.mounts());
    fs::write(&new, "").unwrap();
    assert_eq!(stage.daemon(), daemon);
}

#[test]
fn what_is_no_union_is_not_remounted() {
    let stage = Stage::new();
    let line = fails(&mut stage.plyfs("remount,ro"));
    assert!(line.ends_with(": not mounted\n"), "{line}");
}

#[test]
fn who_may_not_remount_is_told_so() {
    let Some(stage) = Stage::of_user() else { return };
    stage.mount();
    let line = fails(&mut stage.plyfs("remount,ro"));
    assert!(line.contains("cannot remount: Operation not permitted"), "{line}");
}
