//! From what the caller asked for to a mount that answers, and to its end: the composition root.
//!
//! The order matters. The layers are opened first, so that a mountpoint inside one of them does not
//! lead back into the mount; then signals are blocked, before any thread can take one; then the
//! mount is made, the handshake done, and only then the caller told.

mod abandoned;
mod attach;
mod daemon;
mod daemon_child;
mod dead;
mod error;
mod estate;
mod fusermount;
mod go_on;
mod handover;
mod layer_identities;
mod log_sink;
mod mounted;
pub mod options;
mod remount;
pub mod request;
mod session;
mod spec;
mod statistics;
mod supervisor;
mod union;
mod unmount;
mod upgrade;
mod witness;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal, umask};

use self::daemon::Launch;
use self::mounted::Mounted;
use self::request::MountRequest;
use self::session::Begin;
use self::spec::MountSpec;
use crate::fuse::statistics::Reporter;
use crate::sys::process::{self, Signals};

pub use abandoned::ask as ask_abandoned;
pub use error::MountError;
pub use go_on::go_on;
pub use log_sink::LogSink;
pub use statistics::statistics;
pub use unmount::{unmount, unmount_device};
pub use upgrade::upgrade;
pub use witness::Witness;

/// The signals that unmount.
const END_SIGNALS: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];

/// The signal that asks for the statistics in the log.
const REPORT_SIGNAL: Signal = Signal::USR1;

/// Mounts what `request` asks for. In the background: returns when the mount answers. In the
/// foreground: returns when it is unmounted. With `remount`: changes the flags of a mount that is there.
///
/// To be called before the process starts a thread.
///
/// # Errors
/// One line about what is in the way; nothing is left mounted.
pub fn run(request: &MountRequest) -> Result<(), MountError> {
    run_with(request, &mut ())
}

/// [`run`] with somebody who is told about the mount.
///
/// # Errors
/// The same, and those of the witness.
pub fn run_with(request: &MountRequest, witness: &mut impl Witness) -> Result<(), MountError> {
    if request.options.vfs.remount {
        return remount::remount(&resolve(&request.mountpoint)?, &request.options.vfs);
    }
    dead::take_away(&request.mountpoint);
    let mountpoint = resolve(&request.mountpoint)?;
    if request.foreground {
        serve_witnessed(request, &mountpoint, &mut Launch::foreground(), witness)
    } else {
        daemon::start(&mountpoint, |launch| serve_witnessed(request, &mountpoint, launch, witness))
    }
}

/// What witnesses keep, in messages.
const RECORD: &str = "the record of the mount";

fn serve_witnessed(
    request: &MountRequest,
    mountpoint: &Path,
    launch: &mut Launch,
    witness: &mut impl Witness,
) -> Result<(), MountError> {
    let begun = witness.begins(mountpoint).map_err(MountError::system(RECORD));
    let served = begun.and_then(|()| serve(request, mountpoint, launch, witness));
    if let Err(error) = witness.ended() {
        log::error!("the record of the mount on {}: {error}", mountpoint.display());
    }
    served
}

/// Serves the mount from its beginning to its end, in the process that stays.
fn serve(
    request: &MountRequest,
    mountpoint: &Path,
    launch: &mut Launch,
    witness: &mut impl Witness,
) -> Result<(), MountError> {
    if request.ends_with_caller && !request.foreground {
        // One that has ended already is found out when it is told that the mount is there.
        let ends = set_parent_process_death_signal(Some(Signal::TERM));
        ends.map_err(MountError::system("prctl"))?;
    }
    settle_process();
    let options = &request.options;
    // Before the layers are locked: whoever finds them locked may send one.
    let heard = heard_signals(request.foreground);
    let signals = Signals::block(&heard).map_err(MountError::system("signalfd"))?;
    if let Some(dirs) = &options.upper
        && let Err(error) = abandoned::ask(&dirs.upper)
    {
        log::debug!("{}: {error}", dirs.upper.display());
    }
    if options.supervise {
        return supervisor::run(request, mountpoint, launch, &heard, witness);
    }
    let filesystem = union::open(options, mountpoint)?;
    let reporter = filesystem.reporter();
    let (device, mounted) = attach::attach(mountpoint, &spec(request))?;
    tell(witness, &mounted)?;
    let running = session::start(filesystem, device, mounted, options.vfs.allow, Begin::Handshake)?;
    if let Err(error) = launch.ready(mountpoint) {
        running.cancel();
        return Err(error);
    }
    running.wait(&signals, || report(&reporter))
}

/// Makes this process one that serves mounts.
fn settle_process() {
    // The kernel or the overlay applies the umask of each caller; ours must not.
    umask(Mode::empty());
    process::bound_free_memory();
    if let Err(error) = process::raise_descriptor_limit() {
        log::warn!("the limit of open descriptors stays as it is: {error}");
    }
    if let Err(error) = process::lift_file_size_limit() {
        log::warn!("the limit of file sizes stays as it is: {error}");
    }
    // The buffer into which each thread reads messages is large, and most of it is never used.
    process::keep_large_memory_apart();
}

/// Tells the witness that it is mounted, or takes the mount away again.
fn tell(witness: &mut impl Witness, mounted: &Mounted) -> Result<(), MountError> {
    if let Err(error) = witness.mounted(mounted.device()) {
        mounted.detach()?;
        return Err(MountError::system(RECORD)(error));
    }
    Ok(())
}

fn spec(request: &MountRequest) -> MountSpec {
    let source = request.source.as_deref();
    let program = OsStr::new(request.program());
    MountSpec::new(&request.options.vfs, program, source, request.options.upper.is_none())
}

/// Writes the statistics into the log.
fn report(reporter: &Reporter) {
    match reporter.json() {
        Ok(line) => log::warn!("{line}"),
        Err(error) => log::error!("statistics: {error}"),
    }
}

/// The signals that a daemon listens to.
fn heard_signals(foreground: bool) -> Vec<Signal> {
    let asking = [REPORT_SIGNAL, abandoned::QUESTION];
    end_signals(foreground).into_iter().chain(asking).collect()
}

/// In the foreground, what the caller ignores stays ignored, as nohup(1) wants it. A daemon has left
/// its terminal, so a signal is meant for it.
fn end_signals(foreground: bool) -> Vec<Signal> {
    let heard = |signal: &Signal| !(foreground && process::is_ignored(*signal));
    END_SIGNALS.into_iter().filter(heard).collect()
}

/// The absolute path of a directory that can be mounted on.
fn resolve(mountpoint: &Path) -> Result<PathBuf, MountError> {
    let refused = |error| MountError::Mountpoint(mountpoint.to_owned(), error);
    let path = mountpoint.canonicalize().map_err(refused)?;
    if path.metadata().map_err(refused)?.is_dir() {
        Ok(path)
    } else {
        Err(refused(Errno::NOTDIR.into()))
    }
}
