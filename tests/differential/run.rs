//! How a case runs.

use crate::answer::succeeded;
use crate::cases::case::{Case, Check};
use crate::cases::initial::{build, initial_tree};
use crate::cases::model::Tree as Model;
use crate::cases::op::{Op, Redirect};
use crate::comparison::Comparison;
use crate::setup::Setup;
use crate::sides::{Mounted, Stack};
use crate::support::Program as By;

impl Setup {
    /// Runs a case; an error tells the first difference.
    pub fn run(self, case: &Case) -> Check {
        let specs = build(&case.layers);
        let mut stack = Stack::new(self, &specs);
        let mut model = initial_tree(&specs);
        model.rules = self.profile().rules;
        let sealed = case.ops.iter().rposition(|op| *op == Op::Seal).map_or(0, |at| at + 1);
        let (before, ops) = case.ops.split_at(sealed);
        let mut upper = specs.first();
        for part in before.split_inclusive(|op| *op == Op::Seal) {
            let mut mounted = stack.mount(self.maker(), upper.take(), redirect(&model));
            if !prepare(&mut mounted, &mut model, part) {
                return Ok(());
            }
            stack.seal(mounted);
        }
        let plyfs = stack.mount(By::Plyfs, upper, redirect(&model));
        let kernel = stack.mount(By::Kernel, upper, redirect(&model));
        let plain = stack.copy(&kernel);
        let comparison = Comparison::new(self, stack.started, plyfs, kernel, plain);
        comparison.run(&mut model, ops, case.compare_every)
    }
}

fn redirect(model: &Model) -> Redirect {
    model.rules.redirect.expect("a union can be written to")
}

/// Makes a layer; false if its maker cannot do what the case is about.
fn prepare(mounted: &mut Mounted, model: &mut Model, ops: &[Op]) -> bool {
    ops.iter().all(|op| {
        if !model.admits(op) {
            return true;
        }
        match op {
            Op::Remount => mounted.remount(None),
            Op::RemountTo(redirect) => mounted.remount(Some(*redirect)),
            _ => return succeeded(&mounted.program().perform(op)) == model.apply(op).is_ok(),
        }
        model.apply(op).is_ok()
    })
}
