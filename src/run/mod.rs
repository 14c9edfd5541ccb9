//! Programs of an image in a container: namespaces, a root directory of its own, and nothing else. There is no network and
//! no control group of its own.
//!
//! Four processes: the one that was called waits, passes signals on and looks after the terminal; `keeper` has the
//! namespaces of users and mounts, and the daemon of the mount as a child; `init` is the first process of the container,
//! and the program the second. Each is gone when the one before it is.

mod capabilities;
pub mod command;
mod devices;
mod error;
mod host_files;
mod ids;
mod init;
mod keeper;
mod kernel_files;
mod process;
mod report;
mod root;
mod supervise;
mod terminal;
mod user;
mod volume;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::exit;

use rustix::process::{Pid, getpid};

pub use command::Program;
pub use error::RunError;
pub use volume::Volume;

use self::ids::Ids;
use self::report::{Listener, Message};
use crate::container::Prepared;
use crate::sys::process::{Fork, Signals, fork};

/// What to run, and in what.
#[derive(Clone, Debug)]
pub struct Request {
    /// The program.
    pub program: Program,
    /// What of the host's it gets.
    pub volumes: Vec<Volume>,
    /// The name of the machine.
    pub hostname: String,
    /// Whether the root directory cannot be changed.
    pub read_only: bool,
    /// Whether the program reads what the caller does.
    pub interactive: bool,
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// Where the root directory comes from.
pub enum RootSource {
    /// A directory, which is used as it is.
    Directory(PathBuf),
    /// A container of the store, which is to be mounted.
    Container(Box<Prepared>),
}

/// Runs the program, from its beginning to its end; its exit status, 128 and the number for one that a signal has killed.
///
/// To be called before the process starts a thread.
///
/// # Errors
/// Why it does not run.
pub fn run(request: &Request, source: RootSource) -> Result<u8, RunError> {
    let ids = Ids::of_caller();
    let signals = supervise::block_signals()?;
    let caller = getpid();
    let (mut listener, reporter) = report::channel()?;
    match fork().map_err(RunError::system("fork"))? {
        Fork::Child => {
            drop(listener);
            exit(keeper::live(request, source, &ids, caller, reporter, &signals).into())
        }
        Fork::Parent(keeper) => {
            // What was taken for the container is now the keeper's alone.
            drop((reporter, source));
            attend(request, &ids, keeper, &mut listener, &signals)
        }
    }
}

/// The caller's part.
fn attend(
    request: &Request,
    ids: &Ids,
    keeper: Pid,
    listener: &mut Listener,
    signals: &Signals,
) -> Result<u8, RunError> {
    let started = await_start(ids, keeper, listener);
    match started {
        Ok(Some(outer)) => terminal::sit_at(&outer, keeper, signals, request.interactive),
        Ok(None) => supervise::wait_for(keeper, signals),
        Err(error) => {
            // It takes away what it has made.
            drop(listener.close());
            supervise::wait_for(keeper, signals)?;
            Err(error)
        }
    }
}

/// Returns when the program runs, with its terminal if it has one.
fn await_start(
    ids: &Ids,
    keeper: Pid,
    listener: &mut Listener,
) -> Result<Option<OwnedFd>, RunError> {
    let mut terminal = None;
    loop {
        match listener.next()? {
            Some(Message::Unmapped) => {
                ids.write_maps(keeper)?;
                listener.mapped()?;
            }
            Some(Message::Terminal(outer)) => terminal = Some(outer),
            Some(Message::Running) => return Ok(terminal),
            Some(Message::Failed(error)) => return Err(error),
            None => return Err(RunError::failed("the container ended before its program ran")),
        }
    }
}
