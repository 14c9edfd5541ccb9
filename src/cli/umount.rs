//! `plyfs umount MOUNTPOINT|NAME`.

use std::path::{Path, PathBuf};

use clap::Args;
use log::LevelFilter;

use super::error::CliError;
use super::logging;
use super::store::StoreArgs;
use crate::container;
use crate::mount::{self, MountError};

/// Unmount what plyfs mounted
///
/// umount(8) and fusermount3 -u do as well; this command never unmounts another filesystem.
#[derive(Args, Debug)]
pub struct UmountArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// The directory that is mounted on, or the name of a container or mount as `plyfs ps` shows it
    #[arg(value_name = "MOUNTPOINT|NAME")]
    mountpoint: PathBuf,

    /// Detach at once, and let programs finish that still use the mount
    #[arg(short, long)]
    lazy: bool,
}

impl UmountArgs {
    /// Unmounts, and waits until the records of the store say so too.
    pub fn run(self) -> Result<(), CliError> {
        logging::start(LevelFilter::Warn)?;
        let by_path = self.by_path();
        let name = self.mountpoint.to_str().filter(|name| !name.contains('/'));
        match (by_path, name) {
            (Err(error @ (MountError::Mountpoint(..) | MountError::NotOurs(..))), Some(name)) => {
                match self.by_name(name) {
                    // A directory that is there is more likely to be meant than a name that is not.
                    Err(CliError::NotFound(_)) if self.mountpoint.is_dir() => {
                        Err(CliError::NotFound(error.to_string()))
                    }
                    result => result,
                }
            }
            (result, _) => Ok(result?),
        }
    }

    fn by_path(&self) -> Result<(), MountError> {
        let path = self.mountpoint.canonicalize();
        mount::unmount(&self.mountpoint, self.lazy)?;
        // What is not of an image is in no store, and there may be none at all.
        if let (Ok(path), Ok(root)) = (path, self.store.root()) {
            let live = container::live_mounts(&root).unwrap_or_default();
            let here = live.iter().filter(|(_, mount)| mount.mountpoint == path);
            here.for_each(|(name, _)| self.wait(&root, name));
        }
        Ok(())
    }

    fn by_name(&self, text: &str) -> Result<(), CliError> {
        let root = self.store.root()?;
        let (name, mount) = container::find_mount(&root, text)?;
        match mount.device {
            Some(device) => mount::unmount_device(&mount.mountpoint, device, self.lazy)?,
            None => {
                let line = format!("{name} is just being mounted");
                return Err(CliError::Failure(line));
            }
        }
        self.wait(&root, &name);
        Ok(())
    }

    /// Waits until the daemon has ended; not for one that still has users.
    fn wait(&self, root: &Path, name: &str) {
        if !self.lazy && !container::wait_for_end(root, name) {
            log::warn!("{name} is unmounted, but its daemon has not ended yet");
        }
    }
}
