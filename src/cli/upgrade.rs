//! `plyfs upgrade MOUNTPOINT`, and the command by which a supervisor starts the next daemon.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use log::LevelFilter;

use super::error::CliError;
use super::logging;
use crate::mount;

/// Have a mount go on with a new version of the program
///
/// For mounts with the option supervise, after another file was installed in the place of the program. Open files, working
/// directories and running containers stay. Prints the version that goes on; if it cannot, the old one does.
#[derive(Args, Debug)]
pub struct UpgradeArgs {
    /// The directory that is mounted on
    mountpoint: PathBuf,
}

impl UpgradeArgs {
    /// Upgrades.
    pub fn run(self) -> Result<(), CliError> {
        logging::start(LevelFilter::Warn)?;
        let version = mount::upgrade(&self.mountpoint)?;
        Ok(writeln!(io::stdout(), "{version}")?)
    }
}

/// Go on for the daemon of another program
#[derive(Args, Debug)]
pub struct GoOnArgs {
    /// From where on log lines are written
    level: LevelFilter,

    /// The directory that is mounted on, for those who list processes
    _mountpoint: PathBuf,
}

impl GoOnArgs {
    /// Serves the mount until its end.
    pub fn run(self) -> Result<ExitCode, CliError> {
        logging::start(self.level)?;
        let status = mount::go_on()?;
        Ok(if status == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
