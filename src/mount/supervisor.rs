//! A mount that outlives its daemon (`supervise`).
//!
//! The FUSE connection lives as long as anybody has the device open. So a process that does nothing else holds it and
//! waits for the daemon, its child; when that is killed or crashes, it forks the next one, which goes on without a
//! handshake: it finds the objects that the kernel knows by their inode numbers, and has the requests that nobody has
//! answered sent again. Whoever waits for an answer meanwhile waits a little longer.
//!
//! Who asks for an upgrade has the next daemon be what lies at the path of this program now. It is started and asked whether
//! it can go on before the daemon is killed; if it fails after all, the next one is of this program again.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Signal, WaitStatus};

use super::daemon::Launch;
use super::daemon_child::{ASKED, Child, Event, OPENED, READY};
use super::error::MountError;
use super::estate::Estate;
use super::handover::{LayerPaths, Will};
use super::layer_identities::LayerIdentities;
use super::mounted::Mounted;
use super::options::Options;
use super::request::MountRequest;
use super::session::{self, Begin};
use super::witness::Witness;
use super::{attach, log_sink, report, spec, tell, union};
use crate::fuse::Adapter;
use crate::fuse::upgrade::{Upgraded, Upgrades};
use crate::sys::descriptor_passing;
use crate::sys::process::Signals;

/// The most daemons of one mount: a request that kills whoever reads it is sent to each.
const MOST_DAEMONS: u16 = 100;

/// After so many that died before they served, no other begins.
const MOST_FAILURES: u32 = 3;

/// The daemons of one mount, one after the other.
struct Succession<'a> {
    options: &'a Options,
    will: Will,
    estate: Arc<Estate>,
    device: OwnedFd,
    mounted: Mounted,
    heard: &'a [Signal],
    /// The path by which this program was started; nobody else may be there by now.
    program: Option<PathBuf>,
    /// Whether the next daemon is to be what lies at that path.
    upgraded: bool,
    daemons: u16,
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
    let (options, layers) = LayerIdentities::settle(&request.options, mountpoint)?;
    let estate = Estate::new().map_err(MountError::system("memory for the next daemon"))?;
    let estate = Arc::new(estate);
    let program = program();
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
        let filesystem = filesystem.upgradable(upgrades(said, None)?);
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
    log::info!("{}: supervised", mountpoint.display());
    let will = Will {
        mountpoint: mountpoint.into(),
        identity: mounted.identity(),
        options: request.given.clone(),
        layers: LayerPaths::of(&options),
        identities: layers,
        foreground: request.foreground,
        syslog: log_sink::uses_syslog(),
    };
    let succession = Succession {
        options: &options,
        will,
        estate,
        device,
        mounted,
        heard,
        program,
        upgraded: false,
        daemons: 1,
    };
    succession.run(child, &signals)
}

impl Succession<'_> {
    /// Waits for the end of the mount, and has one daemon go on for the other until then.
    fn run(mut self, mut child: Child, signals: &Signals) -> Result<(), MountError> {
        let mountpoint = self.mounted.path().display().to_string();
        let (mut failures, mut served) = (0, 1);
        loop {
            let (status, next) = match child.next(signals)? {
                Event::Ended(status) => (Some(status), None),
                Event::Asked => match self.other_program() {
                    Err(error) => {
                        log::error!("{mountpoint}: not upgraded: {error}");
                        child.refuse(&error.to_string());
                        continue;
                    }
                    Ok(next) => (child.dismiss()?, Some(next)),
                },
            };
            let signal = status.and_then(WaitStatus::terminating_signal);
            let Some(signal) = signal else {
                next.map_or(Ok(None), |mut next| next.dismiss())?;
                return status.map_or(Ok(()), |status| child.outcome(status));
            };
            if !self.mounted.is_connected() {
                next.map_or(Ok(None), |mut next| next.dismiss())?;
                return Ok(());
            }
            if next.is_none() {
                log::error!("{mountpoint}: the daemon was killed by signal {signal}");
            }
            let so_far = self.estate.served().map_err(MountError::system("memory"))?;
            failures = if so_far == served { failures + 1 } else { 0 };
            served = so_far;
            if failures == MOST_FAILURES || self.daemons == MOST_DAEMONS {
                return Err(MountError::GivenUp(self.mounted.path().to_owned()));
            }
            child = self.next(next)?;
        }
    }

    /// The next daemon: `other`, if that is able to go on.
    fn next(&mut self, other: Option<Child>) -> Result<Child, MountError> {
        let asked = other.is_some();
        let other = match other {
            Some(other) => Some(Ok(other)),
            None => self.upgraded.then(|| self.other_program()),
        };
        let refused = match other.map(|other| self.hand_over(other?, asked)) {
            None => None,
            Some(Ok(child)) => {
                self.upgraded = true;
                return Ok(child);
            }
            Some(Err(error)) => {
                let line = error.to_string();
                log::error!("{}: not upgraded: {line}", self.mounted.path().display());
                asked.then_some(Upgraded::Refused(line))
            }
        };
        self.daemons += 1;
        let (generation, mountpoint) = (self.daemons - 1, self.mounted.path());
        let device = self.device.try_clone();
        let device = device.map_err(MountError::system("copying a descriptor"))?;
        Child::fork(|said| {
            self.will.identities.check()?;
            let heir = Heir { options: self.options, mountpoint, estate: &self.estate, generation };
            heir.serve(
                device,
                self.mounted.try_clone()?,
                self.heard,
                upgrades(said, refused)?,
                || {
                    log::warn!("{}: another daemon goes on", mountpoint.display());
                    Ok(())
                },
            )
        })
    }

    /// What lies at the path of this program now, started and told everything, and willing to go on.
    fn other_program(&self) -> Result<Child, MountError> {
        let unknown = || MountError::Daemon("the path of the program is not known".into());
        let program = self.program.as_deref().ok_or_else(unknown)?;
        let willing = || {
            if self.daemons >= MOST_DAEMONS / 2 {
                let line = format!("{} daemons have served this mount; mount again", self.daemons);
                return Err(MountError::Daemon(line));
            }
            let mut child = Child::start(program, self.mounted.path())?;
            if let Err(error) = self.will.send(&child.said, &self.estate, &self.device) {
                log::debug!("{}: {error}", program.display());
            }
            child.expect_of_program(OPENED)?;
            Ok(child)
        };
        willing().map_err(|error| MountError::Successor(program.to_owned(), error.to_string()))
    }

    /// Has `other` go on, since the daemon is gone.
    fn hand_over(&mut self, mut other: Child, asked: bool) -> Result<Child, MountError> {
        self.daemons += 1;
        let [high, low] = (self.daemons - 1).to_be_bytes();
        let told = other.said.write_all(&[u8::from(asked), high, low]);
        told.map_err(MountError::system("telling the daemon"))?;
        other.expect(READY).map(|()| other)
    }
}

/// The path by which this program was started, which an upgrade puts another one at. Not that of the running file: a link may
/// lead to another one then.
fn program() -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
    std::path::absolute(path).ok().filter(|path| path.exists())
}

/// A daemon that goes on for another.
pub(super) struct Heir<'a> {
    pub options: &'a Options,
    pub mountpoint: &'a Path,
    pub estate: &'a Arc<Estate>,
    /// The how manieth after the first.
    pub generation: u16,
}

impl Heir<'_> {
    /// Its life; calls `begun` when it answers.
    ///
    /// # Errors
    /// Those of [`union::succeed`] and of the session.
    pub fn serve(
        self,
        device: OwnedFd,
        mounted: Mounted,
        heard: &[Signal],
        upgrades: Upgrades,
        begun: impl FnOnce() -> Result<(), MountError>,
    ) -> Result<(), MountError> {
        let Self { options, mountpoint, estate, generation } = self;
        let filesystem = union::succeed(options, mountpoint, estate, generation)?;
        let filesystem = filesystem.upgradable(upgrades);
        serve(options, filesystem, device, mounted, Begin::Resume, heard, begun)
    }
}

/// The way on which a daemon asks its supervisor to have another program go on. `before` is what became of that where it was
/// asked before this daemon began.
pub(super) fn upgrades(
    said: &UnixStream,
    before: Option<Upgraded>,
) -> Result<Upgrades, MountError> {
    let supervisor = said.try_clone().map_err(MountError::system("copying a descriptor"))?;
    let supervisor = Mutex::new(supervisor);
    Ok(Upgrades::new(before, move || {
        let mut supervisor = supervisor.lock();
        ask(&mut supervisor).unwrap_or_else(|error| format!("the supervisor: {error}"))
    }))
}

/// Returns only if nobody else goes on: why.
fn ask(supervisor: &mut UnixStream) -> std::io::Result<String> {
    supervisor.write_all(&[ASKED])?;
    let mut line = Vec::new();
    let mut byte = [0];
    while supervisor.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
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
