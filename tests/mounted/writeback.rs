//! With `writeback=1` the kernel takes writes and sends them later: size and times are its own until then, and errors come
//! when the writer has gone on.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use rustix::fs::{
    FallocateFlags, OFlags, Timespec, Timestamps, copy_file_range, fallocate, fchmod, fchown,
    fcntl_setfl, fsync, futimens, syncfs,
};
use rustix::io::Errno;
use rustix::process::{Gid, Signal, Uid};

use crate::support::posix::{
    USER, append, as_user, chmod, create, errno, exists, get_xattr, lstat, mode, mtime, names,
    open_file, open_rw, run, text, until,
};
use crate::support::{Builder, Union};
use crate::{needs_root, not_with};

fn collecting() -> Builder {
    Union::new().option("writeback=1")
}

/// A union in whose file `a` the kernel has `text` that it has not sent yet. It has if somebody calls sync(2) just then.
fn unsent(text: &[u8]) -> (Union, File) {
    for _ in 0..20 {
        let union = collecting().lower("f a text=lower").mount();
        let file = open_rw(union.path("a"));
        file.write_at(text, 0).unwrap();
        if !exists(union.upper("a")) {
            return (union, file);
        }
    }
    panic!("it has been sent at every try");
}

/// An upper layer with room for `size`.
fn small(size: &str) -> Builder {
    collecting().upper_on(|volume| {
        let size = format!("size={size}");
        run("mount", ["-t", "tmpfs", "-o", &size, "none", volume.to_str().unwrap()]);
    })
}

/// Has the kernel send what it has of a file; the errors are not taken.
fn start_writing(path: &Path) {
    run("xfs_io", ["-c", "sync_range -w 0 0", path.to_str().unwrap()]);
}

#[test]
fn next_write_to_a_full_layer_fails_and_stat_does_not() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let union = small("4m").lower("f other text=other").mount();
    let file = create(union.path("new"), OFlags::WRONLY, 0o644).unwrap();
    file.write_all_at(&vec![1; 8 << 20], 0).unwrap();
    start_writing(&union.path("new"));
    let told = until(
        || {
            assert_eq!(lstat(union.path("new")).st_size, 8 << 20);
            file.write_at(b"x", 0)
        },
        Result::is_err,
    );
    assert_eq!(errno(told), Errno::NOSPC);
    assert_eq!(fsync(&file), Err(Errno::NOSPC));
    // Who writes elsewhere has lost nothing, and what is deleted makes room.
    drop(file);
    fs::remove_file(union.path("new")).unwrap();
    append(union.path("other"), "+");
    assert_eq!(text(union.path("other")), "other+");
}

#[test]
fn writer_without_end_is_stopped() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let union = small("4m").lower("f a").mount();
    let target = format!("of={}", union.path("new").display());
    let dd = std::process::Command::new("dd")
        .args(["if=/dev/zero", "bs=64k", &target])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&dd.stderr).into_owned();
    assert!(!dd.status.success() && said.contains("error writing"), "{said}");
}

#[test]
fn close_tells_what_could_not_be_stored() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let union = small("2m").lower("f small text=small").mount();
    let target = format!("of={}", union.path("small").display());
    let dd = std::process::Command::new("dd")
        .args(["if=/dev/zero", "bs=4M", "count=1", &target])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&dd.stderr).into_owned();
    assert!(!dd.status.success() && said.contains("No space left on device"), "{said}");
}

#[test]
fn data_whose_copy_up_failed_is_not_shown() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let big = |dir: &Path| fs::write(dir.join("big"), vec![b'x'; 8 << 20]).unwrap();
    let mut union = small("2m").lower_with(big).mount();
    let file = open_rw(union.path("big"));
    file.write_at(b"y", 4096).unwrap();
    assert_eq!(fsync(&file), Err(Errno::NOSPC));
    let read = || fs::read(union.path("big")).unwrap();
    until(read, |found| found == &vec![b'x'; 8 << 20]);
    drop(file);
    union.remount();
    assert!(!exists(union.upper("big")));
}

#[test]
fn what_is_not_sent_yet_is_seen_by_everybody() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let (union, mut one) = unsent(b"LOWER-and-more");
    let path = union.path("a");
    let two = open_file(&path, OFlags::RDWR | OFlags::APPEND).unwrap();
    assert_eq!(lstat(&path).st_size, 14);
    assert_eq!(run("wc", ["-c", path.to_str().unwrap()]).split(' ').next(), Some("14"));
    assert_eq!(one.seek(SeekFrom::End(0)).unwrap(), 14);
    let third = open_file(&path, OFlags::WRONLY | OFlags::APPEND).unwrap();
    for mut file in [&two, &third, &two] {
        file.write_all(b"+").unwrap();
    }
    assert_eq!(text(&path), "LOWER-and-more+++");
    two.set_len(9).unwrap();
    assert_eq!(text(&path), "LOWER-and");
    one.write_at(b"!", 11).unwrap();
    assert_eq!(text(&path), "LOWER-and\0\0!");
    drop((one, two, third));
    assert_eq!(text(union.upper("a")), "LOWER-and\0\0!");
}

#[test]
fn space_and_ranges_see_what_is_not_sent_yet() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let union = collecting().lower("").upper("f a\nf b").mount();
    let (a, b) = (open_rw(union.path("a")), open_rw(union.path("b")));
    a.write_at(&[b'a'; 4096], 8192).unwrap();
    // Holes are not found, and so no data is taken for one.
    assert_eq!(rustix::fs::seek(&a, rustix::fs::SeekFrom::Data(1)), Ok(1));
    assert_eq!(rustix::fs::seek(&a, rustix::fs::SeekFrom::Hole(8192)), Ok(12288));
    let mut from = 8192;
    assert_eq!(copy_file_range(&a, Some(&mut from), &b, Some(&mut 1), 100), Ok(100));
    assert_eq!(fs::read(union.path("b")).unwrap()[1..], [b'a'; 100]);
    fallocate(&b, FallocateFlags::empty(), 0, 5000).unwrap();
    b.write_at(b"c", 4999).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&a, punch, 8192, 1000).unwrap();
    let mapped = union.path("a");
    run("xfs_io", ["-c", "mmap -rw 0 12288", "-c", "mwrite -S 0x4d 0 4", mapped.to_str().unwrap()]);
    a.write_at(b"W", 2).unwrap();
    let check = |dir: &dyn Fn(&str) -> std::path::PathBuf| {
        let (a, b) = (fs::read(dir("a")).unwrap(), fs::read(dir("b")).unwrap());
        assert_eq!((&a[..5], a[9191], a[9192], a.len()), (&b"MMWM\0"[..], 0, b'a', 12288));
        assert_eq!((b.len(), b[100], b[101], b[4999]), (5000, b'a', 0, b'c'));
    };
    check(&|name| union.path(name));
    drop((a, b));
    check(&|name| union.upper(name));
}

#[test]
fn time_of_a_change_is_that_of_the_write_and_stays() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let mut union = collecting().lower("f a mtime=5\nf set\nf again").mount();
    let (a, set, again) =
        (open_rw(union.path("a")), open_rw(union.path("set")), open_rw(union.path("again")));
    a.write_at(b"a", 0).unwrap();
    let written = mtime(union.path("a"));
    assert!(written.0 > 1_000_000_000);
    // A time that is set stands though data is sent after it; a write after it counts.
    let old = Timespec { tv_sec: 1_000_000_000, tv_nsec: 5 };
    let times = Timestamps { last_access: old, last_modification: old };
    set.write_at(b"s", 0).unwrap();
    futimens(&set, &times).unwrap();
    again.write_at(b"s", 0).unwrap();
    futimens(&again, &times).unwrap();
    again.write_at(b"t", 1).unwrap();
    // (The clock of file times goes by ticks.)
    sleep(Duration::from_millis(50));
    drop((a, set, again));
    assert_eq!(mtime(union.upper("a")), written);
    assert_eq!(mtime(union.upper("set")), (1_000_000_000, 5));
    assert!(mtime(union.upper("again")).0 > 1_000_000_000);
    let shown = ["a", "set", "again"].map(|name| mtime(union.path(name)));
    union.remount();
    assert_eq!(["a", "set", "again"].map(|name| mtime(union.path(name))), shown);
}

#[test]
fn rights_that_change_before_the_data_is_sent_do_not_keep_it() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let union = collecting().lower("f a text=lower mode=0666").mount();
    let file = as_user(|| open_file(union.path("a"), OFlags::WRONLY).unwrap());
    file.write_at(b"U", 0).unwrap();
    fchmod(&file, 0o400.into()).unwrap();
    fchown(&file, Some(Uid::from_raw(7)), Some(Gid::from_raw(8))).unwrap();
    file.write_at(b"P", 1).unwrap();
    drop(file);
    assert_eq!(text(union.upper("a")), "UPwer");
    let stat = lstat(union.upper("a"));
    assert_eq!((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid), (0o400, 7, 8));
}

#[test]
fn part_of_a_page_of_a_file_that_may_only_be_written() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let text_of = |name: &str| format!("f {name} text=0123456789 mode=0200 own={USER}:{USER}\n");
    let union = collecting().lower(&text_of("low")).upper(&text_of("up")).mount();
    for name in ["low", "up"] {
        let file = as_user(|| open_file(union.path(name), OFlags::WRONLY).unwrap());
        as_user(|| file.write_at(b"x", 4).unwrap());
        drop(file);
        assert_eq!(text(union.upper(name)), "0123x56789");
    }
}

#[test]
fn set_id_bits_and_capabilities_go_when_write_returns() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let union = collecting().lower("f setid text=x mode=06777\nf capable text=x").mount();
    let capable = union.path("capable");
    run("setcap", ["cap_net_raw+ep", capable.to_str().unwrap()]);
    let file = as_user(|| open_file(union.path("setid"), OFlags::WRONLY).unwrap());
    as_user(|| file.write_at(b"y", 0).unwrap());
    assert_eq!(mode(union.path("setid")), 0o777);
    let file = open_rw(&capable);
    file.write_at(b"y", 0).unwrap();
    assert_eq!(get_xattr(&capable, "security.capability"), Err(Errno::NODATA));
}

#[test]
fn file_that_is_deleted_before_it_is_sent_leaves_nothing() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let union = collecting().lower("f a text=lower\nf b text=lower").mount();
    let mut a = open_rw(union.path("a"));
    a.write_all(b"UPPER").unwrap();
    fs::remove_file(union.path("a")).unwrap();
    assert_eq!(
        fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&a))).unwrap(),
        b"UPPER"
    );
    drop(a);
    fs::write(union.path("new"), "new").unwrap();
    fs::rename(union.path("new"), union.path("b")).unwrap();
    assert_eq!(text(union.upper("b")), "new");
    assert_eq!(names(union.path("")), ["b"]);
}

#[test]
fn data_follows_its_file_through_renames_and_links() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let union = collecting().lower("f d/e/a text=lower\nf d/l text=link\nh d/l2 to=d/l").mount();
    let (a, link) = (open_rw(union.path("d/e/a")), open_rw(union.path("d/l")));
    a.write_at(b"UPPER", 0).unwrap();
    link.write_at(b"LINK", 0).unwrap();
    fs::rename(union.path("d/e/a"), union.path("d/e/b")).unwrap();
    fs::rename(union.path("d"), union.path("moved")).unwrap();
    fs::hard_link(union.path("moved/e/b"), union.path("c")).unwrap();
    assert_eq!(text(union.path("moved/l2")), "LINK");
    drop((a, link));
    for name in ["moved/e/b", "c"] {
        assert_eq!(text(union.upper(name)), "UPPER", "{name}");
    }
    assert_eq!(text(union.path("moved/l2")), "LINK");
}

#[test]
fn fsync_and_unmount_send_everything() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let mut union = collecting().lower("f a\nf mapped text=0123").mount();
    let mut file = open_rw(union.path("a"));
    file.write_all(b"synced").unwrap();
    fsync(&file).unwrap();
    assert_eq!(text(union.upper("a")), "synced");
    drop(file);
    let mapped = union.path("mapped");
    run("xfs_io", ["-c", "mmap -rw 0 4", "-c", "mwrite -S 0x4d 0 2", mapped.to_str().unwrap()]);
    union.unmount();
    assert_eq!(text(union.upper("mapped")), "MM23");
}

#[test]
fn signal_does_not_lose_what_open_files_have_not_sent() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let (mut union, file) = unsent(b"UPPER");
    let mount = union.take();
    mount.signal(Signal::TERM);
    assert!(mount.wait().success());
    assert_eq!(text(union.upper("a")), "UPPER");
    assert!(file.metadata().is_err() || file.metadata().unwrap().size() == 5);
}

#[test]
fn permissions_set_before_the_first_write_count() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let union = collecting().lower("f a text=lower").mount();
    let file = open_rw(union.path("a"));
    chmod(union.path("a"), 0o440).unwrap();
    file.write_at(b"U", 0).unwrap();
    assert_eq!((mode(union.path("a")), text(union.path("a"))), (0o440, "Uower".into()));
}

#[test]
fn time_of_a_synced_file_is_the_one_that_was_seen() {
    needs_root!();
    not_with!("io=passthrough", "cache=never", "timeout");
    let union = collecting().lower("f a").mount();
    let root = open_file(union.path(""), OFlags::RDONLY).unwrap();
    let written = |name: &str| {
        let file = create(union.path(name), OFlags::WRONLY, 0o644)?;
        file.write_at(b"text", 0)?;
        fsync(&file)?;
        std::io::Result::Ok(mtime(union.path(name)) == mtime(union.upper(name)))
    };
    let done = AtomicBool::new(false);
    // What syncs all files sends a time without waiting for the data.
    let all: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                syncfs(&root).unwrap();
            }
        });
        let all = (0..300).map(|round| written(&format!("file{round}"))).collect();
        done.store(true, Ordering::Relaxed);
        all
    });
    let wrong: Vec<_> = all.iter().filter(|same| !matches!(same, Ok(true))).collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:?}", wrong.len(), all.len());
}

type Change<'a> = dyn Fn(&File) + 'a;

#[test]
fn every_kind_of_change_leaves_the_time_that_is_seen() {
    needs_root!();
    not_with!("io=passthrough", "timeout");
    for cache in ["cache=auto", "cache=never"] {
        let union = collecting().option(cache).lower("f source text=source").mount();
        let source = open_file(union.path("source"), OFlags::RDONLY).unwrap();
        let changes: [(&str, &Change); 5] = [
            ("written", &|file| assert_eq!(file.write_at(b"text", 0).unwrap(), 4)),
            ("written-directly", &|file| {
                fcntl_setfl(file, OFlags::DIRECT).unwrap();
                assert_eq!(file.write_at(&[b'x'; 4096], 0).unwrap(), 4096);
            }),
            ("cut", &|file| file.set_len(1).unwrap()),
            ("allocated", &|file| fallocate(file, FallocateFlags::empty(), 0, 8192).unwrap()),
            ("copied", &|file| {
                assert_eq!(copy_file_range(&source, Some(&mut 0), file, Some(&mut 0), 6), Ok(6));
            }),
        ];
        for (name, change) in changes {
            let file = create(union.path(name), OFlags::RDWR, 0o644).unwrap();
            let seen = || {
                fsync(&file).unwrap();
                let seen = mtime(union.path(name));
                assert_eq!(mtime(union.upper(name)), seen, "{name} with {cache}");
                seen
            };
            let made = seen();
            // At once, in the same tick of the clock of files, and a while after that.
            change(&file);
            let first = seen();
            let later = until(
                || {
                    change(&file);
                    seen()
                },
                |time| *time > first,
            );
            assert!(made <= first && first < later, "{name} with {cache}");
        }
    }
}
