//! `plyfs image seal NAME`.

use std::io::{self, Write};

use clap::Args;

use crate::cli::error::CliError;
use crate::store::Store;

/// Print one hash over everything that an image shows
///
/// Configuration, names, attributes and contents: an image that differs in any bit has another seal.
#[derive(Args, Debug)]
pub struct SealArgs {
    /// A name or an id
    #[arg(value_name = "NAME")]
    image: String,
}

impl SealArgs {
    /// Prints it.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let sealed = store.seal(&store.find_image(&self.image)?.id())?;
        Ok(writeln!(io::stdout().lock(), "{}", sealed.seal)?)
    }
}
