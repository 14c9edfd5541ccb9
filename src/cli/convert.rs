//! `plyfs convert --to FORM LAYER`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use log::LevelFilter;

use super::check::counted;
use super::error::{CliError, one_line};
use super::logging;
use crate::convert::{Converted, Form, convert};

/// Rewrite the marks of a layer that is not mounted into those of another reader
///
/// In place: the union that the layer shows stays the same. What the other form cannot say is refused before anything
/// is changed. A rewrite that is stopped goes on when the command is given again.
#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// The upper or lower layer
    layer: PathBuf,

    /// Whose marks the layer is to have
    #[arg(long, value_name = "FORM")]
    to: Target,

    /// An empty directory on the same filesystem, instead of one made beside the layer
    #[arg(long, value_name = "DIR", visible_alias = "workdir")]
    work: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Target {
    /// The kernel's, for mounts by root: whiteout devices, trusted.overlay attributes
    Kernel,
    /// The kernel's with userxattr: whiteout devices, user.overlay attributes
    #[value(name = "userxattr")]
    UserXattr,
    /// Those of fuse-overlayfs, whoever mounts: whiteout devices, user.fuseoverlayfs.opaque
    FuseOverlayfs,
    /// Those of AUFS and image layers: .wh. files, no attributes
    Wh,
}

impl ConvertArgs {
    /// Converts, and says how much there was to do.
    pub fn run(self) -> Result<(), CliError> {
        logging::start(LevelFilter::Warn)?;
        let form = match self.to {
            Target::Kernel => Form::Kernel,
            Target::UserXattr => Form::UserXattr,
            Target::FuseOverlayfs => Form::FuseOverlayfs,
            Target::Wh => Form::DotFiles,
        };
        let Converted { objects, changed } = convert(&self.layer, form, self.work.as_deref())
            .map_err(|error| CliError::Failure(error.to_string()))?;
        let layer = self.layer.display();
        let line = format!("{layer}: {}, {}", counted(changed, "step"), counted(objects, "object"));
        Ok(writeln!(io::stdout(), "{}", one_line(&line))?)
    }
}
