//! `plyfs commit`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use log::LevelFilter;

use super::error::CliError;
use super::logging;
use super::store::StoreArgs;
use crate::archive::Compression;
use crate::changes::{self, Layers};
use crate::store::Store;
use crate::store::commit::Edit;
use crate::store::image::Image;
use crate::store::instruction::Instruction;
use crate::store::reference::Reference;

/// Make an image of what an upper layer changes
///
/// The new image has one layer more than its base; as many if nothing has changed. The same upper layer gives the same
/// layer everywhere. Prints the id.
#[derive(Args, Debug)]
pub struct CommitArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// The upper layer
    #[arg(long, value_name = "DIR")]
    upper: PathBuf,

    /// The image that it lies on
    #[arg(long, value_name = "IMAGE")]
    image: String,

    /// The name of the new image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,

    /// What its history says about the step
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// Who has made it
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,

    /// Change the configuration by an instruction of a Dockerfile, such as CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER,
    /// VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,

    /// How the layer is kept
    #[arg(long, value_enum, default_value = "gzip", value_name = "FORM")]
    compression: Form,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// Every program reads it
    Gzip,
    /// Smaller and faster
    Zstd,
    /// Not compressed
    None,
}

impl CommitArgs {
    /// Makes the image, and prints its id.
    pub fn run(self) -> Result<(), CliError> {
        logging::start(LevelFilter::Warn)?;
        let name = self.name.as_deref().map(str::parse::<Reference>).transpose()?;
        let changes = self.change.iter().map(|line| line.parse::<Instruction>());
        let edit = Edit {
            message: self.message,
            author: self.author,
            changes: changes.collect::<Result<_, _>>()?,
        };
        let compression = match self.compression {
            Form::Gzip => Compression::Gzip,
            Form::Zstd => Compression::Zstd,
            Form::None => Compression::None,
        };
        let store = self.store.open()?;
        let base = store.find_image(&self.image)?;
        let layers = Layers { upper: self.upper, lower: Some(lower(&store, &base)) };
        let write = |out| changes::write_archive(&layers, out).map_err(Into::into);
        let made = store.commit(&base, write, compression, &edit, name.as_ref())?;
        Ok(writeln!(io::stdout(), "{}", made.id)?)
    }
}

/// The indexes of an image's layers, top first.
fn lower(store: &Store, image: &Image) -> Vec<PathBuf> {
    image.layers.iter().rev().map(|layer| store.layer_path(layer).join("index")).collect()
}
