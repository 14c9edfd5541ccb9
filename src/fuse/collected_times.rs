//! Times of files whose data the kernel collects (`writeback=1`).
//!
//! The time of the last change is the kernel's own then: it tells it by a SETATTR, if it is another than the one it
//! knows, and while somebody syncs all files it waits for neither the data before it nor its answer. So a WRITE must not
//! change the time in the layer: the file keeps the one that the kernel was told, or has told last.

use std::collections::HashMap;

use fuser::INodeNo;
use parking_lot::Mutex;

use super::Adapter;
use crate::overlay::SetAttr;
use crate::sys::object::NewTime;
use crate::sys::{Errno, Result};

/// The times that the kernel knows of files that have been written to, or that were set.
#[derive(Default)]
pub(super) struct CollectedTimes(Mutex<HashMap<INodeNo, NewTime>>);

impl CollectedTimes {
    /// Remembers a time that the kernel tells; to be called before it is set.
    pub fn note(&self, ino: INodeNo, change: &SetAttr) {
        if let Some(told) = change.mtime {
            self.0.lock().insert(ino, told);
        }
    }

    /// Drops the time of a file that the kernel forgets.
    pub fn forget(&self, ino: INodeNo) {
        self.0.lock().remove(&ino);
    }

    fn known(&self, ino: INodeNo) -> Option<NewTime> {
        self.0.lock().get(&ino).copied()
    }
}

impl Adapter {
    /// Does `write`, which writes to a file, and gives the file back the time that the kernel knows.
    pub(super) fn keep_time<T>(
        &self,
        ino: INodeNo,
        write: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if !self.policy.writeback {
            return write();
        }
        let node = self.node(ino);
        let mut kept = match self.collected_times.known(ino) {
            Some(known) => known,
            None => {
                let stored = NewTime::At(self.overlay.attr(node)?.mtime);
                *self.collected_times.0.lock().entry(ino).or_insert(stored)
            }
        };
        let done = write()?;
        loop {
            match self.overlay.set_change_time(node, kept) {
                // Files for appending alone, or of somebody else, go with the time of the layer.
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(error),
            }
            // Who has told another time meanwhile may have set it before this one.
            match self.collected_times.known(ino) {
                Some(newer) if newer != kept => kept = newer,
                _ => return Ok(done),
            }
        }
    }
}
