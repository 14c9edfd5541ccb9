//! A terminal of the container's own, and what goes to and fro between it and that of the caller.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fchmod, fcntl_setfl, openat};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::process::{Pid, Signal, ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stdin, stdout};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::error::RunError;
use super::supervise;
use crate::sys::process::Signals;

/// Both ends of a new terminal.
#[derive(Debug)]
pub struct Terminal {
    /// Of who sits at it.
    pub outer: OwnedFd,
    /// Of the programs.
    pub inner: OwnedFd,
}

impl Terminal {
    /// A new one in `terminals`, which is the root of a filesystem of them.
    ///
    /// # Errors
    /// Those of opening and unlocking it.
    pub fn make(terminals: &OwnedFd) -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let outer = openat(terminals, "ptmx", flags, Mode::empty())?;
        unlockpt(&outer)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let inner = ioctl_tiocgptpeer(&outer, flags)?;
        fchmod(&inner, Mode::from_raw_mode(0o620))?;
        Ok(Self { outer, inner })
    }
}

/// Makes a terminal that of this process, which leads a session by then: it controls it, and is its input and output.
///
/// # Errors
/// Those of ioctl_tty(2) and dup2(2).
pub fn take_seat(inner: &OwnedFd) -> Result<(), Errno> {
    setsid()?;
    ioctl_tiocsctty(inner)?;
    dup2_stdin(inner)?;
    dup2_stdout(inner)?;
    dup2_stderr(inner)
}

/// The caller's terminal, without a life of its own until this is dropped.
struct Raw(Termios);

impl Raw {
    /// Nothing where standard input is no terminal.
    fn enter() -> Result<Option<Self>, Errno> {
        if !isatty(stdin()) {
            return Ok(None);
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(stdin(), OptionalActions::Drain, &self.0) {
            log::debug!("the terminal stays as it is: {error}");
        }
    }
}

/// Passes on what is typed and what is shown until `child` ends, and what signals ask for. Gives its exit status.
///
/// # Errors
/// When one of the terminals cannot be used.
pub fn sit_at(
    outer: &OwnedFd,
    child: Pid,
    signals: &Signals,
    is_interactive: bool,
) -> Result<u8, RunError> {
    let failed = || RunError::system("the terminal");
    let raw = if is_interactive { Raw::enter().map_err(failed())? } else { None };
    fcntl_setfl(outer, OFlags::RDWR | OFlags::NONBLOCK).map_err(failed())?;
    resize(outer);
    let mut typed = Passage::new(is_interactive);
    let mut shown = Passage::new(true);
    let status = loop {
        let [signal, at_outer, at_input, at_output] = wait([
            (signals.as_fd(), PollFlags::IN),
            (outer.as_fd(), shown.reads() | typed.writes()),
            (stdin(), typed.reads()),
            (stdout(), shown.writes()),
        ])
        .map_err(failed())?;
        if signal {
            match signals.take().map_err(failed())? {
                Signal::WINCH => resize(outer),
                signal => {
                    if let Some(status) = supervise::handle(signal, child)? {
                        break status;
                    }
                }
            }
        }
        if at_input {
            typed.fill(stdin()).map_err(failed())?;
        }
        if at_outer {
            typed.empty(outer.as_fd()).map_err(failed())?;
            shown.fill(outer.as_fd()).map_err(failed())?;
        }
        if at_output {
            shown.empty(stdout()).map_err(failed())?;
        }
    };
    shown.drain(outer.as_fd(), stdout()).map_err(failed())?;
    drop(raw);
    Ok(status)
}

/// Which of these are ready. One without events is left out: it would be ready for ever when its other end hangs up.
fn wait(all: [(BorrowedFd<'_>, PollFlags); 4]) -> Result<[bool; 4], Errno> {
    let wanted = all.iter().enumerate().filter(|(_, (_, events))| !events.is_empty());
    let (places, mut fds): (Vec<usize>, Vec<PollFd<'_>>) =
        wanted.map(|(at, (fd, events))| (at, PollFd::from_borrowed_fd(*fd, *events))).unzip();
    retry_on_intr(|| poll(&mut fds, None))?;
    let mut ready = [false; 4];
    for (at, fd) in places.into_iter().zip(&fds) {
        ready[at] = !fd.revents().is_empty();
    }
    Ok(ready)
}

/// The size of the caller's terminal, for the other one. Where neither is one, it stays as it is.
fn resize(outer: &OwnedFd) {
    let size = tcgetwinsize(stdin()).or_else(|_no_terminal| tcgetwinsize(stdout()));
    if let Ok(size) = size
        && let Err(error) = tcsetwinsize(outer, size)
    {
        log::debug!("the size of the terminal: {error}");
    }
}

/// Bytes on their way in one direction.
struct Passage {
    buffer: [u8; Self::ROOM],
    from: usize,
    to: usize,
    is_open: bool,
}

impl Passage {
    /// A pipe that is said to be ready takes as much without waiting (pipe(7)).
    const ROOM: usize = 4096;

    fn new(is_open: bool) -> Self {
        Self { buffer: [0; Self::ROOM], from: 0, to: 0, is_open }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn reads(&self) -> PollFlags {
        if self.is_open && self.is_empty() { PollFlags::IN } else { PollFlags::empty() }
    }

    fn writes(&self) -> PollFlags {
        if self.is_empty() { PollFlags::empty() } else { PollFlags::OUT }
    }

    /// Takes what there is, if there is room. A terminal whose other end is closed has an error instead of an end.
    fn fill(&mut self, source: BorrowedFd<'_>) -> Result<(), Errno> {
        if !self.is_open || !self.is_empty() {
            return Ok(());
        }
        match read(source, &mut self.buffer) {
            Ok(0) | Err(Errno::IO) => self.is_open = false,
            Ok(count) => (self.from, self.to) = (0, count),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Gives what there is. Who does not listen any more misses it.
    fn empty(&mut self, target: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.is_empty() {
            return Ok(());
        }
        match write(target, &self.buffer[self.from..self.to]) {
            Ok(count) => self.from += count,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::PIPE | Errno::IO) => self.from = self.to,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The rest, when nobody writes any more.
    fn drain(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
        loop {
            while !self.is_empty() {
                self.empty(target)?;
            }
            self.fill(source)?;
            if self.is_empty() {
                return Ok(());
            }
        }
    }
}
