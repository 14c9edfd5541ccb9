//! The table of mount options as text for `--help`, the manual page and docs/options.md.

use clap_mangen::roff::{Roff, bold, roman};

use crate::mount::options::table::{self, Group, OptionSpec, Status};

/// What `--help` says after the flags.
pub fn help() -> String {
    let mut text = String::from("Mount options:\n");
    for spec in explained() {
        text += &format!("  {}\n          {}\n", spec.syntax(), sentence(spec));
    }
    text + &format!("\nAccepted without effect:\n{}", wrapped(&silent_names(), 78))
}

/// The section of the manual page.
pub fn roff() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["MOUNT OPTIONS"]);
    for group in table::GROUPS {
        let mut explained = group.options.iter().filter(|spec| is_explained(spec)).peekable();
        if explained.peek().is_some() {
            roff.control("SS", [group.title]);
        }
        for spec in explained {
            roff.control("TP", []);
            roff.text([bold(spec.syntax())]);
            roff.text([roman(sentence(spec).replace('`', ""))]);
        }
    }
    roff.control("SS", ["Accepted without effect"]);
    roff.text([roman(silent_names().join(", "))]);
    roff
}

/// The tables of docs/options.md: a heading and a table for each group, a row for each option.
pub fn markdown() -> String {
    let sections: Vec<String> = table::GROUPS.iter().map(section).collect();
    sections.join("\n")
}

fn section(group: &Group) -> String {
    let mut text = format!("## {}\n\n| option | meaning | default | status |\n", group.title);
    text += "|---|---|---|---|\n";
    for spec in group.options {
        let syntax = spec.syntax().replace('|', "\\|");
        let status = spec.status.word();
        text += &format!("| `{syntax}` | {} | {} | {status} |\n", spec.help, spec.default);
    }
    text
}

fn is_explained(spec: &OptionSpec) -> bool {
    !matches!(spec.status, Status::NoEffect | Status::Refused)
}

fn explained() -> impl Iterator<Item = &'static OptionSpec> {
    table::all().filter(|spec| is_explained(spec))
}

fn silent_names() -> Vec<&'static str> {
    table::all().filter(|spec| spec.status == Status::NoEffect).map(|spec| spec.name).collect()
}

fn sentence(spec: &OptionSpec) -> String {
    let default = match spec.default {
        "" => String::new(),
        "required" => " (required)".into(),
        default => format!(" (default: {default})"),
    };
    format!("{}{default}", spec.help)
}

/// The words in lines of at most `width` columns, two of them indentation.
fn wrapped(words: &[&str], width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut().filter(|line| line.len() + 1 + word.len() <= width) {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(format!("  {word}")),
        }
    }
    lines.join("\n")
}
