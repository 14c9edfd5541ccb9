//! Waiting between tries, and giving up together.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often something that may be a passing trouble is tried.
pub const TRIES: u32 = 5;

/// The longest wait, whatever a registry asks for.
const LONGEST: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_millis(100);

/// Those who work for one pull or push.
#[derive(Default)]
pub struct Pace {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Pace {
    /// Tells everybody to stop.
    pub fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether everybody is to stop.
    pub fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits before the next try, the longer the more there were: as long as the registry says, if it does. False if there
    /// is to be none.
    pub fn wait(&self, tries: u32, asked: Option<Duration>) -> bool {
        if tries >= TRIES {
            return false;
        }
        let pause = asked.unwrap_or(SHORTEST * 2u32.pow(tries)).min(LONGEST);
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, pause, |stopped| !*stopped);
        let (stopped, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !*stopped
    }
}
