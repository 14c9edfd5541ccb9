//! `plyfs umount MOUNTPOINT`.

use std::path::PathBuf;

use clap::Args;
use log::LevelFilter;

use super::error::CliError;
use super::logging;
use crate::mount;

/// Unmount what plyfs mounted
///
/// umount(8) and fusermount3 -u do as well; this command never unmounts another filesystem.
#[derive(Args, Debug)]
pub struct UmountArgs {
    /// The directory that is mounted on
    mountpoint: PathBuf,

    /// Detach at once, and let programs finish that still use the mount
    #[arg(short, long)]
    lazy: bool,
}

impl UmountArgs {
    /// Unmounts.
    pub fn run(self) -> Result<(), CliError> {
        logging::start(LevelFilter::Warn)?;
        Ok(mount::unmount(&self.mountpoint, self.lazy)?)
    }
}
