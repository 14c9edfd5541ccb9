//! Memory, descriptors, caches, and many users at once.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use plyfs::fuse::statistics::{ATTRIBUTE, Report};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::Signal;

use crate::support::Union;
use crate::support::posix::{append, exists, get_xattr, names, open_file, run, text, until};
use crate::support::scratch::detach;
use crate::{needs_root, not_with};

const LONG: Duration = Duration::from_secs(600);

/// Makes `directories` directories of 100 files each.
fn wide(root: &Path, directories: u32) {
    for directory in 0..directories {
        let dir = root.join(format!("d{directory}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..100 {
            fs::write(dir.join(file.to_string()), "").unwrap();
        }
    }
}

fn stat_all(root: &Path, directories: std::ops::Range<u32>) {
    for directory in directories {
        let dir = root.join(format!("d{directory}"));
        assert_eq!(names(&dir).len(), 100);
        for file in 0..100 {
            assert!(exists(dir.join(file.to_string())));
        }
    }
}

/// Memory that the program really uses, in KiB.
fn memory(union: &Union) -> u64 {
    let status = format!("/proc/{}/status", union.live().pid().as_raw_nonzero());
    let status = fs::read_to_string(status).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Has the kernel forget every object of the union that nobody uses, and waits until the program has, too.
fn forget_all(union: &Union) {
    // A remount drops the names that the kernel knows in this mount; drop_caches would do so in every mount of
    // the machine, and wait for all their programs.
    mount_remount(union.path(""), MountFlags::empty(), c"").unwrap();
    let deadline = Instant::now() + Duration::from_secs(100);
    let nodes = || {
        let value = get_xattr(union.path(""), ATTRIBUTE).unwrap();
        serde_json::from_slice::<Report>(&value).unwrap().union.nodes
    };
    while nodes() > 1 {
        assert!(Instant::now() < deadline, "{} objects are not forgotten", nodes());
        std::thread::yield_now();
    }
}

/// Descriptors that the program has open.
fn descriptors(union: &Union) -> usize {
    fs::read_dir(format!("/proc/{}/fd", union.live().pid().as_raw_nonzero())).unwrap().count()
}

/// Threads of the program that read messages.
fn readers(union: &Union) -> usize {
    let tasks = format!("/proc/{}/task", union.live().pid().as_raw_nonzero());
    let names = fs::read_dir(tasks).unwrap().map(|task| task.unwrap().path().join("comm"));
    names
        .filter(|name| fs::read_to_string(name).is_ok_and(|name| name.starts_with("fuser")))
        .count()
}

#[test]
fn no_more_threads_begin_than_are_needed() {
    let usual = std::thread::available_parallelism().unwrap().get().clamp(2, 4);
    for (option, expected) in [("", usual), ("max_threads=1", 1), ("max_threads=2", 2)] {
        let begun = || {
            let union = Union::new().option(option).lower("f f text=lower").mount();
            // A thread has its name a moment after its start.
            until(|| readers(&union), |count| *count >= expected);
            for _ in 0..3000 {
                get_xattr(union.path("f"), "user.none").unwrap_err();
            }
            readers(&union)
        };
        // Another is needed where the machine has so much to do that all wait for a processor.
        until(begun, |count| *count == expected);
    }
}

#[test]
fn few_descriptors_are_enough_for_a_large_tree() {
    needs_root!();
    let union = Union::new()
        .wrapper(&["prlimit", "--nofile=256:256"])
        .lower_with(|dir| wide(dir, 30))
        .lower("f d0/x\nf d1/x\nf d2/x")
        .unchecked_lowers()
        .mount();
    for directory in 3..30 {
        assert_eq!(names(union.path(format!("d{directory}"))).len(), 100);
        for file in 0..100 {
            assert!(exists(union.path(format!("d{directory}/{file}"))));
        }
    }
    for directory in 0..30 {
        append(union.path(format!("d{directory}/7")), "x");
    }
    let held: Vec<_> =
        (0..400).map(|n| fs::File::open(union.path(format!("d5/{}", n % 100))).unwrap()).collect();
    for (number, file) in held.into_iter().enumerate() {
        assert_eq!(file.metadata().unwrap().len(), u64::from(number % 100 == 7));
    }
    assert!(descriptors(&union) <= 256);
}

#[test]
fn few_descriptors_are_enough_for_a_hundred_thousand_files() {
    needs_root!();
    let union = Union::new()
        .wrapper(&["prlimit", "--nofile=256:256"])
        .lower_with(|dir| wide(dir, 1000))
        .unchecked_lowers()
        .lifetime(LONG)
        .mount();
    stat_all(&union.path(""), 0..1000);
    for directory in 0..1000 {
        append(union.path(format!("d{directory}/3")), "x");
        fs::remove_file(union.path(format!("d{directory}/4"))).unwrap();
    }
    assert!(descriptors(&union) <= 256);
    fs::remove_dir_all(union.path("d0")).unwrap();
    assert_eq!(text(union.path("d999/3")), "x");
}

/// Bytes of memory for each known file, its name in its directory included. A release build with a million files needs
/// 180.
const MOST_FOR_A_FILE: u64 = 256;

#[test]
fn memory_and_descriptors_of_forgotten_files_are_given_back() {
    needs_root!();
    let union =
        Union::new().lower_with(|dir| wide(dir, 1200)).unchecked_lowers().lifetime(LONG).mount();
    let start = memory(&union);
    let (mut known, mut forgotten) = (Vec::new(), Vec::new());
    for part in 0..4 {
        stat_all(&union.path(""), part * 300..(part + 1) * 300);
        known.push(memory(&union).saturating_sub(start));
        forget_all(&union);
        forgotten.push(memory(&union).saturating_sub(start));
        let open = descriptors(&union);
        assert!(open < 50, "{open} descriptors stay open");
    }
    let stays = format!("of {known:?} KiB stay {forgotten:?} KiB");
    let before = std::iter::once(0).chain(forgotten.iter().copied());
    let needed: Vec<_> =
        known.iter().zip(before).map(|(known, before)| known.saturating_sub(before)).collect();
    let least = needed.into_iter().min().unwrap();
    assert!(least * 1024 / (300 * 100) < MOST_FOR_A_FILE, "{stays}");
    let most = known.into_iter().max().unwrap();
    // Every thread keeps a few free pieces of each size, which lie in a page each.
    assert!(forgotten[3] < forgotten[0] + most / 2, "{stays}");
    println!("{stays}");
}

#[test]
fn absent_names_and_known_attributes_are_cached() {
    needs_root!();
    not_with!("timeout");
    let union = Union::new().lower("f d/a text=a").lower("f d/b").mount();
    assert!(!exists(union.path("d/absent")) && exists(union.path("d/a")));
    // A stopped program can answer nothing: what is answered comes from the cache of the kernel.
    union.live().freeze();
    let (answer, answers) = channel();
    let (absent, present) = (union.path("d/absent"), union.path("d/a"));
    std::thread::spawn(move || answer.send((exists(absent), exists(present))));
    let cached = answers.recv_timeout(Duration::from_secs(20));
    union.live().signal(Signal::CONT);
    assert_eq!(cached, Ok((false, true)), "the program had to be asked again");
    fs::write(union.path("d/absent"), "now").unwrap();
    assert_eq!(text(union.path("d/absent")), "now");
}

#[test]
fn cached_names_are_right_after_every_change() {
    needs_root!();
    let union = Union::new().lower("f d/a\nf e/a text=e").mount();
    for round in 0..3 {
        assert!(!exists(union.path("d/x")));
        fs::write(union.path("d/x"), "").unwrap();
        assert!(exists(union.path("d/x")));
        fs::rename(union.path("d/x"), union.path("d/y")).unwrap();
        assert!(!exists(union.path("d/x")) && exists(union.path("d/y")));
        fs::remove_file(union.path("d/y")).unwrap();
        assert!(!exists(union.path("d/y")));
        fs::hard_link(union.path("e/a"), union.path("d/y")).unwrap();
        assert_eq!(text(union.path("d/y")), "e", "{round}");
        fs::remove_file(union.path("d/y")).unwrap();
    }
}

#[test]
fn many_threads_make_change_and_remove_at_once() {
    needs_root!();
    let mut union = Union::new()
        .lower_with(|dir| {
            for number in 0..8 {
                fs::create_dir_all(dir.join(format!("d{number}"))).unwrap();
                for file in 0..50 {
                    fs::write(dir.join(format!("d{number}/{file}")), file.to_string()).unwrap();
                }
            }
            fs::create_dir(dir.join("shared")).unwrap();
        })
        .mount();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let union = &union;
            scope.spawn(move || {
                let dir = union.path(format!("d{worker}"));
                for file in 0..50 {
                    append(dir.join(file.to_string()), "+");
                    fs::rename(
                        dir.join(file.to_string()),
                        union.path(format!("shared/{worker}-{file}")),
                    )
                    .unwrap();
                    assert!(names(union.path("shared")).contains(&format!("{worker}-{file}")));
                    if file % 2 == 0 {
                        fs::remove_file(union.path(format!("shared/{worker}-{file}"))).unwrap();
                    }
                }
                fs::remove_dir(dir).unwrap();
            });
        }
    });
    for _ in 0..2 {
        assert_eq!(names(union.path("")), ["shared"]);
        assert_eq!(names(union.path("shared")).len(), 8 * 25);
        for worker in 0..8 {
            assert_eq!(text(union.path(format!("shared/{worker}-49"))), "49+");
        }
        union.remount();
    }
}

#[test]
fn directories_renamed_across_each_other_never_lock_up() {
    needs_root!();
    let union = Union::new()
        .lower("f a/one/x\nf a/two/x\nf b/three/x\nf b/four/x")
        .lower("f a/one/y\nf b/three/y")
        .mount();
    std::thread::scope(|scope| {
        for (from, to, name) in
            [("a", "b", "one"), ("b", "a", "three"), ("a", "b", "two"), ("b", "a", "four")]
        {
            let union = &union;
            scope.spawn(move || {
                for _ in 0..25 {
                    let (here, there) = (union.path(from).join(name), union.path(to).join(name));
                    fs::rename(&here, &there).unwrap();
                    assert!(!names(&there).is_empty());
                    fs::rename(&there, &here).unwrap();
                }
            });
        }
    });
    assert_eq!(names(union.path("a")), ["one", "two"]);
    assert_eq!(names(union.path("b/three")), ["x", "y"]);
}

#[test]
fn program_ends_well_after_a_very_deep_tree() {
    needs_root!();
    let mut union = Union::new().lower("f a").lifetime(LONG).mount();
    let mut dir = OwnedFd::from(open_file(union.path(""), OFlags::DIRECTORY).unwrap());
    for depth in 0..20_000 {
        let made = mkdirat(&dir, "d", Mode::RWXU)
            .and_then(|()| openat(&dir, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()));
        dir = made.unwrap_or_else(|error| panic!("directory {depth}: {error}"));
    }
    drop(dir);
    let mount = union.take();
    detach(mount.point());
    let status = mount.wait();
    // The library removes directories with one descriptor for each level.
    run("rm", ["-r".as_ref(), union.upper("d").as_os_str()]);
    assert!(status.success(), "{status}");
}

#[test]
fn writes_beyond_the_largest_size_of_a_file_do_not_end_the_program() {
    needs_root!();
    not_with!("writeback=1", "io=passthrough");
    let large = "x".repeat(1 << 20);
    let union = Union::new()
        .wrapper(&["prlimit", "--fsize=51200:51200"])
        .lower(&format!("f large text={large}\nf small text=small"))
        .mount();
    let too_large = |result: std::io::Result<()>, expected: &[u8], name: &str| match result {
        Ok(()) => assert!(fs::read(union.path(name)).unwrap() == expected, "{name}"),
        Err(error) => assert_eq!(Errno::from_io_error(&error), Some(Errno::FBIG), "{name}"),
    };
    too_large(fs::write(union.path("new"), &large), large.as_bytes(), "new");
    let half = 1 << 19;
    let opened = fs::File::options().write(true).open(union.path("large"));
    too_large(
        opened.and_then(|file| file.set_len(half)),
        &large.as_bytes()[..half as usize],
        "large",
    );
    append(union.path("small"), "+");
    assert_eq!(text(union.path("small")), "small+");
    assert_eq!(names(union.path("")), ["large", "new", "small"]);
}
