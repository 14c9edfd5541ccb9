//! What is shared: on disk by images with a common base, in memory and on the way from the disk by mounts.

use std::fs;
use std::path::Path;

use crate::needs_root;
use crate::stage::{Stage, text};
use crate::store::program::TestImage;
use crate::store::support::Tar;
use crate::support::posix::run;

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

/// Bytes that this process has had read from the disk.
fn read_from_disk(pid: u64) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("read_bytes: ")).unwrap();
    line.parse().unwrap()
}

fn server(stage: &Stage, point: &Path) -> u64 {
    let mounts = stage.program.says("ps --format json");
    let mounts =
        mounts.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let at = |mount: &serde_json::Value| mount.to_string().contains(point.to_str().unwrap());
    let mount = mounts.into_iter().find(at).unwrap();
    mount["Pid"].as_u64().or_else(|| mount["pid"].as_u64()).unwrap_or_else(|| panic!("{mount}"))
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
        let own = u64::from(std::process::id());
        let everybody = || {
            let servers = points.each_ref().map(|point| server(&stage, point));
            servers.iter().chain([&own]).map(|pid| read_from_disk(*pid)).sum::<u64>()
        };
        let before = everybody();
        assert_eq!(text(points[0].join("big")), big);
        let after_one = everybody();
        assert_eq!(text(points[1].join("big")), big);
        let after_two = everybody();
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
