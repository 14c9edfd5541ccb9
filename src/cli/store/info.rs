//! `plyfs store info`.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use crate::cli::error::{CliError, one_line};
use crate::store::Store;

/// Tell where the store is, and what is in it
#[derive(Args, Debug)]
pub struct InfoArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl InfoArgs {
    /// Prints the figures.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let images = store.images()?;
        let tags: usize = images.iter().map(|image| image.tags.len()).sum();
        let root = store.root().display().to_string();
        let mut out = io::stdout();
        if self.json {
            let line = json!({ "root": root, "images": images.len(), "tags": tags });
            return Ok(writeln!(out, "{line}")?);
        }
        writeln!(out, "Store: {}", one_line(&root))?;
        writeln!(out, "Images: {}", images.len())?;
        Ok(writeln!(out, "Tags: {tags}")?)
    }
}
