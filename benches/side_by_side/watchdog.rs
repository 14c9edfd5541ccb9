//! Ends a daemon that answers no more, so that a run says so instead of waiting for ever.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::Outcome;

/// Longer than any single measurement takes.
const LIMIT: Duration = Duration::from_secs(600);

/// Kills a process unless it is stopped in time.
pub struct Watchdog {
    off: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    /// Watches a process of ours.
    pub fn start(process: u32) -> Self {
        let (off, signal) = channel();
        let thread = std::thread::spawn(move || {
            let late = signal.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
            if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw).filter(|_| late)
            {
                kill_process(pid, Signal::KILL).ok();
            }
            late
        });
        Self { off, thread }
    }

    /// Ends the watch.
    ///
    /// # Errors
    /// If the process was killed.
    pub fn stop(self) -> Outcome<()> {
        drop(self.off);
        match self.thread.join() {
            Ok(false) => Ok(()),
            _ => Err("the daemon hung and was killed".into()),
        }
    }
}
