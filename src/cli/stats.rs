//! `plyfs stats MOUNTPOINT`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use log::LevelFilter;

use super::error::CliError;
use super::logging;
use crate::fuse::statistics::{Latency, Report};
use crate::mount;

/// Show what a mount has been asked for, how fast it answered, and what it holds
///
/// The times are those of the answers of the daemon, rounded up to a power of two; what the kernel
/// answers by itself is not in them.
#[derive(Args, Debug)]
pub struct StatsArgs {
    /// The directory that is mounted on
    mountpoint: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,

    /// Print what has come since the last time, every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", require_equals = true)]
    watch: Option<u64>,
}

impl StatsArgs {
    /// Prints.
    pub fn run(self) -> Result<(), CliError> {
        logging::start(LevelFilter::Warn)?;
        let mut output = io::stdout().lock();
        let mut last = mount::statistics(&self.mountpoint)?;
        self.print(&mut output, &last)?;
        let Some(seconds) = self.watch else { return Ok(()) };
        loop {
            std::thread::sleep(Duration::from_secs(seconds.max(1)));
            let now = mount::statistics(&self.mountpoint)?;
            let mut new = now.clone();
            for (name, latency) in &mut new.messages {
                if let Some(before) = last.messages.get(name) {
                    *latency = latency.since(before);
                }
            }
            writeln!(output)?;
            self.print(&mut output, &new)?;
            last = now;
        }
    }

    fn print(&self, output: &mut impl Write, report: &Report) -> Result<(), CliError> {
        if self.json {
            let line = serde_json::to_string(report).map_err(io::Error::from)?;
            writeln!(output, "{line}")?;
        } else {
            write!(output, "{}", table(report))?;
        }
        Ok(output.flush()?)
    }
}

fn table(report: &Report) -> String {
    let mut lines = format!(
        "{:16} {:>12} {:>9} {:>9} {:>9} {:>9}\n",
        "message", "count", "mean us", "50 % us", "99 % us", "max us"
    );
    for (name, latency) in report.messages.iter().filter(|(_, latency)| latency.count > 0) {
        lines += &row(name, latency);
    }
    let union = &report.union;
    lines += &format!(
        "nodes {}, descriptors {} of {} (hits {}, misses {})\n\
         copy-ups {} (of attributes only {}), {} bytes\n",
        union.nodes,
        union.descriptors,
        union.most_descriptors,
        union.descriptor_hits,
        union.descriptor_misses,
        union.copy_ups,
        union.metacopies,
        union.copied_bytes,
    );
    lines
}

fn row(name: &str, latency: &Latency) -> String {
    let mean = latency.total_ns as f64 / 1000.0 / latency.count as f64;
    let [half, most, all] = [0.5, 0.99, 1.0].map(|share| latency.quantile_us(share));
    format!("{name:16} {:>12} {mean:>9.1} {half:>9} {most:>9} {all:>9}\n", latency.count)
}
