//! Writing a big file.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::super::Outcome;
use super::super::fingerprint::Depth;
use super::super::row::{Row, State};
use super::super::run::Run;
use super::super::scale::Scale;
use super::super::shape::Shape::Empty;
use super::data::{bandwidth, fio};

pub(super) fn rows() -> Vec<Row> {
    let write = |name, what, work| {
        Row::new(name, what, Empty, State::Changed, work).compared(Depth::Contents)
    };
    let fio =
        |name, what, work| Row::new(name, what, Empty, State::Changed, work).from(Scale::Full);
    vec![
        write("write-4k", "a file written in pieces of 4 KiB", sequential_4k)
            .goals(0.6, 3.0)
            .in_chart(),
        write("write-4k-random", "4 KiB overwritten here and there", random_4k)
            .goals(0.6, 3.0)
            .in_chart(),
        write("mixed-4k", "4 KiB read or overwritten here and there", mixed_4k).goals(0.6, 3.0),
        write("write-1m", "a file written in pieces of 1 MiB", sequential_1m)
            .goals(0.6, 1.0)
            .in_chart(),
        write("write-direct", "4 KiB here and there with O_DIRECT", direct),
        fio("fio-write-4k", "fio: 4 KiB sequential writes", fio_sequential_4k).goals(0.6, 3.0),
        fio("fio-write-4k-random", "fio: 4 KiB random writes", fio_random_4k).goals(0.6, 3.0),
        fio("fio-mixed-4k", "fio: 4 KiB reads and writes", fio_mixed_4k).goals(0.6, 3.0),
        fio("fio-write-1m", "fio: 1 MiB sequential writes", fio_sequential_1m).goals(0.6, 1.0),
        fio("fio-write-direct", "fio: 4 KiB random direct writes", fio_direct),
    ]
}

fn path(run: &Run) -> PathBuf {
    run.root().join("written")
}

fn block_of(size: usize, number: u64) -> Vec<u8> {
    let word = (number * 0x0101_0101 + 7).to_le_bytes();
    word.iter().copied().cycle().take(size).collect()
}

/// Sequential writes of `size` bytes until the file has its length, and its close.
fn sequential(run: &mut Run, size: usize) -> Outcome<()> {
    let (path, count) = (path(run), run.scale.written() / size as u64);
    let block = block_of(size, 1);
    run.timed(count as usize, || {
        let file = File::create_new(&path)?;
        for number in 0..count {
            file.write_all_at(&block, number * size as u64)?;
        }
        Ok(())
    })
}

fn sequential_4k(run: &mut Run) -> Outcome<()> {
    sequential(run, 4096)
}

fn sequential_1m(run: &mut Run) -> Outcome<()> {
    sequential(run, 1 << 20)
}

/// Makes the file, and goes through its blocks in an order that jumps; `each` gets file, number and offset.
fn random(
    run: &mut Run,
    file: impl FnOnce(&PathBuf) -> Outcome<File>,
    mut each: impl FnMut(&File, u64, u64) -> Outcome<()>,
) -> Outcome<()> {
    let (path, length) = (path(run), run.scale.written());
    fs::write(&path, vec![1; usize::try_from(length)?])?;
    let blocks = length / 4096;
    run.timed(blocks as usize, || {
        let file = file(&path)?;
        for number in 0..blocks {
            each(&file, number, number.wrapping_mul(0x9e37_79b1) % blocks * 4096)?;
        }
        Ok(())
    })
}

fn both_ways(path: &PathBuf) -> Outcome<File> {
    Ok(File::options().read(true).write(true).open(path)?)
}

fn random_4k(run: &mut Run) -> Outcome<()> {
    let block = block_of(4096, 2);
    random(run, both_ways, |file, _, offset| Ok(file.write_all_at(&block, offset)?))
}

fn mixed_4k(run: &mut Run) -> Outcome<()> {
    let block = block_of(4096, 3);
    let mut buffer = [0; 4096];
    random(run, both_ways, |file, number, offset| match number % 2 {
        0 => Ok(file.write_all_at(&block, offset)?),
        _ => Ok(file.read_exact_at(&mut buffer, offset)?),
    })
}

fn direct(run: &mut Run) -> Outcome<()> {
    // Direct writes want memory at a multiple of the block size of the disk.
    let block = block_of(8192, 4);
    let start = block.as_ptr().align_offset(4096);
    let aligned = &block[start..start + 4096];
    let open = |path: &PathBuf| {
        let flags = i32::try_from(OFlags::DIRECT.bits())?;
        Ok(File::options().write(true).custom_flags(flags).open(path)?)
    };
    random(run, open, |file, number, offset| match number % 64 {
        0 => Ok(file.write_all_at(aligned, offset)?),
        _ => Ok(()),
    })
}

fn job(run: &mut Run, pattern: &str, size: &str, direct: bool) -> Outcome<()> {
    let mut command = fio("write", run);
    command.args(["--ioengine=psync", "--overwrite=1"]).arg(format!("--rw={pattern}"));
    command.arg(format!("--bs={size}")).arg(format!("--direct={}", u8::from(direct)));
    command.arg("--filename").arg(path(run)).arg(format!("--size={}", run.scale.written()));
    let bytes = if direct { run.scale.written() / 64 } else { run.scale.written() };
    command.arg(format!("--io_size={bytes}"));
    let bytes_a_second = bandwidth(&mut command)?;
    let block = if size == "1M" { 1 << 20 } else { 4096 };
    run.measured(f64::from(block) / bytes_a_second * 1e9);
    Ok(())
}

fn fio_sequential_4k(run: &mut Run) -> Outcome<()> {
    job(run, "write", "4k", false)
}

fn fio_random_4k(run: &mut Run) -> Outcome<()> {
    job(run, "randwrite", "4k", false)
}

fn fio_mixed_4k(run: &mut Run) -> Outcome<()> {
    job(run, "randrw", "4k", false)
}

fn fio_sequential_1m(run: &mut Run) -> Outcome<()> {
    job(run, "write", "1M", false)
}

fn fio_direct(run: &mut Run) -> Outcome<()> {
    job(run, "randwrite", "4k", true)
}
