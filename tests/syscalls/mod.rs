//! Watches the filesystem calls of one thread, and answers any of them in the kernel's place.
//!
//! [`watch`] runs a closure on a thread of its own that hands each of its filesystem calls to the caller before the
//! kernel sees it (seccomp_unotify(2)). Nothing in the program under test knows of it. Threads that the closure
//! starts are watched too; calls of all other threads of the process are not.
//!
//! ```ignore
//! let mut calls = Vec::new();
//! let written = watch(
//!     |call| {
//!         calls.push(call.to_string());
//!         if call.name == "fsync" { Answer::Fail(Errno::IO) } else { Answer::Go }
//!     },
//!     || overlay.sync(node, false),
//! );
//! ```

// Every test binary that includes this module uses its own part of it.
#![allow(dead_code, unused_imports)]

mod call;
mod notify;
mod table;

use std::sync::mpsc;
use std::thread;

pub use call::Call;
use rustix::io::Errno;

/// What a watched call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel carries it out.
    Go,
    /// It fails with this error; the kernel never sees it.
    Fail(Errno),
}

/// Runs `work` on a new thread, asking `answer`, which runs on this one, about each filesystem call. A call that has
/// been let go is over when `answer` is asked about the thread's next one.
///
/// A panic on either side goes on here.
pub fn watch<T: Send>(
    mut answer: impl FnMut(&Call) -> Answer,
    work: impl FnOnce() -> T + Send,
) -> T {
    let (sender, receiver) = mpsc::channel();
    let done = thread::scope(|scope| {
        let worker = scope.spawn(move || {
            sender.send(notify::Listener::install().expect("seccomp")).expect("the watcher waits");
            work()
        });
        let listener = receiver.recv().expect("the thread installs its filter");
        while let Some((id, call)) = listener.next().expect("the next call") {
            listener.answer(id, answer(&call)).expect("to answer a call");
        }
        worker.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
