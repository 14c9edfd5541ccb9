//! A copy gets its name only when its data is safe behind it, also where nothing is synced for that.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use plyfs::overlay::{Config, NodeId, Overlay, UpperDirs};
use rustix::io::Errno;

use crate::facade::Facade;
use crate::needs_root;
use crate::power::{Cut, builder, cut};
use crate::replay::WRITE_AND_WAIT;
use crate::story::{Tree, steps};
use crate::support::posix::{chmod, exists, mode};
use crate::support::privilege::skip;
use crate::support::{Scratch, tree};
use crate::syscalls::{Answer, Call, watch};
use crate::volume::Kind;

/// Sizes of files: within a block, some blocks, more than is copied at once. Every third begins with a hole.
const SIZES: [u64; 8] = [0, 1, 100, 4096, 5000, 70_000, 1_000_000, 9_000_000];
const FILES: usize = 24;

/// Lies on another filesystem than the upper layer: what a reflink brings is there at once.
fn fill(lower: &Path) {
    for number in 0..FILES {
        let file = File::create(lower.join(format!("{number}"))).unwrap();
        let data: Vec<u8> =
            (0..SIZES[number % SIZES.len()]).map(|at| b'a' + (at % 23) as u8).collect();
        let hole = if number.is_multiple_of(3) { 1 << 16 } else { 0 };
        file.write_all_at(&data, hole).unwrap();
    }
}

/// The power goes some seconds after the change, when the log is on the disk and data that was left to the kernel is
/// not.
fn copies_are_whole(kind: Kind, options: &[&str]) {
    if !kind.is_known() {
        return skip(module_path!(), &format!("this kernel has no {kind:?}"));
    }
    let lower = Scratch::new();
    fill(lower.path());
    let mut builder = builder(kind).lower_at(lower.path());
    for option in options {
        builder = builder.option(*option);
    }
    let mut union = builder.mount();
    for number in 0..FILES {
        chmod(union.path(format!("{number}")), 0o640).unwrap();
        if number % 2 == 0 {
            crate::support::posix::open_rw(union.path(format!("{number}"))).set_len(77).unwrap();
        }
    }
    cut(&mut union, kind, Cut::AfterLog);
    for number in 0..FILES {
        let name = format!("{number}");
        assert!(exists(union.upper(&name)), "{name} is in the log");
        assert_eq!(mode(union.path(&name)) & 0o777, 0o640, "{name}");
        let mut expected = fs::read(lower.path().join(&name)).unwrap();
        if number % 2 == 0 {
            expected.resize(77, 0);
        }
        let found = fs::read(union.path(&name)).unwrap();
        assert!(
            found == expected,
            "{name} is damaged: {} bytes of {}",
            found.len(),
            expected.len()
        );
    }
}

#[test]
fn copies_are_whole_wherever_the_log_of_ext4_ends() {
    needs_root!();
    copies_are_whole(Kind::Ext4, &[]);
}

#[test]
fn copies_are_whole_wherever_the_log_of_xfs_ends() {
    needs_root!();
    copies_are_whole(Kind::Xfs, &[]);
}

#[test]
fn metacopies_completed_are_whole_wherever_the_log_ends() {
    needs_root!();
    copies_are_whole(Kind::Ext4, &["metacopy=on"]);
    copies_are_whole(Kind::Xfs, &["metacopy=on"]);
}

/// A union whose upper layer is on `kind`, with one lower file.
fn union_on(kind: Kind, scratch: &Scratch) -> Facade {
    kind.mount_empty(&scratch.dir("volume"));
    let [upper, work, lower] =
        ["volume/upper", "volume/work", "lower"].map(|name| scratch.dir(name));
    tree::make(&lower, "f file text=lower mode=0644");
    let upper = Some(UpperDirs { upper, work });
    Facade(Overlay::open(&Config { lower: vec![lower], upper, ..Config::default() }).unwrap())
}

fn is_wait(call: &Call) -> bool {
    call.name == "sync_file_range" && call.args[3] == WRITE_AND_WAIT
}

#[test]
fn copy_whose_data_cannot_be_written_gets_no_name() {
    needs_root!();
    for kind in [Kind::Ext4, Kind::Xfs].into_iter().filter(|kind| kind.is_known()) {
        let scratch = Scratch::new();
        let union = union_on(kind, &scratch);
        let node = union.0.lookup(NodeId::ROOT, "file".as_ref()).unwrap().unwrap().node;
        for error in [Errno::IO, Errno::NOSPC, Errno::INTR] {
            let fail = |call: &Call| if is_wait(call) { Answer::Fail(error) } else { Answer::Go };
            let written = watch(fail, || union.0.write(node, 0, b"L", None));
            assert_eq!(written, Err(error), "{kind:?}");
            assert!(!scratch.path().join("volume/upper/file").exists(), "{kind:?}: {error}");
            let stage = scratch.path().join("volume/work/plyfs/stage");
            assert_eq!(fs::read_dir(stage).unwrap().count(), 0, "{kind:?}: {error}");
        }
        assert_eq!(union.0.write(node, 0, b"L", None), Ok(1), "{kind:?}");
        assert_eq!(fs::read(scratch.path().join("volume/upper/file")).unwrap(), b"Lower");
    }
}

#[test]
fn hundred_touched_files_wait_for_no_log() {
    needs_root!();
    let scratch = Scratch::new();
    let union = union_on(Kind::Ext4, &scratch);
    let names: Vec<String> = (0..100).map(|number| format!("lower-{number}")).collect();
    for name in &names {
        fs::write(scratch.path().join("lower").join(name), "text").unwrap();
    }
    let (mut waits, mut syncs) = (0, 0);
    watch(
        |call| {
            waits += usize::from(is_wait(call));
            syncs += usize::from(["fsync", "fdatasync", "syncfs", "sync"].contains(&call.name));
            Answer::Go
        },
        || names.iter().for_each(|name| union.act(&["touch", name, "1234567890.25"], false)),
    );
    assert_eq!((waits, syncs), (100, 0));
}

/// By the time that a big file has been copied, most of it is on the disk.
#[test]
fn big_copy_is_written_while_it_is_made() {
    needs_root!();
    let scratch = Scratch::new();
    Kind::Ext4.mount_empty(&scratch.dir("volume"));
    let [upper, work, lower] =
        ["volume/upper", "volume/work", "volume/lower"].map(|name| scratch.dir(name));
    fs::write(lower.join("big"), vec![b'x'; 20 << 20]).unwrap();
    for (volatile, expected) in
        [(false, "copy start copy start copy settle"), (true, "copy copy copy")]
    {
        let dirs = UpperDirs { upper: upper.clone(), work: work.clone() };
        let config =
            Config { lower: vec![lower.clone()], upper: Some(dirs), volatile, ..Config::default() };
        let union = Facade(Overlay::open(&config).unwrap());
        let mut calls = Vec::new();
        watch(
            |call| {
                calls.extend(match call.name {
                    "copy_file_range" => Some("copy"),
                    "sync_file_range" if is_wait(call) => Some("settle"),
                    "sync_file_range" => Some("start"),
                    _ => None,
                });
                Answer::Go
            },
            || union.act(&["chmod", "big", "600"], false),
        );
        assert_eq!(calls.join(" "), expected);
        drop(union);
        fs::remove_file(upper.join("big")).unwrap();
    }
}

/// As in a container whose filter of system calls is older.
#[test]
fn where_data_cannot_be_waited_for_it_is_synced() {
    needs_root!();
    let scratch = Scratch::new();
    let union = union_on(Kind::Ext4, &scratch);
    let mut syncs = 0;
    watch(
        |call| {
            syncs += u32::from(call.name == "fsync");
            if is_wait(call) { Answer::Fail(Errno::PERM) } else { Answer::Go }
        },
        || steps("chmod file 600").iter().for_each(|step| step.perform(&union)),
    );
    assert_eq!(syncs, 1);
}
