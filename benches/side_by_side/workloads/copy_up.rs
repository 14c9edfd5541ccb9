//! Changing what lies in a lower layer.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, statat, utimensat};

use super::super::Outcome;
use super::super::fingerprint::Depth;
use super::super::results::Mode;
use super::super::row::{Row, State};
use super::super::run::{Run, succeed};
use super::super::shape::Shape::{Big, Lower};
use super::data::warm_layer;
use super::walk::open_root;

pub(super) fn rows() -> Vec<Row> {
    let change = |name, what, work| {
        Row::new(name, what, Lower, State::Changed, work).compared(Depth::Contents).kernel_goal(1.0)
    };
    let big = |name, what, work| Row::new(name, what, Big, State::Changed, work).without_bare();
    vec![
        change("chown", "chown -R of lower files", chown).in_chart(),
        change("touch", "touch of lower files", touch).in_chart(),
        change("chown-volatile", "chown -R, volatile", chown).with("volatile").peer_goal(1.0),
        change("touch-volatile", "touch, volatile", touch).with("volatile").peer_goal(1.0),
        change("chown-metacopy", "chown -R, metacopy=on", chown).with("metacopy=on").without_peer(),
        big("append-big", "a byte appended to a big lower file", append).peer_goal(1.0),
        big("append-big-stat", "the slowest stat while a big file is copied up", stat_meanwhile)
            .peer_goal(100.0)
            .in_chart(),
    ]
}

/// Rootless, where there is one user only, the owner stays the same: it is a change for the union nevertheless.
fn chown(run: &mut Run) -> Outcome<()> {
    let owner = if run.mode == Mode::Root { "1000:1000" } else { "0:0" };
    let mut command = Command::new("chown");
    command.args(["-R", owner]).arg(run.root().join("lower"));
    let files = run.tree.files().len();
    run.timed(files, || succeed(&mut command))
}

fn touch(run: &mut Run) -> Outcome<()> {
    let names: Vec<_> = run.tree.files().iter().map(|file| run.root().join(file)).collect();
    let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    run.timed(names.len(), || {
        let touch = |name| utimensat(CWD, name, &times, AtFlags::empty());
        Ok(names.iter().try_for_each(touch)?)
    })?;
    for name in &names {
        run.saw(fs::metadata(name)?.mtime());
    }
    Ok(())
}

fn append(run: &mut Run) -> Outcome<()> {
    warm_layer(run)?;
    let path = run.root().join("big");
    run.timed(1, || Ok(File::options().append(true).open(&path)?.write_all(b"x")?))?;
    run.saw(fs::metadata(&path)?.len());
    Ok(())
}

/// Files never asked for before, while the big file is copied up: each of them costs the daemon work.
fn stat_meanwhile(run: &mut Run) -> Outcome<()> {
    warm_layer(run)?;
    let (root, files, path) = (open_root(run)?, run.tree.files(), run.root().join("big"));
    let done = AtomicBool::new(false);
    let slowest = std::thread::scope(|scope| -> Outcome<Duration> {
        let writer = scope.spawn(|| {
            let written =
                File::options().append(true).open(&path).and_then(|mut f| f.write_all(b"x"));
            done.store(true, Ordering::Release);
            written
        });
        let mut slowest = Duration::ZERO;
        for file in &files {
            let start = Instant::now();
            statat(&root, file, AtFlags::SYMLINK_NOFOLLOW)?;
            slowest = slowest.max(start.elapsed());
            if done.load(Ordering::Acquire) {
                break;
            }
            // Spread over the whole copy, which takes much longer than a thousand questions.
            std::thread::sleep(Duration::from_millis(1));
        }
        writer.join().map_err(|_| "the writer ended early")??;
        Ok(slowest)
    })?;
    run.measured(slowest.as_nanos() as f64);
    run.saw(fs::metadata(&path)?.len());
    Ok(())
}
