//! `io=passthrough`: the kernel reads and writes the layers' files by itself.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{
    Advice, FallocateFlags, FlockOperation, OFlags, SeekFrom, copy_file_range, fallocate, flock,
};
use rustix::io::Errno;

use crate::support::mode;
use crate::support::mount::{path_option, program};
use crate::support::posix::{
    append, as_ids, chmod, chown, errno, get_xattr, mode, open_file, open_rw, run, set_xattr, text,
    until,
};
use crate::support::privilege::skip;
use crate::support::{Builder, Program, Scratch, Union};
use crate::{isolated, needs_root, not_with};

/// Mounts with passthrough; nothing, and a loud line, where the kernel has none or the mode of the run does not go with it.
pub fn mount(builder: Builder) -> Option<Union> {
    if let Some(option) = mode::has(&["writeback=1", "cache=never"]) {
        mode::skip(module_path!(), &option);
        return None;
    }
    match builder.option("io=passthrough").try_mount() {
        Ok(union) => Some(union),
        Err(refusal) if refusal.message.contains("needs Linux 6.9") => {
            skip(module_path!(), &refusal.message);
            None
        }
        Err(refusal) => panic!("{}: {}", refusal.status, refusal.message),
    }
}

/// Mounts, or ends the test.
macro_rules! mounted {
    ($builder:expr) => {{
        needs_root!();
        match mount($builder) {
            Some(union) => union,
            None => return,
        }
    }};
}

/// `struct cachestat` of linux/mman.h, and the range that it is about.
#[repr(C)]
struct CacheStat([u64; 5]);

/// The number of pages that the page cache has of the very inode open as `file` (cachestat(2), Linux 6.5).
#[allow(unsafe_code)]
fn cached_pages(file: &File) -> u64 {
    const CACHESTAT: libc::c_long = 451;
    let (whole, mut found) = ([0u64; 2], CacheStat([0; 5]));
    // SAFETY: the call reads two numbers and writes five.
    let result =
        unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), whole.as_ptr(), &raw mut found, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    found.0[0]
}

#[test]
fn a_lower_file_read_through_two_mounts_is_in_memory_once() {
    not_with!("timeout");
    needs_root!();
    const PAGES: u64 = 256;
    let layer = Scratch::new();
    fs::write(layer.path().join("f"), vec![7; PAGES as usize * 4096]).unwrap();
    let host = File::open(layer.path().join("f")).unwrap();
    rustix::fs::fsync(&host).unwrap();
    rustix::fs::fadvise(&host, 0, None, Advice::DontNeed).unwrap();
    assert_eq!(cached_pages(&host), 0);
    let layers = || Union::new().lower_at(layer.path());
    let (Some(one), Some(two)) = (mount(layers()), mount(layers())) else { return };
    let mut files = [&one, &two].map(|union| File::open(union.path("f")).unwrap());
    for file in &mut files {
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert!(content == vec![7; PAGES as usize * 4096]);
    }
    assert_eq!(cached_pages(&host), PAGES);
    assert_eq!(files.each_ref().map(cached_pages), [0, 0]);
    // What the same costs otherwise, which also shows that the count would tell.
    let copied = layers().option("io=zeroopen").mount();
    fs::read(copied.path("f")).unwrap();
    assert_eq!(cached_pages(&File::open(copied.path("f")).unwrap()), PAGES);
}

#[test]
fn operations_on_files_are_those_of_the_kernels_overlay() {
    needs_root!();
    let tree = |builder: Builder| {
        builder.lower_with(|dir| {
            for name in ["cut", "appended", "renamed", "unlinked", "holes", "mapped", "direct"] {
                fs::write(dir.join(name), vec![b'.'; 16384]).unwrap();
            }
            fs::write(dir.join("set-id"), "x").unwrap();
            chown(dir.join("set-id"), 1000, 1000).unwrap();
            chmod(dir.join("set-id"), 0o6777).unwrap();
            fs::copy("/bin/sleep", dir.join("program")).unwrap();
        })
    };
    let Some(union) = mount(tree(Union::new())) else { return };
    let kernel = tree(Union::new()).program(Program::Kernel).mount();
    let (expected, seen) = (operations(&kernel.path("")), operations(&union.path("")));
    let lines = expected.lines().zip(seen.lines()).filter(|(expected, seen)| expected != seen);
    assert!(expected == seen, "(kernel, plyfs): {:#?}", lines.collect::<Vec<_>>());
}

/// What operations on files do, a line each.
fn operations(dir: &Path) -> String {
    let mut log = String::new();
    let mut note =
        |what: &str, seen: &dyn std::fmt::Debug| writeln!(log, "{what}: {seen:?}").unwrap();
    let path = |name: &str| dir.join(name);
    let size = |name: &str| fs::metadata(path(name)).unwrap().len();

    let file = File::options().write(true).truncate(true).open(path("cut")).unwrap();
    note("size after O_TRUNC", &(file.metadata().unwrap().len(), size("cut")));
    (&file).write_all(b"new").unwrap();
    note("after a write", &(size("cut"), text(path("cut"))));
    note("after ftruncate", &(file.set_len(1).is_ok(), size("cut"), text(path("cut"))));
    note("O_RDONLY | O_TRUNC", &open_file(path("cut"), OFlags::TRUNC).map(|_| size("cut")));

    let open = || File::options().append(true).open(path("appended")).unwrap();
    let (mut one, mut two) = (open(), open());
    for _ in 0..3 {
        one.write_all(b"one").unwrap();
        two.write_all(b"two").unwrap();
    }
    let appended = fs::read(path("appended")).unwrap();
    note("appended", &String::from_utf8_lossy(&appended[16384..]));

    let file = open_rw(path("renamed"));
    fs::rename(path("renamed"), path("moved")).unwrap();
    file.write_all_at(b"X", 0).unwrap();
    note("renamed while open", &(fs::read(path("moved")).unwrap()[0], path("renamed").exists()));

    let file = open_rw(path("unlinked"));
    fs::remove_file(path("unlinked")).unwrap();
    file.write_all_at(b"ABC", 0).unwrap();
    let mut start = [0; 4];
    file.read_exact_at(&mut start, 0).unwrap();
    file.set_len(3).unwrap();
    let now = file.metadata().unwrap();
    note("unlinked while open", &(start, now.len(), now.nlink(), file.sync_all().is_ok()));
    let again = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let mut all = Vec::new();
    (&again).read_to_end(&mut all).unwrap();
    note("opened again", &all);

    let file = open_rw(path("holes"));
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, hole, 4096, 4096).unwrap();
    fallocate(&file, FallocateFlags::empty(), 16384, 4096).unwrap();
    file.write_all_at(b"end", 32768).unwrap();
    let seek = |to| rustix::fs::seek(&file, to);
    let found = [SeekFrom::Data(4096), SeekFrom::Hole(0), SeekFrom::End(0), SeekFrom::Data(99999)];
    note("seek", &found.map(seek));
    let (mut from, mut to) = (32768, 40000);
    note("copied", &copy_file_range(&file, Some(&mut from), &file, Some(&mut to), 3));
    note("holes", &fs::read(path("holes")).unwrap().iter().map(|b| u64::from(*b)).sum::<u64>());

    let before = fs::metadata(path("mapped")).unwrap();
    run(
        "xfs_io",
        [
            OsString::from("-c"),
            "mmap -rw 0 16384".into(),
            "-c".into(),
            "mwrite -S 0x42 4096 4".into(),
            path("mapped").into(),
        ],
    );
    let after = fs::metadata(path("mapped")).unwrap();
    let later = (after.mtime(), after.mtime_nsec()) > (before.mtime(), before.mtime_nsec());
    note("mapped", &(fs::read(path("mapped")).unwrap()[4095..4101].to_vec(), later));

    let text_of = run(
        "dd",
        [&format!("if={}", path("direct").display()), "iflag=direct", "bs=4096", "status=none"],
    );
    note("read directly", &text_of.len());
    let target = format!("of={}", path("direct").display());
    run(
        "dd",
        [
            "if=/dev/zero",
            &target,
            "oflag=direct",
            "conv=notrunc",
            "bs=4096",
            "count=1",
            "status=none",
        ],
    );
    note("written directly", &fs::read(path("direct")).unwrap()[4095..4097].to_vec());

    let write = || {
        errno_or(
            open_file(path("set-id"), OFlags::WRONLY).map(|file| rustix::io::write(&file, b"y")),
        )
    };
    note("written by its owner", &(as_ids(1000, 1000, write), mode(path("set-id"))));
    chmod(path("set-id"), 0o6777).unwrap();
    note("by root", &(write(), mode(path("set-id"))));
    let held = open_file(path("set-id"), OFlags::WRONLY).unwrap();
    let written = as_ids(1000, 1000, || rustix::io::write(&held, b"y"));
    note("by another through a descriptor", &(written, mode(path("set-id"))));
    chmod(path("set-id"), 0o6777).unwrap();
    let cut = || open_file(path("set-id"), OFlags::WRONLY | OFlags::TRUNC).map(drop);
    note("cut by another", &(as_ids(1001, 1001, cut), mode(path("set-id")), size("set-id")));
    // cap_net_raw=ep in version 2 of linux/capability.h.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(path("set-id"), "security.capability", &capability).unwrap();
    rustix::io::write(&held, b"y").unwrap();
    note("capabilities", &get_xattr(path("set-id"), "security.capability"));

    fs::write(path("upper-program"), fs::read(path("program")).unwrap()).unwrap();
    chmod(path("upper-program"), 0o755).unwrap();
    let mut running = Command::new(path("upper-program")).arg("60").spawn().unwrap();
    note("opened while it runs", &open_file(path("upper-program"), OFlags::WRONLY).map(drop));
    running.kill().unwrap();
    running.wait().unwrap();
    let open = open_file(path("upper-program"), OFlags::WRONLY).unwrap();
    note("run while it is open", &errno(Command::new(path("upper-program")).arg("0").status()));
    drop(open);
    note("run", &Command::new(path("upper-program")).arg("0").status().unwrap().success());
    log
}

fn errno_or<T: std::fmt::Debug>(result: Result<T, Errno>) -> String {
    format!("{result:?}")
}

const LINKED: &str = "f a mode=644 text=lower\nh d/b to=a";

#[test]
fn who_has_a_lower_file_open_keeps_it_and_everybody_else_sees_the_change() {
    let union = mounted!(Union::new().lower(LINKED));
    let mut old = File::open(union.path("a")).unwrap();
    let writer = File::options().append(true).open(union.path("a")).unwrap();
    (&writer).write_all(b"+").unwrap();
    for name in ["a", "d/b"] {
        assert_eq!(text(union.path(name)), "lower+", "{name}");
    }
    let mut seen = String::new();
    old.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "lower");
    // It is one file all the same.
    let same = [old.metadata(), writer.metadata(), fs::metadata(union.path("a"))];
    let same =
        same.map(|found| found.map(|found| (found.ino(), found.len(), found.nlink())).unwrap());
    assert!(same.iter().all(|found| *found == same[0]), "{same:?}");
    assert_eq!(same[0].1, 6);
    drop((old, writer));
    append(union.path("d/b"), "!");
    for name in ["a", "d/b"] {
        assert_eq!(text(union.path(name)), "lower+!", "{name}");
    }
}

#[test]
fn attributes_are_the_same_by_every_descriptor_of_a_file_that_was_copied_up_while_open() {
    let union = mounted!(Union::new().lower(LINKED));
    let old = File::open(union.path("a")).unwrap();
    let writer = open_rw(union.path("a"));
    let modes = || {
        let found = [old.metadata(), writer.metadata(), fs::metadata(union.path("d/b"))];
        found.map(|found| (found.as_ref().unwrap().mode() & 0o777, found.unwrap().len()))
    };
    assert_eq!(modes(), [(0o644, 5); 3]);
    rustix::fs::fchmod(&old, 0o600.into()).unwrap();
    assert_eq!(modes(), [(0o600, 5); 3]);
    rustix::fs::fchmod(&writer, 0o640.into()).unwrap();
    writer.set_len(2).unwrap();
    assert_eq!(modes(), [(0o640, 2); 3]);
    fs::remove_file(union.path("a")).unwrap();
    assert_eq!(old.metadata().unwrap().nlink(), 1);
}

#[allow(unsafe_code)]
fn truncate(path: &Path, size: i64) {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: truncate(2) reads a path that ends with a NUL.
    let result = unsafe { libc::truncate(name.as_ptr(), size) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_lower_file_is_cut_and_replaced_while_it_is_open() {
    let union = mounted!(Union::new().lower("f a text=lower\nf b text=other"));
    let mut old = File::open(union.path("a")).unwrap();
    truncate(&union.path("a"), 2);
    assert_eq!(text(union.path("a")), "lo");
    fs::write(union.path("a"), "new content").unwrap();
    let mut seen = String::new();
    old.read_to_string(&mut seen).unwrap();
    assert_eq!((seen.as_str(), text(union.path("a")).as_str()), ("lower", "new content"));
    fs::rename(union.path("b"), union.path("a")).unwrap();
    assert_eq!((old.metadata().unwrap().nlink(), text(union.path("a")).as_str()), (0, "other"));
}

#[test]
fn a_mapping_of_a_lower_file_keeps_it_as_with_the_kernels_overlay() {
    let union =
        mounted!(Union::new().lower_with(|dir| fs::write(dir.join("a"), [b'.'; 8192]).unwrap()));
    let path = union.path("a").to_str().unwrap().to_owned();
    let commands =
        ["mmap -r 0 8192", &format!("open {path}"), "pwrite -q -S 0x41 4096 4", "mread -v 4096 4"];
    let options = commands.iter().flat_map(|command| ["-C", command]);
    let shown = run("xfs_io", ["-r"].into_iter().chain(options).chain([path.as_str()]));
    assert!(shown.contains("2e 2e 2e 2e") && !shown.contains("41 41 41 41"), "{shown}");
    assert_eq!(&fs::read(union.path("a")).unwrap()[4095..4101], b".AAAA.");
}

#[test]
fn a_lower_file_that_is_read_cannot_be_opened_for_writing_without_its_name() {
    let union = mounted!(Union::new().lower("f a text=lower"));
    let reader = File::open(union.path("a")).unwrap();
    let by_descriptor = format!("/proc/self/fd/{}", reader.as_raw_fd());
    assert_eq!(text(&by_descriptor), "lower");
    assert_eq!(open_file(&by_descriptor, OFlags::RDWR).map(drop), Err(Errno::STALE));
    assert_eq!(fs::read_dir(union.upper("")).unwrap().count(), 0);
    append(union.path("a"), "+");
    assert_eq!(text(union.path("a")), "lower+");
}

#[test]
fn locks_on_an_empty_lower_file_exclude_each_other() {
    let union = mounted!(Union::new().lower("f lock"));
    let reader = File::open(union.path("lock")).unwrap();
    flock(&reader, FlockOperation::LockExclusive).unwrap();
    let writer = open_rw(union.path("lock"));
    let second = flock(&writer, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(second, Err(Errno::WOULDBLOCK));
    writer.write_all_at(b"1234", 0).unwrap();
    let mut seen = String::new();
    (&reader).read_to_string(&mut seen).unwrap();
    assert_eq!((seen.as_str(), text(union.path("lock")).as_str()), ("1234", "1234"));
}

#[test]
fn the_data_of_a_metacopy_is_read_below_until_it_is_written() {
    let mut union = mounted!(Union::new().lower("f a text=lower").option("metacopy=on"));
    chmod(union.path("a"), 0o600).unwrap();
    let mut old = File::open(union.path("a")).unwrap();
    append(union.path("a"), "+");
    let mut seen = String::new();
    old.read_to_string(&mut seen).unwrap();
    assert_eq!((seen.as_str(), text(union.path("a")).as_str()), ("lower", "lower+"));
    drop(old);
    union.remount();
    assert_eq!((text(union.path("a")).as_str(), mode(union.path("a")) & 0o777), ("lower+", 0o600));
}

/// As soon as the kernel has told that nobody has them open, for which nobody waits.
#[test]
fn deleted_files_give_their_room_back() {
    let union = mounted!(Union::new().lower("").upper_on(|volume| {
        run("mount", ["-t", "tmpfs", "-o", "size=8m", "none", volume.to_str().unwrap()]);
    }));
    for round in 0..20 {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = fs::write(union.path("f"), vec![round; 5 << 20]) {
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{round}: {error}");
            assert!(Instant::now() < deadline, "{round}: the room does not come back");
        }
        assert!(fs::read(union.path("f")).unwrap() == vec![round; 5 << 20]);
        fs::remove_file(union.path("f")).unwrap();
    }
}

#[test]
fn layers_on_overlays_are_read_by_the_kernel_too_but_not_higher_stacks() {
    not_with!("packed");
    let below = Union::new().lower("f a text=lower").program(Program::Kernel);
    needs_root!();
    let below = below.mount();
    let one = mounted!(Union::new().lower_at(below.path("")).unchecked_lowers());
    let (host, file) = [&below, &one].map(|union| File::open(union.path("a")).unwrap()).into();
    assert_eq!(text(one.path("a")), "lower");
    assert_eq!(cached_pages(&file), 0);
    drop((host, file));
    // Its own depth is the kernel's limit now: the next one up reads in messages.
    let two = mounted!(Union::new().lower_at(one.path("")).unchecked_lowers());
    let file = File::open(two.path("a")).unwrap();
    assert_eq!(text(two.path("a")), "lower");
    assert_eq!(cached_pages(&file), 1);
    append(two.path("a"), "+");
    assert_eq!((text(two.path("a")).as_str(), text(one.path("a")).as_str()), ("lower+", "lower"));
}

#[test]
fn the_kernels_overlay_can_lie_on_top() {
    let union = mounted!(Union::new().lower("f a text=lower"));
    let top = Union::new().lower_at(union.path("")).unchecked_lowers().program(Program::Kernel);
    let top = top.mount();
    append(top.path("a"), "+");
    assert_eq!((text(top.path("a")).as_str(), text(union.path("a")).as_str()), ("lower+", "lower"));
}

#[test]
fn a_filesystem_without_direct_reads_is_told_apart() {
    not_with!("packed", "io=passthrough");
    needs_root!();
    let scratch = Scratch::new();
    scratch.dir("tree");
    scratch.dir("volume");
    fs::write(scratch.path().join("tree/a"), vec![b'x'; 8192]).unwrap();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    run("mksquashfs", [at("tree").as_str(), &at("image"), "-quiet", "-no-progress"]);
    run("mount", ["-o", "loop,ro", &at("image"), &at("volume")]);
    let union = mount(Union::new().lower_at(at("volume")).unchecked_lowers());
    if let Some(union) = union {
        let direct = || open_file(union.path("a"), OFlags::DIRECT);
        let file = direct().unwrap();
        assert_eq!(text(union.path("a")).len(), 8192);
        drop(file);
        // The daemon may hear of the close only after the next open, which is then plain too.
        let beside_a_reader = || {
            let _reader = File::open(union.path("a")).unwrap();
            direct().map(drop)
        };
        assert_eq!(until(beside_a_reader, Result::is_err), Err(Errno::INVAL));
    }
    run("umount", [at("volume")]);
}

#[test]
fn without_the_privilege_the_mount_is_refused_with_what_to_do() {
    isolated!(UserNamespace, {
        let layers = Union::new().lower("").read_only();
        let point = layers.path().join("merged");
        let options = path_option("lowerdir", &[layers.path().join("lower0")]);
        let mut command = Command::new(program());
        command.arg("mount").arg("-o").arg(options).args(["-o", "io=passthrough"]).arg(&point);
        let output = command.output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "plyfs: option io: passthrough needs CAP_SYS_ADMIN in the initial user namespace; use io=auto\n"
        );
        assert_eq!(output.status.code(), Some(1));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(point.to_str().unwrap()), "{mounts}");
    });
}

#[test]
fn a_closed_registration_is_not_used_for_another_file() {
    let union = mounted!(Union::new().lower("").upper("d d"));
    // The filesystem gives the inode numbers of deleted files to new ones.
    for round in 0..200 {
        let (file, content) = (union.path(format!("d/{round}")), format!("content {round}"));
        fs::write(&file, &content).unwrap();
        assert_eq!(text(&file), content);
        let held = File::open(&file).unwrap();
        fs::remove_file(&file).unwrap();
        fs::write(union.path("d/next"), format!("next {round}")).unwrap();
        assert_eq!(text(union.path("d/next")), format!("next {round}"));
        assert_eq!(
            rustix::io::retry_on_intr(|| rustix::fs::fstat(held.as_fd())).unwrap().st_nlink,
            0
        );
        fs::remove_file(union.path("d/next")).unwrap();
    }
}
