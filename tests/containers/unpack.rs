//! `plyfs image unpack`: what lies in the directories afterwards, against mounts of the image and against other programs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::stage::Stage;
use crate::store::program::TestImage;
use crate::store::support::{Fields, Tar};
use crate::support::posix::{get_xattr, names};
use crate::support::snapshot::Field;
use crate::support::{Snapshot, assert_same};
use crate::{isolated, needs_root};

/// Three layers with all that a layer can have.
fn everything() -> TestImage {
    let owned = |flag, name, mode| Fields { mode, uid: 7, gid: 5, ..Fields::new(flag, name) };
    let dated = |name| Fields { mtime: 1_000_000_007, ..Fields::new(b'0', name) };
    let device = Fields { device: (1, 3), ..owned(b'3', "dev/null", 0o666) };
    let base = Tar::new()
        .entry(owned(b'5', "a", 0o775), b"")
        .file("a/deleted", "deleted")
        .file("a/linked", "linked")
        .link("a/link", "a/linked")
        .entry(owned(b'0', "a/set-id", 0o6755), b"set-id")
        .file("a/b/c/deep", "deep")
        .entry(device, b"")
        .entry(owned(b'6', "dev/fifo", 0o600), b"")
        .entry(owned(b'5', "covered", 0o715), b"")
        .file("covered/below", "below")
        .file("file-then-dir", "file")
        .file("dir-then-file/x", "x")
        .end();
    let middle = Tar::new()
        .file("a/.wh.deleted", "")
        .file("covered/.wh..wh..opq", "")
        .file("covered/new", "new")
        .dir("file-then-dir")
        .file("file-then-dir/inside", "inside")
        .file("dir-then-file", "file")
        // The directory a is implied.
        .entry(dated("a/dated"), b"dated")
        .end();
    let attributes = [
        ("SCHILY.xattr.user.comment", &b"kept"[..]),
        ("SCHILY.xattr.trusted.overlay.opaque", &b"y"[..]),
    ];
    let top = Tar::new()
        .symlink("to-deep", "a/b/c/deep")
        .link("to-deep-too", "to-deep")
        .pax(&attributes)
        .entry(owned(b'5', "d", 0o1777), b"")
        .file("d/.wh.absent", "")
        .file(&"n".repeat(90), "long")
        .end();
    TestImage { layers: vec![base, middle, top] }
}

/// The image's tree as a mount shows it.
fn mounted(stage: &Stage) -> Snapshot {
    let point = stage.point("mounted");
    stage.mount("-r all mounted");
    let seen = Snapshot::of(&point);
    stage.program.says("umount mounted");
    seen
}

#[test]
fn an_image_is_unpacked_as_it_is_mounted() {
    needs_root!();
    let stage = Stage::empty();
    stage.load("all", &everything());
    stage.program.says("image unpack all tree");
    let unpacked = Snapshot::of(&stage.program.path("tree"));
    assert_same(&mounted(&stage), &unpacked, "mounted and unpacked");
    let (status, line) = stage.program.fails("image unpack all tree");
    assert_eq!(status, 1);
    assert!(line.ends_with("tree: is not empty; give a new or empty directory"), "{line}");
}

#[test]
fn layers_are_unpacked_as_lower_directories_for_plyfs_and_the_kernel() {
    needs_root!();
    let stage = Stage::empty();
    stage.load("all", &everything());
    let option = stage.program.says("image unpack --layers all layers");
    assert_eq!(option, "lowerdir=layers/2:layers/1:layers/0\n");
    let option = option.trim_end();
    let expected = mounted(&stage);
    let point = stage.point("union");
    stage.program.says(&format!("-o ro,{option} union"));
    assert_same(&expected, &Snapshot::of(&point), "the image and its layers under plyfs");
    stage.program.says("umount union");
    let kernel = |action: &[&str]| {
        let mut command = Command::new(action[0]);
        command.args(&action[1..]).current_dir(stage.program.dir.path());
        assert!(command.status().unwrap().success(), "{action:?}");
    };
    kernel(&["mount", "-t", "overlay", "overlay", "-o", &format!("ro,{option}"), "union"]);
    let seen = Snapshot::of(&point);
    kernel(&["umount", "union"]);
    // The kernel shows what it does not take for its own, and numbers of names in one layer.
    let plain = |snapshot: Snapshot| snapshot.without_xattrs("user.overlay.");
    assert_same(&plain(expected), &plain(seen), "the image and its layers under the kernel");
}

/// Runs a program that must succeed; false if it is not installed.
fn peer(stage: &Stage, words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(stage.program.dir.path());
    match command.output() {
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{words:?}: {error}");
            true
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", words[0]);
            eprintln!("{} is not installed: not tested with it", words[0]);
            false
        }
        Err(error) => panic!("{words:?}: {error}"),
    }
}

#[test]
fn umoci_unpacks_the_same_tree() {
    needs_root!();
    let stage = Stage::empty();
    stage.load("all", &everything());
    if !peer(&stage, &["umoci", "unpack", "--image", "store:all:latest", "bundle"]) {
        return;
    }
    stage.program.says("image unpack all tree");
    let seen = |path: &str| {
        let mut seen = Snapshot::of(&stage.program.path(path));
        // umoci gives directories without an entry the time of the unpacking.
        let mtime = [Field::Mtime];
        for implied in ["", "dev", "covered", "file-then-dir", "a/b", "a/b/c", "a"] {
            seen.forget(implied, &mtime);
        }
        // And drops an attribute that it would obey itself.
        seen.without_xattrs("trusted.overlay.")
    };
    assert_same(&seen("bundle/rootfs"), &seen("tree"), "umoci and plyfs");
}

#[test]
fn an_ordinary_user_keeps_owners_and_devices_in_attributes() {
    isolated!(User, {
        let stage = Stage::empty();
        stage.load("all", &everything());
        let (status, line) = stage.program.fails("image unpack all tree");
        assert_eq!(status, 1);
        assert!(line.contains("only root can give files to their owners"), "{line}");
        assert!(!stage.program.path("tree").exists());

        stage.program.says("image unpack --owners stored all tree");
        let tree = stage.program.path("tree");
        let stored = get_xattr(tree.join("dev/null"), "user.containers.override_stat").unwrap();
        assert_eq!(stored, b"7:5:666:char-1-3");
        stage.point("union");
        let show = |words: &str| {
            stage.program.says(words);
            let seen = Snapshot::of(&stage.program.path("union"));
            stage.program.says("umount union");
            // What an ordinary user cannot set is left out, and links have no attributes.
            let mut seen = seen.without_xattrs("trusted.").without_xattrs("user.containers.");
            for link in ["to-deep", "to-deep-too"] {
                seen.forget(link, &[Field::Uid, Field::Gid]);
            }
            seen
        };
        let layers = stage.program.says("image unpack --layers --owners stored all layers");
        let packed = stage.program.json("image inspect all")[0]["RootFS"]["Layers"].clone();
        let index = |layer: &serde_json::Value| {
            format!("store/layers/{}/index", &layer.as_str().unwrap()[7..])
        };
        let packed: Vec<String> = packed.as_array().unwrap().iter().rev().map(index).collect();
        let image = show(&format!("-o ro,lowerdir={} union", packed.join(":")));
        assert_same(&image, &show("-o ro,lowerdir=tree union"), "the image and its tree");
        let layered = show(&format!("-o ro,{} union", layers.trim_end()));
        assert_same(&image, &layered, "the image and its layers");
    });
}

/// Names of an index are one component each and are made where they belong, whatever links lie around.
#[test]
fn nothing_outside_of_the_directory_is_touched() {
    needs_root!();
    let stage = Stage::empty();
    let outside = stage.program.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "canary").unwrap();
    let before = Snapshot::exact(&outside);
    let target = outside.display().to_string();
    let base = Tar::new().symlink("link", &target).symlink("up", "../outside").end();
    let top = Tar::new()
        .file("link/canary", "overwritten")
        .dir("up")
        .file("up/canary", "overwritten")
        .link("up/linked", "up/canary")
        .end();
    stage.load("all", &TestImage { layers: vec![base, top] });
    for words in ["image unpack all tree", "image unpack --layers all layers"] {
        stage.program.says(words);
    }
    assert_eq!(names(stage.program.path("tree/up")), ["canary", "linked"]);
    // The directory itself may be reached by a link: that is the user's word.
    std::os::unix::fs::symlink("real", stage.program.path("by-link")).unwrap();
    fs::create_dir(stage.program.path("real")).unwrap();
    stage.program.says("image unpack all by-link");
    assert_eq!(names(stage.program.path("real")), ["link", "up"]);
    assert_same(&before, &Snapshot::exact(&outside), "what is outside");
}

#[test]
fn a_damaged_content_is_not_unpacked() {
    needs_root!();
    let stage = Stage::new();
    let object = |text: &str| -> PathBuf {
        let hex = blake3::hash(text.as_bytes()).to_hex();
        stage.program.store().join("objects").join(&hex[..2]).join(&hex[2..])
    };
    fs::write(object("shell"), "shelX").unwrap();
    let (_, line) = stage.program.fails("image unpack app tree");
    assert!(line.contains("cannot make /bin/sh:"), "{line}");
    assert!(fs::read(stage.program.path("tree/bin/sh")).is_err());
}
