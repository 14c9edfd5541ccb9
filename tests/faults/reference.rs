//! How an operation goes when nothing fails.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::matrix::Run;
use crate::state::State;

/// A call that an operation makes.
pub struct Made {
    pub shown: String,
    /// Whether it changes anything on disk.
    pub changes: bool,
}

/// The operation without a fault: what it starts from, what it does and what it leads to.
pub struct Reference {
    pub old: State,
    pub new: State,
    /// What the caller got.
    pub reply: String,
    /// The calls that it makes.
    pub calls: Vec<Made>,
    /// What the work directory then holds.
    pub work: BTreeMap<PathBuf, usize>,
}

impl Reference {
    pub fn of(run: &Run<'_>) -> Self {
        let (.., old) = Run { warm: true, ..*run }.begin();
        let (layers, union, _) = run.begin();
        let mut calls = Vec::new();
        let reply = run.act(&union, |call| {
            let shown = call.to_string().replace(&layers.root(), "");
            calls.push(Made { shown, changes: call.changes() });
            None
        });
        let reply = reply.expect("the operation without a fault");
        let new = State::of(&union.overlay, &union.nodes, None);
        assert_eq!(union.close(), 1, "nodes that stay when all are forgotten");
        let again = run.open(&layers);
        let found = State::of(&again.overlay, &[], None);
        let difference = new.named().difference(&found);
        assert!(difference.is_empty(), "opened again without a fault:\n{difference}");
        again.close();
        Self { old, new, reply, calls, work: layers.work() }
    }
}
