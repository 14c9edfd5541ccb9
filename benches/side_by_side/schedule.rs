//! Who is measured when: every round has all contestants, each round another one first.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use super::contestant::{Contestant, Kind};
use super::fingerprint;
use super::kernel_caches::{self, Drop};
use super::mounted::Union;
use super::results::{Measured, Mode, RowResults, Unit};
use super::row::{Extra, Row, State};
use super::run::{Finished, Run};
use super::scale::Scale;
use super::shape::Shape;
use super::tree::Tree;
use super::watchdog::Watchdog;
use super::{Outcome, contestant};

/// What all measurements of one way of mounting have in common.
pub struct Schedule {
    /// Who takes part.
    pub contestants: Vec<Contestant>,
    /// How large everything is.
    pub scale: Scale,
    /// How often each row is measured.
    pub rounds: usize,
    /// The way of mounting.
    pub mode: Mode,
    /// Whether processor time counts instead of time.
    pub processor: bool,
    /// Where trees and mounts are.
    pub dir: PathBuf,
}

/// A row while it is measured.
struct Table<'a> {
    row: &'a Row,
    /// By contestant.
    entries: Vec<Entry>,
}

#[derive(Default)]
struct Entry {
    measured: Measured,
    /// What each measurement saw.
    saw: Vec<u64>,
}

impl Schedule {
    /// Measures all rows.
    ///
    /// # Errors
    /// If no tree can be made; what a contestant does wrong is in the results.
    pub fn measure(&self, rows: &[Row]) -> Outcome<Vec<RowResults>> {
        let mut results: Vec<Option<RowResults>> = rows.iter().map(|_| None).collect();
        let mut shapes: Vec<Shape> = Vec::new();
        for row in rows {
            if !shapes.contains(&row.shape) {
                shapes.push(row.shape);
            }
        }
        for shape in shapes {
            let of_shape = || rows.iter().enumerate().filter(|(_, row)| row.shape == shape);
            let bare = self.contestants.iter().any(|c| matches!(c.kind, Kind::Bare))
                && of_shape().any(|(_, row)| row.bare && !row.daemons_only);
            let tree = Tree::make(shape, self.scale, &self.dir, bare)?;
            let warm: Vec<_> = of_shape().filter(|(_, row)| row.state == State::Warm).collect();
            for (index, row) in self.warm_rows(&tree, shape, &warm)? {
                results[index] = Some(row);
            }
            for (index, row) in of_shape().filter(|(_, row)| row.state != State::Warm) {
                results[index] = Some(self.finish(self.fresh_row(&tree, row)?));
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Rows on unions that stay mounted and are not changed.
    fn warm_rows(
        &self,
        tree: &Tree,
        shape: Shape,
        rows: &[(usize, &Row)],
    ) -> Outcome<Vec<(usize, RowResults)>> {
        let Some((_, first)) = rows.first() else { return Ok(Vec::new()) };
        let (mut unions, mut faults, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for contestant in &self.contestants {
            let (union, fault) = match self.warm_union(contestant, tree, shape, &first.extra) {
                Ok((union, tree)) => {
                    seen.push(tree);
                    let same = seen.first() == Some(&tree);
                    (Some(union), (!same).then(|| "wrong: the tree is not the same".to_owned()))
                }
                Err(error) => (None, Some(error.to_string())),
            };
            unions.push(union);
            faults.push(fault);
        }
        let mut results = Vec::new();
        for (index, row) in rows {
            let mut table = self.table(row);
            for (entry, fault) in table.entries.iter_mut().zip(&faults) {
                entry.measured.fault.clone_from(fault);
            }
            // The first time is not counted: it warms, and shows who is right before anybody is measured.
            for (turn, union) in unions.iter_mut().enumerate() {
                self.turn(&mut table, turn, union.as_mut(), tree, false);
            }
            table.drop_the_wrong(&self.contestants);
            self.rounds(row, |turn| {
                self.turn(&mut table, turn, unions[turn].as_mut(), tree, true);
                Ok(())
            })?;
            results.push((*index, self.finish(table)));
        }
        Ok(results)
    }

    /// A union, and the fingerprint of its tree, all of which has then been read.
    fn warm_union(
        &self,
        contestant: &Contestant,
        tree: &Tree,
        shape: Shape,
        extra: &Extra,
    ) -> Outcome<(Union, u64)> {
        let place = self.place(contestant);
        let union = match contestant.kind {
            Kind::Bare => Union::shared_bare(tree, &place),
            _ => Union::mount(contestant, tree, &place, extra, self.mode)?,
        };
        let tree = fingerprint::of_tree(union.root(), shape.compared())?;
        Ok((union, tree))
    }

    /// A row whose unions are mounted anew for each measurement.
    fn fresh_row<'a>(&self, tree: &Tree, row: &'a Row) -> Outcome<Table<'a>> {
        let mut table = self.table(row);
        self.rounds(row, |turn| {
            if table.entries[turn].measured.fault.is_some() || !self.takes_part(row, turn) {
                return Ok(());
            }
            match self.fresh_union(&self.contestants[turn], tree, row) {
                Ok(mut union) => self.turn(&mut table, turn, Some(&mut union), tree, true),
                Err(error) => table.entries[turn].measured.fault = Some(error.to_string()),
            }
            Ok(())
        })?;
        table.drop_the_wrong(&self.contestants);
        Ok(table)
    }

    fn fresh_union(&self, contestant: &Contestant, tree: &Tree, row: &Row) -> Outcome<Union> {
        let place = self.place(contestant);
        let union = match contestant.kind {
            Kind::Bare if row.state != State::Changed => Union::shared_bare(tree, &place),
            _ => Union::mount(contestant, tree, &place, &row.extra, self.mode)?,
        };
        if matches!(contestant.kind, Kind::Bare) && row.state == State::Changed {
            tree.fill_bare(union.root())?;
        }
        // What one contestant has left to be written must not be written at the expense of the next.
        if self.scale == Scale::Full && row.state == State::Changed {
            rustix::fs::sync();
        }
        if row.state == State::Cold {
            kernel_caches::drop(Drop::Names)?;
        }
        Ok(union)
    }

    /// Calls `measure` for every contestant in every round, in an order that moves on from round to round.
    fn rounds(&self, row: &Row, mut measure: impl FnMut(usize) -> Outcome<()>) -> Outcome<()> {
        let (least, patience) = self.scale.patience();
        // Memory is what it is, however busy the machine.
        let least = if row.unit == Unit::Time { least } else { 1 };
        let start = Instant::now();
        for round in 0..self.rounds {
            if round >= least && (row.unit != Unit::Time || start.elapsed() > patience) {
                break;
            }
            for turn in 0..self.contestants.len() {
                measure((turn + round) % self.contestants.len())?;
            }
        }
        Ok(())
    }

    /// Measures one contestant once, unless it has failed already.
    fn turn(
        &self,
        table: &mut Table,
        turn: usize,
        union: Option<&mut Union>,
        tree: &Tree,
        counts: bool,
    ) {
        let (row, contestant) = (table.row, &self.contestants[turn]);
        let entry = &mut table.entries[turn];
        let Some(union) = union.filter(|_| entry.measured.fault.is_none()) else { return };
        if !self.takes_part(row, turn) {
            return;
        }
        match self.watched(row, contestant, union, tree) {
            Ok(finished) => {
                entry.saw.push(finished.saw);
                if counts {
                    entry.measured.values.push(finished.value);
                    entry.measured.processor.extend(finished.processor);
                }
            }
            Err(error) => entry.measured.fault = Some(error.to_string()),
        }
    }

    fn watched(
        &self,
        row: &Row,
        contestant: &Contestant,
        union: &mut Union,
        tree: &Tree,
    ) -> Outcome<Finished> {
        let scratch = self.dir.join("scratch");
        fs::create_dir_all(&scratch)?;
        let watchdog = union.daemon().map(Watchdog::start);
        let mut run =
            Run::new(union, tree, contestant, row, self.scale, self.mode, scratch.clone());
        let worked = (row.work)(&mut run).and_then(|()| {
            if let Some(depth) = row.compared {
                let tree = fingerprint::of_tree(run.root(), depth)?;
                run.saw(tree);
            }
            Ok(())
        });
        let finished = run.finish();
        fs::remove_dir_all(&scratch)?;
        watchdog.map_or(Ok(()), Watchdog::stop)?;
        worked.and(finished)
    }

    fn takes_part(&self, row: &Row, turn: usize) -> bool {
        let contestant = &self.contestants[turn];
        match contestant.kind {
            Kind::Bare => row.bare && !row.daemons_only,
            Kind::Kernel => !row.daemons_only,
            Kind::Plyfs(..) => true,
            Kind::Peer(_) => row.extra.peer.is_some(),
        }
    }

    fn place(&self, contestant: &Contestant) -> PathBuf {
        self.dir.join("mounts").join(contestant.key.replace([' ', ',', ':', '='], "-"))
    }

    fn table<'a>(&self, row: &'a Row) -> Table<'a> {
        let entry = |contestant: &Contestant| Entry {
            measured: Measured { contestant: contestant.key.clone(), ..Measured::default() },
            saw: Vec::new(),
        };
        Table { row, entries: self.contestants.iter().map(entry).collect() }
    }

    fn finish(&self, table: Table) -> RowResults {
        let row = table.row;
        let mut measured: Vec<_> = table.entries.into_iter().map(|entry| entry.measured).collect();
        if self.processor && row.unit == Unit::Time {
            // What fio or the workload itself timed has no other figure.
            for one in measured.iter_mut().filter(|one| !one.processor.is_empty()) {
                std::mem::swap(&mut one.values, &mut one.processor);
            }
        }
        let results = RowResults {
            name: row.name.into(),
            family: row.family.into(),
            what: row.what.into(),
            unit: row.unit,
            goals: row.goals_in(self.mode),
            in_chart: row.in_chart,
            measured,
        };
        eprintln!("{}", super::report::text::line(self.mode, &results));
        results
    }
}

impl Table<'_> {
    /// Whoever saw something else than the first in the list has no values.
    fn drop_the_wrong(&mut self, contestants: &[contestant::Contestant]) {
        debug_assert_eq!(contestants.len(), self.entries.len());
        let right = self.entries.iter().find_map(|entry| entry.saw.first().copied());
        for entry in &mut self.entries {
            if entry.saw.iter().any(|saw| Some(*saw) != right) {
                entry.measured.values.clear();
                entry.measured.processor.clear();
                entry.measured.fault = Some("wrong: not the result of the others".into());
            }
        }
    }
}
