//! Going to the background: the caller waits until the mount answers, or for the reason why not.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::exit;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, open, statx};
use rustix::io::{Errno, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, chdir, kill_process, setsid, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::error::MountError;
use super::{log_sink, unmount};
use crate::sys::process::{Fork, Inherited, fork};

/// What the daemon writes to its caller when the mount is ready; anything else is an error line.
const READY: &[u8] = &[0];

/// Names the file that takes the daemon's log lines.
const LOG_FILE_VARIABLE: &str = "PLYFS_LOG_FILE";

/// The way of a serving process into the background, if it is to go there.
#[derive(Debug)]
pub struct Launch(Option<Caller>);

/// The process that waits for the mount, and what we still have of it.
#[derive(Debug)]
struct Caller {
    verdict: OwnedFd,
    log_file: Option<File>,
    inherited: Inherited,
}

impl Launch {
    /// Stays in the foreground.
    pub fn foreground() -> Self {
        Self(None)
    }

    /// To be called when the handshake is done: leaves the caller's session, directory and
    /// descriptors and tells it that the mount is there.
    ///
    /// # Errors
    /// [`MountError::CallerGone`] when nobody waits any more.
    pub fn ready(&mut self, mountpoint: &Path) -> Result<(), MountError> {
        self.leave()?;
        let Some(caller) = self.0.take() else { return Ok(()) };
        // Last: when the caller ends, its own caller must find every pipe closed.
        match write(&caller.verdict, READY) {
            Ok(_) => Ok(()),
            Err(Errno::PIPE) => Err(MountError::CallerGone(mountpoint.to_owned())),
            Err(error) => Err(MountError::system("telling the caller")(error)),
        }
    }

    /// The same for a process whose parent tells the caller.
    ///
    /// # Errors
    /// Those of the system.
    pub fn ready_unheard(&mut self) -> Result<(), MountError> {
        self.leave()?;
        self.0 = None;
        Ok(())
    }

    fn leave(&mut self) -> Result<(), MountError> {
        let Some(caller) = &mut self.0 else { return Ok(()) };
        // Not sooner: a ^C at the terminal is to reach both of us while the caller waits.
        setsid().map_err(MountError::system("setsid"))?;
        chdir("/").map_err(MountError::system("chdir /"))?;
        let (empty, null) = nowhere().map_err(MountError::system("/dev/null"))?;
        dup2_stdin(&empty).map_err(MountError::system("stdin"))?;
        dup2_stdout(&null).map_err(MountError::system("stdout"))?;
        match &caller.log_file {
            Some(file) => dup2_stderr(file),
            None => {
                log_sink::use_syslog();
                dup2_stderr(&null)
            }
        }
        .map_err(MountError::system("stderr"))?;
        caller.inherited.close();
        Ok(())
    }
}

/// What holds nothing to read, and what takes no output. In a root directory without devices these are pipes that have lost
/// their other ends.
pub(super) fn nowhere() -> Result<(OwnedFd, OwnedFd), Errno> {
    let null = |flags| open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty());
    match null(OFlags::RDONLY) {
        Ok(empty) => Ok((empty, null(OFlags::WRONLY)?)),
        Err(Errno::NOENT) => {
            let (empty, _) = pipe_with(PipeFlags::CLOEXEC)?;
            let (_, null) = pipe_with(PipeFlags::CLOEXEC)?;
            Ok((empty, null))
        }
        Err(error) => Err(error),
    }
}

/// Runs `serve` in a child process and returns when it has called [`Launch::ready`] and the
/// mount's root answers. Must be called before the first thread is started.
///
/// # Errors
/// The daemon's own error, or how it ended without one; nothing is mounted then.
pub fn start(
    mountpoint: &Path,
    serve: impl FnOnce(&mut Launch) -> Result<(), MountError>,
) -> Result<(), MountError> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(MountError::system("pipe"))?;
    match fork().map_err(MountError::system("fork"))? {
        Fork::Child => {
            drop(reader);
            // The child never returns into its copy of the caller.
            exit(run_daemon(writer, serve))
        }
        Fork::Parent(daemon) => {
            drop(writer);
            wait_for(daemon, File::from(reader), mountpoint)
        }
    }
}

/// The child's life; returns its exit status.
fn run_daemon(verdict: OwnedFd, serve: impl FnOnce(&mut Launch) -> Result<(), MountError>) -> i32 {
    let inherited = Inherited::find();
    let mut launch = Launch(Some(Caller { verdict, log_file: None, inherited }));
    let outcome = open_log_file().and_then(|file| {
        if let Some(caller) = &mut launch.0 {
            caller.log_file = file;
        }
        serve(&mut launch)
    });
    let Err(error) = outcome else { return 0 };
    let line = error.to_string();
    let told = launch.0.is_some_and(|caller| write(&caller.verdict, line.as_bytes()).is_ok());
    if !told {
        log::error!("{line}");
    }
    1
}

fn open_log_file() -> Result<Option<File>, MountError> {
    let Some(path) = env::var_os(LOG_FILE_VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    opened.map(Some).map_err(|error| MountError::LogFile(PathBuf::from(path), error))
}

/// The parent's wait for the verdict.
fn wait_for(daemon: Pid, mut verdict: File, mountpoint: &Path) -> Result<(), MountError> {
    let mut said = Vec::new();
    verdict.read_to_end(&mut said).map_err(MountError::system("waiting for the daemon"))?;
    if said == READY {
        return answers(mountpoint).or_else(|error| {
            kill_process(daemon, Signal::TERM).map_err(MountError::system("ending the daemon"))?;
            reap(daemon)?;
            Err(MountError::Silent(mountpoint.to_owned(), error))
        });
    }
    let how = reap(daemon)?;
    if !said.is_empty() {
        return Err(MountError::Daemon(String::from_utf8_lossy(&said).into_owned()));
    }
    // It answered before, so a mount without a daemon is what ours has left.
    if answers(mountpoint) == Err(Errno::NOTCONN) {
        unmount::by_path(mountpoint, true)?;
    }
    Err(MountError::DaemonDied(how.map_or_else(String::new, describe)))
}

/// Asks the filesystem at `path` itself, not the kernel's cache. Only the parent may: a daemon
/// killed while it waits for its own answer could never be reaped.
fn answers(path: &Path) -> Result<(), Errno> {
    statx(CWD, path, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS).map(|_attributes| ())
}

fn reap(daemon: Pid) -> Result<Option<WaitStatus>, MountError> {
    let ended = waitpid(Some(daemon), WaitOptions::empty());
    let ended = ended.map_err(MountError::system("waiting for the daemon"))?;
    Ok(ended.map(|(_daemon, status)| status))
}

pub(super) fn describe(status: WaitStatus) -> String {
    match (status.terminating_signal(), status.exit_status()) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "for an unknown reason".into(),
    }
}
