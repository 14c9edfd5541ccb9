//! What a daemon holds, and how often the page cache holds the same data.

use std::fs::File;
use std::io::Read;
use std::process::Command;

use super::super::Outcome;
use super::super::kernel_caches::{self, Drop};
use super::super::machine::field;
use super::super::mounted::Union;
use super::super::results::{Mode, Unit};
use super::super::row::{Row, State};
use super::super::run::{Run, succeed};
use super::super::shape::Shape::{Big, Walked};

const MEBIBYTES: f64 = 1024.0 * 1024.0;

pub(super) fn rows() -> Vec<Row> {
    let held = |name, what, work| {
        Row::new(name, what, Walked, State::Fresh, work).in_unit(Unit::Bytes).daemons_only()
    };
    let shared = |name, what| {
        Row::new(name, what, Big, State::Fresh, page_cache).in_unit(Unit::Times).without_bare()
    };
    vec![
        held("memory", "memory of the daemon after ls -lR of a huge tree", after_walk)
            .at_most(100.0 * MEBIBYTES),
        held("memory-own", "of that, its own (Pss_Anon)", own_after_walk),
        held(
            "memory-after",
            "more than at the start, when the kernel has forgotten them",
            after_drop,
        )
        .at_most(10.0 * MEBIBYTES),
        Row::new("unmount", "unmount after the walk", Walked, State::Fresh, unmount).daemons_only(),
        shared("page-cache", "copies of a file in the page cache, read through 2 mounts"),
        shared("page-cache-passthrough", "the same with io=passthrough")
            .plyfs_with("io=passthrough")
            .only_in(Mode::Root)
            .at_most(1.1),
    ]
}

/// VmRSS in bytes.
fn resident(run: &Run) -> Outcome<f64> {
    let process = run.union.daemon().ok_or("it has no process")?;
    let kibibytes = field(format!("/proc/{process}/status"), "VmRSS").ok_or("no VmRSS")?;
    Ok(kibibytes as f64 * 1024.0)
}

fn walk(run: &Run) -> Outcome<()> {
    succeed(Command::new("ls").arg("-lR").arg(run.root()))
}

fn after_walk(run: &mut Run) -> Outcome<()> {
    walk(run)?;
    let bytes = resident(run)?;
    run.measured(bytes);
    Ok(())
}

fn own_after_walk(run: &mut Run) -> Outcome<()> {
    walk(run)?;
    let process = run.union.daemon().ok_or("it has no process")?;
    let kibibytes =
        field(format!("/proc/{process}/smaps_rollup"), "Pss_Anon").ok_or("no Pss_Anon")?;
    run.measured(kibibytes as f64 * 1024.0);
    Ok(())
}

fn after_drop(run: &mut Run) -> Outcome<()> {
    let before = resident(run)?;
    walk(run)?;
    if !kernel_caches::drop(Drop::Names)? {
        return Err("only root can make the kernel forget".into());
    }
    run.measured((resident(run)? - before).max(0.0));
    Ok(())
}

fn unmount(run: &mut Run) -> Outcome<()> {
    walk(run)?;
    let time = run.union.unmount()?;
    run.measured(time.as_nanos() as f64);
    Ok(())
}

/// The page cache grows by so many times the size of the file.
fn page_cache(run: &mut Run) -> Outcome<()> {
    let place = run.scratch.join("second");
    let second = Union::mount(run.contestant, run.tree, &place, &run.row.extra, run.mode)?;
    if !kernel_caches::drop(Drop::All)? {
        return Err("only root can empty the page cache".into());
    }
    let before = cached()?;
    for root in [run.root(), second.root()] {
        let mut buffer = vec![0; 1 << 20];
        let mut file = File::open(root.join("big"))?;
        while file.read(&mut buffer)? > 0 {}
    }
    let grown = cached()?.saturating_sub(before) as f64 * 1024.0;
    run.measured(grown / run.scale.big() as f64);
    Ok(())
}

fn cached() -> Outcome<u64> {
    Ok(field("/proc/meminfo", "Cached").ok_or("no Cached in /proc/meminfo")?)
}
