//! A daemon that a supervisor has begun, and what the two say to each other.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, exit};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::error::MountError;
use crate::sys::process::{Fork, Signals, fork};

/// What a daemon says when its layers are open and it can be mounted; of another program, that it could go on.
pub(super) const OPENED: u8 = 1;
/// What it says when it serves.
pub(super) const READY: u8 = 2;
/// What comes before an error line.
const FAILED: u8 = 3;
/// What it says when somebody wants the mount to go on with the program as it is now.
pub(super) const ASKED: u8 = 4;

/// The command of another program to go on.
pub const GO_ON: &str = "go-on";

/// What fails where that fails.
const WAITING: &str = "waiting for the daemon";

/// How long another program may take to say its first word: longer than that takes on a busy machine.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// A daemon, and the way on which it tells how it fares.
pub(super) struct Child {
    pid: Pid,
    pub said: UnixStream,
    /// Whether it may still have something to ask for.
    may_ask: bool,
}

/// Why a supervisor wakes up.
pub(super) enum Event {
    /// The daemon is asked to make way for the program as it is now, and waits for the answer.
    Asked,
    /// It has ended.
    Ended(WaitStatus),
}

impl Child {
    /// Starts a process with a life of its own.
    pub fn fork(
        life: impl FnOnce(&mut UnixStream) -> Result<(), MountError>,
    ) -> Result<Self, MountError> {
        let (said, say) = UnixStream::pair().map_err(MountError::system("socketpair"))?;
        match fork().map_err(MountError::system("fork"))? {
            Fork::Child => {
                drop(said);
                exit(live(say, life))
            }
            Fork::Parent(pid) => Ok(Self { pid, said, may_ask: true }),
        }
    }

    /// Starts `program` to go on for the mount on `mountpoint`. It still has to be told everything.
    #[allow(clippy::zombie_processes, reason = "the supervisor waits for it by its id")]
    pub fn start(program: &Path, mountpoint: &Path) -> Result<Self, MountError> {
        let (said, say) = UnixStream::pair().map_err(MountError::system("socketpair"))?;
        let mut command = Command::new(program);
        // Under another name it would be taken for another program.
        command.arg0("plyfs").args([GO_ON, log::max_level().as_str()]).arg(mountpoint);
        let begun = command.stdin(OwnedFd::from(say)).spawn();
        let begun = begun.map_err(|error| MountError::Daemon(error.to_string()))?;
        Ok(Self { pid: Pid::from_child(&begun), said, may_ask: true })
    }

    /// Waits until the daemon says this.
    pub fn expect(&mut self, word: u8) -> Result<(), MountError> {
        loop {
            match self.hear()? {
                Some(said) if said == word => return Ok(()),
                Some(ASKED) => self.refuse("the daemon has just begun; ask again"),
                Some(_) => {
                    self.wait()?;
                    return Err(MountError::Daemon(self.line()));
                }
                None => {
                    let how = self.wait()?.map_or_else(String::new, super::daemon::describe);
                    return Err(MountError::DaemonDied(how));
                }
            }
        }
    }

    /// The next word; `None` if there will be no other.
    fn hear(&mut self) -> Result<Option<u8>, MountError> {
        let mut word = [0];
        match self.said.read(&mut word) {
            Ok(length) => Ok((length == 1).then_some(word[0])),
            // It has ended without having read all that it was told.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(MountError::system(WAITING)(error)),
        }
    }

    /// The same of a program that may be anything: it is given some time, and killed if it says something else or nothing.
    ///
    /// # Errors
    /// Its own line, or how it ended.
    pub fn expect_of_program(&mut self, word: u8) -> Result<(), MountError> {
        let failed = || MountError::system(WAITING);
        let mut fds = [PollFd::new(&self.said, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut fds, Some(&PATIENCE))).map_err(failed())? == 0 {
            self.dismiss()?;
            return Err(MountError::Daemon("it says nothing".into()));
        }
        match self.hear()? {
            Some(heard) if heard == word => Ok(()),
            Some(FAILED) => {
                let line = self.line();
                self.dismiss()?;
                Err(MountError::Daemon(line))
            }
            _ => {
                let how = self.dismiss()?;
                let how = how.map_or_else(String::new, super::daemon::describe);
                Err(MountError::Daemon(format!("it ended without a word: {how}")))
            }
        }
    }

    /// Ends it; how it ended, which may be how it had ended before.
    pub fn dismiss(&mut self) -> Result<Option<WaitStatus>, MountError> {
        self.forward(Signal::KILL)?;
        self.wait()
    }

    /// Passes signals on until there is something to be done.
    pub fn next(&mut self, signals: &Signals) -> Result<Event, MountError> {
        loop {
            let asking = if self.may_ask { PollFlags::IN } else { PollFlags::empty() };
            let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(&self.said, asking)];
            let watched = if self.may_ask { 2 } else { 1 };
            retry_on_intr(|| poll(&mut fds[..watched], None))
                .map_err(MountError::system(WAITING))?;
            let (signalled, spoke) = (fds[0].revents(), fds[1].revents());
            if !spoke.is_empty() {
                self.may_ask = self.hear()? == Some(ASKED);
                if self.may_ask {
                    return Ok(Event::Asked);
                }
            }
            if signalled.is_empty() {
                continue;
            }
            match signals.take().map_err(MountError::system(WAITING))? {
                Signal::CHILD => {
                    let ended = waitpid(Some(self.pid), WaitOptions::NOHANG);
                    if let Some((_, status)) = ended.map_err(MountError::system(WAITING))? {
                        return Ok(Event::Ended(status));
                    }
                }
                signal => self.forward(signal)?,
            }
        }
    }

    /// Tells the daemon, which asked, that it has to go on itself, and why. One that has died meanwhile need not know.
    pub fn refuse(&mut self, line: &str) {
        if let Err(error) = self.said.write_all(format!("{line}\n").as_bytes()) {
            log::debug!("telling the daemon: {error}");
        }
    }

    pub fn wait(&self) -> Result<Option<WaitStatus>, MountError> {
        let ended = waitpid(Some(self.pid), WaitOptions::empty());
        let ended = ended.map_err(MountError::system(WAITING))?;
        Ok(ended.map(|(_, status)| status))
    }

    pub fn forward(&self, signal: Signal) -> Result<(), MountError> {
        match kill_process(self.pid, signal) {
            // It has ended.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(MountError::system("passing a signal on")(error)),
        }
    }

    /// How a daemon has ended that was not killed.
    pub fn outcome(mut self, status: WaitStatus) -> Result<(), MountError> {
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
            Err(error) if line.is_empty() => error.to_string(),
            _ => String::from_utf8_lossy(&line).into_owned(),
        }
    }
}

/// The life of a daemon, which `say`s how it fares; its exit status.
pub(super) fn live(
    mut say: UnixStream,
    life: impl FnOnce(&mut UnixStream) -> Result<(), MountError>,
) -> i32 {
    let Err(error) = life(&mut say) else { return 0 };
    let line = [&[FAILED], error.to_string().as_bytes()].concat();
    if say.write_all(&line).is_err() {
        log::error!("{error}");
    }
    1
}
