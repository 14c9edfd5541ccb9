//! Where and on what the run was made.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::arguments::Arguments;

/// The machine and the state it was in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The day, as year-month-day.
    pub date: String,
    /// The commit of plyfs, with a mark if files were changed since.
    pub commit: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Number and model of processors.
    pub processors: String,
    /// Main memory in MiB.
    pub memory: u64,
    /// The filesystem that all layers lie on.
    pub filesystem: String,
    /// How busy the machine was when the run began, as /proc/loadavg says it.
    pub load: String,
    /// Quick or full.
    pub size: String,
    /// What the times are: those of a clock, or of processors.
    pub clock: String,
}

impl Machine {
    /// This machine, now.
    pub fn here(dir: &Path, arguments: &Arguments) -> Self {
        let dir = dir.to_string_lossy();
        let package = env!("CARGO_MANIFEST_DIR");
        let load = text("/proc/loadavg");
        Self {
            date: output("date", &["+%F"]),
            commit: output(
                "git",
                &["-C", package, "describe", "--always", "--dirty", "--exclude=*"],
            ),
            kernel: text("/proc/sys/kernel/osrelease"),
            processors: processors(),
            memory: field("/proc/meminfo", "MemTotal").unwrap_or_default() / 1024,
            filesystem: output("findmnt", &["-n", "-o", "FSTYPE", "--target", &dir]),
            load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            size: format!("{:?}", arguments.scale()).to_lowercase(),
            clock: if arguments.processor { "processor time" } else { "time" }.to_owned(),
        }
    }
}

/// The number behind `key:` in a file of lines like those of /proc/meminfo.
pub fn field(file: impl AsRef<Path>, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn processors() -> String {
    let text = text("/proc/cpuinfo");
    let models = text.lines().filter_map(|line| line.strip_prefix("model name"));
    let model = models.clone().next().unwrap_or_default().trim_start_matches(['\t', ' ', ':']);
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    format!("{count} × {model}").trim_end_matches(" × ").to_owned()
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// What a command says, or nothing where it does not exist.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}
