//! What the processes of a container tell the one that was called, through a socket.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::error::RunError;
use crate::sys::descriptor_passing;

/// A step on the way to a running program.
#[derive(Debug)]
pub enum Message {
    /// There is a user namespace; its maps are to be written.
    Unmapped,
    /// There is a terminal: the end of who sits at it.
    Terminal(OwnedFd),
    /// The program runs.
    Running,
    /// It does not, and this is why.
    Failed(RunError),
}

const UNMAPPED: u8 = b'u';
const TERMINAL: u8 = b't';
const RUNNING: u8 = b'r';
const FAILED: u8 = b'f';

/// What the one that was called answers to [`Message::Unmapped`].
const MAPPED: u8 = b'm';

/// The end of the container.
#[derive(Debug)]
pub struct Reporter(UnixStream);

/// The end of the one that was called.
#[derive(Debug)]
pub struct Listener(UnixStream);

/// Both ends.
///
/// # Errors
/// Those of socketpair(2).
pub fn channel() -> Result<(Listener, Reporter), RunError> {
    let (ours, theirs) = UnixStream::pair().map_err(RunError::system("socketpair"))?;
    Ok((Listener(ours), Reporter(theirs)))
}

fn gone<E: Into<std::io::Error>>(error: E) -> RunError {
    RunError::system("telling the caller")(error)
}

impl Reporter {
    /// Says that there is a user namespace, and waits for its maps.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn await_maps(&mut self) -> Result<(), RunError> {
        self.0.write_all(&[UNMAPPED]).map_err(gone)?;
        let mut answer = [0];
        self.0.read_exact(&mut answer).map_err(gone)
    }

    /// Hands the terminal over.
    ///
    /// # Errors
    /// When nobody takes it.
    pub fn give_terminal(&self, terminal: &OwnedFd) -> Result<(), RunError> {
        descriptor_passing::send(self.0.as_fd(), TERMINAL, terminal.as_fd()).map_err(gone)
    }

    /// The same end for another process.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn try_clone(&self) -> Result<Self, RunError> {
        self.0.try_clone().map(Self).map_err(RunError::system("copying a descriptor"))
    }

    /// Says that the program runs.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn running(&mut self) -> Result<(), RunError> {
        self.0.write_all(&[RUNNING]).map_err(gone)
    }

    /// Says why it does not.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn failed(&mut self, error: &RunError) -> Result<(), RunError> {
        let line = error.line.as_bytes();
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX).to_ne_bytes();
        let message = [&[FAILED, error.status], &length[..], line].concat();
        self.0.write_all(&message).map_err(gone)
    }
}

impl Listener {
    /// The next message; none when the other end has gone without one.
    ///
    /// # Errors
    /// Those of reading a socket.
    pub fn next(&mut self) -> Result<Option<Message>, RunError> {
        let lost = RunError::system("listening to the container");
        let message = descriptor_passing::receive(self.0.as_fd()).map_err(lost)?;
        match message {
            None => Ok(None),
            Some((UNMAPPED, _)) => Ok(Some(Message::Unmapped)),
            Some((TERMINAL, Some(terminal))) => Ok(Some(Message::Terminal(terminal))),
            Some((RUNNING, _)) => Ok(Some(Message::Running)),
            Some((FAILED, _)) => Ok(self.error().ok().map(Message::Failed)),
            Some((kind, _)) => Err(RunError::failed(format!("unknown message {kind}"))),
        }
    }

    fn error(&mut self) -> std::io::Result<RunError> {
        let (mut status, mut length) = ([0], [0; 4]);
        self.0.read_exact(&mut status)?;
        self.0.read_exact(&mut length)?;
        let mut line = vec![0; u32::from_ne_bytes(length) as usize];
        self.0.read_exact(&mut line)?;
        Ok(RunError { status: status[0], line: String::from_utf8_lossy(&line).into_owned() })
    }

    /// Lets whoever still waits for an answer know that none will come.
    ///
    /// # Errors
    /// When nobody is there.
    pub fn close(&self) -> std::io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Both)
    }

    /// Says that the maps are written.
    ///
    /// # Errors
    /// When nobody waits for them.
    pub fn mapped(&mut self) -> Result<(), RunError> {
        self.0.write_all(&[MAPPED]).map_err(RunError::system("answering the container"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_with_its_status() {
        let (mut listener, mut reporter) = channel().unwrap();
        reporter.running().unwrap();
        reporter.failed(&RunError::not_found("x: no such program")).unwrap();
        assert!(matches!(listener.next().unwrap(), Some(Message::Running)));
        let Some(Message::Failed(error)) = listener.next().unwrap() else { panic!("no error") };
        assert_eq!((error.status, error.line.as_str()), (127, "x: no such program"));
        drop(reporter);
        assert!(listener.next().unwrap().is_none());
    }
}
