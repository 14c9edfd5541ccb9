//! The union itself, without FUSE: what one answer to the kernel costs inside of the daemon.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use plyfs::overlay::{Config, Flow, NodeId, Overlay, UpperDirs};
use tempfile::TempDir;

/// Two lower layers with one directory `d` of so many files of 4 KiB, and an upper layer, on the disk of the build.
struct Layers(TempDir);

impl Layers {
    fn new(files: usize) -> Self {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for name in ["low/d", "top/d", "upper", "work"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for file in 0..files {
            let layer = if file % 2 == 0 { "low" } else { "top" };
            let path = dir.path().join(layer).join("d").join(format!("f{file}"));
            fs::write(path, [b'x'; 4096]).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self, volatile: bool) -> Overlay {
        let at = |name| self.path().join(name);
        let config = Config {
            lower: vec![at("top"), at("low")],
            upper: Some(UpperDirs { upper: at("upper"), work: at("work") }),
            volatile,
            ..Config::default()
        };
        Overlay::open(&config).unwrap()
    }
}

fn find(overlay: &Overlay, parent: NodeId, name: &str) -> Option<NodeId> {
    overlay.lookup(parent, OsStr::new(name)).unwrap().map(|entry| entry.node)
}

fn count(overlay: &Overlay, directory: NodeId) -> usize {
    let mut names = 0;
    let take = |_: plyfs::overlay::DirEntry| {
        names += 1;
        Flow::Continue
    };
    overlay.read_dir(directory, 0, take).unwrap();
    names
}

fn lookups(criterion: &mut Criterion) {
    let layers = Layers::new(1000);
    let overlay = layers.open(true);
    let directory = find(&overlay, NodeId::ROOT, "d").unwrap();
    let file = find(&overlay, directory, "f500").unwrap();
    criterion.bench_function("lookup of a known name", |bencher| {
        bencher.iter(|| {
            let found = find(&overlay, directory, black_box("f500")).unwrap();
            overlay.forget(found, 1);
        });
    });
    criterion.bench_function("lookup of a name never seen", |bencher| {
        bencher.iter(|| {
            let found = find(&overlay, directory, black_box("f501")).unwrap();
            overlay.forget(found, 1);
        });
    });
    criterion.bench_function("lookup of an absent name", |bencher| {
        bencher.iter(|| find(&overlay, directory, black_box("absent")));
    });
    criterion.bench_function("read 4 KiB", |bencher| {
        let mut buffer = [0; 4096];
        bencher.iter(|| overlay.read(file, 0, black_box(&mut buffer)).unwrap());
    });
}

fn directories(criterion: &mut Criterion) {
    for names in [1_000, 100_000] {
        let layers = Layers::new(names);
        let mut group = criterion.benchmark_group(format!("directory of {names} names"));
        group.sample_size(10);
        group.bench_function("first read: the name table is built", |bencher| {
            bencher.iter_batched(
                || layers.open(true),
                |overlay| {
                    let directory = find(&overlay, NodeId::ROOT, "d").unwrap();
                    assert_eq!(count(&overlay, directory), names + 2);
                    overlay
                },
                BatchSize::PerIteration,
            );
        });
        let overlay = layers.open(true);
        let directory = find(&overlay, NodeId::ROOT, "d").unwrap();
        group.bench_function("read again", |bencher| bencher.iter(|| count(&overlay, directory)));
    }
}

/// A file of 4 KiB, with and without syncing it.
fn copy_ups(criterion: &mut Criterion) {
    for (name, volatile) in [("copy-up of 4 KiB", false), ("the same, volatile", true)] {
        let mut group = criterion.benchmark_group("copy-up");
        group.sample_size(10);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let layers = Layers::new(1);
                    let overlay = layers.open(volatile);
                    let directory = find(&overlay, NodeId::ROOT, "d").unwrap();
                    let file = find(&overlay, directory, "f0").unwrap();
                    (layers, overlay, file)
                },
                |(layers, overlay, file)| {
                    overlay.write(file, 0, b"y", None).unwrap();
                    (layers, overlay)
                },
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(all, lookups, directories, copy_ups);
criterion_main!(all);
