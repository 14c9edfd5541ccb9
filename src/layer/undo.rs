//! Taking back the first steps of a change when a later one fails.

use crate::sys::Result;

/// Takes note of how it went to take a step back. The caller of the change gets the error that it failed with;
/// where even that failed, what is left over is found in the log.
pub fn undo(undone: Result<()>) {
    if let Err(error) = undone {
        log::warn!("a step of a failed change could not be taken back: {error}");
    }
}
