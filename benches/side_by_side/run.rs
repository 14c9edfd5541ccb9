//! One measurement: a workload on one union, its time and what it saw.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Outcome;
use super::contestant::Contestant;
use super::mounted::Union;
use super::results::Mode;
use super::row::{Row, State};
use super::scale::Scale;
use super::tree::Tree;

/// What a workload works on, and what it leaves.
pub struct Run<'a> {
    /// The union.
    pub union: &'a mut Union,
    /// Its layers.
    pub tree: &'a Tree,
    /// How large everything is.
    pub scale: Scale,
    /// An empty directory outside of the union.
    pub scratch: PathBuf,
    /// Whose union it is.
    pub contestant: &'a Contestant,
    /// What is measured.
    pub row: &'a Row,
    /// The way of mounting.
    pub mode: Mode,
    value: Option<f64>,
    processor: Option<f64>,
    saw: DefaultHasher,
}

/// What a measurement has given.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// In the unit of the row.
    pub value: f64,
    /// Processor time for one operation, in nanoseconds.
    pub processor: Option<f64>,
    /// Equal for all who saw the same.
    pub saw: u64,
}

impl<'a> Run<'a> {
    /// A measurement of `contestant`.
    pub fn new(
        union: &'a mut Union,
        tree: &'a Tree,
        contestant: &'a Contestant,
        row: &'a Row,
        scale: Scale,
        mode: Mode,
        scratch: PathBuf,
    ) -> Self {
        let saw = DefaultHasher::new();
        let (value, processor) = (None, None);
        Self { union, tree, scale, scratch, contestant, row, mode, value, processor, saw }
    }

    /// Where the union is seen.
    pub fn root(&self) -> &Path {
        self.union.root()
    }

    /// Takes the time of `work`, which does so many operations.
    pub fn timed<T>(&mut self, operations: usize, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let daemon = self.union.daemon();
        let processor = processor_time(daemon);
        let start = Instant::now();
        let result = work()?;
        let time = start.elapsed();
        let used = processor_time(daemon).saturating_sub(processor);
        self.value = Some(time.as_nanos() as f64 / operations.max(1) as f64);
        self.processor = Some(used as f64 / operations.max(1) as f64);
        Ok(result)
    }

    /// Takes the time of something short, as often as it takes to be more than noise; once where the first time is
    /// what matters.
    pub fn repeated(
        &mut self,
        operations: usize,
        work: impl FnMut() -> Outcome<()>,
    ) -> Outcome<()> {
        self.repeated_for(1, operations, work)
    }

    fn repeated_for(
        &mut self,
        factor: u32,
        operations: usize,
        mut work: impl FnMut() -> Outcome<()>,
    ) -> Outcome<()> {
        let least = if self.row.state == State::Warm {
            self.scale.repeat() * factor
        } else {
            Duration::ZERO
        };
        let mut times = 0;
        self.timed(1, || {
            let start = Instant::now();
            loop {
                work()?;
                times += 1;
                if start.elapsed() >= least {
                    return Ok(());
                }
            }
        })?;
        let all = (times * operations.max(1)) as f64;
        self.value = self.value.map(|value| value / all);
        self.processor = self.processor.map(|value| value / all);
        Ok(())
    }

    /// Takes the time of a program, which must succeed, and may run more than once.
    pub fn program(&mut self, command: &mut Command) -> Outcome<()> {
        self.repeated_for(4, 1, || succeed(command))
    }

    /// What was measured, if it is not a time that [`Run::timed`] took.
    pub fn measured(&mut self, value: f64) {
        self.value = Some(value);
    }

    /// Something that must be the same for all.
    pub fn saw(&mut self, something: impl Hash) {
        something.hash(&mut self.saw);
    }

    /// The end.
    pub fn finish(self) -> Outcome<Finished> {
        let value = self.value.ok_or("the workload measured nothing")?;
        Ok(Finished { value, processor: self.processor, saw: self.saw.finish() })
    }
}

/// Runs a command to its end.
///
/// # Errors
/// What it wrote to standard error, if it fails.
pub fn succeed(command: &mut Command) -> Outcome<()> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    if !output.status.success() {
        let program = command.get_program().to_string_lossy().into_owned();
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().last().unwrap_or_default();
        return Err(format!("{program}: {}: {line}", output.status).into());
    }
    Ok(())
}

/// Of this process, its ended children and the daemon, in nanoseconds. Children count in steps of 10 ms.
fn processor_time(daemon: Option<u32>) -> u64 {
    let of_threads = |process: &str| -> u64 {
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let times = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        times.sum()
    };
    let daemon = daemon.map_or(0, |process| of_threads(&process.to_string()));
    of_threads("self") + daemon + ended_children()
}

fn ended_children() -> u64 {
    const TICK: u64 = 10_000_000;
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the name, which is the second and may hold anything: cutime is the 16th, cstime the next.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(13).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * TICK
}
