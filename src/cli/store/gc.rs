//! `plyfs store gc`.

use std::io::{self, Write};

use clap::Args;

use crate::cli::check::counted;
use crate::cli::error::CliError;
use crate::cli::image::table::size;
use crate::store::Store;

/// Remove what no tag, container or mount refers to
///
/// Waits until nobody else is working on the store.
#[derive(Args, Debug)]
pub struct GcArgs {
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,
}

impl GcArgs {
    /// Collects, and tells how much.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let collected = store.collect(self.dry_run)?;
        let counts = [
            counted(collected.layers, "layer"),
            counted(collected.objects, "content"),
            counted(collected.blobs, "blob"),
            counted(collected.stages, "unfinished import"),
        ];
        let verb = if self.dry_run { "Would remove" } else { "Removed" };
        Ok(writeln!(io::stdout(), "{verb} {}: {}", counts.join(", "), size(collected.bytes))?)
    }
}
