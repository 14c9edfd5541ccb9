//! That calls are heard, shown and answered as they are (`syscalls`).

use std::fs::{self, File};
use std::io::Write;

use rustix::io::Errno;

use crate::syscalls::{Answer, Call, watch};

#[test]
fn calls_are_shown_with_their_paths_before_they_are_made() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    let mut calls = Vec::new();
    let written = watch(
        |call| {
            let shown = (call.to_string(), call.changes(), path.exists());
            calls.extend((!call.paths().iter().any(|it| it.starts_with("/proc"))).then_some(shown));
            Answer::Go
        },
        || {
            let mut file = File::create(&path)?;
            file.write_all(b"some\ntext")?;
            file.sync_all()?;
            fs::rename(&path, root.path().join("other"))
        },
    );
    written.unwrap();
    let (file, other) = (path.display(), root.path().join("other"));
    let expected = [
        (format!("openat({file}, 0o2001101, 0o666)"), true, false),
        (format!("write({file}, \"some\\ntext\", 0o11)"), true, true),
        (format!("fsync({file})"), true, true),
        (format!("rename({file}, {})", other.display()), true, true),
    ];
    assert_eq!(calls, expected);
    assert_eq!(fs::read(other).unwrap(), b"some\ntext");
}

#[test]
fn a_call_that_is_failed_is_not_made() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("dir");
    let answer = |call: &Call| match call.paths().contains(&path) {
        true => Answer::Fail(Errno::DQUOT),
        false => Answer::Go,
    };
    let made = watch(answer, || fs::create_dir(&path));
    assert_eq!(made.map_err(|error| Errno::from_io_error(&error)), Err(Some(Errno::DQUOT)));
    assert!(!path.exists());
}

#[test]
fn only_the_watched_thread_is_watched() {
    let root = tempfile::tempdir().unwrap();
    let work = || fs::create_dir(root.path().join("unwatched"));
    let seen = watch(
        |_| {
            work().expect("this thread is free");
            Answer::Fail(Errno::IO)
        },
        || fs::metadata(root.path()).is_err(),
    );
    assert!(seen);
    assert!(root.path().join("unwatched").exists());
}

#[test]
#[should_panic(expected = "in the middle")]
fn a_panic_of_the_watched_thread_is_one_of_the_test() {
    watch(|_| Answer::Go, || panic!("in the middle"));
}
