//! The process that mounts and measures, in namespaces of its own.

use std::fs;

use super::Outcome;
use super::arguments::Arguments;
use super::contestant;
use super::results::{Mode, ModeResults};
use super::row::Row;
use super::schedule::Schedule;
use super::workloads;

/// Where the results lie in the directory of the process.
pub const RESULTS: &str = "results.json";

/// Measures everything that `arguments` ask for.
pub fn measure(arguments: &Arguments, mode: Mode) -> Outcome<()> {
    let scale = arguments.scale();
    let dir = arguments.dir();
    let schedule = Schedule {
        contestants: contestant::all(arguments, &dir.join("programs")),
        scale,
        rounds: arguments.rounds.unwrap_or(scale.rounds()),
        mode,
        processor: arguments.processor,
        dir: dir.clone(),
    };
    let wanted = |row: &Row| arguments.wants_row(row.name, row.family) && row.runs(scale, mode);
    let rows: Vec<Row> = workloads::all().into_iter().filter(wanted).collect();
    let rows = schedule.measure(&rows)?;
    fs::write(dir.join(RESULTS), serde_json::to_vec(&ModeResults { mode, rows })?)?;
    Ok(())
}
