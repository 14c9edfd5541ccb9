//! One finding, and how many there are.

use std::fmt;
use std::path::PathBuf;

use super::rule::{Remedy, Rule};
use crate::sys::Errno;

/// Something that a check has found; displayed as one line.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is.
    pub rule: &'static Rule,
    /// Where it is: below the path that the user gave for the layer, or the workdir.
    pub path: PathBuf,
    /// The attribute, or target, that the finding is about; empty where the path says it all.
    pub detail: String,
    /// What is done about it, where that differs from what its rule says.
    pub remedy: Remedy,
    /// What has been done about it.
    pub outcome: Outcome,
    /// How many more objects have the same; the path is that of the first.
    pub more: u64,
}

/// What has been done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Left,
    /// It is gone.
    Repaired,
    /// The repair did not work.
    Failed(Errno),
}

impl Finding {
    /// A finding that nothing has been done about.
    pub fn new(rule: &'static Rule, path: PathBuf, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { rule, path, detail, remedy: rule.remedy, outcome: Outcome::Left, more: 0 }
    }

    /// The same, with another remedy than its rule has.
    #[must_use]
    pub fn with(self, remedy: Remedy) -> Self {
        Self { remedy, ..self }
    }

    /// What `--repair` would do, has done, or why it did not.
    pub fn advice(&self) -> String {
        match (self.outcome, self.remedy) {
            (Outcome::Repaired, Remedy::Repair(_, done)) => done.to_owned(),
            (Outcome::Failed(error), Remedy::Repair(step, _)) => {
                format!("--repair {step}, which failed: {error}")
            }
            (_, Remedy::Repair(step, _)) => format!("--repair {step}"),
            (_, Remedy::Human(choice)) => format!("decide: {choice}"),
            (_, Remedy::Nothing(advice)) => advice.to_owned(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        write!(f, ": {}: {}", self.rule.severity.word(), self.rule.what)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        write!(f, ": {}; {}", self.rule.effect, self.advice())
    }
}

/// What a check has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Objects looked at, whiteouts included.
    pub objects: u64,
    /// Problems found.
    pub problems: u64,
    /// Problems that are gone.
    pub repaired: u64,
    /// Findings that are no problems.
    pub notes: u64,
}
