//! `plyfs store`: the store itself.

mod df;
mod gc;
mod info;
mod verify;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::logging;
use crate::store::Store;

/// Where the store is.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// The store, instead of $PLYFS_STORE, $XDG_DATA_HOME/plyfs or ~/.local/share/plyfs
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
}

/// Tell about the store, verify it, or give back what nothing refers to
#[derive(Args, Debug)]
pub struct StoreCommandArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Subcommand, Debug)]
enum StoreCommand {
    Info(info::InfoArgs),
    Df(df::DfArgs),
    Verify(verify::VerifyArgs),
    Gc(gc::GcArgs),
}

impl StoreArgs {
    /// The store at `path`, or where it is by itself.
    pub fn at(path: Option<PathBuf>) -> Self {
        Self { store: path }
    }

    /// Opens the store, and makes it if there is none.
    pub fn open(&self) -> Result<Store, CliError> {
        Ok(Store::open(&self.root()?)?)
    }

    /// Opens the store, if there is one.
    pub fn open_existing(&self) -> Result<Option<Store>, CliError> {
        match self.root()?.join("oci-layout").exists() {
            true => self.open().map(Some),
            false => Ok(None),
        }
    }

    /// Opens the store when nobody else has it open.
    pub fn open_alone(&self) -> Result<Store, CliError> {
        Ok(Store::open_alone(&self.root()?)?)
    }

    /// Where the store is, or would be.
    pub fn root(&self) -> Result<PathBuf, CliError> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        if let Some(root) = self.store.clone().or_else(|| set("PLYFS_STORE").map(PathBuf::from)) {
            return Ok(root);
        }
        // A relative path is to be passed over (XDG Base Directory Specification).
        let data = set("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || set("HOME").map(|home| PathBuf::from(home).join(".local/share"));
        data.or_else(home).map(|data| data.join("plyfs")).ok_or_else(|| {
            CliError::Usage(
                "no place for the store: give --store DIR (in fstab store=DIR), or set HOME".into(),
            )
        })
    }
}

impl StoreCommandArgs {
    /// Runs the command.
    pub fn run(self) -> Result<ExitCode, CliError> {
        logging::start(log::LevelFilter::Warn)?;
        match self.command {
            StoreCommand::Info(args) => args.run(&self.store.open()?),
            StoreCommand::Df(args) => args.run(&self.store.open()?),
            StoreCommand::Verify(args) => return args.run(&self.store),
            StoreCommand::Gc(args) => args.run(&self.store.open_alone()?),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}
