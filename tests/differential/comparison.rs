//! The same operations on all sides, and everything compared.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::answer::{Answer, Tree, succeeded, tree};
use crate::cases::case::Check;
use crate::cases::model::Tree as Model;
use crate::cases::op::{Op, Redirect};
use crate::identity::Identities;
use crate::oracles::{Answers, Asked, Looks, is_crossed, judge, kernel_is_lost};
use crate::reading::Reading;
use crate::setup::Setup;
use crate::sides::{Mounted, below};
use crate::support::Program as By;
use crate::system_calls::Program;

pub struct Comparison {
    setup: Setup,
    /// Seconds since 1970.
    started: i64,
    /// Dropped before the mounts: they stay while they are in use.
    reading: Option<Reading>,
    plyfs: Mounted,
    /// None from when it is no longer fit to judge.
    kernel: Option<Mounted>,
    plain: (PathBuf, Program),
    /// Slots whose objects may have lost their names since they were opened.
    moved: BTreeSet<u8>,
    identities: Identities,
}

impl Comparison {
    pub fn new(
        setup: Setup,
        started: i64,
        plyfs: Mounted,
        kernel: Mounted,
        plain: PathBuf,
    ) -> Comparison {
        let program = Program::new(&plain, started);
        Comparison {
            setup,
            started,
            reading: None,
            plyfs,
            kernel: Some(kernel),
            plain: (plain, program),
            moved: BTreeSet::new(),
            identities: Identities::default(),
        }
    }

    pub fn run(mut self, model: &mut Model, ops: &[Op], compare_every: usize) -> Check {
        self.compare_trees().map_err(|why| format!("at the start: {why}"))?;
        for (at, op) in ops.iter().enumerate() {
            if !model.admits(op) {
                continue;
            }
            let fail = |why: String| format!("step {at}, {op:?}: {why}");
            self.step(op).map_err(fail)?;
            model.apply(op).ok();
            if (at + 1) % compare_every == 0 {
                self.compare_trees().map_err(|why| format!("after {}", fail(why)))?;
            }
        }
        self.compare_trees().map_err(|why| format!("at the end: {why}"))?;
        self.remount(None);
        let (plyfs, kernel) =
            self.compare_trees().map_err(|why| format!("mounted again: {why}"))?;
        match self.plyfs.log() {
            log if log.is_empty() => self.exchange(&plyfs, &kernel),
            log => Err(format!("in the log: {log}")),
        }
    }

    fn step(&mut self, op: &Op) -> Check {
        match op {
            Op::ReadSome(path, count) => {
                let path = Path::new(path.as_os());
                let plyfs = below(&self.plyfs.path(), path);
                self.reading = Reading::start(&below(&self.plain.0, path), &plyfs, *count);
            }
            Op::ReadRest => self.reading.take().map_or(Ok(()), Reading::finish)?,
            Op::Remount => self.remount(None),
            Op::RemountTo(redirect) => self.remount(Some(*redirect)),
            _ => {}
        }
        let plyfs = self.plyfs.program().perform(op);
        let kernel = self.kernel.as_mut().map(|kernel| kernel.program().perform(op));
        let refused = is_crossed(&plyfs) && kernel.as_ref().is_none_or(is_crossed);
        if refused && matches!(op, Op::Rename(..)) {
            return Ok(());
        }
        let plain = self.plain.1.perform(op);
        let kernel =
            kernel.filter(|kernel| !kernel_is_lost(self.setup, op, &self.moved, &plyfs, kernel));
        if kernel.is_none() {
            self.kernel = None;
        }
        let kernel = kernel.as_ref().unwrap_or(&plain);
        self.compare_answers(Some(op), Path::new(""), Looks::EachAtItsOwn, &plyfs, kernel, &plain)?;
        self.watch(op, succeeded(&plain));
        Ok(())
    }

    /// Takes note of what becomes of open directories and objects.
    fn watch(&mut self, op: &Op, succeeded: bool) {
        self.reading.iter_mut().for_each(Reading::watch);
        match op {
            Op::Hold(_, slot) => {
                self.moved.remove(slot);
            }
            Op::Unlink(_) | Op::RemoveDir(_) | Op::Rename(..) if succeeded => {
                self.moved.extend(self.plain.1.slots());
            }
            _ => {}
        }
    }

    fn remount(&mut self, redirect: Option<Redirect>) {
        self.reading = None;
        self.moved.clear();
        self.plyfs.remount(redirect);
        self.kernel.iter_mut().for_each(|kernel| kernel.remount(redirect));
        self.plain.1 = Program::new(&self.plain.0, self.started);
    }

    /// Compares all that can be seen; returns what the unions show.
    fn compare_trees(&mut self) -> Result<(Tree, Tree), String> {
        let look = |path: &Path| tree(path, self.started);
        let (plyfs, plain) = (look(&self.plyfs.path()), look(&self.plain.0));
        let kernel = self.kernel.as_ref().map(|kernel| look(&kernel.path()));
        let kernel = kernel.unwrap_or_else(|| plain.clone());
        self.compare(Looks::EachAtItsOwn, &plyfs, &kernel, &plain)?;
        self.identities.check(&self.plain.0, &self.plyfs.path(), plain.keys())?;
        Ok((plyfs, kernel))
    }

    fn compare(&self, looks: Looks, plyfs: &Tree, kernel: &Tree, plain: &Tree) -> Check {
        let nothing = Answer::new();
        for path in plyfs.keys().chain(kernel.keys()).chain(plain.keys()).collect::<BTreeSet<_>>() {
            let [plyfs, kernel, plain] =
                [plyfs, kernel, plain].map(|tree| tree.get(path).unwrap_or(&nothing));
            self.compare_answers(None, path, looks, plyfs, kernel, plain)?;
        }
        Ok(())
    }

    fn compare_answers(
        &self,
        op: Option<&Op>,
        place: &Path,
        looks: Looks,
        plyfs: &Answer,
        kernel: &Answer,
        plain: &Answer,
    ) -> Check {
        let kernel_is_lost = self.kernel.is_none();
        for question in
            plyfs.keys().chain(kernel.keys()).chain(plain.keys()).collect::<BTreeSet<_>>()
        {
            let of = |answer: &'_ Answer| answer.get(question).cloned();
            let (plyfs, kernel, plain) = (of(plyfs), of(kernel), of(plain));
            let answers = Answers {
                plyfs: plyfs.as_deref(),
                kernel: kernel.as_deref(),
                plain: plain.as_deref(),
            };
            judge(&Asked { op, place, question, looks, kernel_is_lost }, &answers)?;
        }
        Ok(())
    }

    /// Each mounts what the other left, and must show it as the other did.
    fn exchange(mut self, by_plyfs: &Tree, by_kernel: &Tree) -> Check {
        self.plyfs.mount_by(By::Kernel);
        let of_plyfs = tree(&self.plyfs.path(), self.started);
        self.compare(Looks::KernelAtPlyfs, by_plyfs, &of_plyfs, &of_plyfs)
            .map_err(|why| format!("the kernel on what plyfs wrote: {why}"))?;
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        kernel.mount_by(By::Plyfs);
        let of_kernel = tree(&kernel.path(), self.started);
        self.compare(Looks::PlyfsAtKernel, &of_kernel, by_kernel, by_kernel)
            .map_err(|why| format!("plyfs on what the kernel wrote: {why}"))
    }
}
