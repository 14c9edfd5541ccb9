//! The table.

use std::fmt::Write;

use super::text::{cell, digits, value};
use crate::contestant::KEYS;
use crate::results::{ModeResults, Results, RowResults};

/// The whole report.
pub fn report(results: &Results) -> String {
    let m = &results.machine;
    let mut text = format!(
        "Measured on {} with plyfs {} ({} run, {}): Linux {}, {}, {} MiB, {}, load {} at the start.\n",
        m.date, m.commit, m.size, m.clock, m.kernel, m.processors, m.memory, m.filesystem, m.load
    );
    for mode in &results.modes {
        add_mode(&mut text, mode);
    }
    text
}

fn contestants(mode: &ModeResults) -> Vec<String> {
    let all = mode.rows.iter().flat_map(|row| &row.measured).map(|m| m.contestant.clone());
    let mut found: Vec<String> = Vec::new();
    for contestant in all {
        if !found.contains(&contestant) {
            found.push(contestant);
        }
    }
    let place = |key: &String| KEYS.iter().position(|known| known == key).unwrap_or(KEYS.len());
    found.sort_by_key(place);
    found
}

fn title(key: &str) -> &str {
    match key {
        "kernel" => "kernel overlayfs",
        "fuse-overlayfs-2" => "fuse-overlayfs 2.0.0",
        "fuse-overlayfs-1" => "fuse-overlayfs 1",
        "bare" => "no union",
        other => other,
    }
}

fn add_mode(text: &mut String, mode: &ModeResults) {
    let contestants = contestants(mode);
    let judged = mode.rows.iter().filter_map(RowResults::reached);
    let (reached, all) = (judged.clone().filter(|reached| *reached).count(), judged.count());
    let mut add = |line: String| writeln!(text, "{line}").unwrap_or_default();
    add(format!("\n### As {}: {reached} of {all} goals reached\n", mode.mode));
    let titles: Vec<_> = contestants.iter().map(|key| title(key)).collect();
    add(format!(
        "| workload | {} | against the kernel | against fuse-overlayfs 2.0.0 | goal |",
        titles.join(" | ")
    ));
    add(format!("|---|{}---:|---:|---|", "---:|".repeat(titles.len())));
    for row in &mode.rows {
        let cells: Vec<_> = contestants.iter().map(|key| cell(row, key)).collect();
        add(format!(
            "| {} `{}` | {} | {} | {} | {} |",
            row.what,
            row.name,
            cells.join(" | "),
            ratio(row, "kernel"),
            ratio(row, "fuse-overlayfs-2"),
            goal(row)
        ));
    }
    let lookup = |name: &str| mode.rows.iter().find(|r| r.name == name)?.median("plyfs");
    if let (Some(deep), Some(flat)) = (lookup("lookup-500"), lookup("lookup-1")) {
        let (ratio, mark) =
            (deep / flat, if deep / flat <= 1.3 { "reached" } else { "**missed**" });
        add(format!(
            "\nA first lookup through 500 layers takes plyfs {} times as long as through 1: {mark} (at most 1.3).",
            digits(ratio)
        ));
    }
}

/// How many times faster plyfs is, and how far the rounds differ.
fn ratio(row: &RowResults, contestant: &str) -> String {
    let Some((ratio, spread)) = row.ratio(contestant) else { return String::new() };
    format!("{} ± {:.0} %", digits(ratio), spread * 100.0)
}

fn goal(row: &RowResults) -> String {
    let goals = [
        row.goals.kernel.map(|goal| format!("{goal} of the kernel")),
        row.peer_goal().map(|goal| format!("{goal} × fuse-overlayfs")),
        row.goals.at_most.map(|most| format!("at most {}", value(row.unit, most))),
    ];
    let goals: Vec<_> = goals.into_iter().flatten().collect();
    match row.reached() {
        Some(true) => format!("{}: reached", goals.join(", ")),
        Some(false) => format!("{}: **missed**", goals.join(", ")),
        None => goals.join(", "),
    }
}
