//! `plyfs [mount] [SOURCE] MOUNTPOINT -o OPTIONS`, the command line of mount helpers and of
//! fuse-overlayfs.

use std::ffi::OsString;

use clap::{ArgAction, Args};
use log::LevelFilter;

use super::called_as::CalledAs;
use super::error::CliError;
use super::logging;
use crate::mount;
use crate::mount::options::Options;
use crate::mount::request::MountRequest;

/// Mount layers: the same as without a command
///
/// Needed for a source that is called like a command. The exit status is 0 once the mount answers.
#[derive(Args, Debug)]
#[command(
    // Callers repeat flags.
    args_override_self = true,
    override_usage = "plyfs mount [SOURCE] MOUNTPOINT -o OPTIONS",
    after_help = "See `plyfs --help` for the mount options."
)]
pub struct MountArgs {
    /// Any word, shown as the source in /proc/mounts; may be left out
    #[arg(value_name = "SOURCE")]
    first: Option<OsString>,

    /// The directory to mount on; write ./mount for a directory that is called like a command
    #[arg(value_name = "MOUNTPOINT")]
    second: Option<OsString>,

    /// Mount options, separated by commas; may be repeated
    #[arg(
        short = 'o',
        value_name = "OPTIONS",
        action = ArgAction::Append,
        allow_hyphen_values = true
    )]
    options: Vec<OsString>,

    /// Stay in the foreground; as mount.plyfs: check the command line and mount nothing
    #[arg(short, long)]
    foreground: bool,

    /// Log every request and stay in the foreground
    #[arg(short, long)]
    debug: bool,

    /// Read requests in one thread; as mount.plyfs: do not warn of unknown options
    #[arg(short)]
    single: bool,

    /// Mount read-only, as -o ro
    #[arg(short)]
    read_only: bool,

    /// Mount writable, as -o rw
    #[arg(short = 'w')]
    writable: bool,

    /// Say more
    #[arg(short, long)]
    verbose: bool,

    /// Accepted from mount(8): there is no mtab to write
    #[arg(short)]
    no_mtab: bool,

    /// Accepted from mount(8): the type follows from the name of the program
    #[arg(short, value_name = "TYPE", action = ArgAction::Append)]
    type_name: Vec<OsString>,
}

impl MountArgs {
    /// Mounts, and serves the mount if it stays in the foreground.
    pub(super) fn run(self, called_as: CalledAs) -> Result<(), CliError> {
        let helper = called_as == CalledAs::MountHelper;
        let (check_only, sloppy) = (helper && self.foreground, helper && self.single);
        let verbose = self.verbose;
        let request = self.request(called_as)?;
        logging::start(match (request.debug, verbose) {
            (true, _) => LevelFilter::Debug,
            (false, true) => LevelFilter::Info,
            (false, false) => LevelFilter::Warn,
        })?;
        for warning in request.options.warnings.iter().filter(|_| !sloppy) {
            log::warn!("{warning}");
        }
        if check_only {
            return Ok(());
        }
        Ok(mount::run(&request)?)
    }

    /// What to mount, from the arguments alone.
    pub(super) fn request(self, called_as: CalledAs) -> Result<MountRequest, CliError> {
        let (source, mountpoint) = match (self.first, self.second) {
            (source, Some(mountpoint)) => (source, mountpoint),
            (Some(mountpoint), None) => (None, mountpoint),
            (None, None) => {
                let line = "no mountpoint given; usage: plyfs -o lowerdir=DIR[:DIR...] MOUNTPOINT";
                return Err(CliError::Usage(line.into()));
            }
        };
        if mountpoint.is_empty() {
            return Err(CliError::Usage("the mountpoint is empty; name a directory".into()));
        }
        let mut options = Options::parse(&self.options)?;
        let foreground = self.foreground && called_as != CalledAs::MountHelper;
        if self.single && called_as != CalledAs::MountHelper {
            options.threads = Some(1);
        }
        if self.read_only || self.writable {
            options.vfs.read_only = Some(self.read_only);
        }
        let debug = self.debug || options.debug;
        Ok(MountRequest {
            source,
            mountpoint: mountpoint.into(),
            options,
            type_name: called_as.type_name(),
            foreground: foreground || debug,
            debug,
        })
    }
}
