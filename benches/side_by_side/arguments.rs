//! The command line.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::results::Mode;
use super::scale::Scale;

/// Compare plyfs with kernel overlayfs, fuse-overlayfs and the bare filesystem
///
/// All take turns in every round, on the same lower tree; a result is compared with that of the others before its time
/// counts. Without an option it is the quick run, in under three minutes.
#[derive(Parser, Clone, Debug)]
#[command(name = "scripts/bench")]
pub struct Arguments {
    /// All workloads at full size, which takes about an hour
    #[arg(long)]
    pub full: bool,

    /// Tiny sizes, one round: only whether everything works
    #[arg(long, hide = true)]
    pub smoke: bool,

    /// Only workloads with this text in their name, or of this family
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Only these, of plyfs, kernel, fuse-overlayfs-2, fuse-overlayfs-1, bare
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub peers: Vec<String>,

    /// One more plyfs with these mount options; may be repeated
    #[arg(long = "variants", value_name = "OPTIONS")]
    pub variants: Vec<String>,

    /// Only as root
    #[arg(long, conflicts_with = "rootless")]
    pub root: bool,

    /// Only as an ordinary user in a user namespace
    #[arg(long)]
    pub rootless: bool,

    /// How often each workload is measured
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,

    /// Count processor time of programs and daemon instead of time: for a busy machine
    #[arg(long)]
    pub processor: bool,

    /// Where trees are made and unions mounted, on the filesystem to be measured
    #[arg(long, overrides_with = "dir")]
    pub dir: Option<PathBuf>,

    /// Where the reports go
    #[arg(long)]
    pub output: Option<PathBuf>,

    /// Put the table into docs/benchmarks.md and the chart beside it
    #[arg(long)]
    pub write_docs: bool,

    /// Print the names of the workloads
    #[arg(long)]
    pub list: bool,

    /// Another build of plyfs
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_plyfs"))]
    pub program: PathBuf,

    /// Measure here, and leave the result in the directory
    #[arg(long, hide = true)]
    pub inside: Option<Mode>,

    /// What cargo bench says
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Arguments {
    /// How large everything is.
    pub fn scale(&self) -> Scale {
        match (self.smoke, self.full) {
            (true, _) => Scale::Smoke,
            (_, true) => Scale::Full,
            _ => Scale::Quick,
        }
    }

    /// The ways of mounting that were asked for.
    pub fn modes(&self) -> Vec<Mode> {
        match (self.root, self.rootless) {
            (true, _) => vec![Mode::Root],
            (_, true) => vec![Mode::Rootless],
            _ => vec![Mode::Root, Mode::Rootless],
        }
    }

    /// The directory for trees and mounts.
    pub fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| built().join("bench/run"))
    }

    /// The directory for reports.
    pub fn output(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| built().join("bench"))
    }

    /// Whether the peer `key` takes part.
    pub fn wants_peer(&self, key: &str) -> bool {
        match (self.peers.is_empty(), self.scale()) {
            (false, _) => self.peers.iter().any(|wanted| wanted == key),
            (true, Scale::Full) => true,
            (true, _) => key != "fuse-overlayfs-1",
        }
    }

    /// Whether the workload `name` of `family` is wanted.
    pub fn wants_row(&self, name: &str, family: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only) || family == only)
    }
}

/// The build directory.
fn built() -> &'static Path {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap_or(temporary)
}
