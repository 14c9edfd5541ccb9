//! `plyfs [mount] [SOURCE] MOUNTPOINT -o OPTIONS`, the command line of mount helpers and of
//! fuse-overlayfs, and `plyfs [mount] IMAGE MOUNTPOINT`.
//!
//! The source is an image where no layers are named, unless it is the word `none`; under the name of fuse-overlayfs
//! it never is.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use log::LevelFilter;

use super::called_as::CalledAs;
use super::error::CliError;
use super::logging;
use super::store::StoreArgs;
use crate::archive::Shown;
use crate::container::{Changes, ImageMount, Prepared};
use crate::mount;
use crate::mount::options::{OptionError, Options};
use crate::mount::request::MountRequest;
use crate::store::seal::Seal;

/// Mount an image, or layers: the same as without a command
///
/// Needed for a source that is called like a command. The exit status is 0 once the mount answers. Changes of an image
/// go into a container, the name of which is printed; see `plyfs ps` and `plyfs rm`.
#[derive(Args, Debug)]
#[command(
    // Callers repeat flags.
    args_override_self = true,
    override_usage = "plyfs mount IMAGE MOUNTPOINT [--name NAME | --upper DIR | -r] [--require-seal HEX] [-o OPTIONS]\n       \
                      plyfs mount [SOURCE] MOUNTPOINT -o lowerdir=DIR[:DIR...][,OPTIONS]",
    after_help = "See `plyfs --help` for the mount options."
)]
pub struct MountArgs {
    /// An image of the store; with lowerdir= any word, shown as the source in /proc/mounts, which may be left out
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

    /// Of an image: keep the changes in the container of this name, which is made if there is none
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Of an image: keep the changes in this directory; DIR.work beside it is the work directory
    #[arg(long, value_name = "DIR")]
    upper: Option<PathBuf>,

    /// Of an image: the store, instead of $PLYFS_STORE, $XDG_DATA_HOME/plyfs or ~/.local/share/plyfs
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    /// Of an image: refuse it unless this is its seal (plyfs image seal), and verify all that is read of it
    #[arg(long, value_name = "HEX")]
    require_seal: Option<Seal>,

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

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Plan {
    /// A union of directories.
    Layers(MountRequest),
    /// An image of this store.
    Image(StoreArgs, ImageMount),
}

/// What stands for no source.
const NO_SOURCE: &str = "none";

impl MountArgs {
    /// Mounts, and serves the mount if it stays in the foreground.
    pub(super) fn run(self, called_as: CalledAs) -> Result<(), CliError> {
        let helper = called_as == CalledAs::MountHelper;
        let (check_only, sloppy) = (helper && self.foreground, helper && self.single);
        let verbose = self.verbose;
        let plan = self.plan(called_as)?;
        let (Plan::Layers(request) | Plan::Image(_, ImageMount { request, .. })) = &plan;
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
        match plan {
            Plan::Layers(request) => Ok(mount::run(&request)?),
            Plan::Image(store, wanted) => mount_image(&store, wanted, !helper),
        }
    }

    /// What to mount, from the arguments alone.
    pub(super) fn plan(mut self, called_as: CalledAs) -> Result<Plan, CliError> {
        let (name, upper, store) = (self.name.take(), self.upper.take(), self.store.take());
        let seal = self.require_seal.take();
        if called_as == CalledAs::Plyfs {
            self.refuse_unknown_command()?;
        }
        let mut request = self.request(called_as)?;
        if request.options.vfs.remount {
            return Ok(Plan::Layers(request));
        }
        let (container, other_store) =
            (request.options.container.take(), request.options.store.take());
        let of_images = [
            ("--name", name.is_some()),
            ("--upper", upper.is_some()),
            ("--store", store.is_some()),
            ("--require-seal", seal.is_some()),
            ("container", container.is_some()),
            ("store", other_store.is_some()),
        ];
        let of_images = of_images.into_iter().find(|(_, given)| *given).map(|(word, _)| word);
        let name = name.or_else(|| Some(container?.to_string_lossy().into_owned()));
        let store = StoreArgs::at(store.or(other_store));
        let source = request.source.as_deref().filter(|source| *source != OsStr::new(NO_SOURCE));
        let no_layers = request.options.lower.is_empty();
        if !no_layers
            || called_as == CalledAs::FuseOverlayfs
            || (source.is_none() && name.is_none())
        {
            return match of_images {
                Some(word) if no_layers => {
                    Err(CliError::Usage(format!("{word}: no image is named")))
                }
                Some(word) => Err(CliError::Usage(format!("{word} does not go with lowerdir"))),
                None if no_layers => Err(OptionError::no_layers().into()),
                None => Ok(Plan::Layers(request)),
            };
        }
        let image = source.map(|source| {
            let text = source.to_str().map(ToOwned::to_owned);
            text.ok_or_else(|| CliError::NotFound(format!("no image `{}`", source.display())))
        });
        let read_only = request.options.vfs.read_only == Some(true);
        let changes = match (name, upper) {
            (Some(_), Some(_)) => {
                let line =
                    "--name does not go with --upper: a container has a directory of its own";
                return Err(CliError::Usage(line.into()));
            }
            (None, Some(upper)) => Changes::Upper(upper),
            (None, None) if read_only => Changes::None,
            (name, None) => Changes::Container(name),
        };
        Ok(Plan::Image(store, ImageMount { image: image.transpose()?, changes, seal, request }))
    }

    /// One word without options can only be a mountpoint, unless it was to be a command.
    fn refuse_unknown_command(&self) -> Result<(), CliError> {
        let (Some(word), None, true) = (&self.first, &self.second, self.options.is_empty()) else {
            return Ok(());
        };
        if word.is_empty() || word.as_encoded_bytes().contains(&b'/') || Path::new(word).exists() {
            return Ok(());
        }
        let shown = Shown(word.as_encoded_bytes());
        let line = format!("`{shown}` is no command, and no layers are named; try `plyfs --help`");
        Err(CliError::Usage(line))
    }

    fn request(self, called_as: CalledAs) -> Result<MountRequest, CliError> {
        let (source, mountpoint) = match (self.first, self.second) {
            // What has no name is called as without one.
            (source, Some(mountpoint)) => (source.filter(|name| !name.is_empty()), mountpoint),
            (Some(mountpoint), None) => (None, mountpoint),
            (None, None) => {
                let line = "no mountpoint given; usage: plyfs -o lowerdir=DIR[:DIR...] MOUNTPOINT";
                return Err(CliError::Usage(line.into()));
            }
        };
        if mountpoint.is_empty() {
            return Err(CliError::Usage("the mountpoint is empty; name a directory".into()));
        }
        let mut options = Options::parse_for_image(&self.options)?;
        let foreground = self.foreground && called_as != CalledAs::MountHelper;
        let mut given = self.options;
        if self.single && called_as != CalledAs::MountHelper {
            options.threads = Some(1);
            given.push("threaded=0".into());
        }
        if self.read_only || self.writable {
            options.vfs.read_only = Some(self.read_only);
        }
        let debug = self.debug || options.debug;
        Ok(MountRequest {
            source,
            mountpoint: mountpoint.into(),
            options,
            given,
            type_name: called_as.type_name(),
            foreground: foreground || debug,
            ends_with_caller: false,
            debug,
        })
    }
}

/// Mounts an image and, if `tells`, prints the name of the mount.
fn mount_image(store: &StoreArgs, wanted: ImageMount, tells: bool) -> Result<(), CliError> {
    let in_foreground = wanted.request.foreground;
    let prepared = Prepared::new(store.open()?, wanted)?;
    let (name, tells) = (prepared.name().to_owned(), tells && prepared.is_recorded());
    let tell = || if tells { writeln!(io::stdout(), "{name}") } else { Ok(()) };
    if in_foreground {
        tell()?;
        return Ok(prepared.run()?);
    }
    prepared.run()?;
    Ok(tell()?)
}
