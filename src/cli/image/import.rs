//! `plyfs image import FILE|DIR|- [NAME[:TAG]]`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::load::stdin;
use crate::cli::error::CliError;
use crate::store::reference::Reference;
use crate::store::{Error, Store};

/// Make an image of a root filesystem
///
/// An archive of one, compressed or not, or a directory: owners, devices and attributes are kept as they are. Prints the id.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// An archive or a directory; `-` for standard input
    #[arg(value_name = "FILE|DIR|-")]
    source: PathBuf,

    /// Its name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,

    /// What its history says about it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
}

impl ImportArgs {
    /// Imports, and prints the id.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let name = self.name.as_deref().map(str::parse::<Reference>).transpose()?;
        let path = &self.source;
        let comment = self.message.unwrap_or_else(|| format!("Imported from {}", path.display()));
        let (image, layer) = if path.is_dir() {
            store.import_directory(path, &comment, name.as_ref())?
        } else {
            let source = if path == Path::new("-") { stdin()? } else { open(path)? };
            store.import_rootfs(source, &comment, name.as_ref())?
        };
        if layer.replaced > 0 {
            log::warn!("{} names came more than once: the last of each is kept", layer.replaced);
        }
        Ok(writeln!(io::stdout(), "{}", image.id)?)
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let line = |error: io::Error| format!("{}: {error}", path.display());
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(line(error)),
        _ => Error::failure(line(error)),
    })
}
