//! A mount being served: the session with the kernel runs on threads of its own while the main
//! thread waits for its end or for a signal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::MountError;
use super::mounted::{Detached, Mounted};
use super::options::Allow;
use super::{REPORT_SIGNAL, abandoned};
use crate::fuse::{Adapter, passthrough};
use crate::sys::process::Signals;

/// How long the users of a mount that a signal took away may finish what they do. Then the program
/// ends, and they get `ENOTCONN`.
const GRACE: Duration = Duration::from_secs(2);

/// A session that answers the kernel.
#[derive(Debug)]
pub struct Running {
    mounted: Mounted,
    thread: JoinHandle<io::Result<()>>,
    /// Hangs up when the thread has ended, however it did.
    ended: OwnedFd,
}

/// Does the INIT handshake over `device` and answers requests from then on.
///
/// # Errors
/// When that fails; the mount is detached again.
pub fn start(
    filesystem: Adapter,
    device: OwnedFd,
    mounted: Mounted,
    allow: Option<Allow>,
) -> Result<Running, MountError> {
    match launch(filesystem, device, allow) {
        Ok((thread, ended)) => Ok(Running { mounted, thread, ended }),
        Err(error) => {
            take_away(&mounted);
            Err(MountError::session(mounted.path(), error))
        }
    }
}

fn launch(
    filesystem: Adapter,
    device: OwnedFd,
    allow: Option<Allow>,
) -> io::Result<(JoinHandle<io::Result<()>>, OwnedFd)> {
    let (ended, hold) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut config = Config::default();
    let readers = filesystem.readers();
    config.n_threads = Some(readers.count());
    // The kernel keeps out whom it has to, except that it knows nothing of `allow_root`.
    let acl = match allow {
        Some(Allow::Root) => SessionACL::RootAndOwner,
        Some(Allow::Other) | None => SessionACL::All,
    };
    let notifier = filesystem.notifier();
    let uses_passthrough = filesystem.uses_passthrough();
    let session = Session::from_fd(filesystem, device, acl, config)?;
    if uses_passthrough {
        passthrough::probe(session.as_fd())?;
    }
    notifier.get_or_init(|| session.notifier());
    readers.watch()?;
    let thread = thread::Builder::new().name("session".into()).spawn(move || {
        let _hold = hold;
        session.run()
    })?;
    Ok((thread, ended))
}

impl Running {
    /// Takes the mount away again.
    pub fn cancel(&self) {
        take_away(&self.mounted);
    }

    /// Waits until the mount is unmounted, by anybody. [`REPORT_SIGNAL`] calls `report`, and
    /// [`abandoned::QUESTION`] is answered; any other of `signals` detaches the mount, busy or not, and gives
    /// its users [a moment](GRACE).
    ///
    /// # Errors
    /// When the session broke, or the mount could not be detached.
    pub fn wait(self, signals: &Signals, report: impl Fn()) -> Result<(), MountError> {
        let failed = MountError::system("waiting for the session");
        if self.ends_before(signals, report).map_err(failed)? {
            return self.finish();
        }
        if let Err(error) = self.mounted.write_out(GRACE) {
            log::warn!("{}: not all is written: {error}", self.mounted.path().display());
        }
        let outcome = self.mounted.detach().map(|_now_or_out_of_reach| ());
        let failed = MountError::system("waiting for the session");
        if self.ends_within(GRACE).map_err(failed)? {
            return outcome.and(self.finish());
        }
        log::warn!("{}: ended while in use", self.mounted.path().display());
        outcome
    }

    /// Waits for the end or a signal that unmounts; which came first.
    fn ends_before(&self, signals: &Signals, report: impl Fn()) -> Result<bool, Errno> {
        loop {
            let mut fds =
                [PollFd::new(&self.ended, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            retry_on_intr(|| poll(&mut fds, None))?;
            if !fds[0].revents().is_empty() {
                return Ok(true);
            }
            match signals.take()? {
                REPORT_SIGNAL => report(),
                abandoned::QUESTION if !self.mounted.is_abandoned() => {}
                signal => {
                    log::info!("signal {}: unmounting", signal.as_raw());
                    return Ok(false);
                }
            }
        }
    }

    /// Whether the end comes before `time` is over. Signals change nothing any more: some senders
    /// send two.
    fn ends_within(&self, time: Duration) -> Result<bool, Errno> {
        let timeout = Timespec::try_from(time).map_err(|_range| Errno::INVAL)?;
        let mut fds = [PollFd::new(&self.ended, PollFlags::IN)];
        // Only a signal handler could interrupt this, and the program has none.
        Ok(retry_on_intr(|| poll(&mut fds, Some(&timeout)))? > 0)
    }

    /// What the session's thread ended with. Only a session that broke may have left its mount.
    fn finish(self) -> Result<(), MountError> {
        let error = match self.thread.join() {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_panic) => io::Error::other("its thread panicked"),
        };
        take_away(&self.mounted);
        Err(MountError::Session(self.mounted.path().to_owned(), error))
    }
}

/// Detaches a mount that cannot be served, on the way to reporting why.
fn take_away(mounted: &Mounted) {
    match mounted.detach() {
        Ok(Detached::Now | Detached::OutOfReach) => {}
        Err(error) => log::error!("{error}"),
    }
}
