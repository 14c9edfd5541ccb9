//! How images come and go, layer by layer: bars on a terminal, a line for each complete layer elsewhere, or JSON.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::table;
use crate::cli::error::one_line;
use crate::store::Digest;
use crate::store::progress::{Progress, Status};

/// How to tell.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ProgressArgs {
    /// Print no progress
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,

    /// Print one JSON object a line: the progress of each layer (id, status, current, total), then the result
    #[arg(long)]
    json: bool,
}

/// Where the progress goes.
enum Form {
    Nowhere,
    Bars(MultiProgress),
    Lines,
    Json,
}

/// Tells on standard error; as JSON on standard output.
pub struct Teller {
    form: Form,
    layers: Mutex<HashMap<Option<Digest>, Layer>>,
}

/// What has been told of a layer.
struct Layer {
    bar: Option<ProgressBar>,
    status: Status,
    at: Instant,
}

/// How often the bytes of a layer are told as JSON, at most.
const PAUSE: Duration = Duration::from_millis(100);

const MOVING: &str = "{prefix}: {msg} [{bar:50.=>-}] {bytes}/{total_bytes}";
/// Where nobody knows how much will come.
const ENDLESS: &str = "{prefix}: {msg} {bytes}";
const STANDING: &str = "{prefix}: {msg}";

impl ProgressArgs {
    /// Begins to tell.
    pub fn teller(self) -> Teller {
        let form = match self {
            Self { quiet: true, .. } => Form::Nowhere,
            Self { json: true, .. } => Form::Json,
            _ if io::stderr().is_terminal() => Form::Bars(MultiProgress::new()),
            _ => Form::Lines,
        };
        Teller { form, layers: Mutex::default() }
    }

    /// Whether JSON is wanted.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Whether no more than the result is wanted.
    pub fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Prints a result: `lines`, or `object` as JSON.
    pub fn result(self, lines: &str, object: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            return writeln!(out, "{object}");
        }
        lines.lines().try_for_each(|line| writeln!(out, "{}", one_line(line)))
    }
}

impl Teller {
    /// A line that is about no layer.
    pub fn heading(&self, line: &str) {
        let line = one_line(line);
        match &self.form {
            Form::Nowhere | Form::Json => {}
            Form::Bars(_) | Form::Lines => print(io::stderr(), &line),
        }
    }
}

impl Progress for Teller {
    fn tell(&self, layer: Option<&Digest>, status: &Status, current: u64, total: u64) {
        if matches!(self.form, Form::Nowhere) {
            return;
        }
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = layers.get(&layer.copied());
        let same = known.is_some_and(|known| known.status == *status);
        let short = layer.map_or_else(|| "layer".to_owned(), |layer| table::id(layer, false));
        let mut bar = None;
        match &self.form {
            Form::Nowhere => {}
            Form::Lines if status.is_last() && !same => {
                print(io::stderr(), &format!("{short}: {}", one_line(&status.to_string())));
            }
            Form::Lines => {}
            Form::Json => {
                let recent = known.is_some_and(|known| known.at.elapsed() < PAUSE);
                if same && recent && current != total {
                    return;
                }
                let id = layer.map(ToString::to_string);
                let status = status.to_string();
                let line =
                    json!({ "id": id, "status": status, "current": current, "total": total });
                print(io::stdout(), &line.to_string());
            }
            Form::Bars(bars) => {
                let its = known.and_then(|known| known.bar.clone());
                let its = its.unwrap_or_else(|| bars.add(ProgressBar::new(total)));
                if !same {
                    let template = match status.is_moving() {
                        true if total == 0 => ENDLESS,
                        true => MOVING,
                        false => STANDING,
                    };
                    if let Ok(style) = ProgressStyle::with_template(template) {
                        its.set_style(style);
                    }
                    its.set_prefix(short);
                    its.set_message(one_line(&status.to_string()));
                }
                its.set_length(total.max(current));
                its.set_position(current);
                if status.is_last() {
                    its.finish();
                }
                bar = Some(its);
            }
        }
        let told = Layer { bar, status: status.clone(), at: Instant::now() };
        layers.insert(layer.copied(), told);
    }
}

fn print(mut out: impl Write, line: &str) {
    // Nobody is left to tell when the output cannot be written.
    drop(writeln!(out, "{line}"));
}
