//! Where findings go, and where repairs are made or not.

use std::collections::BTreeMap;

use super::finding::{Finding, Outcome, Summary};
use super::rule::{Remedy, Severity};
use crate::sys::Result;

/// Takes findings as they are made, so that none have to be kept.
pub struct Report<'a> {
    repair: bool,
    sink: &'a mut dyn FnMut(&Finding),
    /// The first finding of what every file of a layer may have, by its rule and detail.
    common: BTreeMap<(&'static str, String), Finding>,
    /// The count so far.
    pub summary: Summary,
}

impl<'a> Report<'a> {
    /// A report to `sink`, with repairs or without.
    pub fn new(repair: bool, sink: &'a mut dyn FnMut(&Finding)) -> Self {
        Self { repair, sink, common: BTreeMap::new(), summary: Summary::default() }
    }

    /// Tells of a finding about which nothing can be done here.
    pub fn tell(&mut self, finding: &Finding) {
        match finding.rule.severity {
            Severity::Problem => self.summary.problems += 1,
            Severity::Note => self.summary.notes += 1,
        }
        (self.sink)(finding);
    }

    /// Tells of a finding, after `step` has repaired it where that is wished and the remedy allows it.
    pub fn tell_or_repair(&mut self, mut finding: Finding, step: impl FnOnce() -> Result<()>) {
        if self.repair && matches!(finding.remedy, Remedy::Repair(..)) {
            finding.outcome = match step() {
                Ok(()) => Outcome::Repaired,
                Err(error) => Outcome::Failed(error),
            };
            if finding.outcome == Outcome::Repaired {
                self.summary.repaired += u64::from(finding.rule.severity == Severity::Problem);
            }
        }
        self.tell(&finding);
    }

    /// Notes what may be on every file: told once, at the end, with the first path and the number.
    pub fn count(&mut self, finding: Finding) {
        let key = (finding.rule.word, finding.detail.clone());
        match self.common.get_mut(&key) {
            Some(first) => first.more += 1,
            None => drop(self.common.insert(key, finding)),
        }
    }

    /// Tells what was only counted, and gives the count of all.
    pub fn finish(mut self) -> Summary {
        for finding in std::mem::take(&mut self.common).into_values() {
            self.tell(&finding);
        }
        self.summary
    }
}
