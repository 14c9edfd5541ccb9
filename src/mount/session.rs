//! A mount being served: the session with the kernel runs on threads of its own while the main
//! thread waits for its end or for a signal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fuser::{Session, SessionACL};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::MountError;
use super::mounted::{Detached, Mounted};
use super::options::Allow;
use super::{REPORT_SIGNAL, abandoned};
use crate::fuse::{Adapter, Readers, connection, passthrough};
use crate::sys::process::Signals;

/// How long the users of a mount that a signal took away may finish what they do. Then the program
/// ends, and they get `ENOTCONN`.
const GRACE: Duration = Duration::from_secs(2);

/// A session that answers the kernel.
pub struct Running {
    mounted: Mounted,
    crew: Arc<Crew>,
    /// Hangs up when all threads have ended, however they did.
    ended: OwnedFd,
}

/// The threads that answer, each with a session of the library.
struct Crew {
    readers: Arc<Readers>,
    threads: Mutex<Vec<JoinHandle<io::Result<()>>>>,
}

/// What a session begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The INIT handshake.
    Handshake,
    /// The requests that another process has not answered.
    Resume,
}

/// Begins a session over `device` and answers requests from then on.
///
/// # Errors
/// When that fails; the mount is detached again, unless another daemon may go on with it.
pub fn start(
    filesystem: Adapter,
    device: OwnedFd,
    mounted: Mounted,
    allow: Option<Allow>,
    begin: Begin,
) -> Result<Running, MountError> {
    match launch(filesystem, device, allow, begin) {
        Ok((crew, ended)) => Ok(Running { mounted, crew, ended }),
        Err(error) => {
            if begin == Begin::Handshake {
                take_away(&mounted);
            }
            Err(MountError::session(mounted.path(), error))
        }
    }
}

fn launch(
    filesystem: Adapter,
    device: OwnedFd,
    allow: Option<Allow>,
    begin: Begin,
) -> io::Result<(Arc<Crew>, OwnedFd)> {
    let (ended, hold) = pipe_with(PipeFlags::CLOEXEC)?;
    // The kernel keeps out whom it has to, except that it knows nothing of `allow_root`.
    let acl = match allow {
        Some(Allow::Root) => SessionACL::RootAndOwner,
        Some(Allow::Other) | None => SessionACL::All,
    };
    let first = match begin {
        Begin::Handshake => connection::open(filesystem.clone(), device.try_clone()?, acl)?,
        Begin::Resume => {
            let session = connection::join(filesystem.clone(), device.as_fd(), acl)?;
            connection::resend(device.as_fd())?;
            session
        }
    };
    if filesystem.uses_passthrough() {
        passthrough::probe(first.as_fd())?;
    }
    filesystem.forget_listings(filesystem.notifier().get_or_init(|| first.notifier()));
    let crew = Arc::new(Crew { readers: filesystem.readers(), threads: Mutex::default() });
    let hold = Arc::new(hold);
    let (of_first, of_others) = (hold.clone(), Arc::downgrade(&hold));
    let further = crew.clone();
    let recruit = move || {
        // Nobody is needed any more when all have ended.
        let Some(hold) = Weak::upgrade(&of_others) else { return Ok(()) };
        further.add(connection::join(filesystem.clone(), device.as_fd(), acl)?, hold)
    };
    crew.readers.start(|| crew.add(first, of_first), recruit)?;
    Ok((crew, ended))
}

impl Crew {
    /// Starts a thread, which keeps `hold` until it ends.
    fn add(self: &Arc<Self>, session: Session<Adapter>, hold: Arc<OwnedFd>) -> io::Result<()> {
        let readers = self.readers.clone();
        let thread = thread::Builder::new().name("session".into()).spawn(move || {
            let _hold = hold;
            let outcome = session.run();
            match &outcome {
                Ok(()) => readers.end(),
                Err(error) => {
                    log::error!("a thread that answers requests has ended: {error}");
                    readers.lost_one();
                }
            }
            outcome
        })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// That of the first who ended with one.
    fn join(&self) -> io::Result<()> {
        let threads = std::mem::take(&mut *self.threads.lock());
        let ended = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_panic| Err(io::Error::other("its thread panicked")))
        });
        ended.fold(Ok(()), io::Result::and)
    }
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

    /// What the session's threads ended with. Only a session that broke may have left its mount.
    fn finish(self) -> Result<(), MountError> {
        self.crew.join().map_err(|error| {
            take_away(&self.mounted);
            MountError::Session(self.mounted.path().to_owned(), error)
        })
    }
}

/// Detaches a mount that cannot be served, on the way to reporting why.
pub(super) fn take_away(mounted: &Mounted) {
    match mounted.detach() {
        Ok(Detached::Now | Detached::OutOfReach) => {}
        Err(error) => log::error!("{error}"),
    }
}
