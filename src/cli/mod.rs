//! The command line: the only code that reads arguments, prints and decides the exit status.
//!
//! Exit status: 0 done (a mount answers by then), 1 failed, 2 wrong command line, 3 no such image, 4 something in the
//! store is not what its name says; of `plyfs check` those of fsck(8), of `plyfs run` those of docker. Every error is one line on standard error that begins with `plyfs: `.

mod called_as;
mod check;
mod commit;
mod completions;
mod convert;
mod diff;
mod error;
mod generate;
mod image;
mod logging;
mod mount;
mod option_docs;
mod ps;
mod rm;
mod run;
mod stats;
mod store;
mod umount;
mod upgrade;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use called_as::CalledAs;
use error::{CliError, Statuses};
use mount::MountArgs;

/// Mount read-only layers and one writable layer as a single tree
///
/// Lower layers are never changed: whatever is added, changed or deleted in the tree lands in the
/// upper layer, in the format of kernel overlayfs. Without an upper layer the tree is read-only.
/// plyfs takes the command line of fuse-overlayfs.
#[derive(Parser)]
#[command(
    name = "plyfs",
    version,
    override_usage = USAGE,
    after_help = "See `plyfs --help` for the mount options.",
    after_long_help = option_docs::help(),
    // Otherwise a source or mountpoint after -o could be taken for a command.
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    mount: MountArgs,
}

const USAGE: &str = "plyfs [SOURCE] MOUNTPOINT -o \
                     lowerdir=DIR[:DIR...][,upperdir=DIR,workdir=DIR][,...]\n       \
                     plyfs mount IMAGE MOUNTPOINT [--name NAME]\n       \
                     plyfs umount MOUNTPOINT|NAME\n       \
                     plyfs ps [-a]\n       \
                     plyfs rm NAME...\n       \
                     plyfs images\n       \
                     plyfs pull NAME[:TAG|@DIGEST]\n       \
                     plyfs push NAME [DESTINATION]\n       \
                     plyfs stats MOUNTPOINT\n       \
                     plyfs upgrade MOUNTPOINT\n       \
                     plyfs check [--repair] UPPER\n       \
                     plyfs convert --to FORM LAYER\n       \
                     plyfs diff CONTAINER|UPPER [LOWER...]\n       \
                     plyfs commit CONTAINER [NAME[:TAG]]\n       \
                     plyfs image COMMAND\n       \
                     plyfs run IMAGE [CMD...]\n       \
                     plyfs store COMMAND";

#[derive(Subcommand)]
enum Subcommands {
    Mount(MountArgs),
    Umount(umount::UmountArgs),
    Ps(ps::PsArgs),
    Rm(rm::RmArgs),
    /// List images, as `plyfs image ls`
    Images(image::ShortArgs<image::LsArgs>),
    /// Get an image from a registry, as `plyfs image pull`
    Pull(image::ShortArgs<image::PullArgs>),
    /// Give an image to a registry, as `plyfs image push`
    Push(image::ShortArgs<image::PushArgs>),
    Stats(stats::StatsArgs),
    Upgrade(upgrade::UpgradeArgs),
    #[command(hide = true)]
    GoOn(upgrade::GoOnArgs),
    Check(check::CheckArgs),
    Convert(convert::ConvertArgs),
    Diff(diff::DiffArgs),
    Commit(commit::CommitArgs),
    Image(image::ImageArgs),
    Run(run::RunArgs),
    Store(store::StoreCommandArgs),
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
}

/// Runs the program on the arguments of this process.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called_as = CalledAs::from_argv0(args.next().as_deref());
    let mut args: Vec<OsString> = args.collect();
    if called_as == CalledAs::Plyfs {
        put_store_behind_command(&mut args);
    }
    let statuses = match args.first().map(OsString::as_os_str) {
        Some(first) if called_as == CalledAs::Plyfs && first == OsStr::new("check") => {
            Statuses::FSCK
        }
        Some(first) if called_as == CalledAs::Plyfs && first == OsStr::new("run") => Statuses::RUN,
        _ => Statuses::USUAL,
    };
    let done = match options_first(called_as, &args) {
        Some(mount) => mount.run(called_as).map(|()| ExitCode::SUCCESS),
        None => run(called_as, args),
    };
    done.unwrap_or_else(|error| error.report(statuses))
}

/// A command line that begins with `-o`, as those of all programs that start containers do. It names no command
/// (`args_conflicts_with_subcommands`), so none is set up, which takes as long as a good part of the mount. One that is
/// wrong, or asks for help, is left to [`run`].
fn options_first(called_as: CalledAs, args: &[OsString]) -> Option<MountArgs> {
    args.first()?.as_encoded_bytes().strip_prefix(b"-o")?;
    let command = MountArgs::augment_args(Command::new(called_as.name())).no_binary_name(true);
    let matches = command.try_get_matches_from(args).ok()?;
    MountArgs::from_arg_matches(&matches).ok()
}

/// `--store` may also stand before the command.
fn put_store_behind_command(args: &mut [OsString]) {
    let words = match args.first().map(|word| word.as_encoded_bytes()) {
        Some(b"--store") => 2,
        Some(word) if word.starts_with(b"--store=") => 1,
        _ => return,
    };
    if args.get(words).is_some_and(|word| Cli::command().find_subcommand(word).is_some()) {
        args[..=words].rotate_right(1);
    }
}

fn run(
    called_as: CalledAs,
    args: impl IntoIterator<Item = OsString>,
) -> Result<ExitCode, CliError> {
    let command = called_as.command();
    let argv = [OsString::from(command.get_name())].into_iter().chain(args);
    let matches = match command.try_get_matches_from(argv) {
        Ok(matches) => matches,
        Err(stop) => {
            return error::show_or_refuse(stop, called_as).map(|()| ExitCode::SUCCESS);
        }
    };
    match parsed(called_as, &matches)? {
        Subcommands::Mount(args) => args.run(called_as),
        Subcommands::Umount(args) => args.run(),
        Subcommands::Ps(args) => args.run(),
        Subcommands::Rm(args) => args.run(),
        Subcommands::Images(args) => args.run(image::LsArgs::run),
        Subcommands::Pull(args) => args.run(image::PullArgs::run),
        Subcommands::Push(args) => args.run(image::PushArgs::run),
        Subcommands::Stats(args) => args.run(),
        Subcommands::Upgrade(args) => args.run(),
        Subcommands::GoOn(args) => return args.run(),
        Subcommands::Check(args) => return args.run(),
        Subcommands::Convert(args) => args.run(),
        Subcommands::Diff(args) => args.run(),
        Subcommands::Commit(args) => args.run(),
        Subcommands::Image(args) => args.run(),
        Subcommands::Run(args) => return args.run(),
        Subcommands::Store(args) => return args.run(),
        Subcommands::Generate(args) => args.run(),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn parsed(called_as: CalledAs, matches: &ArgMatches) -> Result<Subcommands, CliError> {
    Ok(match called_as {
        CalledAs::Plyfs => {
            let cli = Cli::from_arg_matches(matches)?;
            cli.command.unwrap_or(Subcommands::Mount(cli.mount))
        }
        CalledAs::MountHelper | CalledAs::FuseOverlayfs => {
            Subcommands::Mount(MountArgs::from_arg_matches(matches)?)
        }
    })
}

impl CalledAs {
    /// What clap parses under this name: the names of other programs have no subcommands.
    fn command(self) -> Command {
        match self {
            CalledAs::Plyfs => Cli::command(),
            CalledAs::MountHelper | CalledAs::FuseOverlayfs => {
                let about = Cli::command().get_about().cloned().unwrap_or_default();
                MountArgs::augment_args(Command::new(self.name()))
                    .version(env!("CARGO_PKG_VERSION"))
                    .about(about)
                    .long_about(None)
                    .override_usage(format!("{} [SOURCE] MOUNTPOINT -o OPTIONS", self.name()))
                    .after_help(format!("See `{} --help` for the mount options.", self.name()))
                    .after_long_help(option_docs::help())
            }
        }
    }
}

#[cfg(test)]
mod tests;
