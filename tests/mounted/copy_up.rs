//! Copy-up: when it happens, and that nothing gets lost on the way.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{FileType, OFlags, fsync, major, minor};
use rustix::io::Errno;

use crate::support::posix::{
    append, chmod, chown, errno, get_xattr, kind, long_name, lstat, mkdir, mknod, mode, mtime,
    names, open_file, open_rw, owner, run, set_times, set_xattr, text,
};
use crate::support::{Field, Snapshot, Union, assert_same, tree};
use crate::{isolated, needs_root, not_with};

#[test]
fn opening_for_writing_copies_nothing_until_the_first_change() {
    needs_root!();
    not_with!("io=plain", "timeout", "io=passthrough");
    let union = Union::new().lower("f d/a text=content").mount();
    let file = open_rw(union.path("d/a"));
    let appending = open_file(union.path("d/a"), OFlags::WRONLY | OFlags::APPEND).unwrap();
    fsync(&file).unwrap();
    assert_eq!(names(union.upper("")), [""; 0]);
    file.write_at(b"C", 0).unwrap();
    drop((file, appending));
    assert_eq!(text(union.upper("d/a")), "Content");
}

#[test]
fn first_write_keeps_content_owner_mode_attributes_and_the_times_of_directories() {
    needs_root!();
    let lower = "d d mode=0700 own=7:8 user.dir=x mtime=1000.5
        d d/e mode=01777 own=9:10 mtime=2000.25
        f d/e/f mode=0640 own=5:6 text=content user.a=b trusted.c=d mtime=3000";
    let mut union = Union::new()
        .lower_with(|dir| {
            tree::make(dir, lower);
            run("setfacl", ["-m".as_ref(), "u:77:rw".as_ref(), dir.join("d/e/f").as_os_str()]);
        })
        .mount();
    let before = union.snapshot();
    append(union.path("d/e/f"), "+");
    let changed = [Field::Mtime, Field::Content, Field::Size];
    let mut expected = before.clone();
    expected.forget("d/e/f", &changed);
    for _ in 0..2 {
        let mut now = union.snapshot();
        assert_eq!(now.field("d/e/f", Field::Content), Some("content+"));
        now.forget("d/e/f", &changed);
        assert_same(&expected, &now, "before and after the first write");
        union.remount();
    }
}

#[test]
fn private_directory_stays_private_when_something_below_it_is_copied_up() {
    needs_root!();
    not_with!("xattr_permissions");
    let mut union = Union::new().lower("d d mode=0700 own=5:5\nf d/e/f mode=0600").mount();
    append(union.path("d/e/f"), "x");
    for _ in 0..2 {
        assert_eq!((mode(union.path("d")), owner(union.path("d"))), (0o700, (5, 5)));
        union.remount();
    }
    assert_eq!((mode(union.upper("d")), owner(union.upper("d"))), (0o700, (5, 5)));
}

#[test]
fn special_files_are_copied_up_as_what_they_are() {
    needs_root!();
    not_with!("xattr_permissions");
    let lower = "p pipe\ns socket\nc null dev=1:3\nb disk dev=8:1\nl link to=target mtime=1000.5
        w gone\nl far to=/very/far";
    let mut union = Union::new().lower(lower).mount();
    let all = ["pipe", "socket", "null", "disk", "link", "far"];
    let kinds = all.map(|name| kind(union.path(name)));
    for name in all {
        chown(union.path(name), 5, 6).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(all.map(|name| kind(union.path(name))), kinds);
        assert_eq!(all.map(|name| owner(union.path(name))), [(5, 6); 6]);
        union.remount();
    }
    assert_eq!(all.map(|name| kind(union.upper(name))), kinds);
    let device = lstat(union.upper("disk")).st_rdev;
    assert_eq!((major(device), minor(device)), (8, 1));
    assert_eq!(fs::read_link(union.path("link")).unwrap().to_str(), Some("target"));
    assert_eq!(mtime(union.path("link")), (1000, 500_000_000));
}

#[test]
fn fifo_stays_a_fifo_when_its_mode_is_changed() {
    needs_root!();
    not_with!("xattr_permissions");
    let mut union = Union::new().lower("p pipe mode=0600").mount();
    chmod(union.path("pipe"), 0o640).unwrap();
    union.remount();
    assert_eq!(kind(union.path("pipe")), FileType::Fifo);
    assert_eq!(kind(union.upper("pipe")), FileType::Fifo);
    assert_eq!(mode(union.path("pipe")), 0o640);
}

#[test]
fn sparse_file_stays_sparse() {
    needs_root!();
    const HUGE: u64 = 1 << 34;
    let mut union = Union::new()
        .lower_with(|dir| {
            let file = fs::File::create(dir.join("sparse")).unwrap();
            file.set_len(HUGE).unwrap();
            file.write_at(b"middle", HUGE / 2).unwrap();
            file.write_at(b"end", HUGE - 3).unwrap();
        })
        .unchecked_lowers()
        .mount();
    open_rw(union.path("sparse")).write_at(b"start", 0).unwrap();
    union.remount();
    let file = fs::File::open(union.path("sparse")).unwrap();
    for (offset, text) in [(0, "start"), (HUGE / 2, "middle"), (HUGE - 3, "end"), (4096, "\0")] {
        let mut buffer = vec![0; text.len()];
        file.read_exact_at(&mut buffer, offset).unwrap();
        assert_eq!(buffer, text.as_bytes());
    }
    assert_eq!(file.metadata().unwrap().len(), HUGE);
    let blocks = fs::metadata(union.upper("sparse")).unwrap().blocks();
    assert!(blocks < 200, "{blocks} blocks of 512 bytes");
    assert_eq!(file.metadata().unwrap().blocks(), blocks);
}

#[test]
fn file_with_a_name_of_255_bytes_is_written() {
    needs_root!();
    let name = long_name(255);
    let mut union = Union::new().lower(&format!("f {name} text=a\nf d/{name} text=b")).mount();
    append(union.path(&name), "+");
    append(union.path("d").join(&name), "+");
    union.remount();
    assert_eq!(text(union.path(&name)), "a+");
    assert_eq!(text(union.path("d").join(&name)), "b+");
    fs::remove_file(union.path(&name)).unwrap();
    union.remount();
    assert_eq!(names(union.path("")), ["d"]);
}

#[test]
fn truncation_on_open_copies_no_data() {
    needs_root!();
    let mut union = Union::new()
        .lower_with(|dir| {
            let file = fs::File::create(dir.join("huge")).unwrap();
            file.set_len(1 << 42).unwrap();
            chmod(dir.join("huge"), 0o640).unwrap();
        })
        .unchecked_lowers()
        .mount();
    fs::write(union.path("huge"), "new").unwrap();
    union.remount();
    assert_eq!(text(union.path("huge")), "new");
    assert_eq!(mode(union.path("huge")), 0o640);
}

#[test]
fn leftovers_in_the_work_directory_never_get_into_files() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a\nf b text=b").mount();
    append(union.path("a"), "+");
    union.unmount();
    let mut places = vec![union.work("")];
    for path in Snapshot::of(&union.work("")).paths() {
        if kind(union.work(path)) == FileType::Directory {
            places.push(union.work(path));
        }
    }
    for place in &places {
        for stale in ["1", "0", "#1", "2", "tmp", "a", "b", "new", "plyfs-1", "whiteout"] {
            fs::write(place.join(stale), "stale bytes of an earlier crash").ok();
        }
    }
    union.start();
    append(union.path("b"), "+");
    fs::write(union.path("new"), "new").unwrap();
    fs::write(union.path("tmp"), "").unwrap();
    fs::remove_file(union.path("a")).unwrap();
    fs::create_dir(union.path("d")).unwrap();
    union.remount();
    assert_eq!(names(union.path("")), ["b", "d", "new", "tmp"]);
    assert_eq!(["b", "new", "tmp"].map(|name| text(union.path(name))), ["b+", "new", ""]);
    assert_eq!(names(union.path("d")), [""; 0]);
}

#[test]
fn nothing_is_left_in_the_work_directory() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a\nf d/b text=b\nf d/c\nd e").mount();
    let before = Snapshot::of(&union.work(""));
    append(union.path("d/b"), "+");
    fs::remove_file(union.path("d/c")).unwrap();
    fs::rename(union.path("d"), union.path("f")).unwrap();
    fs::remove_dir(union.path("e")).unwrap();
    fs::create_dir(union.path("e")).unwrap();
    union.unmount();
    let files = |snapshot: &Snapshot| {
        let data = |path: &&std::path::Path| {
            snapshot
                .field(path.to_str().unwrap(), Field::Content)
                .is_some_and(|text| text.contains("b+"))
        };
        snapshot.paths().into_iter().filter(data).count()
    };
    let after = Snapshot::of(&union.work(""));
    assert_eq!(files(&after), 0);
    assert!(after.paths().len() <= before.paths().len() + 2, "{:?}", after.paths());
}

/// Others read the upper layer itself while it is mounted, as containers/storage does for a commit, and it must outlive
/// the daemon: so the copy is whole there when the change has been answered.
#[test]
fn changed_file_is_whole_in_the_upper_layer_at_once() {
    needs_root!();
    // The kernel then holds the write back.
    not_with!("writeback=1");
    let mut content: Vec<u8> = (0..20 << 20).map(|at: u32| (at / 4096) as u8).collect();
    let mut union =
        Union::new().lower_with(|dir| fs::write(dir.join("big"), &content).unwrap()).mount();
    let file = open_rw(union.path("big"));
    file.write_all_at(b"X", 5_000_000).unwrap();
    content[5_000_000] = b'X';
    assert!(fs::read(union.upper("big")).unwrap() == content);
    drop(file);
    union.kill();
    assert!(fs::read(union.upper("big")).unwrap() == content);
}

#[test]
fn many_writers_of_one_lower_file_make_one_copy() {
    needs_root!();
    let mut union = Union::new()
        .lower_with(|dir| fs::write(dir.join("f"), vec![b'.'; 1 << 20]).unwrap())
        .mount();
    std::thread::scope(|scope| {
        for writer in 0..16u8 {
            let path = union.path("f");
            scope.spawn(move || {
                open_rw(path).write_all_at(&[writer], u64::from(writer) * 1000).unwrap();
            });
        }
    });
    union.remount();
    let content = fs::read(union.path("f")).unwrap();
    let mut expected = vec![b'.'; 1 << 20];
    for writer in 0..16u8 {
        expected[usize::from(writer) * 1000] = writer;
    }
    assert!(content == expected, "a write got lost");
    assert_eq!(names(union.upper("")), ["f"]);
}

#[test]
fn changes_of_attributes_alone_copy_up_whole_files() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a\nf b text=b\nf c text=c\nf d text=d").mount();
    chmod(union.path("a"), 0o600).unwrap();
    chown(union.path("b"), 5, 6).unwrap();
    set_times(union.path("c"), 1.0, 2.0).unwrap();
    set_xattr(union.path("d"), "user.x", b"y").unwrap();
    union.remount();
    assert_eq!(["a", "b", "c", "d"].map(|name| text(union.path(name))), ["a", "b", "c", "d"]);
    assert_eq!(mode(union.path("a")), 0o600);
    assert_eq!(owner(union.path("b")), (5, 6));
    assert_eq!(mtime(union.path("c")), (2, 0));
    assert_eq!(get_xattr(union.path("d"), "user.x"), Ok(b"y".to_vec()));
}

#[test]
fn new_nodes_of_every_kind_are_made_in_the_upper_layer() {
    needs_root!();
    not_with!("xattr_permissions");
    let mut union = Union::new().lower("f d/lower").mount();
    fs::write(union.path("d/file"), "x").unwrap();
    fs::create_dir(union.path("d/dir")).unwrap();
    std::os::unix::fs::symlink("to", union.path("d/link")).unwrap();
    mknod(union.path("d/pipe"), FileType::Fifo, (0, 0)).unwrap();
    mknod(union.path("d/socket"), FileType::Socket, (0, 0)).unwrap();
    mknod(union.path("d/char"), FileType::CharacterDevice, (1, 3)).unwrap();
    mknod(union.path("d/block"), FileType::BlockDevice, (8, 1)).unwrap();
    mknod(union.path("d/regular"), FileType::RegularFile, (0, 0)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(union.path("d/listener")).unwrap());
    let seen = union.snapshot();
    union.remount();
    assert_same(&seen, &union.snapshot(), "after the remount");
    let here = ["file", "dir", "link", "pipe", "socket", "char", "block", "regular", "listener"];
    for name in here {
        let (shown, stored) = (union.path("d").join(name), union.upper("d").join(name));
        assert_eq!(kind(&shown), kind(&stored), "{name}");
        assert_eq!(lstat(&shown).st_rdev, lstat(&stored).st_rdev, "{name}");
    }
}

#[test]
fn copied_up_file_that_an_ordinary_user_may_not_read_is_found_after_a_remount() {
    isolated!(User, {
        let mut union = Union::new().lower("f a text=a").mount();
        for permissions in [0o000, 0o200, 0o400, 0o644] {
            chmod(union.path("a"), permissions).unwrap();
            union.remount();
            assert_eq!(mode(union.path("a")), permissions);
        }
        assert_eq!(text(union.path("a")), "a");
    });
}

#[test]
fn upper_directory_without_write_permission_takes_a_copied_up_child_of_an_ordinary_user() {
    not_with!("xattr_permissions");
    isolated!(User, {
        let mut union = Union::new().lower("f d/a text=a").mount();
        chmod(union.path("d"), 0o555).unwrap();
        set_times(union.path("d"), 1000.5, 1000.5).unwrap();
        append(union.path("d/a"), "+");
        for _ in 0..2 {
            assert_eq!(
                (text(union.path("d/a")), text(union.upper("d/a"))),
                ("a+".into(), "a+".into())
            );
            assert_eq!((mode(union.path("d")), mode(union.upper("d"))), (0o555, 0o555));
            assert_eq!(mtime(union.path("d")), (1000, 500_000_000));
            union.remount();
        }
    });
}

#[test]
fn directory_without_write_permission_takes_a_copied_up_child_of_an_ordinary_user() {
    not_with!("xattr_permissions");
    isolated!(User, {
        let lower = "d d mode=0555 mtime=1000.5\nf d/a text=a\nf d/b text=b";
        let mut union = Union::new().lower(lower).mount();
        append(union.path("d/a"), "+");
        for _ in 0..2 {
            assert_eq!(text(union.path("d/a")), "a+");
            assert_eq!((mode(union.path("d")), mode(union.upper("d"))), (0o555, 0o555));
            assert_eq!(mtime(union.path("d")), (1000, 500_000_000));
            union.remount();
        }
        append(union.path("d/b"), "+");
        assert_eq!((text(union.path("d/b")), mode(union.path("d"))), ("b+".into(), 0o555));
        assert_eq!(mtime(union.path("d")), (1000, 500_000_000));
    });
}

/// Its names may be listed; nothing else may be known of them.
#[test]
fn upper_directory_without_search_permission_is_listed_by_an_ordinary_user() {
    not_with!("xattr_permissions");
    isolated!(User, {
        let mut union = Union::new().lower("f d/low text=low").mount();
        fs::write(union.path("d/up"), "up").unwrap();
        chmod(union.path("d"), 0o444).unwrap();
        for _ in 0..2 {
            assert_eq!(names(union.path("d")), ["low", "up"]);
            assert_eq!(errno(fs::metadata(union.path("d/up"))), Errno::ACCESS);
            assert_eq!((mode(union.path("d")), mode(union.upper("d"))), (0o444, 0o444));
            union.remount();
        }
        chmod(union.path("d"), 0o755).unwrap();
        assert_eq!(text(union.path("d/up")), "up");
    });
}

#[test]
fn read_only_files_and_directories_of_an_ordinary_user_can_be_changed_moved_and_removed() {
    isolated!(User, {
        let lower = "f f mode=0444 text=f user.own=kept\nd d mode=0555\nd e mode=0555";
        let mut union = Union::new().lower(lower).mount();
        chmod(union.path("f"), 0o644).unwrap();
        fs::rename(union.path("d"), union.path("moved")).unwrap();
        mkdir(union.path("new"), 0o444).unwrap();
        fs::remove_dir(union.path("new")).unwrap();
        fs::remove_dir(union.path("e")).unwrap();
        for _ in 0..2 {
            assert_eq!(names(union.path("")), ["f", "moved"]);
            assert_eq!((mode(union.path("f")), mode(union.path("moved"))), (0o644, 0o555));
            assert_eq!(text(union.path("f")), "f");
            union.remount();
        }
    });
}
