//! Figures as people read them.

use crate::results::{Measured, Mode, RowResults, Unit, median};

/// A value with its unit, in three digits.
pub fn value(unit: Unit, value: f64) -> String {
    let steps: &[(f64, &str)] = match unit {
        Unit::Time => &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
        Unit::Bytes => &[(1_048_576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")],
        Unit::Times => &[(1.0, "×")],
    };
    let fitting = steps.iter().find(|(size, _)| value >= *size).or(steps.last());
    fitting.map_or_else(String::new, |(size, name)| format!("{} {name}", digits(value / size)))
}

/// Three digits.
pub fn digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The median of a contestant, or why there is none.
pub fn cell(row: &RowResults, contestant: &str) -> String {
    let Some(measured) = row.measured.iter().find(|m| m.contestant == contestant) else {
        return "–".into();
    };
    match (median(&measured.values), &measured.fault) {
        (Some(middle), None) => value(row.unit, middle),
        (_, Some(fault)) if fault.starts_with("wrong") => "wrong".into(),
        (_, Some(_)) => "fails".into(),
        (None, None) => "–".into(),
    }
}

/// A row in one line, for whoever watches the run.
pub fn line(mode: Mode, row: &RowResults) -> String {
    let figures = |m: &Measured| match (median(&m.values), &m.fault) {
        (_, Some(fault)) => Some(format!("{} {fault}", m.contestant)),
        (Some(middle), None) => Some(format!("{} {}", m.contestant, value(row.unit, middle))),
        (None, None) => None,
    };
    let figures: Vec<_> = row.measured.iter().filter_map(figures).collect();
    let mark = match row.reached() {
        Some(false) => " [under its goal]",
        _ => "",
    };
    format!("{mode:8} {:24} {}{mark}", row.name, figures.join(", "))
}
