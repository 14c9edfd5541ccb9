//! `plyfs rm NAME...`.

use std::io::{self, Write};

use clap::Args;
use log::LevelFilter;

use super::error::CliError;
use super::logging;
use super::store::StoreArgs;
use crate::container::Container;

/// Remove containers with all their changes
///
/// One that is mounted is not removed. The layers of its image are given back by `plyfs store gc`, if no image refers to
/// them any more.
#[derive(Args, Debug)]
pub struct RmArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// Names, or beginnings of names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

impl RmArgs {
    /// Removes, and prints the names.
    pub fn run(self) -> Result<(), CliError> {
        logging::start(LevelFilter::Warn)?;
        let store = self.store.open()?;
        let mut out = io::stdout().lock();
        for name in &self.names {
            let container = Container::find(&store, name)?;
            let name = container.record().name.clone();
            container.remove(&store)?;
            writeln!(out, "{name}")?;
        }
        Ok(())
    }
}
