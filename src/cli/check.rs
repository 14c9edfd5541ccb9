//! `plyfs check [--repair] UPPER`.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use log::LevelFilter;
use serde_json::{Value, json};

use super::error::{CliError, one_line};
use super::logging;
use crate::check::rule::{self, Remedy, Rule};
use crate::check::{Finding, Outcome, Request, Summary, check};
use crate::mount::options::LowerDirs;

/// Find what is wrong in an upper layer that is not mounted, and repair it
///
/// One line for each finding: where, what it is, what a mount shows because of it, and what --repair does. A
/// problem makes some reader of the layer show what it must not; a note does not count. Exit status as of
/// fsck(8): 0 no problems, 1 all repaired, 4 problems left, 8 the check did not come to its end, 16 wrong command
/// line.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The upper layer
    upper: PathBuf,

    /// Repair what needs no decision: never loses a file, never shows what was deleted
    #[arg(long)]
    repair: bool,

    /// Check the work directory of the layer too
    #[arg(long, value_name = "DIR", visible_alias = "workdir")]
    work: Option<PathBuf>,

    /// Compare with these lower layers, as in lowerdir=: redirects, metacopy files and whiteouts
    #[arg(long, value_name = "DIR[:DIR...]", visible_alias = "lowerdir")]
    lower: Option<OsString>,

    /// Print one JSON object a line, the summary last
    #[arg(long)]
    json: bool,
}

/// All problems were repaired.
const REPAIRED: u8 = 1;
/// There are problems left.
const LEFT: u8 = 4;

impl CheckArgs {
    /// Checks, prints, and gives the exit status.
    pub fn run(self) -> Result<ExitCode, CliError> {
        // What the unions of the layers log becomes findings here.
        logging::start(LevelFilter::Off)?;
        let lower = match &self.lower {
            Some(text) => LowerDirs::parse(text.as_bytes())
                .map_err(|problem| CliError::Usage(format!("option --lower: {problem}")))?,
            None => LowerDirs::default(),
        };
        let request = Request {
            upper: self.upper,
            work: self.work,
            lower: lower.layers,
            data_only: lower.data_only,
            repair: self.repair,
        };
        let mut output = BufWriter::new(io::stdout().lock());
        let mut written = Ok(());
        let result = check(&request, &mut |finding| {
            let line =
                if self.json { json(finding).to_string() } else { one_line(&finding.to_string()) };
            if written.is_ok() {
                written = writeln!(output, "{line}");
            }
        });
        written?;
        output.flush()?;
        let summary = result.map_err(|error| CliError::Failure(error.to_string()))?;
        match self.json {
            true => writeln!(output, "{}", json_summary(&summary))?,
            false => writeln!(output, "{}", one_line(&text(&request.upper, &summary)))?,
        }
        output.flush()?;
        Ok(ExitCode::from(match summary.problems - summary.repaired {
            0 if summary.repaired > 0 => REPAIRED,
            0 => 0,
            _ => LEFT,
        }))
    }
}

fn text(upper: &Path, summary: &Summary) -> String {
    let Summary { objects, problems, repaired, notes } = summary;
    let state = match (problems, repaired) {
        (0, _) => "clean".to_owned(),
        (_, 0) => counted(*problems, "problem"),
        _ => format!("{}, {repaired} repaired", counted(*problems, "problem")),
    };
    let upper = upper.display();
    format!("{upper}: {state}; {}, {}", counted(*objects, "object"), counted(*notes, "note"))
}

/// "1 object", "2 objects".
pub(super) fn counted(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// The table of docs/check.md: a row for each rule.
pub fn markdown() -> String {
    let rows = rule::ALL.iter().map(|rule| {
        let step = match rule.remedy {
            Remedy::Repair(step, _) => step.to_owned(),
            Remedy::Human(choice) => format!("nothing. {choice}"),
            Remedy::Nothing(advice) => format!("nothing. {advice}"),
        };
        let Rule { word, severity, what, effect, .. } = rule;
        format!("| `{word}` | {} | {what} | {effect} | {step} |\n", severity.word())
    });
    let head = "| rule | | what it is | what a mount shows | `--repair` |\n|---|---|---|---|---|\n";
    head.to_owned() + &rows.collect::<String>()
}

fn json(finding: &Finding) -> Value {
    let Finding { rule, path, detail, outcome, more, .. } = finding;
    let mut line = json!({
        "rule": rule.word,
        "severity": rule.severity.word(),
        "path": path.to_string_lossy(),
        "detail": detail,
        "what": rule.what,
        "effect": rule.effect,
        "advice": finding.advice(),
        "outcome": match outcome {
            Outcome::Left => "left",
            Outcome::Repaired => "repaired",
            Outcome::Failed(_) => "failed",
        },
        "more": more,
    });
    if path.to_str().is_none() {
        let hex = path.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}"));
        line["path_hex"] = hex.collect::<String>().into();
    }
    line
}

fn json_summary(summary: &Summary) -> Value {
    let Summary { objects, problems, repaired, notes } = summary;
    json!({ "summary": {
        "objects": objects, "problems": problems, "repaired": repaired, "notes": notes,
    }})
}
