//! `plyfs image history NAME`.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::Format;
use super::table::{self, Table};
use crate::cli::error::CliError;
use crate::store::Store;
use crate::store::config::History;
use crate::store::image::Image;

/// Tell how the layers of an image came about, the last first
///
/// A step that made no layer has 0B.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// A name or an id
    #[arg(value_name = "NAME")]
    image: String,

    /// Print ids only
    #[arg(short, long)]
    quiet: bool,

    /// Print everything with all its characters
    #[arg(long)]
    no_trunc: bool,

    /// How to print
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
}

/// What docker shows of a command, in characters.
const SHOWN: usize = 45;

impl HistoryArgs {
    /// Prints the steps.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let image = store.find_image(&self.image)?;
        let mut table = Table::new(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
        let mut out = io::stdout().lock();
        let steps = steps(store, &image)?;
        for (at, (step, size)) in steps.iter().rev().enumerate() {
            // Only the last step has left an image behind.
            let id = match at {
                0 => table::id(&image.id(), self.no_trunc),
                _ => "<missing>".to_owned(),
            };
            let command = step.created_by.as_deref().unwrap_or_default();
            let comment = step.comment.as_deref().unwrap_or_default();
            let created = step.created.as_deref();
            if self.quiet {
                writeln!(out, "{id}")?;
            } else if self.format == Format::Json {
                let line = json!({
                    "ID": id,
                    "CreatedAt": created,
                    "CreatedSince": table::since(created),
                    "CreatedBy": table::cut(command, SHOWN, self.no_trunc),
                    "Size": table::size(*size),
                    "Bytes": size,
                    "Comment": comment,
                });
                writeln!(out, "{line}")?;
            } else {
                table.row([
                    id,
                    table::since(created),
                    table::cut(command, SHOWN, self.no_trunc),
                    table::size(*size),
                    comment.to_owned(),
                ]);
            }
        }
        if !self.quiet && self.format == Format::Table {
            table.write(out)?;
        }
        Ok(())
    }
}

/// The steps, the first first, with the bytes of the layers that they made. Layers that no step is about follow.
fn steps(store: &Store, image: &Image) -> Result<Vec<(History, u64)>, CliError> {
    let mut layers = image.layers.iter();
    let mut steps = Vec::new();
    let mut size = |made_layer: bool| match made_layer.then(|| layers.next()).flatten() {
        Some(layer) => Ok(Some(store.layer_meta(layer)?.size)),
        None => Ok::<_, CliError>(None),
    };
    for step in &image.config.history {
        let bytes = size(!step.empty_layer)?.unwrap_or(0);
        steps.push((step.clone(), bytes));
    }
    while let Some(bytes) = size(true)? {
        steps.push((History::default(), bytes));
    }
    Ok(steps)
}
