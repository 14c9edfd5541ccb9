//! A row of the table: a workload, the tree it needs, and its goals.

use super::Outcome;
use super::fingerprint::Depth;
use super::results::{Goals, Mode, Unit};
use super::run::Run;
use super::scale::Scale;
use super::shape::Shape;

/// What is done to measure one value.
pub type Work = fn(&mut Run) -> Outcome<()>;

/// In which state a union is when the measurement begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Mounted once for all rounds, walked and read before.
    Warm,
    /// Mounted for this measurement.
    Fresh,
    /// Mounted for this measurement, and the kernel has forgotten the names and inodes of the layers too.
    Cold,
    /// Mounted for this measurement, with an empty upper layer; the workload changes the tree.
    Changed,
}

/// Mount options that a row adds, by contestant. `None`: that contestant does not take part.
#[derive(Clone, Copy, Debug)]
pub struct Extra {
    /// For plyfs.
    pub plyfs: &'static str,
    /// For kernel overlayfs.
    pub kernel: &'static str,
    /// For fuse-overlayfs.
    pub peer: Option<&'static str>,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Unique, of letters, digits and hyphens.
    pub name: &'static str,
    /// What is done, for people.
    pub what: &'static str,
    /// The group it belongs to.
    pub family: &'static str,
    /// The layers.
    pub shape: Shape,
    /// In which state.
    pub state: State,
    /// The workload.
    pub work: Work,
    /// What is compared after a change; without, the workload itself says what it saw.
    pub compared: Option<Depth>,
    /// Of the values.
    pub unit: Unit,
    /// Where plyfs should be.
    pub goals: Goals,
    /// The only way of mounting in which the goal against fuse-overlayfs counts.
    pub peer_goal_in: Option<Mode>,
    /// The only way of mounting in which it runs.
    pub only_in: Option<Mode>,
    /// The least size at which it runs.
    pub from: Scale,
    /// Mount options.
    pub extra: Extra,
    /// Whether the bare filesystem and the kernel have something to show.
    pub daemons_only: bool,
    /// Whether the bare filesystem takes part.
    pub bare: bool,
    /// Whether the chart shows it.
    pub in_chart: bool,
}

impl Row {
    /// A row that is measured at every size, without goals.
    pub const fn new(
        name: &'static str,
        what: &'static str,
        shape: Shape,
        state: State,
        work: Work,
    ) -> Self {
        Self {
            name,
            what,
            family: "",
            shape,
            state,
            work,
            compared: None,
            unit: Unit::Time,
            goals: Goals { kernel: None, peer: None, peer_where_slower: false, at_most: None },
            peer_goal_in: None,
            only_in: None,
            from: Scale::Smoke,
            extra: Extra { plyfs: "", kernel: "", peer: Some("") },
            daemons_only: false,
            bare: true,
            in_chart: false,
        }
    }

    /// Goals against kernel overlayfs and fuse-overlayfs.
    pub const fn goals(mut self, kernel: f64, peer: f64) -> Self {
        self.goals.kernel = Some(kernel);
        self.goals.peer = Some(peer);
        self
    }

    /// A goal against kernel overlayfs.
    pub const fn kernel_goal(mut self, ratio: f64) -> Self {
        self.goals.kernel = Some(ratio);
        self
    }

    /// A goal against fuse-overlayfs.
    pub const fn peer_goal(mut self, ratio: f64) -> Self {
        self.goals.peer = Some(ratio);
        self
    }

    /// The goal against fuse-overlayfs counts where that is slower than the kernel.
    pub const fn where_slower(mut self) -> Self {
        self.goals.peer_where_slower = true;
        self
    }

    /// The goal against fuse-overlayfs counts in this way of mounting only.
    pub const fn peer_goal_in(mut self, mode: Mode) -> Self {
        self.peer_goal_in = Some(mode);
        self
    }

    /// A limit for the value.
    pub const fn at_most(mut self, value: f64) -> Self {
        self.goals.at_most = Some(value);
        self
    }

    /// The whole tree is compared after the change.
    pub const fn compared(mut self, depth: Depth) -> Self {
        self.compared = Some(depth);
        self
    }

    /// Values in another unit than time.
    pub const fn in_unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Runs in this way of mounting only.
    pub const fn only_in(mut self, mode: Mode) -> Self {
        self.only_in = Some(mode);
        self
    }

    /// Runs at this size and above only.
    pub const fn from(mut self, scale: Scale) -> Self {
        self.from = scale;
        self
    }

    /// Mount options for all.
    pub const fn with(mut self, options: &'static str) -> Self {
        self.extra = Extra { plyfs: options, kernel: options, peer: Some(options) };
        self
    }

    /// Mount options for plyfs; the others as ever.
    pub const fn plyfs_with(mut self, options: &'static str) -> Self {
        self.extra.plyfs = options;
        self
    }

    /// fuse-overlayfs cannot do this.
    pub const fn without_peer(mut self) -> Self {
        self.extra.peer = None;
        self
    }

    /// Only for what has a process.
    pub const fn daemons_only(mut self) -> Self {
        self.daemons_only = true;
        self
    }

    /// The bare filesystem does not take part.
    pub const fn without_bare(mut self) -> Self {
        self.bare = false;
        self
    }

    /// The chart shows it.
    pub const fn in_chart(mut self) -> Self {
        self.in_chart = true;
        self
    }

    /// Whether it runs at this size in this way of mounting.
    pub fn runs(&self, scale: Scale, mode: Mode) -> bool {
        let large_enough = match self.from {
            Scale::Smoke => true,
            Scale::Quick => scale != Scale::Smoke,
            Scale::Full => scale == Scale::Full,
        };
        large_enough && self.only_in.is_none_or(|only| only == mode)
    }

    /// Its goals in this way of mounting.
    pub fn goals_in(&self, mode: Mode) -> Goals {
        let mut goals = self.goals;
        if self.peer_goal_in.is_some_and(|only| only != mode) {
            goals.peer = None;
        }
        goals
    }
}
