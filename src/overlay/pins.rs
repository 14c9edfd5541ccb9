//! Descriptors that keep deleted objects alive, and the space that they hold.
//!
//! With zero-message opens the daemon learns that nobody uses a deleted file only when the kernel forgets
//! its node, a moment after unlink(2) has returned. Who needs space in that moment waits for it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::node::NodeState;
use crate::sys::{Errno, Result};

/// How long a full filesystem is given to get room by what has just been deleted.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many objects are kept alive, and how many have been let go.
#[derive(Default)]
pub(super) struct Pins {
    kept: AtomicU64,
    released: AtomicU64,
}

impl Pins {
    /// Keeps the object of a node alive by `fd`.
    pub fn keep(&self, state: &mut NodeState, fd: Arc<OwnedFd>) {
        if state.pinned.replace(fd).is_none() {
            self.kept.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets the object of a node go.
    pub fn release(&self, state: &mut NodeState) {
        if state.pinned.take().is_some() {
            self.kept.fetch_sub(1, Ordering::Relaxed);
            self.released.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Does something that needs space, once more if deleted objects have given some back meanwhile.
    pub fn with_space<T>(&self, change: impl Fn() -> Result<T>) -> Result<T> {
        let before = self.released.load(Ordering::Relaxed);
        match change() {
            Err(Errno::NOSPC | Errno::DQUOT) if self.wait_for_release(before) => change(),
            result => result,
        }
    }

    /// Waits until something has been let go since there were `before`.
    fn wait_for_release(&self, before: u64) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.released.load(Ordering::Relaxed) == before {
            if self.kept.load(Ordering::Relaxed) == 0 || Instant::now() > deadline {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }
}
