//! `plyfs image import FILE|DIR|- [NAME[:TAG]]`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::load::stdin;
use super::progress::ProgressArgs;
use crate::cli::error::CliError;
use crate::store::progress::{Progress, Status, Watched};
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

    #[command(flatten)]
    progress: ProgressArgs,
}

impl ImportArgs {
    /// Imports, and prints the id.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let name = self.name.as_deref().map(str::parse::<Reference>).transpose()?;
        let path = &self.source;
        let comment = self.message.unwrap_or_else(|| format!("Imported from {}", path.display()));
        let teller = self.progress.teller();
        let (image, layer) = if path.is_dir() {
            store.import_directory(path, &comment, name.as_ref(), &teller)?
        } else {
            let source = if path == Path::new("-") { stdin()? } else { open(path)? };
            let bytes = source.metadata().map_or(0, |metadata| metadata.len());
            let source = Watched::new(source, &teller, None, Status::Importing, bytes);
            store.import_rootfs(source, &comment, name.as_ref())?
        };
        teller.tell(None, &Status::ImportComplete, layer.meta.tar_size, layer.meta.tar_size);
        if layer.replaced > 0 {
            log::warn!("{} names came more than once: the last of each is kept", layer.replaced);
        }
        let id = image.id.to_string();
        let name = name.map(|name| name.to_string());
        let object = json!({ "status": "Imported image", "name": name, "image": id });
        Ok(self.progress.result(&id, &object)?)
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let line = |error: io::Error| format!("{}: {error}", path.display());
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(line(error)),
        _ => Error::failure(line(error)),
    })
}
