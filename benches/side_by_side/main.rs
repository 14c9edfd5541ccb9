//! The same workloads on plyfs, kernel overlayfs, fuse-overlayfs and the bare filesystem, side by side.
//!
//! `scripts/bench` installs what this needs and starts it. The program is two processes for each way of mounting (as
//! root, rootless): [`outside`] prepares and reports, [`inside`] mounts and measures in namespaces of its own, so
//! that nothing stays mounted or running whatever happens. A new workload is a row in [`workloads`].

mod arguments;
mod contestant;
mod fingerprint;
mod inside;
mod kernel_caches;
mod machine;
mod mounted;
mod outside;
mod report;
mod results;
mod row;
mod run;
mod scale;
mod schedule;
mod shape;
mod tree;
mod watchdog;
mod workloads;

use std::process::ExitCode;

use arguments::Arguments;
use clap::Parser;

/// Whatever ends a step: one line for people.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.inside {
        Some(mode) => inside::measure(&arguments, mode).map(|()| ExitCode::SUCCESS),
        None => outside::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("bench: {error}");
        ExitCode::FAILURE
    })
}
