//! Containers by their names: `plyfs diff NAME`, `plyfs commit NAME`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::story::{CHANGES, Store, change};
use crate::support::scratch::detach;
use crate::support::{Field, Snapshot, assert_same};
use crate::{isolated, needs_root, not_with};

/// A container `web` over `base:1`, mounted.
struct Running {
    store: Store,
    point: PathBuf,
}

impl Running {
    fn new(options: &str) -> Self {
        let store = Store::of_root();
        let point = store.scratch.dir("mounted");
        let running = Self { store, point };
        running.mount(options);
        running
    }

    fn mount(&self, options: &str) {
        self.store.says(&format!("mount base:1 mounted --name web{options}"));
    }

    /// How another image looks when it is mounted in the same way.
    fn other(&self, image: &str) -> Snapshot {
        self.store.says(&format!("mount {image} mounted -o ro --name look"));
        let snapshot = self.snapshot();
        self.store.says("umount look");
        snapshot
    }

    fn unmount(&self) {
        self.store.says("umount web");
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.point).without(&[Field::Nlink])
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if crate::support::scratch::mounts().iter().any(|mount| mount.point == self.point) {
            detach(&self.point);
        }
    }
}

fn commit_of_a_container() {
    let running = Running::new("");
    let store = &running.store;
    assert_eq!(store.says("diff web"), "");
    change(&running.point);
    assert_eq!(store.says("diff web"), CHANGES);
    let before = running.snapshot();
    // A link cannot say whose it is where attributes do for files.
    for field in [Field::Uid, Field::Gid] {
        assert_eq!(before.field("link", field), before.field("added/file", field), "{field:?}");
    }
    let mounted = store.says("commit web new:1");
    running.unmount();
    assert_eq!(store.says("diff we"), CHANGES);
    assert_eq!(store.says("commit -m same web"), store.says("commit --message same web other:1"));
    let layers = |image: &str| store.inspect(image)["RootFS"]["Layers"].clone();
    assert_eq!(layers(mounted.trim()), layers("other:1"));
    assert_same(&before, &running.other("new:1"), "the image");
    assert!(store.says("store verify --full").ends_with("no problems\n"));
}

#[test]
fn a_container_is_committed_mounted_or_not() {
    not_with!("packed");
    isolated!(Root, commit_of_a_container());
}

#[test]
fn an_ordinary_user_commits_a_container() {
    not_with!("packed");
    isolated!(User, commit_of_a_container());
}

#[test]
fn a_container_is_committed_whose_image_has_lost_its_name() {
    not_with!("packed");
    needs_root!();
    let running = Running::new("");
    fs::write(running.point.join("new"), "x").unwrap();
    running.unmount();
    let store = &running.store;
    store.says("image rm -f base:1");
    store.says("store gc");
    store.says("commit web new:1");
    assert_eq!(store.inspect("new:1")["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    assert_eq!(store.says("diff web"), "A /new\n");
}

fn names_that_only_the_index_knows() {
    let running = Running::new("");
    let store = &running.store;
    fs::write(running.point.join("linked"), "changed").unwrap();
    fs::remove_file(running.point.join("linked")).unwrap();
    let changes = "C /etc\nC /etc/hard\nD /linked\n";
    assert_eq!(store.says("diff web"), changes);
    let before = running.snapshot();
    store.says("commit web mounted:1");
    running.unmount();
    assert_eq!(store.says("diff web"), changes);
    store.says("commit web new:1");
    let layers = |image: &str| store.inspect(image)["RootFS"]["Layers"].clone();
    assert_eq!(layers("mounted:1"), layers("new:1"));
    assert_same(&before, &running.other("new:1"), "the image");
}

#[test]
fn a_file_that_was_changed_by_a_name_that_is_gone_is_committed() {
    not_with!("packed");
    isolated!(Root, names_that_only_the_index_knows());
}

#[test]
fn an_ordinary_user_commits_a_file_that_was_changed_by_a_name_that_is_gone() {
    not_with!("packed");
    isolated!(User, names_that_only_the_index_knows());
}

#[test]
fn what_the_kernel_has_not_sent_yet_is_committed_too() {
    not_with!("packed", "io=passthrough");
    needs_root!();
    let running = Running::new(" -o writeback=1");
    fs::write(running.point.join("new"), vec![b'x'; 100_000]).unwrap();
    let store = &running.store;
    store.says("commit web new:1");
    let committed = store.snapshot("new:1");
    assert_eq!(committed.field("new", Field::Size), Some("100000"));
    assert_eq!(
        committed.field("new", Field::Content),
        running.snapshot().field("new", Field::Content)
    );
    running.unmount();
}

#[test]
fn a_container_of_two_commits_has_a_history_of_both() {
    not_with!("packed");
    needs_root!();
    let running = Running::new("");
    fs::write(running.point.join("one"), "1").unwrap();
    let store = &running.store;
    store.says("commit -m first web new:1");
    fs::write(running.point.join("two"), "2").unwrap();
    store.says("commit -m second web new:2");
    running.unmount();
    let comments = |image: &str| {
        let history = store.inspect(image)["History"].as_array().unwrap().clone();
        history
            .iter()
            .map(|step| step["comment"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(comments("new:1")[1..], ["first"]);
    assert_eq!(comments("new:2")[1..], ["second"]);
    store.says("mount new:1 mounted --name next");
    assert_eq!(fs::read(running.point.join("one")).unwrap(), b"1");
    fs::write(running.point.join("three"), "3").unwrap();
    store.says("umount next");
    assert_eq!(store.says("diff next"), "A /three\n");
    store.says("commit -m third next new:3");
    assert_eq!(comments("new:3")[1..], ["first", "third"]);
}

#[test]
fn names_and_directories_are_told_apart() {
    let store = Store::new();
    fs::create_dir(store.path("upper")).unwrap();
    fs::write(store.path("upper/file"), "").unwrap();
    assert_eq!(store.says("diff upper"), "A /file\n");
    assert_eq!(store.says("diff ./upper"), "A /file\n");
    let refused = |words: &str| {
        let output = store.run(words);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, line) = refused("diff absent");
    assert_eq!((status, line.contains("no container `absent`")), (3, true), "{line}");
    let (status, line) = refused("commit absent new:1");
    assert_eq!((status, line.contains("no container `absent`")), (3, true), "{line}");
    let (status, line) = refused("commit");
    assert_eq!((status, line.contains("what is to be committed?")), (2, true), "{line}");
    let (status, line) = refused("diff /absent");
    assert_eq!((status, line.contains("no upper layer `/absent`")), (3, true), "{line}");
    // No store is made to look for a container in it.
    let mut command = std::process::Command::new(crate::support::mount::program());
    command.args(["diff", "upper"]).current_dir(store.scratch.path());
    command.env("PLYFS_STORE", store.path("none"));
    assert!(command.status().unwrap().success());
    assert!(!Path::new(&store.path("none")).exists());
}
