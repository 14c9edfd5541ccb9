//! Other programs read what is committed, and find the same changes.

use std::path::Path;
use std::process::Command;

use crate::story::{Store, change, change_owners, succeeded};
use crate::support::{Field, Snapshot, assert_same};
use crate::{needs_root, not_with};

/// Runs a program that must succeed; `None` if it is not installed.
fn peer(dir: &Path, words: &[&str]) -> Option<String> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(dir);
    match command.output() {
        Ok(output) => Some(succeeded(words[0], &output)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            crate::support::privilege::skip(words[0], "it is not installed");
            None
        }
        Err(error) => panic!("{words:?}: {error}"),
    }
}

/// A committed image `localhost/new:1`, and how it was mounted.
fn committed() -> (Store, Snapshot) {
    let store = Store::new();
    let mut union = store.union("base:1").mount();
    change(&union.path(""));
    change_owners(&union.path(""));
    let before = union.snapshot();
    union.unmount();
    store.take_layer(&union, "upper");
    store.says("commit --upper upper/upper --image base:1 localhost/new:1");
    (store, before)
}

/// What all programs keep of a tree: they round times, and set those of directories anew.
fn kept(snapshot: Snapshot) -> Snapshot {
    let mut snapshot = snapshot.without(&[Field::Mtime, Field::Nlink]);
    snapshot.forget("", &[Field::Mode, Field::Uid, Field::Gid]);
    snapshot
}

#[test]
fn umoci_unpacks_the_same_tree() {
    not_with!("packed");
    needs_root!();
    let (store, before) = committed();
    let image = ["umoci", "unpack", "--image", "store:localhost/new:1", "unpacked"];
    if peer(store.scratch.path(), &image).is_none() {
        return;
    }
    let unpacked = Snapshot::of(&store.path("unpacked/rootfs"));
    assert_same(&kept(before), &kept(unpacked), "unpacked by umoci");
}

#[test]
fn podman_loads_the_same_tree() {
    not_with!("packed");
    needs_root!();
    let (store, before) = committed();
    // podman refuses one with a path of more than 50 characters.
    let runroot = tempfile::tempdir().unwrap();
    let root = store.path("podman");
    let podman = |words: &[&str]| {
        let places = [
            "--root",
            root.to_str().unwrap(),
            "--runroot",
            runroot.path().to_str().unwrap(),
            "--storage-driver",
            "vfs",
        ];
        peer(store.scratch.path(), &[&["podman"], &places[..], words].concat())
    };
    for format in ["docker", "oci"] {
        store.says(&format!("image save localhost/new:1 -o saved.tar --format {format}"));
        if podman(&["load", "-q", "-i", "saved.tar"]).is_none() {
            return;
        }
        let id = store.inspect("localhost/new:1")["Id"].as_str().unwrap().to_owned();
        let found = podman(&["images", "--no-trunc", "-q", "localhost/new:1"]).unwrap();
        assert_eq!(found.trim(), id, "{format}");
        let mounted = podman(&["image", "mount", "localhost/new:1"]).unwrap();
        let loaded = Snapshot::of(Path::new(mounted.trim()));
        assert_same(&kept(before.clone()), &kept(loaded), "loaded by podman");
        podman(&["image", "umount", "-f", "localhost/new:1"]).unwrap();
        podman(&["image", "rm", "-f", "localhost/new:1"]).unwrap();
    }
}
