//! A layer that fails, hangs, and changes its answers: who asks for what cannot be read gets EIO and the log says
//! where; nothing is shown in part, nothing hidden shows, everything else works.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use fuser::FileType;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::layer::{Ask, Do, FailingLayer};
use super::listing;
use crate::needs_root;
use crate::support::posix::{
    append, errno, exists, get_xattr, lstat, names, open_file, text, try_lstat,
};
use crate::support::{Builder, Union};

/// A union that has `layer` above one with the content `below`.
fn over(layer: &FailingLayer, below: &str) -> Builder {
    Union::new().unchecked_lowers().lower_at(layer.point()).lower(below)
}

/// Fails unless the log has exactly one more line that names the layer and `path`.
fn assert_logged(union: &Union, layer: &FailingLayer, path: &str, what: Ask) {
    let log = union.live().log();
    let layer = format!("lower layer {}: ", layer.point().display());
    let lines = log.lines().filter(|line| line.contains(&layer) && line.contains(path));
    assert!(lines.count() >= 1, "{what:?} of {path}: the log says\n{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn each_failure_is_the_callers_and_in_the_log_and_harms_no_other_file() {
    needs_root!();
    for ask in [Ask::Lookup, Ask::Open, Ask::Read, Ask::ListXattr, Ask::GetXattr] {
        let layer = FailingLayer::new("f d/bad text=content user.a=b\nf d/good text=good");
        let union = over(&layer, "f d/bad text=below\nf other text=other").mount();
        layer.order(ask, "bad", Do::Fail);
        for _ in 0..2 {
            let read = match ask {
                Ask::GetXattr => get_xattr(union.path("d/bad"), "user.a").map(|_| ()),
                _ => fs::read(union.path("d/bad"))
                    .map(|_| ())
                    .map_err(|error| Errno::from_io_error(&error).unwrap()),
            };
            assert_eq!(read, Err(Errno::IO), "{ask:?}");
            assert_eq!(text(union.path("d/good")), "good", "{ask:?}");
            assert_eq!(text(union.path("other")), "other", "{ask:?}");
            assert_eq!(names(union.path("d")), ["bad", "good"], "{ask:?}");
        }
        assert_logged(&union, &layer, "/d/bad", ask);
        layer.behave();
        assert_eq!(text(union.path("d/bad")), "content", "{ask:?}: a failure has been remembered");
    }
}

#[test]
fn a_link_that_cannot_be_read_is_an_error() {
    needs_root!();
    let layer = FailingLayer::new("l d/link to=good\nf d/good text=good");
    let union = over(&layer, "f d/link text=below").mount();
    layer.order(Ask::ReadLink, "link", Do::Fail);
    assert_eq!(errno(fs::read_link(union.path("d/link"))), Errno::IO);
    assert_eq!(errno(fs::read(union.path("d/link"))), Errno::IO);
    assert_logged(&union, &layer, "/d/link", Ask::ReadLink);
    assert_eq!(text(union.path("d/good")), "good");
    layer.behave();
    assert_eq!(text(union.path("d/link")), "good");
}

#[test]
fn a_directory_that_cannot_be_read_to_its_end_is_never_shown_in_part() {
    needs_root!();
    let entries: String = (100..200).map(|n| format!("f d/{n}\n")).collect();
    for order in [Do::Fail, Do::FailFrom(0), Do::FailFrom(1), Do::FailFrom(50)] {
        let layer = FailingLayer::new(&format!("{entries}f e/fine"));
        let union = over(&layer, "f d/below\nf e/below").mount();
        layer.order(Ask::ReadDir, "d", order);
        for _ in 0..2 {
            assert_eq!(listing(union.path("d")), Err(Errno::IO), "{order:?}");
            for name in ["d/100", "d/199", "d/below", "d/absent"] {
                assert_eq!(try_lstat(union.path(name)).err(), Some(Errno::IO), "{order:?} {name}");
            }
            let made = File::create(union.path("d/new"));
            assert_eq!(errno(made), Errno::IO, "{order:?}");
            assert_eq!(errno(fs::remove_dir(union.path("d"))), Errno::IO, "{order:?}");
            assert_eq!(names(union.path("e")), ["below", "fine"], "{order:?}");
        }
        assert_logged(&union, &layer, "/d", Ask::ReadDir);
        layer.behave();
        assert_eq!(listing(union.path("d")).unwrap().len(), 101, "{order:?}");
    }
}

#[test]
fn a_mark_that_cannot_be_read_reveals_nothing() {
    needs_root!();
    let cases = [
        ("w d/gone", Ask::Lookup, "gone"),
        ("f d/.wh.gone", Ask::GetXattr, ".wh.gone"),
        ("d d user.overlay.opaque=x\nf d/gone user.overlay.whiteout=", Ask::GetXattr, "gone"),
        ("d d user.overlay.opaque=y\nf d/seen", Ask::GetXattr, "d"),
        ("d d user.overlay.opaque=y\nf d/seen", Ask::ListXattr, "d"),
        ("f d/.wh..wh..opq\nf d/seen", Ask::GetXattr, ".wh..wh..opq"),
    ];
    for (top, ask, name) in cases {
        let layer = FailingLayer::new(top);
        let union = over(&layer, "f d/gone text=secret\nf e/other").mount();
        layer.order(ask, name, Do::Fail);
        assert_eq!(listing(union.path("d")), Err(Errno::IO), "{top}");
        assert_eq!(try_lstat(union.path("d/gone")).err(), Some(Errno::IO), "{top}");
        assert_eq!(names(union.path("e")), ["other"], "{top}");
        assert_logged(&union, &layer, "/d", ask);
        layer.behave();
        assert!(!exists(union.path("d/gone")), "{top}");
        assert!(listing(union.path("d")).unwrap().len() < 2, "{top}");
    }
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_is_not_taken_for_a_shorter_one() {
    needs_root!();
    let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 7) as u8).collect();
    // In the midst of what the kernel asks for in one message, and between two of those.
    for bad in [100_000_u64, 65_536, 131_072, 999_000, 4096] {
        let layer = FailingLayer::new("f big\nf good text=good");
        fs::write(layer.source("big"), &content).unwrap();
        let union = over(&layer, "").mount();
        layer.order(Ask::Read, "big", Do::FailFrom(bad));
        for _ in 0..2 {
            let mut read = Vec::new();
            let result = File::open(union.path("big")).unwrap().read_to_end(&mut read);
            assert_eq!(errno(result), Errno::IO, "from {bad} on, after {} bytes", read.len());
            assert!(content.starts_with(&read), "from {bad} on");
            assert!(read.len() as u64 <= bad);
            assert_eq!(lstat(union.path("big")).st_size as usize, content.len(), "from {bad} on");
            assert_eq!(text(union.path("good")), "good");
        }
        assert_logged(&union, &layer, "/big", Ask::Read);
        layer.behave();
        assert!(fs::read(union.path("big")).unwrap() == content, "a failure has been remembered");
    }
}

#[test]
fn a_copy_up_that_cannot_read_its_file_leaves_the_old_state() {
    needs_root!();
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 3) as u8).collect();
    let layer = FailingLayer::new("f d/big\nf d/good text=good");
    fs::write(layer.source("d/big"), &content).unwrap();
    let mut union = over(&layer, "").mount();
    for bad in [0, 1_500_000, 2_990_000] {
        layer.order(Ask::Read, "big", Do::FailFrom(bad));
        let mut file = File::options().write(true).open(union.path("d/big")).unwrap();
        file.seek(SeekFrom::Start(10)).unwrap();
        assert_eq!(errno(file.write_all(b"changed")), Errno::IO, "from {bad} on");
        assert_eq!(errno(file.set_len(2_995_000)), Errno::IO, "from {bad} on");
        assert_logged(&union, &layer, "/d/big", Ask::Read);
        assert!(!exists(union.upper("d/big")));
        assert_eq!(names(union.work("plyfs/stage")), [""; 0], "from {bad} on");
        append(union.path("d/good"), "+");
        layer.behave();
        assert!(fs::read(union.path("d/big")).unwrap() == content, "from {bad} on");
    }
    append(union.path("d/big"), "end");
    union.remount();
    assert!(fs::read(union.path("d/big")).unwrap() == [&content[..], b"end"].concat());
    assert_eq!(text(union.path("d/good")), "good+++");
}

#[test]
fn other_files_answer_while_a_layer_hangs() {
    needs_root!();
    for (ask, name) in
        [(Ask::Read, "slow"), (Ask::Lookup, "slow"), (Ask::ReadDir, "d"), (Ask::Open, "slow")]
    {
        let layer = FailingLayer::new("f d/slow text=slow\nf d/good text=good\nf e/f text=e");
        let union = over(&layer, "f below text=below").mount();
        layer.order(ask, name, Do::Hang);
        let path = union.path("d/slow");
        let (done, read) = channel();
        std::thread::spawn(move || done.send(fs::read(path).unwrap()));
        layer.wait_for_hanging(1);
        assert_eq!(text(union.path("below")), "below", "{ask:?}");
        assert_eq!(text(union.path("e/f")), "e", "{ask:?}");
        append(union.path("e/f"), "+");
        fs::write(union.path("new"), "new").unwrap();
        assert_eq!(names(union.path("")), ["below", "d", "e", "new"], "{ask:?}");
        assert!(read.try_recv().is_err(), "{ask:?}: it did not hang");
        layer.behave();
        assert_eq!(read.recv_timeout(Duration::from_secs(20)).unwrap(), b"slow", "{ask:?}");
    }
}

/// Reads files of a layer until `count` of them hang, has `meanwhile` happen, and expects all to be read in the end.
fn while_reads_hang(
    builder: impl FnOnce(Builder) -> Builder,
    count: usize,
    meanwhile: impl FnOnce(&Union),
) {
    let files: String = (0..count).map(|n| format!("f d/{n} text=slow\n")).collect();
    let layer = FailingLayer::new(&files);
    let union = builder(over(&layer, "f below text=below\nf e/f text=e")).mount();
    let (done, read) = channel();
    for n in 0..count {
        layer.order(Ask::Open, &n.to_string(), Do::Hang);
        let (done, path) = (done.clone(), union.path("d").join(n.to_string()));
        std::thread::spawn(move || done.send(fs::read(path)));
        layer.wait_for_hanging(n + 1);
    }
    meanwhile(&union);
    assert!(read.try_recv().is_err(), "they did not hang");
    layer.behave();
    for _ in 0..count {
        assert_eq!(read.recv_timeout(Duration::from_secs(20)).unwrap().unwrap(), b"slow");
    }
}

#[test]
fn as_many_files_may_hang_as_there_are_threads_but_one() {
    needs_root!();
    let answers = |union: &Union| {
        for _ in 0..3 {
            assert_eq!(text(union.path("below")), "below");
            append(union.path("e/f"), "+");
            assert!(text(union.path("e/f")).starts_with("e+"));
            fs::write(union.path("new"), "new").unwrap();
            assert_eq!(names(union.path("")), ["below", "d", "e", "new"]);
        }
    };
    while_reads_hang(|builder| builder, 31, answers);
    while_reads_hang(|builder| builder.option("max_threads=4"), 3, answers);
}

#[test]
fn all_threads_that_hang_answer_again_when_their_layer_does() {
    needs_root!();
    while_reads_hang(|builder| builder.option("max_threads=4"), 4, |_| ());
}

#[test]
fn a_copy_up_that_takes_long_keeps_nobody_else_waiting() {
    needs_root!();
    let layer = FailingLayer::new("f d/big text=big\nf d/good text=good");
    let union = over(&layer, "f below text=below").mount();
    layer.order(Ask::Read, "big", Do::Hang);
    let path = union.path("d/big");
    let writer = std::thread::spawn(move || append(path, "+"));
    layer.wait_for_hanging(1);
    for _ in 0..3 {
        assert_eq!(lstat(union.path("d/good")).st_size, 4);
        assert_eq!(text(union.path("below")), "below");
        append(union.path("below"), "+");
        fs::write(union.path("below"), "below").unwrap();
        fs::write(union.path("d/new"), "new").unwrap();
        fs::remove_file(union.path("d/new")).unwrap();
        assert_eq!(lstat(union.path("d/big")).st_size, 3);
    }
    assert!(!writer.is_finished());
    layer.behave();
    writer.join().unwrap();
    assert_eq!(text(union.path("d/big")), "big+");
}

#[test]
fn a_layer_that_changes_its_answers_harms_nobody() {
    needs_root!();
    let kinds = [FileType::Directory, FileType::Symlink, FileType::NamedPipe, FileType::CharDevice];
    let orders = kinds.map(Do::Pretend).into_iter().chain([
        Do::Links(u32::MAX),
        Do::Links(1 << 31),
        Do::Links(0),
    ]);
    for order in orders {
        for known_before in [false, true] {
            let layer =
                FailingLayer::new("f d/file text=content\nf d/sub/x text=x\nf d/good text=good");
            let mut union = over(&layer, "f below text=below").mount();
            if known_before {
                text(union.path("d/file"));
                names(union.path("d/sub"));
            }
            for (ask, name) in [
                (Ask::Lookup, "file"),
                (Ask::GetAttr, "file"),
                (Ask::Lookup, "sub"),
                (Ask::GetAttr, "sub"),
            ] {
                layer.order(ask, name, order);
            }
            for name in ["d/file", "d/sub", "d/sub/x"] {
                try_everything(&union.path(name), &union.path("other"));
            }
            assert_eq!(text(union.path("d/good")), "good", "{order:?}");
            assert_eq!(text(union.path("below")), "below", "{order:?}");
            layer.behave();
            union.remount();
            assert_eq!(text(union.path("d/good")), "good", "{order:?}");
            let log = union.live().log();
            assert!(!log.contains("panicked"), "{order:?}: {log}");
        }
    }
}

/// Whatever this gives: it must give something.
fn try_everything(path: &Path, other: &Path) {
    let write = || {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK;
        open_file(path, flags)?.write_all(b"+")
    };
    let results = [
        fs::symlink_metadata(path).map(|_| ()),
        fs::read_dir(path).map(|_| ()),
        fs::hard_link(path, other),
        fs::remove_file(other),
        write(),
        fs::rename(path, other),
        fs::rename(other, path),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        assert_ne!(errno::<()>(Err(error)), Errno::NOTCONN);
    }
}
