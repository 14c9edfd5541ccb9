//! The reports: a table in Markdown, all figures in JSON, a chart.

mod chart;
mod markdown;
pub mod text;

use std::fs;
use std::path::Path;

use super::Outcome;
use super::arguments::Arguments;
use super::results::Results;

/// The lines of docs/benchmarks.md between which the table stands.
const MARKS: [&str; 2] = ["<!-- written by scripts/bench -->", "<!-- end -->"];

/// Writes all reports, and prints the table.
pub fn write(arguments: &Arguments, results: &Results) -> Outcome<()> {
    let directory = arguments.output();
    fs::create_dir_all(&directory)?;
    let table = markdown::report(results);
    fs::write(directory.join("benchmarks.md"), &table)?;
    fs::write(directory.join("benchmarks.json"), serde_json::to_vec_pretty(results)?)?;
    fs::write(directory.join("benchmarks.svg"), chart::chart(results))?;
    print!("{table}");
    eprintln!("bench: table, figures and chart: {}/benchmarks.*", directory.display());
    if arguments.write_docs {
        write_docs(&table, results)?;
    }
    Ok(())
}

fn write_docs(table: &str, results: &Results) -> Outcome<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let document = docs.join("benchmarks.md");
    let text = fs::read_to_string(&document)?;
    let [begin, end] = MARKS;
    let (Some(start), Some(stop)) = (text.find(begin), text.find(end)) else {
        return Err(format!("{}: no place for the table", document.display()).into());
    };
    let (before, after) = (&text[..start + begin.len()], &text[stop..]);
    fs::write(&document, format!("{before}\n\n{table}\n{after}"))?;
    fs::write(docs.join("benchmarks.svg"), chart::chart(results))?;
    Ok(())
}
