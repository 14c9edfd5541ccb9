//! The support itself: what is described is there, and stays.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::support::{Union, assert_same};
use crate::{isolated, needs_root};

#[test]
fn layers_are_merged_and_written_to_the_upper_one() {
    needs_root!();
    let mut union = Union::new()
        .lower("f d/a text=top\nw d/gone")
        .lower("f d/a text=bottom\nf d/gone\nf d/b text=\"x\\x00\\n\" mode=0600 own=5:6")
        .mount();
    assert_eq!(fs::read(union.path("d/a")).unwrap(), b"top");
    assert_eq!(fs::read(union.path("d/b")).unwrap(), b"x\0\n");
    assert!(!union.path("d/gone").exists());
    fs::write(union.path("d/new"), "new").unwrap();
    let before = union.snapshot();
    union.remount();
    assert_same(&before, &union.snapshot(), "after the remount");
    assert_eq!(fs::read(union.upper("d/new")).unwrap(), b"new");
}

#[test]
fn a_change_in_a_lower_layer_is_noticed() {
    needs_root!();
    let union = Union::new().lower("f a text=old mtime=1000").mount();
    fs::write(union.lower(0, "a"), "new").unwrap();
    let end = catch_unwind(AssertUnwindSafe(|| drop(union)));
    let message = *end.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("a lower layer has changed"), "{message}");
}

#[test]
fn a_mount_that_hangs_is_torn_down() {
    needs_root!();
    // Long enough to be stopped before it is torn down.
    let union = Union::new().lower("f a").lifetime(Duration::from_secs(5)).mount();
    union.live().freeze();
    assert!(fs::metadata(union.path("a")).is_err());
    let end = catch_unwind(AssertUnwindSafe(|| drop(union)));
    let message = *end.unwrap_err().downcast::<&str>().unwrap();
    assert!(message.contains("hung"), "{message}");
}

#[test]
fn an_ordinary_user_mounts_through_fusermount() {
    isolated!(User, write_and_read_back());
}

#[test]
fn root_of_a_user_namespace_mounts() {
    isolated!(UserNamespace, write_and_read_back());
}

fn write_and_read_back() {
    let mut union = Union::new().lower("f a text=old").mount();
    fs::write(union.path("a"), "new").unwrap();
    union.remount();
    assert_eq!(fs::read(union.path("a")).unwrap(), b"new");
}
