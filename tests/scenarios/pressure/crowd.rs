//! Many programs that do all kinds of things to the same few names: whatever they do at once, nothing is lost,
//! mixed up or counted wrongly, and nobody gets an error that the same calls could not have had one by one.
//!
//! Every file says all through which file it is, and nobody ever writes anything else to it. The test lasts a few
//! seconds, or `PLYFS_SOAK_SECONDS`; `PLYFS_SEED` chooses what is done.

mod actor;
mod file;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::FileType;

use self::actor::Actor;
use self::file::Tag;
use crate::needs_root;
use crate::support::posix::{kind, lstat, names};
use crate::support::{Builder, Union, assert_same};

/// Programs at once, and threads of each.
const PROGRAMS: u64 = 3;
const THREADS: u64 = 4;

/// Tells a child of the test where the union is, for how many seconds, and its seed.
const PLACE: &str = "PLYFS_CROWD_PLACE";
const SECONDS: &str = "PLYFS_CROWD_SECONDS";
const SEED: &str = "PLYFS_CROWD_SEED";

/// The directories in which everything happens, in the top lower layer, in both (merged), in the upper one.
const DIRS: [&str; 3] = ["lower", "merged", "upper"];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Three directories: one from a lower layer, one from all layers, one from the upper layer.
fn union(seconds: u64) -> Builder {
    let fill = |dir: &Path, layer: u64, dirs: &[&str]| {
        for (number, name) in dirs.iter().enumerate() {
            fs::create_dir(dir.join(name)).unwrap();
            fs::create_dir(dir.join(name).join("0")).unwrap();
            for file in layer..4 {
                let tag = Tag::new(layer * 100 + number as u64 * 10 + file);
                tag.make(&dir.join(name).join(file.to_string()), 5000);
            }
            fs::write(dir.join(name).join(format!("stays-{layer}")), "stays").unwrap();
        }
    };
    Union::new()
        .lower_with(|dir| fill(dir, 1, &DIRS[..2]))
        .lower_with(|dir| fill(dir, 2, &DIRS[..2]))
        .upper_with(|dir| fill(dir, 3, &DIRS[1..]))
        .lifetime(Duration::from_secs(seconds + 100))
}

#[test]
fn heavy_programs_at_work_on_the_same_names_lose_and_mix_up_nothing() {
    needs_root!();
    if let Some(place) = std::env::var_os(PLACE) {
        act(Path::new(&place));
        return;
    }
    let seconds = number("PLYFS_SOAK_SECONDS").unwrap_or(4);
    let any = || Duration::as_secs(&std::time::UNIX_EPOCH.elapsed().unwrap());
    let seed = number("PLYFS_SEED").unwrap_or_else(any);
    println!("PLYFS_SEED={seed}");
    for options in ["", "metacopy=on,io=plain", "redirect_dir=off,volatile"] {
        let mut union = union(seconds).option(options).mount();
        run_programs(&union, seconds, seed);
        expect_sound(&mut union);
    }
}

/// Lets the programs do their work; each is this test once more.
fn run_programs(union: &Union, seconds: u64, seed: u64) {
    let test = std::thread::current().name().unwrap().to_owned();
    let programs = (0..PROGRAMS).map(|program| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture", "--test-threads=1"])
            .env(PLACE, union.path(""))
            .env(SECONDS, seconds.to_string())
            .env(SEED, (seed * PROGRAMS + program).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let programs: Vec<_> = programs.collect();
    let mut wrong = String::new();
    for program in programs {
        let output = program.wait_with_output().unwrap();
        let written = [output.stdout, output.stderr].concat();
        let written = String::from_utf8_lossy(&written);
        if !output.status.success() || !written.contains("1 passed") {
            wrong += &written;
        }
        let done = written.lines().filter(|line| line.contains("calls"));
        done.for_each(|line| println!("{line}"));
    }
    assert!(wrong.is_empty(), "{wrong}\nlog:\n{}", union.live().log());
}

/// One of the programs.
fn act(place: &Path) {
    let end = Instant::now() + Duration::from_secs(number(SECONDS).unwrap());
    let seed = number(SEED).unwrap();
    let done: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let mut actor = Actor::new(place, seed * THREADS + thread);
                scope.spawn(move || {
                    let mut done = 0;
                    while Instant::now() < end {
                        actor.act();
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{done} calls and more");
}

/// What must hold when everybody has gone.
fn expect_sound(union: &mut Union) {
    expect_files(&union.path(""));
    let before = union.snapshot();
    // Nobody waits for the messages that tell of the last use of a file.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !names(union.work("plyfs/stage")).is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", names(union.work("plyfs/stage")));
    }
    assert_eq!(union.live().log(), "");
    union.unmount();
    assert_eq!(names(union.work("plyfs/stage")), [""; 0]);
    union.check(&[]).expect(0, "");
    union.start();
    assert_same(&before, &union.snapshot(), "remount");
    expect_files(&union.path(""));
    assert_eq!(union.live().log(), "");
}

/// Each file is one and has as many names as it says.
fn expect_files(root: &Path) {
    let mut files: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for path in names(&dir).into_iter().map(|name| dir.join(name)) {
            match kind(&path) {
                FileType::Directory => dirs.push(path),
                FileType::RegularFile => files.entry(lstat(&path).st_ino).or_default().push(path),
                _ => {}
            }
        }
    }
    let mut tags = BTreeMap::new();
    for (ino, paths) in files {
        let tag = file::read_tag(&fs::File::open(&paths[0]).unwrap(), &paths[0]);
        for path in &paths {
            assert_eq!(lstat(path).st_nlink, paths.len() as u64, "links of {paths:?}");
        }
        if let Some(tag) = tag {
            let other = tags.insert(tag, paths.clone());
            assert_eq!(other, None, "one file twice: {ino} {paths:?}");
        }
    }
}
