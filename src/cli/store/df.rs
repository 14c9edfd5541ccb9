//! `plyfs store df`.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::image::table::{Table, size};
use crate::store::Store;

/// Tell what the store takes, and what is saved by sharing
#[derive(Args, Debug)]
pub struct DfArgs {
    /// Print one JSON object, with bytes
    #[arg(long)]
    json: bool,
}

impl DfArgs {
    /// Prints the figures.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let usage = store.usage()?;
        let mut out = io::stdout().lock();
        if self.json {
            let line = json!({
                "images": usage.images, "image_bytes": usage.image_bytes,
                "layers": usage.layers, "layer_bytes": usage.layer_bytes,
                "packed_bytes": usage.packed_bytes,
                "objects": usage.objects, "object_bytes": usage.object_bytes,
                "blobs": usage.blobs, "blob_bytes": usage.blob_bytes,
            });
            return Ok(writeln!(out, "{line}")?);
        }
        let mut table = Table::new(&["TYPE", "TOTAL", "FILES", "ON DISK"]);
        let mut row = |kind: &str, total: u64, files: &str, disk: &str| {
            table.row([kind.to_owned(), total.to_string(), files.to_owned(), disk.to_owned()]);
        };
        row("Images", usage.images, &size(usage.image_bytes), "");
        row("Layers", usage.layers, &size(usage.layer_bytes), &size(usage.packed_bytes));
        row("Contents", usage.objects, "", &size(usage.object_bytes));
        row("Blobs", usage.blobs, "", &size(usage.blob_bytes));
        table.write(&mut out)?;
        let by_layers = usage.image_bytes.saturating_sub(usage.layer_bytes);
        let by_contents = usage.layer_bytes.saturating_sub(usage.object_bytes);
        writeln!(
            out,
            "Shared layers save {}, shared contents {}.",
            size(by_layers),
            size(by_contents)
        )?;
        Ok(())
    }
}
