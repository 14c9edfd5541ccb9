//! Layers that change while they are mounted: nothing is promised of what is shown then, but nothing outside of the
//! layers is opened, nothing that is no file is opened, and everybody gets an answer.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{
    CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, mknodat, openat2, renameat_with,
};
use rustix::io::Errno;

use super::canary::{Canary, assert_opened_beneath};
use crate::needs_root;
use crate::support::Union;
use crate::support::posix::{names, open_file, text};

/// Files and directories that change places with something else.
const PLACES: usize = 120;

/// Makes what takes the places: links out of the layer, FIFOs, directories and files.
fn make_replacements(dir: &Path, canary: &Canary) {
    fs::create_dir(dir).unwrap();
    for at in 0..PLACES {
        let path = dir.join(at.to_string());
        match at % 5 {
            0 => symlink(canary.path("secret"), &path).unwrap(),
            1 => mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap(),
            2 => symlink(canary.path(""), &path).unwrap(),
            3 => fs::create_dir(&path).unwrap(),
            _ => symlink("/proc/self/fd", &path).unwrap(),
        }
    }
}

/// Exchanges them again and again until told to stop.
fn exchange(layer: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for place in ["files", "dirs"] {
            for at in 0..PLACES {
                let one = layer.join(place).join(at.to_string());
                let other = layer.join("evil").join(place).join(at.to_string());
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
            }
        }
    }
}

/// Reads, lists and changes everything, and follows no link itself; whatever comes of it. Returns what was in files.
fn use_everything(union: &Union) -> Vec<Vec<u8>> {
    let mut contents = Vec::new();
    for at in 0..PLACES {
        for path in [format!("files/{at}"), format!("dirs/{at}/secret")] {
            let read = open_within(&union.path(&path), OFlags::RDONLY | OFlags::NONBLOCK);
            contents.extend(read.ok().and_then(|file| read_all(file).ok()));
            let write = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK;
            if at % 3 == 0
                && let Ok(mut file) = open_within(&union.path(&path), write)
            {
                // An error is an answer.
                drop(file.write_all(b"+"));
            }
        }
        let dir =
            open_within(&union.path(format!("dirs/{at}")), OFlags::RDONLY | OFlags::DIRECTORY);
        if let Ok(entries) = dir.and_then(Dir::read_from) {
            entries.for_each(drop);
        }
    }
    contents
}

fn open_within(path: &Path, flags: OFlags) -> Result<File, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS;
    openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).map(File::from)
}

fn read_all(mut file: File) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut content)?;
    Ok(content)
}

#[test]
fn heavy_layers_that_change_places_with_links_and_fifos_lead_nowhere() {
    needs_root!();
    for timeout in [false, true] {
        let canary = Canary::new();
        let scratch = crate::support::Scratch::new();
        let trace = scratch.path().join("trace");
        let strace = [
            "strace",
            "-D",
            "-f",
            "-qq",
            "--seccomp-bpf",
            "-s",
            "300",
            "-e",
            "trace=open,openat,openat2,creat,open_by_handle_at",
            "-o",
            trace.to_str().unwrap(),
        ];
        let mut builder = Union::new()
            .lower_with(|dir| {
                for at in 0..PLACES {
                    fs::create_dir_all(dir.join("files")).unwrap();
                    fs::write(dir.join(format!("files/{at}")), "honest").unwrap();
                    fs::create_dir_all(dir.join(format!("dirs/{at}"))).unwrap();
                    fs::write(dir.join(format!("dirs/{at}/secret")), "honest").unwrap();
                }
                fs::create_dir(dir.join("evil")).unwrap();
                make_replacements(&dir.join("evil/files"), &canary);
                make_replacements(&dir.join("evil/dirs"), &canary);
                fs::write(dir.join("good"), "good").unwrap();
            })
            .unchecked_lowers()
            .lifetime(Duration::from_secs(200))
            .wrapper(&strace);
        if timeout {
            builder = builder.option("timeout=0");
        }
        let union = builder.mount();
        let stop = AtomicBool::new(false);
        let layer = union.lower(0, "");
        std::thread::scope(|scope| {
            scope.spawn(|| exchange(&layer, &stop));
            for _ in 0..3 {
                for content in use_everything(&union) {
                    assert!(
                        content.is_empty() || content.starts_with(b"honest") || content == b"+",
                        "{}",
                        content.escape_ascii()
                    );
                }
                assert_eq!(text(union.path("good")), "good");
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(names(union.path("")).contains(&"good".to_owned()));
        canary.assert_untouched(union.live().pid(), "layers that change");
        assert_opened_beneath(&trace);
        assert!(!union.live().log().contains("panicked"));
    }
}

#[test]
fn a_fifo_in_the_place_of_a_file_is_an_error_and_does_not_wait() {
    needs_root!();
    let mut union = Union::new()
        .lower("f a text=a\nf b text=b\nf c text=c")
        .unchecked_lowers()
        .upper("f u text=u")
        .mount();
    assert_eq!(names(union.path("")), ["a", "b", "c", "u"]);
    // The names are known from here on, and nothing is open.
    for (path, kind) in [
        (union.lower(0, "a"), FileType::Fifo),
        (union.lower(0, "b"), FileType::Socket),
        (union.upper("u"), FileType::Fifo),
    ] {
        fs::remove_file(&path).unwrap();
        mknodat(CWD, &path, kind, Mode::from_raw_mode(0o666), 0).unwrap();
    }
    fs::remove_file(union.lower(0, "c")).unwrap();
    for name in ["a", "b", "u"] {
        let read = open_file(union.path(name), OFlags::RDONLY | OFlags::NONBLOCK)
            .map_err(std::io::Error::from)
            .and_then(read_all);
        assert!(read.is_err() || read.is_ok_and(|content| content.is_empty()), "{name}");
    }
    assert!(fs::read(union.path("c")).is_err());
    fs::write(union.path("new"), "new").unwrap();
    assert_eq!(text(union.path("new")), "new");
    union.unmount();
}
