//! What was measured, as it is written to JSON, and the figures that follow from it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// How the unions are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By root.
    Root,
    /// By an ordinary user in a user namespace.
    Rootless,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Rootless => "rootless",
        })
    }
}

/// All of one run of the program.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// Where and on what.
    pub machine: Machine,
    /// By way of mounting.
    pub modes: Vec<ModeResults>,
}

/// Everything measured in one way of mounting.
#[derive(Debug, Serialize, Deserialize)]
pub struct ModeResults {
    /// The way.
    pub mode: Mode,
    /// The rows, in the order of the workloads.
    pub rows: Vec<RowResults>,
}

/// One workload on all contestants.
#[derive(Debug, Serialize, Deserialize)]
pub struct RowResults {
    /// Its name.
    pub name: String,
    /// The group it belongs to.
    pub family: String,
    /// What is done.
    pub what: String,
    /// Of the values.
    pub unit: Unit,
    /// Where plyfs should be.
    pub goals: Goals,
    /// Whether the chart shows it.
    pub in_chart: bool,
    /// By contestant.
    pub measured: Vec<Measured>,
}

/// What the values of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Nanoseconds for one operation.
    Time,
    /// Bytes of memory.
    Bytes,
    /// A plain number.
    Times,
}

/// Where plyfs should be: ratios above 1 mean that plyfs takes less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Goals {
    /// At least this against kernel overlayfs.
    pub kernel: Option<f64>,
    /// At least this against fuse-overlayfs 2.0.0.
    pub peer: Option<f64>,
    /// The goal against fuse-overlayfs counts only where that is slower than the kernel.
    pub peer_where_slower: bool,
    /// A value of at most this.
    pub at_most: Option<f64>,
}

/// One contestant at one workload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Who.
    pub contestant: String,
    /// A value for each round.
    pub values: Vec<f64>,
    /// Processor time of the programs and of the daemon for one operation, in nanoseconds, for each round.
    pub processor: Vec<f64>,
    /// Why there are no values: what failed or was wrong.
    pub fault: Option<String>,
}

impl RowResults {
    /// The figures of a contestant, unless it did not take part or has none.
    pub fn of(&self, contestant: &str) -> Option<&Measured> {
        self.measured.iter().find(|m| m.contestant == contestant && !m.values.is_empty())
    }

    /// How much less plyfs takes than `contestant`, and how far the rounds lie from that as a part of it.
    pub fn ratio(&self, contestant: &str) -> Option<(f64, f64)> {
        self.ratio_between(contestant, "plyfs")
    }

    /// How much less `ours` takes than `theirs`, in the median of rounds in which both were measured.
    pub fn ratio_between(&self, theirs: &str, ours: &str) -> Option<(f64, f64)> {
        let (theirs, ours) = (self.of(theirs)?, self.of(ours)?);
        let paired = theirs.values.iter().zip(&ours.values);
        let ratios: Vec<f64> = paired.filter(|(_, o)| **o > 0.0).map(|(t, o)| t / o).collect();
        let ratio = median(&ratios)?;
        Some((ratio, spread(&ratios) / ratio))
    }

    /// Whether all goals are reached; `None` where none could be judged.
    pub fn reached(&self) -> Option<bool> {
        let judged = [
            self.goals.kernel.zip(self.ratio("kernel")).map(|(goal, (ratio, _))| ratio >= goal),
            self.peer_goal().zip(self.ratio("fuse-overlayfs-2")).map(|(g, (r, _))| r >= g),
            self.goals.at_most.zip(self.median("plyfs")).map(|(most, value)| value <= most),
        ];
        judged.into_iter().flatten().reduce(|a, b| a && b)
    }

    /// The goal against fuse-overlayfs 2.0.0, if it counts here.
    pub fn peer_goal(&self) -> Option<f64> {
        let slower = || self.ratio_between("fuse-overlayfs-2", "kernel").is_some_and(|r| r.0 > 1.1);
        self.goals.peer.filter(|_| !self.goals.peer_where_slower || slower())
    }

    /// The median of a contestant.
    pub fn median(&self, contestant: &str) -> Option<f64> {
        median(&self.of(contestant)?.values)
    }
}

/// The middle value.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Half the distance between the values that enclose the middle half.
pub fn spread(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    match sorted.as_slice() {
        [] => 0.0,
        all => (all[all.len() - 1 - quarter] - all[quarter]) / 2.0,
    }
}
