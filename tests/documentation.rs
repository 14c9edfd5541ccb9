//! The documents say what the program, its code and its tests are like.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
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

/// Every file of `directory` and below, relative to the package, without what was built there.
fn sources(directory: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open = vec![root.join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// What stands between backticks, line by line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Whether the source holds a word that `pattern` stands for: `*` is any part of a word.
fn has_word(source: &str, pattern: &str) -> bool {
    let (head, tail) = pattern.split_once('*').unwrap_or((pattern, ""));
    source.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| {
        match pattern.contains('*') {
            true => word.len() >= pattern.len() && word.starts_with(head) && word.ends_with(tail),
            false => word == pattern,
        }
    })
}

/// The citation `binary: module::test` or `module::test`: each part is the name of a file or folder, or a
/// word in that file.
fn is_cited_rightly(citation: &str, tests: &[(String, String)]) -> bool {
    let parts: Vec<&str> = citation.split("::").flat_map(|part| part.split(": ")).collect();
    tests.iter().any(|(path, source)| {
        let is_place = |part: &&str| path.split(['/', '.']).any(|name| name == *part);
        is_place(&parts[0])
            && parts.iter().all(|part| *part == "*" || is_place(part) || has_word(source, part))
    })
}

#[test]
fn the_tests_that_documents_name_exist() {
    let documents = [
        include_str!("../README.md"),
        include_str!("../docs/check.md"),
        include_str!("../docs/conformance.md"),
        include_str!("../docs/format.md"),
        include_str!("../docs/performance.md"),
        include_str!("../docs/semantics.md"),
    ];
    let read = |path: String| (fs::read_to_string(&path).unwrap(), path);
    let tests: Vec<_> = sources("tests").into_iter().map(read).map(|(s, p)| (p, s)).collect();
    let of_the_program = ["plyfs::", "layer::", "overlay::", "sys::"];
    let citations: Vec<&str> = documents
        .into_iter()
        .flat_map(quoted)
        .filter(|text| text.split("::").count() > 1 && !text.contains(['=', '/']))
        .filter(|text| text.split("::").all(|part| part.len() > 1 || part == "*"))
        .filter(|text| !of_the_program.iter().any(|prefix| text.starts_with(prefix)))
        .collect();
    assert!(citations.len() > 100, "{citations:?}");
    let wrong: Vec<_> = citations.iter().filter(|text| !is_cited_rightly(text, &tests)).collect();
    assert!(wrong.is_empty(), "no such tests: {wrong:#?}");
}

/// The functions that `scripts/acceptance` carries out.
fn checks() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/acceptance/checks");
    let scripts = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text: String = scripts.map(|path| fs::read_to_string(path).unwrap()).collect();
    let names = text.lines().filter_map(|line| line.strip_suffix("() {"));
    names.filter(|name| is_check(name)).map(str::to_owned).collect()
}

fn is_check(name: &str) -> bool {
    ["check_", "full_", "given_", "timed_"].iter().any(|prefix| name.starts_with(prefix))
}

#[test]
fn the_table_of_checks_of_containers_has_every_one_and_no_other() {
    let checks = checks();
    assert!(checks.len() > 100, "{checks:?}");
    let cited: Vec<&str> =
        quoted(include_str!("../docs/containers.md")).filter(|name| is_check(name)).collect();
    let missing: Vec<_> =
        checks.iter().filter(|check| !cited.iter().any(|name| has_word(check, name))).collect();
    assert!(missing.is_empty(), "not in docs/containers.md: {missing:#?}");
    let wrong: Vec<_> =
        cited.iter().filter(|name| !checks.iter().any(|check| has_word(check, name))).collect();
    assert!(wrong.is_empty(), "no such checks: {wrong:#?}");
}

#[test]
fn the_map_of_the_code_has_every_file_and_no_other() {
    let mut rows = BTreeSet::new();
    let mut folder = "";
    for line in include_str!("../docs/architecture.md").lines() {
        let Some(cell) = line.split('|').nth(1) else { continue };
        if let Some(name) = cell.trim().strip_prefix("**").and_then(|name| name.strip_suffix("/**"))
        {
            folder = name;
        } else if !folder.is_empty() {
            let names = quoted(cell).filter(|name| name.ends_with(".rs") || name.ends_with('/'));
            rows.extend(names.map(|name| format!("src/{folder}/{name}")));
        }
    }
    // A folder in a folder has one row for all that is in it.
    let place = |path: String| match path.match_indices('/').nth(2) {
        Some((end, _)) => path[..=end].to_owned(),
        None => path,
    };
    let in_folders = |path: &String| path.matches('/').count() > 1 && !path.ends_with("/tests.rs");
    let files: BTreeSet<_> = sources("src").into_iter().filter(in_folders).map(place).collect();
    let differences: Vec<_> = rows.symmetric_difference(&files).collect();
    assert!(
        differences.is_empty(),
        "in docs/architecture.md or in src, not in both: {differences:?}"
    );
}

#[test]
fn options_of_fuse_overlayfs_are_taken_as_the_document_says() {
    let document = include_str!("../docs/migration.md");
    let tables = generated("options");
    // What the tables say of an option: the status in the last cell of its rows.
    let has_effect = |name: &str| {
        let is_its = |line: &&str| {
            line.starts_with(&format!("| `{name}`")) || line.starts_with(&format!("| `{name}="))
        };
        tables.lines().filter(is_its).any(|line| !line.ends_with("| accepted, no effect |"))
    };
    let mut rows = 0;
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let options = cells[1].trim_matches('`');
        // A mount helper only checks the command line with -f.
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        std::os::unix::process::CommandExt::arg0(&mut command, "mount.plyfs");
        command.args(["none", "/", "-f", "-o", "lowerdir=/", "-o", options]);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = if cells[2] == "refused" { 2 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{options}: {said}");
        assert_eq!(said.is_empty(), expected == 0, "{options}: {said}");
        for option in options.split(',').filter(|_| expected == 0) {
            let name = option.split('=').next().unwrap();
            assert_eq!(has_effect(name), cells[2] == "used", "{name}");
        }
        rows += 1;
    }
    assert!(rows > 30);
}
