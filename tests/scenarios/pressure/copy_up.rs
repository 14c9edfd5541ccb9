//! Many programs that change one lower file in the same moment.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use plyfs::fuse::statistics::{ATTRIBUTE, Report};
use rustix::fs::OFlags;

use crate::needs_root;
use crate::support::posix::{chmod, get_xattr, open_file, open_rw, set_xattr};
use crate::support::{Builder, Union};

/// How many change a file at once.
const MANY: usize = 8;
/// Bytes of a file, so many that the others come while its data is moving.
const LENGTH: usize = 8 << 20;
const RANGE: usize = LENGTH / MANY;

fn one_file() -> Builder {
    Union::new().lower_with(|dir| fs::write(dir.join("f"), vec![b'l'; LENGTH]).unwrap())
}

/// Copy-ups so far, those of attributes only among them, and bytes of data.
fn copied(union: &Union) -> (u64, u64, u64) {
    let value = get_xattr(union.path(""), ATTRIBUTE).unwrap();
    let figures = serde_json::from_slice::<Report>(&value).unwrap().union;
    (figures.copy_ups, figures.metacopies, figures.copied_bytes)
}

/// Runs `change` in eight threads that start at once, while two others read the file.
fn at_once(path: &Path, change: impl Fn(usize) + Sync) {
    let all_there = Barrier::new(MANY + 2);
    let at_work = AtomicUsize::new(MANY);
    std::thread::scope(|scope| {
        for thread in 0..MANY + 2 {
            let (change, all_there, at_work) = (&change, &all_there, &at_work);
            scope.spawn(move || {
                all_there.wait();
                if thread < MANY {
                    change(thread);
                    at_work.fetch_sub(1, Ordering::Relaxed);
                    return;
                }
                while at_work.load(Ordering::Relaxed) > 0 {
                    // One of them past the page cache of the kernel.
                    let flags = if thread == MANY { OFlags::DIRECT } else { OFlags::empty() };
                    let file = open_file(path, OFlags::RDONLY | flags).unwrap();
                    let mut found = vec![0; LENGTH];
                    file.read_exact_at(&mut found, 0).unwrap();
                    expect_whole(&found);
                }
            });
        }
    });
}

/// Every byte is that of the lower file or of its writer.
fn expect_whole(found: &[u8]) {
    for (writer, range) in found.chunks(RANGE).enumerate() {
        let known = |byte: &u8| *byte == b'l' || *byte == b'0' + writer as u8;
        assert!(range.iter().all(known), "in the range of writer {writer}");
    }
}

fn write_own_range(path: &Path, writer: usize) {
    let own = vec![b'0' + writer as u8; RANGE];
    open_rw(path).write_all_at(&own, (writer * RANGE) as u64).unwrap();
}

fn expect_all_ranges(path: &Path) {
    let expected: Vec<u8> = (0..LENGTH).map(|at| b'0' + (at / RANGE) as u8).collect();
    assert!(fs::read(path).unwrap() == expected);
}

/// The kernel lets one writer after the other through, but everybody who opens at once: with `io=plain` it is
/// the opening that copies up.
#[test]
fn a_file_that_eight_open_and_write_to_is_copied_up_once() {
    needs_root!();
    for option in ["io=auto", "io=plain", "writeback=1"] {
        let mut union = one_file().option(option).mount();
        at_once(&union.path("f"), |writer| write_own_range(&union.path("f"), writer));
        assert_eq!(copied(&union), (1, 0, LENGTH as u64), "{option}");
        expect_all_ranges(&union.path("f"));
        union.remount();
        expect_all_ranges(&union.path("f"));
    }
}

/// Attributes first, then the data, each of them once.
#[test]
fn a_file_that_eight_change_in_all_ways_is_copied_up_once_with_metacopy() {
    needs_root!();
    let mut union = one_file().option("metacopy=on").mount();
    let path = union.path("f");
    at_once(&path, |thread| {
        match thread % 4 {
            0 => chmod(&path, 0o600 | thread as u32).unwrap(),
            1 => set_xattr(&path, &format!("user.n{thread}"), b"x").unwrap(),
            2 => fs::hard_link(&path, union.path(format!("link{thread}"))).unwrap(),
            _ => {}
        }
        write_own_range(&path, thread);
    });
    let (copy_ups, metacopies, bytes) = copied(&union);
    // The data of a metacopy is completed later, which is no copy-up of its own.
    assert_eq!(copy_ups, 1);
    assert!(metacopies <= 1 && bytes <= LENGTH as u64, "{metacopies}, {bytes}");
    for _ in 0..2 {
        for name in ["f", "link2", "link6"] {
            expect_all_ranges(&union.path(name));
        }
        for name in ["user.n1", "user.n5"] {
            assert_eq!(get_xattr(union.path("link2"), name).as_deref(), Ok(&b"x"[..]));
        }
        union.remount();
    }
}
