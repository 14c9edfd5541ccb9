//! What the program is for: an image is mounted, a file added, read, modified and deleted, and the changes stay.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::stage::{Stage, text};
use crate::support::posix::names;
use crate::{isolated, needs_root};

/// Add, read, modify, delete; mount again; and nothing of it is seen in the image.
fn four_verbs() {
    let stage = Stage::new();
    let point = stage.point("m");
    let name = stage.mount("app m");
    assert_eq!(name.len(), 12, "{name}");
    assert_eq!(stage.mounted(), [name.as_str()]);
    fs::write(point.join("added"), "new").unwrap();
    assert_eq!(text(point.join("app")), "application");
    fs::write(point.join("etc/motd"), "changed").unwrap();
    fs::remove_file(point.join("bin/sh")).unwrap();
    let changed = |point: &Path| {
        assert_eq!(names(point), ["added", "app", "bin", "etc", "null"]);
        assert_eq!(names(point.join("bin")), ["su"]);
        assert_eq!(names(point.join("etc")), ["motd"]);
        assert_eq!(text(point.join("etc/motd")), "changed");
    };
    changed(&point);
    stage.program.says(&format!("umount {name}"));
    assert_eq!(names(&point), [""; 0]);
    assert_eq!(stage.mounted(), [""; 0]);

    let again = stage.point("again");
    assert_eq!(stage.mount(&format!("--name {name} app again")), name);
    changed(&again);
    // Another container of the same image, at the same time.
    let other = stage.mount("--name other app m");
    assert_eq!(other, "other");
    assert_eq!(names(point.join("bin")), ["sh", "su"]);
    assert_eq!(text(point.join("etc/motd")), "hello");
    fs::write(point.join("app"), "other").unwrap();
    assert_eq!(text(again.join("app")), "application");
    stage.program.says("umount again");
    stage.program.says("umount other");
    assert_eq!(stage.program.says("rm other"), "other\n");
    stage.program.says(&format!("rm {}", &name[..4]));
    assert_eq!(stage.program.says("ps -aq"), "");
    let verified = stage.program.says("store verify --full");
    assert!(verified.ends_with("no problems\n"), "{verified}");
}

#[test]
fn a_file_is_added_read_modified_and_deleted_by_root() {
    needs_root!();
    four_verbs();
}

#[test]
fn a_file_is_added_read_modified_and_deleted_by_an_ordinary_user() {
    isolated!(User, four_verbs());
}

#[test]
fn a_file_is_added_read_modified_and_deleted_in_a_user_namespace() {
    isolated!(UserNamespace, four_verbs());
}

/// Owners, set-id bits and devices of the image are there, and those that are given to files of the container last.
/// `shown` is how ids of the image are shown to who runs this.
fn owners(shown: fn(u32) -> u32) {
    let stage = Stage::new();
    let point = stage.point("m");
    let name = stage.mount("--name n app m");
    let is = |path: &str| {
        let stat = fs::symlink_metadata(point.join(path)).unwrap();
        (stat.uid(), stat.gid(), stat.mode() & 0o7777)
    };
    let all = || {
        assert_eq!(is(""), (shown(0), shown(0), 0o755));
        assert_eq!(is("app"), (shown(0), shown(0), 0o600));
        assert_eq!(is("bin/su"), (shown(7), shown(5), 0o4755));
        let device = fs::symlink_metadata(point.join("null")).unwrap();
        let number = rustix::fs::makedev(1, 3);
        assert_eq!((device.rdev(), device.mode()), (number, libc::S_IFCHR | 0o666));
    };
    fs::set_permissions(point.join("app"), fs::Permissions::from_mode(0o600)).unwrap();
    // Both are copied up.
    for path in ["null", "bin"] {
        fs::rename(point.join(path), point.join("moved")).unwrap();
        fs::rename(point.join("moved"), point.join(path)).unwrap();
    }
    all();
    stage.program.says("umount m");
    stage.mount(&format!("--name {name} m"));
    all();
    stage.program.says("umount m");
}

#[test]
fn owners_and_devices_are_as_the_image_says_for_root() {
    needs_root!();
    owners(|id| id);
}

/// What is root's in the image is the user's, so that he can change it.
#[test]
fn owners_and_devices_are_as_the_image_says_for_an_ordinary_user() {
    isolated!(User, {
        owners(|id| if id == 0 { rustix::process::geteuid().as_raw() } else { id });
    });
}

#[test]
fn owners_and_devices_are_as_the_image_says_in_a_user_namespace() {
    // The kernel shows nobody for what the namespace does not have.
    isolated!(UserNamespace, owners(|id| if id == 0 { 0 } else { 65534 }));
}
