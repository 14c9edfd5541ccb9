//! The documents that derive from the command line's definition are up to date.

#![allow(clippy::unwrap_used)]

use std::process::Command;

fn generated(document: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
    let output = command.args(["generate", document]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_man_page_is_what_the_program_generates() {
    let committed = include_str!("../man/plyfs.1");
    let same = committed == generated("man");
    assert!(same, "update it: plyfs generate man > man/plyfs.1");
}

#[test]
fn the_table_of_findings_is_what_the_program_generates() {
    let document = include_str!("../docs/check.md");
    let same = document.contains(&generated("findings"));
    assert!(same, "update the table in docs/check.md: plyfs generate findings");
}

#[test]
fn the_options_document_has_the_row_of_every_option_and_no_other() {
    let tables = generated("options");
    let first_heading = tables.lines().next().unwrap();
    let document = include_str!("../docs/options.md");
    let committed = &document[document.find(first_heading).unwrap()..];
    for (committed, generated) in committed.lines().zip(tables.lines()) {
        assert_eq!(committed, generated, "update the tables: plyfs generate options");
    }
    assert_eq!(committed.lines().count(), tables.lines().count());
}
