//! How a load goes on: a bar for each layer on a terminal, a line for each elsewhere. The words are docker's.

use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::table;
use crate::store::DiffId;
use crate::store::layer_import::Imported;
use crate::store::load::Progress;

/// Tells on standard error.
pub struct Bars {
    quiet: bool,
    /// On a terminal: all bars.
    bars: Option<MultiProgress>,
    bar: Option<ProgressBar>,
    layer: String,
    known: bool,
}

const LOADING: &str = "{prefix}: Loading layer [{bar:50.=>-}] {bytes}/{total_bytes}";
const DONE: &str = "{prefix}: {msg}";

impl Bars {
    /// Tells nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let terminal = !quiet && io::stderr().is_terminal();
        let bars = terminal.then(MultiProgress::new);
        Self { quiet, bars, bar: None, layer: String::new(), known: false }
    }

    fn line(&self, text: &str) {
        // Nobody is left to tell when standard error cannot be written.
        drop(writeln!(io::stderr(), "{}: {text}", self.layer));
    }
}

impl Progress for Bars {
    fn layer(&mut self, diff_id: &DiffId, bytes: u64, known: bool) {
        self.layer = table::id(&diff_id.0, false);
        self.known = known;
        if let Some(bars) = &self.bars {
            let bar = bars.add(ProgressBar::new(bytes));
            if let Ok(style) = ProgressStyle::with_template(LOADING) {
                bar.set_style(style);
            }
            bar.set_prefix(self.layer.clone());
            self.bar = Some(bar);
        }
    }

    fn read(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn done(&mut self, imported: Option<&Imported>) {
        let known = self.known || imported.is_some_and(|imported| imported.known);
        let text = if known { "Already exists" } else { "Load complete" };
        if let Some(bar) = self.bar.take() {
            if let Ok(style) = ProgressStyle::with_template(DONE) {
                bar.set_style(style);
            }
            bar.finish_with_message(text);
        } else if !self.quiet {
            self.line(text);
        }
        if let Some(count) = imported.map(|imported| imported.replaced).filter(|count| *count > 0) {
            log::warn!(
                "layer {}: {count} names came more than once: the last of each is kept",
                self.layer
            );
        }
    }
}
