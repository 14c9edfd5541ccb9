//! An upper layer without room: who writes is told so, what was there stays, and deleting makes room again.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::needs_root;
use crate::support::posix::{append, errno, exists, is_whiteout, names, open_rw, run, text};
use crate::support::privilege::skip;
use crate::support::{Builder, Field, Snapshot, Union, assert_same};
use crate::volume::Kind;

const LOWER: &str = r#"
f keep/a text="kept as it is" mode=0640 mtime=1000000000
l keep/link to=a
f change/small text="to be changed"
f delete/lower text=lower
f delete/covered text=lower
f delete/merged/lower text=lower
f delete/tree/deep/a text=a
"#;

/// The bytes of a lower file that is larger than what [`fill_but`] leaves.
const LARGE: usize = 8 << 20;

/// What of the fill is left free for those who write.
const LEFT: u64 = 3 << 20;

fn layers(kind: Kind) -> Builder {
    Union::new()
        .upper_on(|point| kind.mount_small(point))
        .lower(LOWER)
        .lower_with(|dir| fs::write(dir.join("large"), vec![b'l'; LARGE]).unwrap())
}

/// Makes upper files, and upper parts of directories, that are to be deleted.
fn change(union: &Union) {
    fs::write(union.path("delete/covered"), "changed").unwrap();
    fs::write(union.path("delete/upper"), "new").unwrap();
    fs::create_dir(union.path("delete/directory")).unwrap();
    fs::write(union.path("delete/directory/inside"), "new").unwrap();
    fs::write(union.path("delete/merged/upper"), "new").unwrap();
    append(union.path("keep/a"), ", but for this");
}

/// Takes the space of the filesystem that `dir` is on, but for `left` bytes.
fn fill_but(dir: &Path, left: u64) {
    let filler = File::create(dir.join("filler")).unwrap();
    let space = statvfs(dir).unwrap();
    let mut size = 0;
    let available = (space.f_bavail * space.f_frsize).saturating_sub(left);
    for shift in (12..28).rev() {
        while size + (1 << shift) <= available
            && fallocate(&filler, FallocateFlags::empty(), size, 1 << shift).is_ok()
        {
            size += 1 << shift;
        }
    }
}

/// Takes every block and every inode.
fn fill(dir: &Path) {
    fill_but(dir, 0);
    for (name, content) in [("block", &[1; 4096][..]), ("inode", &[])] {
        let made =
            (0..).map(|number| fs::write(dir.join(format!("filler-{name}-{number}")), content));
        let error = made.filter_map(Result::err).next().unwrap();
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }
}

fn remove_filler(union: &Union) {
    for name in names(union.path("")).iter().filter(|name| name.starts_with("filler")) {
        fs::remove_file(union.path(name)).unwrap();
    }
}

/// Deletes; where the room for the whiteout is what a deletion just before gives back, the kernel has to forget
/// that file first.
fn delete(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::StorageFull && Instant::now() < deadline => {}
            result => return result.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        }
    }
}

fn nothing_staged(union: &Union) {
    assert_eq!(names(union.work("plyfs/stage")), [""; 0]);
}

fn same_space(union: &Union) {
    let space = |path| {
        let stat = statvfs(&path).unwrap();
        (stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree)
    };
    assert_eq!(space(union.path("")), space(union.upper("")), "df");
}

fn everything_can_be_deleted(kind: Kind) {
    needs_root!();
    let mut union = layers(kind).mount();
    change(&union);
    fill(&union.path(""));
    same_space(&union);
    let kept = Snapshot::of(&union.path("keep"));
    deletes_what_is_there(&mut union, &kept);
}

/// Mounting needs no room either: nobody could delete anything otherwise.
fn can_be_mounted_when_full(kind: Kind) {
    needs_root!();
    let mut union = layers(kind).mount();
    change(&union);
    let kept = Snapshot::of(&union.path("keep"));
    fill(&union.path(""));
    union.unmount();
    // (The end of the mount may have given something back.)
    let again =
        (0..).map(|number| fs::write(union.upper(format!("filler-again-{number}")), [1; 4096]));
    assert!(again.filter_map(Result::err).next().is_some());
    union.start();
    deletes_what_is_there(&mut union, &kept);
}

fn deletes_what_is_there(union: &mut Union, kept: &Snapshot) {
    delete(&union.path("delete/covered"));
    delete(&union.path("delete/upper"));
    fs::remove_dir_all(union.path("delete/directory")).unwrap();
    delete(&union.path("delete/lower"));
    fs::remove_dir_all(union.path("delete/merged")).unwrap();
    assert_eq!(names(union.path("delete")), ["tree"]);
    for name in ["covered", "lower", "merged"] {
        assert!(is_whiteout(union.upper("delete").join(name)), "{name}");
    }
    assert_same(kept, &Snapshot::of(&union.path("keep")), "what nobody touched");
    remove_filler(union);
    fs::remove_dir_all(union.path("delete")).unwrap();
    append(union.path("change/small"), "!");
    fs::write(union.path("new"), vec![b'n'; 1 << 20]).unwrap();
    nothing_staged(union);
    let now = union.snapshot();
    union.remount();
    assert_same(&now, &union.snapshot(), "remount");
    assert_eq!(text(union.path("change/small")), "to be changed!");
    assert!(!exists(union.path("delete")));
}

/// Nobody writes more than there is room for; each writer is told, and nothing else is touched.
fn writers_are_told(kind: Kind, refusal: &str, options: &[&str]) {
    let builder = options.iter().fold(layers(kind), |builder, option| builder.option(*option));
    let mut union = builder.mount();
    change(&union);
    let archive = union.scratch().join("archive");
    let from = union.lower(1, "");
    run("tar", ["-C", from.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "large"]);
    fill_but(&union.path(""), LEFT);
    let look = |union: &Union| union.snapshot().without(&[Field::Mtime]);
    let before = look(&union);
    let at = |name: &str| union.path(name).to_str().unwrap().to_owned();

    let lower = union.lower(1, "large").to_str().unwrap().to_owned();
    let writers = [
        format!("cp {lower} {}", at("cp")),
        format!("cp --reflink=never --sparse=never {} {}", at("large"), at("cp-inside")),
        format!("mkdir {0}; tar -C {0} -xf {1}", at("tar"), archive.display()),
        format!("dd if=/dev/zero of={} bs=64k count=256 conv=fsync", at("dd-synced")),
        format!(
            "xfs_io -f -c 'truncate 8m' -c 'mmap -w 0 8m' -c 'mwrite 0 8m' -c 'msync -s 0 8m' {}",
            at("mapped")
        ),
    ];
    for writer in &writers {
        assert_refused(writer, refusal);
        for name in ["cp", "cp-inside", "tar/large", "dd-synced", "mapped"] {
            fs::remove_file(union.path(name)).ok();
        }
        fs::remove_dir(union.path("tar")).ok();
        assert_same(&before, &look(&union), writer);
        nothing_staged(&union);
    }
    remove_filler(&union);
    fs::write(union.path("room"), vec![b'r'; 1 << 20]).unwrap();
    let now = look(&union);
    union.remount();
    assert_same(&now, &look(&union), "remount");
}

/// Runs a command line, which must fail with this message, and not go on for ever.
fn assert_refused(command: &str, refusal: &str) {
    let output = Command::new("timeout").args(["50", "sh", "-c", command]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    // (tar tells of the first short write, and not why it was short.)
    let told = message.contains(refusal) || message.contains("Wrote only");
    assert!(told, "{command}: {}: {message}", output.status);
}

fn copy_up_is_refused(kind: Kind, refusal: Errno) {
    let mut union = layers(kind).mount();
    fill_but(&union.path(""), LEFT);
    let before = union.snapshot();
    assert_eq!(errno(open_rw(union.path("large")).write_at(b"x", 0)), refusal);
    assert_eq!(errno(fs::rename(union.path("large"), union.path("moved"))), refusal);
    assert_eq!(errno(fs::hard_link(union.path("large"), union.path("linked"))), refusal);
    nothing_staged(&union);
    assert!(!exists(union.upper("large")));
    // Cut short it fits.
    assert_same(&before, &union.snapshot(), "what was refused");
    File::options().write(true).open(union.path("large")).unwrap().set_len(10).unwrap();
    union.remount();
    assert_eq!(text(union.path("large")), "llllllllll");
}

/// What fsync has confirmed is there whatever comes after it.
fn confirmed_data_stays(kind: Kind) {
    needs_root!();
    let mut union = layers(kind).mount();
    fill_but(&union.path(""), LEFT);
    let mut file = File::create_new(union.path("records")).unwrap();
    let record = |number: usize| [number as u8; 100_000];
    let mut confirmed = 0;
    let error = loop {
        match file.write_all(&record(confirmed)).and_then(|()| file.sync_all()) {
            Ok(()) => confirmed += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(confirmed > 5, "{confirmed}");
    drop(file);
    union.kill();
    union.start();
    let found = fs::read(union.path("records")).unwrap();
    for number in 0..confirmed {
        assert!(found[number * 100_000..][..100_000] == record(number), "record {number}");
    }
}

#[test]
fn everything_can_be_deleted_on_a_full_ext4() {
    everything_can_be_deleted(Kind::Ext4);
}

#[test]
fn everything_can_be_deleted_on_a_full_tmpfs() {
    everything_can_be_deleted(Kind::Tmpfs);
}

#[test]
fn everything_can_be_deleted_on_a_full_xfs() {
    everything_can_be_deleted(Kind::Xfs);
}

#[test]
fn full_ext4_can_be_mounted_to_delete_from() {
    can_be_mounted_when_full(Kind::Ext4);
}

#[test]
fn full_tmpfs_can_be_mounted_to_delete_from() {
    can_be_mounted_when_full(Kind::Tmpfs);
}

#[test]
fn full_xfs_can_be_mounted_to_delete_from() {
    can_be_mounted_when_full(Kind::Xfs);
}

#[test]
fn first_mount_on_a_full_filesystem_is_refused_with_what_to_do() {
    needs_root!();
    let builder = layers(Kind::Tmpfs).upper_with(fill);
    let Err(refusal) = builder.try_mount() else { panic!("mounted") };
    assert!(refusal.message.contains("workdir: no room in"), "{}", refusal.message);
    assert_eq!(refusal.message.lines().count(), 1, "{}", refusal.message);
}

#[test]
fn writers_into_a_full_ext4_are_told() {
    needs_root!();
    writers_are_told(Kind::Ext4, "No space left on device", &[]);
}

#[test]
fn writers_into_a_full_tmpfs_are_told() {
    needs_root!();
    writers_are_told(Kind::Tmpfs, "No space left on device", &[]);
}

#[test]
fn writers_into_a_full_xfs_are_told() {
    needs_root!();
    writers_are_told(Kind::Xfs, "No space left on device", &[]);
}

#[test]
fn writers_into_a_full_ext4_are_told_with_writeback() {
    needs_root!();
    writers_are_told(Kind::Ext4, "No space left on device", &["writeback=1"]);
}

/// A quota of the upper layer's filesystem is no different from its end.
#[test]
fn writers_beyond_a_quota_are_told() {
    needs_root!();
    if !Kind::Btrfs.is_known() {
        return skip("writers_beyond_a_quota_are_told", "this kernel has no btrfs");
    }
    let limited = |point: &Path| {
        Kind::Btrfs.mount_small(point);
        let point = point.to_str().unwrap();
        run("btrfs", ["quota", "enable", point]);
        run("btrfs", ["qgroup", "limit", "4M", point]);
    };
    let lower = vec![b'l'; LARGE];
    let mut union = Union::new()
        .upper_on(limited)
        .lower_with(|dir| fs::write(dir.join("large"), &lower).unwrap())
        .lower(LOWER)
        .mount();
    let new = union.path("new");
    let writers = [
        format!("cp --reflink=never {} {}", union.path("large").display(), new.display()),
        format!("dd if=/dev/zero bs=64k of={}", new.display()),
    ];
    for writer in writers {
        assert_refused(&writer, "Disk quota exceeded");
        fs::remove_file(&new).unwrap();
        // What is given back counts when the filesystem next commits.
        run("btrfs", ["filesystem", "sync", union.upper("").to_str().unwrap()]);
    }
    let refused = errno(open_rw(union.path("large")).write_at(b"x", 0));
    assert!([Errno::DQUOT, Errno::NOSPC].contains(&refused), "{refused}");
    nothing_staged(&union);
    append(union.path("change/small"), "!");
    union.remount();
    assert!(fs::read(union.path("large")).unwrap() == lower);
    assert_eq!(text(union.path("change/small")), "to be changed!");
}

#[test]
fn endless_writer_is_stopped() {
    needs_root!();
    let union = layers(Kind::Ext4).mount();
    let command = format!("dd if=/dev/zero bs=64k of={}", union.path("endless").display());
    assert_refused(&command, "No space left on device");
}

#[test]
fn copy_up_that_does_not_fit_leaves_the_lower_file() {
    needs_root!();
    for kind in [Kind::Ext4, Kind::Tmpfs, Kind::Xfs] {
        copy_up_is_refused(kind, Errno::NOSPC);
    }
}

#[test]
fn confirmed_data_stays_on_a_full_ext4() {
    confirmed_data_stays(Kind::Ext4);
}

#[test]
fn confirmed_data_stays_on_a_full_tmpfs() {
    confirmed_data_stays(Kind::Tmpfs);
}

#[test]
fn confirmed_data_stays_on_a_full_xfs() {
    confirmed_data_stays(Kind::Xfs);
}

/// What was deleted a moment ago makes room for what comes next, whatever it is written by.
#[test]
fn deleted_file_gives_its_room_to_every_kind_of_writer() {
    needs_root!();
    let union =
        layers(Kind::Ext4).lower_with(|dir| fs::write(dir.join("two"), TWO).unwrap()).mount();
    let old = union.path("old");
    fs::write(&old, TWO).unwrap();
    fill_but(&union.path(""), 0);
    let writers: [(&str, Writer); 4] = [
        ("write", &|new| fs::write(new, TWO)),
        ("fallocate", &|new| {
            Ok(fallocate(File::create(new)?, FallocateFlags::empty(), 0, TWO.len() as u64)?)
        }),
        ("copy_file_range", &|new| fs::copy(union.path("two"), new).map(drop)),
        ("copy-up", &|new| fs::rename(union.path("two"), new)),
    ];
    for (name, write) in writers {
        fs::remove_file(&old).unwrap();
        write(&old).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Makes a file of two megabytes.
type Writer<'a> = &'a dyn Fn(&Path) -> io::Result<()>;

const TWO: &[u8] = &[2; 2 << 20];
