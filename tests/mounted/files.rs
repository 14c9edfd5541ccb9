//! Data: reading and writing in every way, through every kind of descriptor.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{
    FallocateFlags, FlockOperation, Mode, OFlags, Timespec, Timestamps, XattrFlags,
    copy_file_range, fallocate, fchmod, fchown, fdatasync, fgetxattr, flock, fsetxattr, fstat,
    fsync, futimens, statvfs,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::support::posix::{
    append, create, errno, exists, names, open_file, open_rw, run, text, until,
};
use crate::support::{Union, mode, same_as_plain};
use crate::{needs_root, not_with};

#[test]
fn reader_that_opened_a_lower_file_sees_what_is_written_later() {
    needs_root!();
    not_with!("io=passthrough");
    let union = Union::new().lower("f a text=lower-content").mount();
    let reader = File::open(union.path("a")).unwrap();
    let mut buffer = [0; 5];
    reader.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"lower");
    let writer = open_rw(union.path("a"));
    writer.write_at(b"UPPER", 0).unwrap();
    reader.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"UPPER");
    writer.set_len(2).unwrap();
    assert_eq!(reader.read_at(&mut buffer, 0).unwrap(), 2);
    assert_eq!(reader.metadata().unwrap().len(), 2);
    // That the lower file is untouched is proved as the union goes.
}

#[test]
fn writer_that_opened_before_another_writer_writes_into_the_same_file() {
    needs_root!();
    let mut union = Union::new().lower("f a text=........").mount();
    let (one, two) = (open_rw(union.path("a")), open_rw(union.path("a")));
    one.write_at(b"1", 0).unwrap();
    two.write_at(b"2", 1).unwrap();
    one.write_at(b"3", 2).unwrap();
    drop((one, two));
    union.remount();
    assert_eq!(text(union.path("a")), "123.....");
}

#[test]
fn shared_mapping_of_a_lower_file_sees_what_is_written() {
    needs_root!();
    not_with!("io=passthrough");
    let union =
        Union::new().lower_with(|dir| fs::write(dir.join("a"), [b'.'; 8192]).unwrap()).mount();
    let path = union.path("a");
    let path = path.to_str().unwrap();
    // With -C a command is for the current file alone, which is the one opened last.
    let commands = [
        "mmap -r 0 8192",
        "mread -v 4096 4",
        &format!("open {path}"),
        "pwrite -q -S 0x41 4096 4",
        "mread -v 4096 4",
    ];
    let options = commands.iter().flat_map(|command| ["-C", command]);
    let shown = run("xfs_io", ["-r"].into_iter().chain(options).chain([path]));
    assert!(shown.contains("2e 2e 2e 2e") && shown.contains("41 41 41 41"), "{shown}");
}

#[test]
fn writes_through_a_shared_mapping_reach_readers_and_the_upper_layer() {
    needs_root!();
    not_with!("io=passthrough");
    let mut union =
        Union::new().lower_with(|dir| fs::write(dir.join("a"), [b'.'; 8192]).unwrap()).mount();
    let path = union.path("a");
    let reader = File::open(&path).unwrap();
    run("xfs_io", ["-c", "mmap -rw 0 8192", "-c", "mwrite -S 0x42 4096 4", path.to_str().unwrap()]);
    let mut buffer = [0; 6];
    reader.read_exact_at(&mut buffer, 4095).unwrap();
    assert_eq!(&buffer, b".BBBB.");
    drop(reader);
    union.remount();
    assert_eq!(&fs::read(union.path("a")).unwrap()[4095..4101], b".BBBB.");
    assert_eq!(fs::metadata(union.upper("a")).unwrap().len(), 8192);
}

#[test]
fn appending_processes_do_not_overwrite_each_other() {
    needs_root!();
    let union = Union::new().lower("f a text=\"start\\n\"").mount();
    let writers = ["one", "two"].map(|word| {
        let script = format!("i=0; while [ $i -lt 300 ]; do echo {word} $i; i=$((i+1)); done >> a");
        Command::new("sh").args(["-c", &script]).current_dir(union.path("")).spawn().unwrap()
    });
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let content = text(union.path("a"));
    assert_eq!(content.lines().count(), 601);
    for word in ["one", "two"] {
        let mine: Vec<_> = content.lines().filter(|line| line.starts_with(word)).collect();
        let expected: Vec<_> = (0..300).map(|i| format!("{word} {i}")).collect();
        assert_eq!(mine, expected);
    }
}

#[test]
fn data_is_written_read_cut_and_grown_as_on_a_plain_filesystem() {
    needs_root!();
    let tree: String = (0..12).map(|n| format!("f {n} text=0123456789\n")).collect();
    same_as_plain(&tree, |root: &Path| {
        let open = |n: u32| open_rw(root.join(n.to_string()));
        open(0).write_at(b"x", 100_000).unwrap();
        open(1).set_len(3).unwrap();
        open(2).set_len(1_000_000).unwrap();
        let mut file = open(3);
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(&[7; 300_001]).unwrap();
        file.set_len(5).unwrap();
        file.set_len(20).unwrap();
        open_file(root.join("4"), OFlags::WRONLY | OFlags::TRUNC).unwrap();
        let mut both = File::options().read(true).append(true).open(root.join("5")).unwrap();
        both.write_all(b"end").unwrap();
        both.seek(SeekFrom::Start(8)).unwrap();
        let mut tail = String::new();
        both.read_to_string(&mut tail).unwrap();
        fallocate(open(6), FallocateFlags::empty(), 0, 50_000).unwrap();
        fallocate(open(7), FallocateFlags::KEEP_SIZE, 0, 50_000).unwrap();
        fallocate(open(8), FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 2, 5).unwrap();
        let zeroed = fallocate(open(9), FallocateFlags::ZERO_RANGE, 5, 10);
        let (mut from, mut to) = (2, 4);
        let copied = copy_file_range(open(10), Some(&mut from), open(11), Some(&mut to), 6);
        let empty = open(0).write_at(b"", 0).unwrap();
        let beyond = open(1).read_at(&mut [0; 4], 1000).unwrap();
        format!("{tail} {zeroed:?} {copied:?} {from} {to} {empty} {beyond}")
    });
}

#[test]
fn open_flags_mean_what_they_mean_on_a_plain_filesystem() {
    needs_root!();
    same_as_plain(
        "f file text=x\nd dir\nl link to=file\nl dangling to=made\nl loop to=loop",
        |root| {
            let flags = [
                OFlags::RDONLY,
                OFlags::WRONLY,
                OFlags::RDWR,
                OFlags::CREATE | OFlags::WRONLY,
                OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY,
                OFlags::NOFOLLOW,
                OFlags::DIRECTORY,
                OFlags::PATH,
                OFlags::PATH | OFlags::NOFOLLOW,
                OFlags::NOATIME,
                OFlags::DIRECTORY | OFlags::WRONLY,
            ];
            let mut seen = String::new();
            for flags in flags {
                for name in ["file", "dir", "link", "dangling", "loop", "absent", "file/x", "link/"]
                {
                    let result =
                        rustix::fs::open(root.join(name), flags, Mode::from_raw_mode(0o644));
                    seen += &format!("{flags:?} {name}: {:?}\n", result.map(drop));
                    for made in ["absent", "made"] {
                        fs::remove_file(root.join(made)).ok();
                    }
                }
            }
            seen
        },
    );
}

#[test]
fn holes_are_found_and_punched() {
    needs_root!();
    not_with!("writeback=1");
    const STEP: u64 = 1 << 20;
    let mut union = Union::new()
        .lower_with(|dir| {
            let file = File::create(dir.join("a")).unwrap();
            file.write_at(&[1; 4096], 2 * STEP).unwrap();
            file.set_len(4 * STEP).unwrap();
            fs::write(dir.join("full"), vec![1; 4 << 20]).unwrap();
        })
        .mount();
    for _ in 0..2 {
        let file = open_rw(union.path("a"));
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Ok(2 * STEP));
        assert_eq!(
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(2 * STEP)),
            Ok(2 * STEP + 4096)
        );
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(3 * STEP)), Err(Errno::NXIO));
        file.write_at(&[1], 2 * STEP).unwrap();
    }
    let file = open_rw(union.path("full"));
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, flags, STEP, STEP).unwrap();
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(STEP));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(STEP)), Ok(2 * STEP));
    let mut buffer = [9; 2];
    file.read_exact_at(&mut buffer, STEP - 1).unwrap();
    assert_eq!(buffer, [1, 0]);
    fsync(&file).unwrap();
    drop(file);
    union.remount();
    assert_eq!(fs::metadata(union.path("full")).unwrap().len(), 4 * STEP);
    let blocks = fs::metadata(union.path("full")).unwrap().blocks();
    assert!(blocks < 3 * STEP / 512 + 64, "{blocks} blocks of 512 bytes");
}

#[test]
fn copy_file_range_copies_between_layers() {
    needs_root!();
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut union = Union::new()
        .lower_with(|dir| {
            fs::write(dir.join("lower"), &content).unwrap();
            fs::write(dir.join("target"), "old").unwrap();
        })
        .mount();
    for target in ["new", "target"] {
        let from = File::open(union.path("lower")).unwrap();
        let to = create(union.path(target), OFlags::WRONLY | OFlags::TRUNC, 0o644).unwrap();
        let mut left = content.len();
        while left > 0 {
            left -= copy_file_range(&from, None, &to, None, left).unwrap();
        }
    }
    union.remount();
    assert!(fs::read(union.path("new")).unwrap() == content);
    assert!(fs::read(union.path("target")).unwrap() == content);
    assert!(!exists(union.upper("lower")));
}

#[test]
fn unlinked_open_files_keep_working() {
    needs_root!();
    for (place, name) in [("lower", "low"), ("upper", "up"), ("new", "new")] {
        let mut union = Union::new().lower("f low text=content").upper("f up text=content").mount();
        if place == "new" {
            fs::write(union.path(name), "content").unwrap();
        }
        let file = open_rw(union.path(name));
        let reader = File::open(union.path(name)).unwrap();
        fs::remove_file(union.path(name)).unwrap();
        assert_eq!(fstat(&file).unwrap().st_nlink, 0, "{place}");
        assert_eq!(fstat(&file).unwrap().st_size, 7, "{place}");
        file.write_at(b"C", 0).unwrap();
        file.set_len(4).unwrap();
        fchmod(&file, Mode::from_raw_mode(0o600)).unwrap();
        fchown(&file, Some(Uid::from_raw(5)), Some(Gid::from_raw(6))).unwrap();
        let time = Timespec { tv_sec: 1000, tv_nsec: 5 };
        futimens(&file, &Timestamps { last_access: time, last_modification: time }).unwrap();
        fsetxattr(&file, "user.x", b"y", XattrFlags::empty()).unwrap();
        let mut value = [0; 8];
        assert_eq!(fgetxattr(&file, "user.x", &mut value[..]), Ok(1), "{place}");
        fallocate(&file, FallocateFlags::empty(), 0, 10).unwrap();
        fsync(&file).unwrap();
        let mut buffer = [0; 4];
        reader.read_exact_at(&mut buffer, 0).unwrap();
        assert_eq!(&buffer, b"Cont", "{place}");
        let stat = fstat(&reader).unwrap();
        let seen = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid, stat.st_size, stat.st_nlink);
        assert_eq!(seen, (0o600, 5, 6, 10, 0), "{place}");
        fs::write(union.path(name), "again").unwrap();
        assert_eq!(fstat(&file).unwrap().st_size, 10, "{place}");
        drop((file, reader));
        union.remount();
        assert_eq!(text(union.path(name)), "again", "{place}");
    }
}

#[test]
fn unlinked_open_lower_file_can_be_read_without_a_copy() {
    needs_root!();
    let mut union = Union::new().lower("f a text=content").mount();
    let file = File::open(union.path("a")).unwrap();
    fs::remove_file(union.path("a")).unwrap();
    let mut buffer = [0; 7];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"content");
    assert_eq!(fstat(&file).unwrap().st_nlink, 0);
    drop(file);
    union.remount();
    assert_eq!(names(union.path("")), [""; 0]);
}

#[test]
fn closing_an_unlinked_or_replaced_file_is_no_error_with_volatile() {
    needs_root!();
    let mut union = Union::new().option("volatile").lower("f a text=a\nf b text=b").mount();
    for name in ["a", "b", "new"] {
        let mut file = create(union.path(name), OFlags::RDWR | OFlags::TRUNC, 0o644).unwrap();
        file.write_all(b"data").unwrap();
        if name == "a" {
            fs::remove_file(union.path(name)).unwrap();
        } else {
            fs::write(union.path("other"), "other").unwrap();
            fs::rename(union.path("other"), union.path(name)).unwrap();
        }
        file.write_all(b"more").unwrap();
        fsync(&file).unwrap();
        fdatasync(&file).unwrap();
        // close(2) tells of errors only on a descriptor of its own.
        let status = Command::new("sh")
            .args(["-c", "exec 3>>tmp; rm tmp; echo x >&3; exec 3>&-"])
            .current_dir(union.path(""))
            .status();
        assert!(status.unwrap().success());
        drop(file);
    }
    let shown = run(
        "dd",
        [
            format!("of={}", union.path("c").display()),
            "if=/dev/zero".into(),
            "count=1".into(),
            "conv=fsync".into(),
            "status=none".into(),
        ],
    );
    assert_eq!(shown, "");
    union.unmount();
    assert!(exists(union.upper("c")));
}

#[test]
fn files_and_directories_are_synced() {
    needs_root!();
    let union = Union::new().lower("f d/a text=a").mount();
    let file = open_rw(union.path("d/a"));
    fsync(&file).unwrap();
    file.write_at(b"b", 0).unwrap();
    fsync(&file).unwrap();
    fdatasync(&file).unwrap();
    let dir = open_file(union.path("d"), OFlags::DIRECTORY).unwrap();
    fsync(&dir).unwrap();
    rustix::fs::syncfs(&dir).unwrap();
    assert_eq!(text(union.upper("d/a")), "b");
}

#[test]
fn statistics_of_the_filesystem_are_those_of_the_upper_layer() {
    needs_root!();
    let union = Union::new().lower("f a").mount();
    let (shown, real) = (statvfs(union.path("")).unwrap(), statvfs(union.upper("")).unwrap());
    assert_eq!(shown.f_namemax, 255);
    assert_eq!(shown.f_blocks * shown.f_frsize, real.f_blocks * real.f_frsize);
    assert!(shown.f_bavail > 0 && shown.f_files > 0);
    let read_only = Union::new().lower("f a").lower("f b").read_only().mount();
    assert_eq!(statvfs(read_only.path("")).unwrap().f_namemax, 255);
}

#[test]
fn writer_into_a_full_upper_layer_is_stopped() {
    needs_root!();
    not_with!("writeback=1");
    let union = Union::new()
        .upper_on(|volume| {
            run("mount", ["-t", "tmpfs", "-o", "size=4m", "none", volume.to_str().unwrap()]);
        })
        .lower("f a text=a\nf b text=b")
        .mount();
    let mut file = create(union.path("new"), OFlags::WRONLY, 0o644).unwrap();
    let block = vec![1; 1 << 20];
    let mut written = 0;
    let error = loop {
        if let Err(error) = file.write_all(&block) {
            break error;
        }
        written += 1;
        assert!(written < 256, "256 MiB went into a filesystem of 4");
    };
    assert_eq!(errno::<()>(Err(error)), Errno::NOSPC);
    drop(file);
    assert_eq!(errno(fs::write(union.path("a"), &block)), Errno::NOSPC);
    fs::remove_file(union.path("new")).unwrap();
    // In passthrough the daemon holds the deleted file until it hears that it was closed, which nobody waits for.
    let add = || fs::File::options().append(true).open(union.path("b"))?.write_all(b"+");
    until(add, |added| added.is_ok() || mode::has(&["io=passthrough"]).is_none()).unwrap();
    assert_eq!(text(union.path("b")), "b+");
}

#[test]
fn copy_up_into_a_full_upper_layer_leaves_the_file_as_it_was() {
    needs_root!();
    not_with!("writeback=1", "io=passthrough");
    let mut union = Union::new()
        .upper_on(|volume| {
            run("mount", ["-t", "tmpfs", "-o", "size=2m", "none", volume.to_str().unwrap()]);
        })
        .lower_with(|dir| fs::write(dir.join("big"), vec![b'x'; 8 << 20]).unwrap())
        .mount();
    let opened = fs::File::options().write(true).open(union.path("big"));
    assert_eq!(errno(opened.and_then(|file| file.write_at(b"y", 0))), Errno::NOSPC);
    assert!(fs::read(union.path("big")).unwrap() == vec![b'x'; 8 << 20]);
    fs::write(union.path("small"), vec![1; 1 << 20]).unwrap();
    union.remount();
    assert!(fs::read(union.path("big")).unwrap() == vec![b'x'; 8 << 20]);
    assert!(!exists(union.upper("big")));
}

#[test]
fn locks_exclude_each_other() {
    needs_root!();
    let union = Union::new().lower("f a").mount();
    let (one, two) = (open_rw(union.path("a")), open_rw(union.path("a")));
    flock(&one, FlockOperation::LockExclusive).unwrap();
    assert_eq!(flock(&two, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
    one.write_at(b"x", 0).unwrap();
    assert_eq!(flock(&two, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    flock(&one, FlockOperation::Unlock).unwrap();
    flock(&two, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn programs_run_from_the_union() {
    needs_root!();
    let union = Union::new()
        .lower_with(|dir| {
            fs::copy("/usr/bin/busybox", dir.join("busybox")).unwrap();
        })
        .mount();
    fs::create_dir(union.path("copy")).unwrap();
    fs::copy(union.path("busybox"), union.path("copy/busybox")).unwrap();
    for name in ["busybox", "copy/busybox"] {
        assert_eq!(run(union.path(name).to_str().unwrap(), ["echo", "runs"]), "runs\n");
    }
}

#[test]
fn devices_work_where_the_mount_allows_them() {
    needs_root!();
    let union =
        Union::new().option("dev").lower("c null dev=1:3 mode=0666\nc zero dev=1:5").mount();
    fs::write(union.path("null"), "gone").unwrap();
    let mut buffer = [1; 4];
    File::open(union.path("zero")).unwrap().read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, [0; 4]);
    assert_eq!(names(union.upper("")), [""; 0]);
}

#[test]
fn fifos_connect_processes() {
    needs_root!();
    let union = Union::new().lower("p pipe").mount();
    let path = union.path("pipe");
    let reader = std::thread::spawn(move || text(path));
    let mut writer = File::options().write(true).open(union.path("pipe")).unwrap();
    writer.write_all(b"through").unwrap();
    drop(writer);
    assert_eq!(reader.join().unwrap(), "through");
    assert_eq!(names(union.upper("")), [""; 0]);
}

#[test]
fn unnamed_temporary_files_are_refused_or_work() {
    needs_root!();
    let union = Union::new().lower("d d").mount();
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    match rustix::fs::open(union.path("d"), flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => assert_eq!(rustix::io::write(&file, b"x"), Ok(1)),
        Err(error) => assert_eq!(error, Errno::OPNOTSUPP),
    }
    assert_eq!(names(union.path("d")), [""; 0]);
}

#[test]
fn polled_files_are_ready_and_the_log_stays_empty() {
    needs_root!();
    let union = Union::new().lower("f a text=a").mount();
    let file = File::open(union.path("a")).unwrap();
    let mut watched = [PollFd::new(&file, PollFlags::IN | PollFlags::OUT)];
    assert_eq!(poll(&mut watched, None), Ok(1));
    assert_eq!(watched[0].revents(), PollFlags::IN | PollFlags::OUT);
    assert_eq!(union.live().log(), "");
}

/// 9 MiB and a bit, with holes.
fn write_large(path: &Path) -> Vec<u8> {
    let file = File::create(path).unwrap();
    let mut content = vec![0; (9 << 20) + 123];
    for (start, end) in [(0, 3 << 20), ((5 << 20) + 4096, 6 << 20), (8 << 20, content.len())] {
        for (at, byte) in content[start..end].iter_mut().enumerate() {
            *byte = (at / 777) as u8;
        }
        file.write_all_at(&content[start..end], start as u64).unwrap();
    }
    content
}

#[test]
fn a_large_lower_file_with_holes_reads_the_same_in_any_order() {
    needs_root!();
    let mut content = Vec::new();
    let fill = |dir: &Path| content = write_large(&dir.join("large"));
    let mut union = Union::new().lower_with(fill).mount();
    assert!(fs::read(union.path("large")).unwrap() == content);
    union.remount();
    let file = File::open(union.path("large")).unwrap();
    let step = 300_000;
    for start in (0..content.len()).step_by(step).rev() {
        let mut buffer = vec![0; step.min(content.len() - start)];
        file.read_exact_at(&mut buffer, start as u64).unwrap();
        assert!(buffer == content[start..][..buffer.len()], "{start}");
    }
    drop(file);
    // What is written then shows, as everywhere.
    append(union.path("large"), "end");
    union.remount();
    assert!(fs::read(union.path("large")).unwrap() == [&content[..], b"end"].concat());
}

#[test]
fn a_large_lower_file_that_is_cut_while_it_is_read_harms_no_other() {
    needs_root!();
    let fill = |dir: &Path| drop(write_large(&dir.join("large")));
    let union =
        Union::new().unchecked_lowers().lower_with(fill).lower("f other text=other").mount();
    let mut file = File::open(union.path("large")).unwrap();
    file.read_exact(&mut vec![0; 1 << 20]).unwrap();
    File::options().write(true).open(union.lower(0, "large")).unwrap().set_len(5000).unwrap();
    let mut rest = Vec::new();
    match file.read_to_end(&mut rest) {
        // What the kernel has read ahead, and zeros: it believes the size that it was told.
        Ok(_) => {}
        Err(error) => assert_eq!(Errno::from_io_error(&error), Some(Errno::IO)),
    }
    assert_eq!(text(union.path("other")), "other");
}
