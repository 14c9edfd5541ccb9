//! The rows of the table, by family.

mod archives;
mod copy_up;
mod data;
mod depth;
mod files;
mod memory;
mod names;
mod programs;
mod walk;
mod wide;
mod writes;

use super::row::Row;

/// All rows, in the order of the report.
pub fn all() -> Vec<Row> {
    let families: [(&'static str, Vec<Row>); 11] = [
        ("walk", walk::rows()),
        ("files", files::rows()),
        ("programs", programs::rows()),
        ("depth", depth::rows()),
        ("wide", wide::rows()),
        ("data", data::rows()),
        ("writes", writes::rows()),
        ("names", names::rows()),
        ("copy-up", copy_up::rows()),
        ("archives", archives::rows()),
        ("memory", memory::rows()),
    ];
    let named = families
        .into_iter()
        .flat_map(|(family, rows)| rows.into_iter().map(move |row| Row { family, ..row }));
    named.collect()
}
