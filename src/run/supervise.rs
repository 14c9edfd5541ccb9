//! Processes that wait for others: signals are passed on to the child, everybody who has ended is reaped.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use super::error::RunError;
use crate::sys::process::Signals;

/// The signals that a container gets which its caller gets.
const FORWARDED: [Signal; 9] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::CONT,
    Signal::POWER,
];

/// Keeps all these signals, and those about children and windows, for [`wait_for`].
///
/// # Errors
/// Those of signalfd(2).
pub fn block_signals() -> Result<Signals, RunError> {
    let all = [&FORWARDED[..], &[Signal::CHILD, Signal::WINCH]].concat();
    Signals::block(&all).map_err(RunError::system("signalfd"))
}

/// Waits for the end of `child`, passes signals on to it, and reaps everybody else. Gives its exit status, 128 and the
/// signal for one that was killed.
///
/// # Errors
/// Those of reading signals.
pub fn wait_for(child: Pid, signals: &Signals) -> Result<u8, RunError> {
    loop {
        let signal = signals.take().map_err(RunError::system("waiting for the container"))?;
        if let Some(status) = handle(signal, child)? {
            return Ok(status);
        }
    }
}

/// Does what a signal asks for; the exit status of `child` if that has ended.
///
/// # Errors
/// Those of kill(2) and waitpid(2).
pub fn handle(signal: Signal, child: Pid) -> Result<Option<u8>, RunError> {
    match signal {
        Signal::CHILD => return reap(child),
        Signal::WINCH => {}
        signal => forward(signal, child)?,
    }
    Ok(None)
}

fn forward(signal: Signal, child: Pid) -> Result<(), RunError> {
    match kill_process(child, signal) {
        // It ends anyway.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(RunError::system("passing a signal on")(error)),
    }
}

/// Reaps all children that have ended. One signal may stand for several.
fn reap(child: Pid) -> Result<Option<u8>, RunError> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => ended = Some(exit_status(status)),
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(ended),
            Err(error) => return Err(RunError::system("waiting for the container")(error)),
        }
    }
}

/// As shells count.
pub fn exit_status(status: WaitStatus) -> u8 {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    let status = signal.or(status.exit_status()).unwrap_or(i32::from(u8::MAX));
    u8::try_from(status).unwrap_or(u8::MAX)
}
