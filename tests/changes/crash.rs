//! `plyfs commit` dies at every step.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use plyfs::sys::fault;

use crate::not_with;
use crate::story::Store;

/// The fault points that a commit comes by.
fn points() -> impl Iterator<Item = &'static str> {
    let of_the_store = |point: &&str| point.starts_with("import.") || point.starts_with("tags.");
    fault::POINTS.iter().copied().filter(of_the_store)
}

#[test]
fn a_commit_that_dies_anywhere_leaves_a_sound_store() {
    not_with!("packed");
    for point in points() {
        let store = Store::new();
        fs::create_dir(store.path("upper")).unwrap();
        fs::write(store.path("upper/new"), "x").unwrap();
        let stored = store.says("store info");
        let words = "commit --upper upper --image base:1 new:1";
        let mut commit = store.command(&words.split(' ').collect::<Vec<_>>());
        let died = commit.env("PLYFS_FAULT", point).output().unwrap();
        assert_eq!(died.status.signal(), Some(9), "{point} was not reached");
        assert!(store.says("store verify --full").ends_with("no problems\n"), "{point}");
        let tagged = store.says("image ls -q").lines().count();
        assert_eq!(tagged, if point == "tags.published" { 2 } else { 1 }, "{point}");
        // What was left behind goes, and the same works again.
        store.says("store gc");
        if tagged == 1 {
            assert_eq!(store.says("store info"), stored, "{point}");
        }
        let id = store.says(words);
        assert_eq!(store.inspect("new:1")["Id"].as_str(), Some(id.trim()), "{point}");
        assert_eq!(store.inspect("new:1")["RootFS"]["Layers"].as_array().unwrap().len(), 2);
        assert!(store.says("store verify --full").ends_with("no problems\n"), "{point}");
    }
}

#[test]
fn a_commit_again_without_gc_works() {
    not_with!("packed");
    for point in points() {
        let store = Store::new();
        fs::create_dir(store.path("upper")).unwrap();
        fs::write(store.path("upper/new"), "x").unwrap();
        let words = "commit --upper upper --image base:1 new:1";
        let mut commit = store.command(&words.split(' ').collect::<Vec<_>>());
        let died = commit.env("PLYFS_FAULT", point).output().unwrap();
        assert_eq!(died.status.signal(), Some(9), "{point} was not reached");
        store.says(words);
        assert!(store.says("store verify --full").ends_with("no problems\n"), "{point}");
    }
}
