//! What is shared: on disk by images with a common base, in memory and on the way from the disk by mounts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::needs_root;
use crate::stage::{Stage, text};
use crate::store::program::TestImage;
use crate::store::support::Tar;
use crate::support::posix::run;
use crate::volume::Kind;

const BIG: usize = 8 << 20;

/// Bytes that nothing compresses, others for each `seed`.
fn noise(seed: u64, length: usize) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; length / 2];
    hasher.finalize_xof().fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `du` says of the store, in bytes on disk.
fn disk(stage: &Stage) -> u64 {
    let said = run("du", ["-s", "-B1", stage.program.store().to_str().unwrap()]);
    said.split_whitespace().next().unwrap().parse().unwrap()
}

/// The bytes of contents and blobs that `store df` says.
fn stored(stage: &Stage) -> u64 {
    let figures = stage.program.json("store df --json");
    ["object_bytes", "blob_bytes", "packed_bytes"]
        .map(|name| figures[name].as_u64().unwrap())
        .iter()
        .sum()
}

#[test]
fn a_second_image_on_a_base_takes_the_room_of_what_it_adds() {
    let stage = Stage::empty();
    let base = Tar::new().file("base", &noise(1, BIG)).end();
    let on =
        |text: &str| TestImage { layers: vec![base.clone(), Tar::new().file("own", text).end()] };
    stage.load("first", &on("first"));
    let (disk_of_one, stored_of_one) = (disk(&stage), stored(&stage));
    assert!(stored_of_one > BIG as u64);
    stage.load("second", &on(&noise(2, 100_000)));
    let more = [disk(&stage) - disk_of_one, stored(&stage) - stored_of_one];
    // The content, its layer's blob and index, manifest and configuration; not the base.
    for more in more {
        assert!((100_000..400_000).contains(&more), "{more} bytes");
    }
    let figures = stage.program.json("store df --json");
    assert_eq!(figures["layers"], 3, "{figures}");
    // A third of another base with the same file in it: contents are shared too.
    let other = Tar::new().dir("d").file("d/base", &noise(1, BIG)).end();
    let objects = stage.program.json("store df --json")["objects"].clone();
    stage.load("third", &TestImage { layers: vec![other] });
    assert_eq!(stage.program.json("store df --json")["objects"], objects);
}

/// Bytes that have been read from the disk that is mounted on `point`, by whomever. What processes have had read
/// (/proc/PID/io) has their programs in it, which a busy machine forgets and reads again.
fn read_from_disk(point: &Path) -> u64 {
    let device = fs::metadata(point).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
    let sectors: u64 = stat.split_whitespace().nth(2).unwrap().parse().unwrap();
    sectors * 512
}

/// Has the kernel forget what it has read of a file.
fn forget_pages(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn two_mounts_of_an_image_read_a_content_from_the_disk_once() {
    needs_root!();
    let stage = Stage::empty();
    let disk = stage.point("store");
    Kind::Ext4.mount_empty(&disk);
    let big = noise(3, BIG);
    stage.load("app", &TestImage { layers: vec![Tar::new().file("big", &big).end()] });
    let hex = blake3::hash(big.as_bytes()).to_hex();
    let object = stage.program.store().join("objects").join(&hex[..2]).join(&hex[2..]);
    for options in ["", " -o io=passthrough"] {
        let points = ["first", "second"].map(|name| stage.point(name));
        for point in ["first", "second"] {
            stage.mount(&format!("-r app {point}{options}"));
        }
        forget_pages(&object);
        let before = read_from_disk(&disk);
        assert_eq!(text(points[0].join("big")), big);
        let after_one = read_from_disk(&disk);
        assert_eq!(text(points[1].join("big")), big);
        let after_two = read_from_disk(&disk);
        let size = BIG as u64;
        assert!(
            (size..size + size / 4).contains(&(after_one - before)),
            "{options}: {}",
            after_one - before
        );
        assert!(after_two - after_one < size / 16, "{options}: {}", after_two - after_one);
        for point in ["first", "second"] {
            stage.program.says(&format!("umount {point}"));
        }
    }
}
