//! The layers of a mount that outlives its daemon: whether their paths still lead where they did.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::MountError;
use super::options::Options;

/// Absolute paths, each with device and inode.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LayerIdentities(Vec<(OsString, (u64, u64))>);

impl LayerIdentities {
    /// Those of `options`, and `options` with absolute paths, since the next daemon may begin elsewhere.
    ///
    /// # Errors
    /// [`MountError::Unfindable`] where the mount would hide a layer.
    pub fn settle(options: &Options, mountpoint: &Path) -> Result<(Options, Self), MountError> {
        let mut options = options.clone();
        let mut layers = Vec::new();
        let lowers = options.lower.iter_mut().chain(&mut options.data_only);
        let uppers = options.upper.iter_mut().flat_map(|dirs| [&mut dirs.upper, &mut dirs.work]);
        for path in lowers.chain(uppers) {
            // What is not there is reported by whoever opens it.
            let Ok(whole) = path.canonicalize() else { continue };
            if whole.starts_with(mountpoint) || mountpoint.starts_with(&whole) {
                return Err(MountError::Unfindable(whole, mountpoint.to_owned()));
            }
            let identity = identity(&whole).map_err(MountError::system("a layer"))?;
            layers.push((whole.clone().into_os_string(), identity));
            *path = whole;
        }
        Ok((options, Self(layers)))
    }

    /// Whether the paths lead where they did.
    ///
    /// # Errors
    /// [`MountError::LayerReplaced`] if not.
    pub fn check(&self) -> Result<(), MountError> {
        let is_other = |path: &Path, known| identity(path).ok() != Some(known);
        let moved = self.0.iter().find(|(path, known)| is_other(Path::new(path), *known));
        moved.map_or(Ok(()), |(path, _)| Err(MountError::LayerReplaced(path.into())))
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    path.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}
