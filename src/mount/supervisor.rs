//! A mount that outlives its daemon (`supervise`).
//!
//! The FUSE connection lives as long as anybody has the device open. So a process that does nothing else holds it and
//! waits for the daemon, its child; when that is killed or crashes, it forks the next one, which goes on without a
//! handshake: it finds the objects that the kernel knows by their inode numbers, and has the requests that nobody has
//! answered sent again. Whoever waits for an answer meanwhile waits a little longer.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::daemon::Launch;
use super::error::MountError;
use super::estate::Estate;
use super::mounted::Mounted;
use super::options::Options;
use super::request::MountRequest;
use super::session::{self, Begin};
use super::witness::Witness;
use super::{attach, report, spec, tell, union};
use crate::fuse::Adapter;
use crate::sys::descriptor_passing;
use crate::sys::process::{Fork, Signals, fork};

/// The most daemons of one mount: a request that kills whoever reads it is sent to each.
const MOST_DAEMONS: u16 = 100;

/// After so many that died before they served, no other begins.
const MOST_FAILURES: u32 = 3;

/// What the first daemon says when its layers are open: now it can be mounted.
const OPENED: u8 = 1;
/// What it says when it serves.
const READY: u8 = 2;
/// What comes before an error line.
const FAILED: u8 = 3;

/// The layers by their absolute paths, each with device and inode.
struct Layers(Vec<(PathBuf, (u64, u64))>);

/// A daemon, and the way on which it tells how it fares.
struct Child {
    pid: Pid,
    said: UnixStream,
}

/// Mounts, and has the mount served until its end.
///
/// # Errors
/// Those of the daemons; [`MountError::Unfindable`], [`MountError::GivenUp`].
pub(super) fn run(
    request: &MountRequest,
    mountpoint: &Path,
    launch: &mut Launch,
    heard: &[Signal],
    witness: &mut impl Witness,
) -> Result<(), MountError> {
    let (options, layers) = settle(&request.options, mountpoint)?;
    let estate = Estate::new().map_err(MountError::system("memory for the next daemon"))?;
    let estate = Arc::new(estate);
    let signals = Signals::block(&[heard, &[Signal::CHILD]].concat());
    let signals = signals.map_err(MountError::system("signalfd"))?;
    let begin = |said: &mut UnixStream| {
        let filesystem = union::open_supervised(&options, mountpoint, &estate)?;
        said.write_all(&[OPENED]).map_err(MountError::system("telling the supervisor"))?;
        let received = descriptor_passing::receive(said.as_fd());
        let received = received.map_err(MountError::system("the device"))?;
        // The supervisor reports why there is none.
        let Some((_, Some(device))) = received else { exit(1) };
        let mounted = Mounted::remember(mountpoint, &device)?;
        let adapter = filesystem.clone();
        serve(&options, adapter, device, mounted, Begin::Handshake, heard, || {
            estate.agree(filesystem.agreed()).map_err(MountError::system("memory"))?;
            estate.serve(0).map_err(MountError::system("memory"))?;
            drop(filesystem);
            launch.ready_unheard()?;
            said.write_all(&[READY]).map_err(MountError::system("telling the supervisor"))
        })
    };
    let mut child = Child::fork(begin)?;
    child.expect(OPENED)?;
    let (device, mounted) = attach::attach(mountpoint, &spec(request))?;
    tell(witness, &mounted)?;
    descriptor_passing::send(child.said.as_fd(), 0, device.as_fd())
        .map_err(MountError::system("passing the device on"))?;
    child.expect(READY).inspect_err(|_| session::take_away(&mounted))?;
    if let Err(error) = launch.ready(mountpoint) {
        child.forward(Signal::TERM)?;
        child.wait()?;
        return Err(error);
    }
    let (mut daemons, mut failures, mut served) = (1, 0, 1);
    while let Some(status) = child.end(&signals)? {
        let Some(signal) = status.terminating_signal() else { return child.outcome(status) };
        if !mounted.is_connected() {
            return Ok(());
        }
        log::error!("{}: the daemon was killed by signal {signal}", mountpoint.display());
        let so_far = estate.served().map_err(MountError::system("memory"))?;
        failures = if so_far == served { failures + 1 } else { 0 };
        served = so_far;
        if failures == MOST_FAILURES || daemons == MOST_DAEMONS {
            return Err(MountError::GivenUp(mountpoint.to_owned()));
        }
        daemons += 1;
        let device = device.try_clone().map_err(MountError::system("copying a descriptor"))?;
        child = Child::fork(|_| {
            layers.check()?;
            let filesystem = union::succeed(&options, mountpoint, &estate, daemons - 1)?;
            let mounted = mounted.try_clone()?;
            serve(&options, filesystem, device, mounted, Begin::Resume, heard, || {
                log::warn!("{}: another daemon goes on", mountpoint.display());
                Ok(())
            })
        })?;
    }
    Ok(())
}

/// The life of a daemon from its open layers on; calls `begun` when it answers.
fn serve(
    options: &Options,
    filesystem: Adapter,
    device: OwnedFd,
    mounted: Mounted,
    begin: Begin,
    heard: &[Signal],
    begun: impl FnOnce() -> Result<(), MountError>,
) -> Result<(), MountError> {
    let signals = Signals::block(heard).map_err(MountError::system("signalfd"))?;
    let reporter = filesystem.reporter();
    let running = session::start(filesystem, device, mounted, options.vfs.allow, begin)?;
    if let Err(error) = begun() {
        running.cancel();
        return Err(error);
    }
    running.wait(&signals, || report(&reporter))
}

/// The options with absolute paths, since the next daemon may begin elsewhere.
fn settle(options: &Options, mountpoint: &Path) -> Result<(Options, Layers), MountError> {
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
        layers.push((whole.clone(), identity));
        *path = whole;
    }
    Ok((options, Layers(layers)))
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    path.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Layers {
    /// Whether the paths lead where they did.
    fn check(&self) -> Result<(), MountError> {
        let moved = self.0.iter().find(|(path, known)| identity(path).ok() != Some(*known));
        moved.map_or(Ok(()), |(path, _)| Err(MountError::LayerReplaced(path.clone())))
    }
}

impl Child {
    /// Starts a process with a life of its own.
    fn fork(
        life: impl FnOnce(&mut UnixStream) -> Result<(), MountError>,
    ) -> Result<Self, MountError> {
        let (said, mut say) = UnixStream::pair().map_err(MountError::system("socketpair"))?;
        match fork().map_err(MountError::system("fork"))? {
            Fork::Child => {
                drop(said);
                let Err(error) = life(&mut say) else { exit(0) };
                let line = [&[FAILED], error.to_string().as_bytes()].concat();
                if say.write_all(&line).is_err() {
                    log::error!("{error}");
                }
                exit(1)
            }
            Fork::Parent(pid) => Ok(Self { pid, said }),
        }
    }

    /// Waits until the daemon says this.
    fn expect(&mut self, word: u8) -> Result<(), MountError> {
        let mut said = [0];
        match self.said.read(&mut said).map_err(MountError::system("waiting for the daemon"))? {
            1 if said[0] == word => Ok(()),
            1 => {
                self.wait()?;
                Err(MountError::Daemon(self.line()))
            }
            _ => Err(MountError::DaemonDied(
                self.wait()?.map_or_else(String::new, super::daemon::describe),
            )),
        }
    }

    /// Passes signals on until the daemon has ended.
    fn end(&self, signals: &Signals) -> Result<Option<WaitStatus>, MountError> {
        loop {
            match signals.take().map_err(MountError::system("waiting for the daemon"))? {
                Signal::CHILD => {
                    let ended = waitpid(Some(self.pid), WaitOptions::NOHANG);
                    let ended = ended.map_err(MountError::system("waiting for the daemon"))?;
                    if let Some((_, status)) = ended {
                        return Ok(Some(status));
                    }
                }
                signal => self.forward(signal)?,
            }
        }
    }

    fn wait(&self) -> Result<Option<WaitStatus>, MountError> {
        let ended = waitpid(Some(self.pid), WaitOptions::empty());
        let ended = ended.map_err(MountError::system("waiting for the daemon"))?;
        Ok(ended.map(|(_, status)| status))
    }

    fn forward(&self, signal: Signal) -> Result<(), MountError> {
        match kill_process(self.pid, signal) {
            // It has ended.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(MountError::system("passing a signal on")(error)),
        }
    }

    /// How a daemon has ended that was not killed.
    fn outcome(mut self, status: WaitStatus) -> Result<(), MountError> {
        match status.exit_status() {
            Some(0) => Ok(()),
            _ => {
                let line = self.line();
                Err(MountError::Daemon(line.trim_start_matches(char::from(FAILED)).to_owned()))
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        match self.said.read_to_end(&mut line) {
            Ok(_) => String::from_utf8_lossy(&line).into_owned(),
            Err(error) => error.to_string(),
        }
    }
}
