//! Reading a big file.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Command;

use serde_json::Value;

use super::super::Outcome;
use super::super::results::Mode;
use super::super::row::{Row, State};
use super::super::run::Run;
use super::super::scale::Scale;
use super::super::shape::Shape::Big;

pub(super) fn rows() -> Vec<Row> {
    let first = |name, what, work| Row::new(name, what, Big, State::Fresh, work);
    vec![
        Row::new("read-cached", "a big file read again", Big, State::Warm, sequential)
            .goals(0.95, 1.0)
            .in_chart(),
        Row::new("mmap-cached", "a big file mapped, read again", Big, State::Warm, mapped)
            .from(Scale::Quick)
            .goals(0.95, 1.0),
        first("read-first", "a big file read for the first time", first_sequential)
            .goals(0.4, 1.0)
            .peer_goal_in(Mode::Rootless)
            .in_chart(),
        first("read-first-passthrough", "the same with io=passthrough", first_sequential)
            .plyfs_with("io=passthrough")
            .only_in(Mode::Root)
            .goals(0.95, 1.0),
        first("random-first", "4 KiB reads all over it, first time", first_random)
            .goals(0.4, 1.0)
            .peer_goal_in(Mode::Rootless),
        first("random-first-passthrough", "the same with io=passthrough", first_random)
            .plyfs_with("io=passthrough")
            .only_in(Mode::Root)
            .goals(0.95, 1.0),
    ]
}

const MEBIBYTE: usize = 1 << 20;
const BLOCK: usize = 4096;

/// Reads to the end; the value is for 1 MiB. The sum of some bytes shows whether they were the right ones.
fn sequential(run: &mut Run) -> Outcome<()> {
    let mut file = File::open(run.root().join("big"))?;
    let mebibytes = run.scale.big() as usize / MEBIBYTE;
    let sum = run.timed(mebibytes, || read_to_end(&mut file))?;
    run.saw(sum);
    Ok(())
}

fn read_to_end(file: &mut File) -> Outcome<u64> {
    let mut buffer = vec![0; MEBIBYTE];
    let mut sum = 0_u64;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(sum);
        }
        sum = buffer[..count]
            .iter()
            .step_by(BLOCK / 2)
            .fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    }
}

/// The file that lies below is in the page cache: what is measured is the union and not the disk.
fn first_sequential(run: &mut Run) -> Outcome<()> {
    warm_layer(run)?;
    sequential(run)
}

fn first_random(run: &mut Run) -> Outcome<()> {
    warm_layer(run)?;
    let file = File::open(run.root().join("big"))?;
    let blocks = run.scale.big() / BLOCK as u64;
    let reads = blocks.min(8192);
    let sum = run.timed(reads as usize, || {
        let mut buffer = [0; BLOCK];
        let mut sum = 0_u64;
        for number in 0..reads {
            // An odd factor below a power of two meets every block once.
            let block = number.wrapping_mul(0x9e37_79b1) % blocks;
            file.read_exact_at(&mut buffer, block * BLOCK as u64)?;
            sum = sum.wrapping_mul(31).wrapping_add(u64::from(buffer[7]));
        }
        Ok(sum)
    })?;
    run.saw(sum);
    Ok(())
}

/// Reads the big file in its layer, or in the bare tree.
pub(super) fn warm_layer(run: &Run) -> Outcome<()> {
    let layer = run.tree.layers().join("0/big");
    for path in [layer, run.tree.bare().join("big")] {
        if path.exists() {
            read_to_end(&mut File::open(path)?)?;
        }
    }
    Ok(())
}

/// fio maps and reads it; this program has no mapping of its own.
fn mapped(run: &mut Run) -> Outcome<()> {
    let mut command = fio("mmap", run);
    command.args(["--ioengine=mmap", "--rw=read", "--bs=1M", "--invalidate=0", "--readonly"]);
    command.arg("--filename").arg(run.root().join("big"));
    command.arg(format!("--size={}", run.scale.big()));
    command.arg(format!("--loops={}", run.scale.repeat().as_millis() / 15 + 1));
    let bytes_a_second = bandwidth(&mut command)?;
    run.measured(MEBIBYTE as f64 / bytes_a_second * 1e9);
    Ok(())
}

/// fio with what all jobs have in common.
pub(super) fn fio(name: &str, run: &Run) -> Command {
    let mut command = Command::new("fio");
    command.arg(format!("--name={name}")).current_dir(&run.scratch);
    command.args(["--output-format=json", "--thread", "--randseed=1", "--fallocate=none"]);
    command
}

/// What a job of fio read and wrote in a second, in bytes.
pub(super) fn bandwidth(command: &mut Command) -> Outcome<f64> {
    let output = command.output().map_err(|error| format!("fio: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let start = text.find('{').ok_or_else(|| {
        format!("fio: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
    })?;
    let report: Value = serde_json::from_str(&text[start..])?;
    let job = &report["jobs"][0];
    if job["error"].as_i64() != Some(0) {
        return Err(format!("fio: error {}", job["error"]).into());
    }
    let of = |direction: &str, key: &str| job[direction][key].as_f64().unwrap_or_default();
    let bytes = of("read", "io_bytes") + of("write", "io_bytes");
    let seconds = of("read", "runtime").max(of("write", "runtime")) / 1000.0;
    match seconds > 0.0 {
        true => Ok(bytes / seconds),
        false => Ok(of("read", "bw_bytes") + of("write", "bw_bytes")),
    }
}
