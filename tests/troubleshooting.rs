//! docs/troubleshooting.md has the lines that the program prints and logs, and no others.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = include_str!("../docs/troubleshooting.md");
/// What stands in the document for something that differs from case to case.
const PLACEHOLDERS: [&str; 10] =
    ["PATH", "NAME", "TEXT", "LINE", "TYPE", "MODE", "PID", "N", "A", "B"];
/// Shorter parts of a line are found everywhere.
const SHORTEST: usize = 6;

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found
}

/// The source with the literals that go over several lines in one.
fn source(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("\\\n")
        .enumerate()
        .map(|(n, part)| if n == 0 { part } else { part.trim_start() })
        .collect()
}

/// How lines of the program begin that are quoted in the list of causes.
const BEGINNINGS: [&str; 5] = ["lowerdir: ", "upperdir: ", "workdir: ", "PATH: ", "/dev/fuse: "];

/// What stays the same each time in the lines of the document: the first cells of its tables, and in its lists.
fn documented() -> Vec<String> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|line| line.split('|').nth(1));
    let in_cells = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let list = DOCUMENT.lines().filter(|line| line.starts_with("* ") || line.starts_with("  "));
    let in_lists = list.flat_map(|line| line.split('`').skip(1).step_by(2));
    let in_lists: Vec<_> = in_lists
        .filter(|text| BEGINNINGS.iter().any(|beginning| text.starts_with(beginning)))
        .collect();
    assert!(in_lists.len() > 4, "{in_lists:?}");
    let mut parts = Vec::new();
    for quoted in in_cells.chain(in_lists) {
        let words = quoted.split_inclusive(|c: char| !c.is_alphanumeric());
        let same = words.map(|word| {
            let name = word.trim_end_matches(|c: char| !c.is_alphanumeric());
            if PLACEHOLDERS.contains(&name) {
                word.replacen(name, "…", 1)
            } else {
                word.to_owned()
            }
        });
        let same: String = same.collect();
        parts.extend(
            same.split(['…', ':', ';', ',']).map(|part| part.trim_matches([' ', '/']).to_owned()),
        );
    }
    parts
}

#[test]
fn every_documented_line_is_one_of_the_program() {
    let program: String = sources().iter().map(|path| source(path)).collect();
    let parts = documented();
    let long = |part: &&String| part.len() >= SHORTEST && !part.starts_with("option ");
    let wrong: Vec<_> = parts.iter().filter(long).filter(|part| !program.contains(*part)).collect();
    assert!(wrong.is_empty(), "nothing in src says: {wrong:#?}");
    assert!(parts.iter().filter(long).count() > 100);
}

/// The longest part of a literal that is the same each time, up to the advice behind a semicolon.
fn constant_part(literal: &str) -> &str {
    let literal = literal.split(';').next().unwrap_or_default();
    let parts = literal.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
    parts
        .map(|part| part.trim_matches([':', ' ']))
        .max_by_key(|part| part.len())
        .unwrap_or_default()
}

#[test]
fn every_line_of_the_log_and_every_refusal_of_a_mount_is_documented() {
    let mut undocumented = Vec::new();
    for path in sources() {
        let text = source(&path);
        let mut says = vec!["log::warn!(", "log::error!(", "OpenError(format!("];
        if path.ends_with("mount/error.rs") {
            says.extend(["write!(f, ", "f.write_str("]);
        }
        for call in says.iter().flat_map(|call| text.split(call).skip(1)) {
            // The literal comes first, perhaps after the formatter on a line of its own.
            let call = call.trim_start().trim_start_matches("f,").trim_start();
            let Some(literal) = call.strip_prefix('"').and_then(|rest| rest.split('"').next())
            else {
                continue;
            };
            let part = constant_part(literal);
            if part.len() >= SHORTEST && !DOCUMENT.contains(part) {
                undocumented.push(format!("{}: {part}", path.display()));
            }
        }
    }
    assert!(undocumented.is_empty(), "not in docs/troubleshooting.md: {undocumented:#?}");
}
