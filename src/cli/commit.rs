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
use crate::container::Container;
use crate::store::commit::Edit;
use crate::store::instruction::Instruction;
use crate::store::reference::Reference;

/// Make an image of what a container, or an upper layer, changes
///
/// The new image has one layer more than its base; as many if nothing has changed. The same upper layer gives the same
/// layer everywhere. A container may be mounted meanwhile. Prints the id.
#[derive(Args, Debug)]
#[command(override_usage = USAGE)]
pub struct CommitArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// The container, and the name of the new image; with --upper the name alone
    #[arg(value_names = ["CONTAINER", "NAME[:TAG]"], num_args = 0..=2)]
    words: Vec<String>,

    /// An upper layer instead of a container
    #[arg(long, value_name = "DIR", requires = "image")]
    upper: Option<PathBuf>,

    /// The work directory of the upper layer, if it is not DIR.work: some changed files with several names are there alone
    #[arg(long, value_name = "DIR", requires = "upper")]
    workdir: Option<PathBuf>,

    /// The image that the upper layer lies on
    #[arg(long, value_name = "IMAGE", requires = "upper")]
    image: Option<String>,

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

const USAGE: &str = "plyfs commit [OPTIONS] CONTAINER [NAME[:TAG]]\n       \
                     plyfs commit [OPTIONS] --upper DIR --image IMAGE [NAME[:TAG]]";

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
        let (container, name) = self.words()?;
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
        let (base, layers) = match (container, self.upper, self.image) {
            (Some(container), ..) => {
                let container = Container::find(&store, &container)?;
                (container.image(&store)?, container.layers(&store)?)
            }
            (None, Some(upper), Some(image)) => {
                let base = store.find_image(&image)?;
                let lower = Some(store.layer_indexes(&base.layers));
                (base, Layers::of(upper, lower, self.workdir))
            }
            _ => return Err(CliError::Usage(NEITHER.into())),
        };
        let write = |out| changes::write_archive(&layers, out).map_err(Into::into);
        let made = store.commit(&base, write, compression, &edit, name.as_ref())?;
        Ok(writeln!(io::stdout(), "{}", made.id)?)
    }

    /// The container, and the name of the image.
    fn words(&self) -> Result<(Option<String>, Option<Reference>), CliError> {
        let (container, name) = match (&self.upper, self.words.as_slice()) {
            (None, [container]) => (Some(container), None),
            (None, [container, name]) => (Some(container), Some(name)),
            (Some(_), []) => (None, None),
            (Some(_), [name]) => (None, Some(name)),
            _ => return Err(CliError::Usage(NEITHER.into())),
        };
        let name = name.map(|name| name.parse::<Reference>()).transpose()?;
        Ok((container.cloned(), name))
    }
}

const NEITHER: &str = "what is to be committed? give CONTAINER [NAME[:TAG]], or --upper DIR --image IMAGE [NAME[:TAG]]";
