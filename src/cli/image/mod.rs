//! `plyfs image`: the images of the store.

mod history;
mod import;
mod inspect;
mod load;
mod ls;
mod progress;
mod pull;
mod push;
mod registry;
mod rm;
mod save;
mod seal;
pub(super) mod table;
mod tag;
mod tree;
mod unpack;

use clap::{Args, Subcommand, ValueEnum};

use super::error::CliError;
use super::logging;
use super::store::StoreArgs;
use crate::store::Store;

pub use ls::LsArgs;
pub use pull::PullArgs;
pub use push::PushArgs;

/// Load, pull, list, save and push images
///
/// Images are kept in a store of the user, without root and without a daemon: layers by their digests, each file's
/// content once.
#[derive(Args, Debug)]
pub struct ImageArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: ImageCommand,
}

/// A command of images that is a word of its own.
#[derive(Args, Debug)]
pub struct ShortArgs<A: Args> {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    args: A,
}

#[derive(Subcommand, Debug)]
enum ImageCommand {
    Load(load::LoadArgs),
    Import(import::ImportArgs),
    Save(save::SaveArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    Ls(ls::LsArgs),
    History(history::HistoryArgs),
    Inspect(inspect::InspectArgs),
    Tree(tree::TreeArgs),
    Tag(tag::TagArgs),
    Rm(rm::RmArgs),
    Unpack(unpack::UnpackArgs),
    Seal(seal::SealArgs),
}

/// How lists are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns
    #[default]
    Table,
    /// One JSON object a line
    Json,
}

impl<A: Args> ShortArgs<A> {
    /// Runs the command.
    pub fn run(self, command: fn(A, &Store) -> Result<(), CliError>) -> Result<(), CliError> {
        logging::start(log::LevelFilter::Warn)?;
        command(self.args, &self.store.open()?)
    }
}

impl ImageArgs {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        logging::start(log::LevelFilter::Warn)?;
        let store = self.store.open()?;
        match self.command {
            ImageCommand::Load(args) => args.run(&store),
            ImageCommand::Import(args) => args.run(&store),
            ImageCommand::Save(args) => args.run(&store),
            ImageCommand::Pull(args) => args.run(&store),
            ImageCommand::Push(args) => args.run(&store),
            ImageCommand::Ls(args) => args.run(&store),
            ImageCommand::History(args) => args.run(&store),
            ImageCommand::Inspect(args) => args.run(&store),
            ImageCommand::Tree(args) => args.run(&store),
            ImageCommand::Tag(args) => args.run(&store),
            ImageCommand::Rm(args) => args.run(&store),
            ImageCommand::Unpack(args) => args.run(&store),
            ImageCommand::Seal(args) => args.run(&store),
        }
    }
}
