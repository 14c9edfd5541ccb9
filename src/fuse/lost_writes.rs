//! Errors of writes that the kernel has collected (`writeback=1`), told to whoever writes next.
//!
//! write(2) has long succeeded when such data comes here. What the kernel does with an error is to keep it for
//! fsync(2) and close(2): who only writes would never hear of a full filesystem. But before write(2) takes more, it asks
//! for attributes that it does not know any more, with the open file (`FUSE_GETATTR_FH`), and fails as the answer
//! does; stat(2) asks without the file. So after a failed WRITE the kernel is made to forget the attributes of the
//! file, and the data that was not stored, which nobody is to read. The size stays what the kernel believes it to be.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;

use super::Adapter;
use crate::sys::{Errno, Result};

/// The errors that no writer has been told yet.
pub(super) struct LostWrites {
    untold: Mutex<HashMap<INodeNo, Errno>>,
    notifier: Arc<OnceLock<Notifier>>,
    /// To the thread that has the kernel forget; there is none before the first error, and it ends with this value.
    forgetter: OnceLock<Sender<Lost>>,
}

/// What the kernel has to forget.
enum Lost {
    /// The attributes of a file.
    Attributes(INodeNo),
    /// Them and the data of a WRITE: offset and length in bytes.
    Data(INodeNo, u64, usize),
}

impl LostWrites {
    /// None so far; `notifier` will be there when the first one comes.
    pub fn new(notifier: Arc<OnceLock<Notifier>>) -> Self {
        Self { untold: Mutex::default(), notifier, forgetter: OnceLock::new() }
    }

    /// Remembers that `length` bytes at `offset` of a file could not be stored.
    pub fn note(&self, ino: INodeNo, offset: u64, length: usize, error: Errno) {
        self.untold.lock().insert(ino, error);
        self.send(Lost::Data(ino, offset, length));
    }

    /// The error that the next writer of a file is to see, once.
    pub fn take(&self, ino: INodeNo) -> Option<Errno> {
        self.untold.lock().remove(&ino)
    }

    /// Drops what is untold of a file that nobody has open, or of which all data is given up.
    pub fn forget(&self, ino: INodeNo) {
        self.untold.lock().remove(&ino);
    }

    /// To be called before somebody else is told the attributes: the writer has to ask all the same. (The kernel takes no
    /// attributes that are older than the notice.)
    pub fn remind(&self, ino: INodeNo) {
        if self.untold.lock().contains_key(&ino) {
            self.send(Lost::Attributes(ino));
        }
    }

    fn send(&self, lost: Lost) {
        if self.forgetter.get_or_init(|| self.start()).send(lost).is_err() {
            log::warn!("a write error is told by fsync and close only: there is no thread");
        }
    }

    /// Not a thread that answers messages: the kernel waits until the pages are written, and so for answers.
    fn start(&self) -> Sender<Lost> {
        let (sender, receiver) = channel();
        if let Some(notifier) = self.notifier.get().cloned() {
            let forget = move || have_forgotten(&notifier, &receiver);
            // Without it the receiver is gone, and each sender sees that.
            if let Err(error) = thread::Builder::new().name("forget".into()).spawn(forget) {
                log::debug!("{error}");
            }
        }
        sender
    }
}

fn have_forgotten(notifier: &Notifier, all: &Receiver<Lost>) {
    for lost in all {
        let (ino, offset, length) = match lost {
            // A negative offset stands for attributes alone (`FUSE_NOTIFY_INVAL_INODE`).
            Lost::Attributes(ino) => (ino, -1, 0),
            Lost::Data(ino, offset, length) => (ino, offset.cast_signed(), length as i64),
        };
        if let Err(error) = notifier.inval_inode(ino, offset, length) {
            // The kernel has no such file any more, or is gone.
            log::debug!("node {}: what was not written is not forgotten: {error}", ino.0);
        }
    }
}

impl Adapter {
    /// Writes what the kernel has taken from its writer before, or from a mapping.
    pub(super) fn write_collected(&self, ino: INodeNo, offset: u64, data: &[u8]) -> Result<usize> {
        let write = |done: usize| {
            self.overlay.write(self.node(ino), offset + done as u64, &data[done..], None)
        };
        // The kernel does not look how much it was: the rest has to succeed or fail.
        let mut written = write(0);
        while let Ok(done @ 1..) = written
            && done < data.len()
        {
            written = write(done).map(|more| done + more);
        }
        written.inspect_err(|error| {
            // With a timeout, those who read ask with their open files too.
            if self.policy.writeback && self.policy.timeout.is_none() {
                self.lost_writes.note(ino, offset, data.len(), *error);
            }
        })
    }
}
