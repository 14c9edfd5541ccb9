//! Writes with O_DIRECT.
//!
//! When one ends that nobody waits for (io_submit(2), io_uring), the kernel does not drop the pages that somebody has read
//! meanwhile, as it does when it waits itself (mm/filemap.c: `generic_file_direct_write`). So they are dropped before the
//! answer: what is read after that comes from the layer, which has the data.

use fuser::{INodeNo, OpenFlags};

use super::Adapter;
use crate::sys::Result;

impl Adapter {
    /// Has the kernel forget what a write through a file opened with `flags` has made old.
    pub(super) fn after_direct_write(
        &self,
        ino: INodeNo,
        flags: OpenFlags,
        offset: u64,
        written: &Result<usize>,
    ) {
        let Ok(length @ 1..) = *written else { return };
        if flags.0 & libc::O_DIRECT != 0
            && let Some(notifier) = self.notifier.get()
            // Waits for reads of these pages that are under way, which another reader answers.
            && let Err(error) = notifier.inval_inode(ino, offset.cast_signed(), length as i64)
        {
            // The kernel has no such file any more, or is gone.
            log::debug!("node {}: pages cannot be dropped: {error}", ino.0);
        }
    }
}
