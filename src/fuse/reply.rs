//! Answers: from results of the union to replies of the protocol.

use std::time::Duration;

use fuser::{INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr};

use super::convert::{attr, errno};
use super::{Adapter, FOR_EVER, GENERATION};
use crate::overlay::Entry;
use crate::sys::{Errno, Result};

impl Adapter {
    pub(super) fn ttl(&self) -> Duration {
        self.policy.timeout.unwrap_or(FOR_EVER)
    }

    pub(super) fn shown(&self, entry: &Entry) -> (Duration, fuser::FileAttr) {
        let mut shown = self.file_attr(&entry.attr);
        let ino = self.newest(entry.node);
        // The library sends the node's id as the inode number of an entry. Where they differ, the kernel
        // must ask again with GETATTR, which can tell the real one.
        let ttl = if entry.attr.ino == ino.0 { self.attr_ttl(ino) } else { Duration::ZERO };
        shown.ino = ino;
        (ttl, shown)
    }

    /// How long the kernel may keep the attributes of an inode.
    fn attr_ttl(&self, ino: INodeNo) -> Duration {
        if self.changes_unseen(ino) { Duration::ZERO } else { self.ttl() }
    }

    pub(super) fn file_attr(&self, found: &crate::overlay::Attr) -> fuser::FileAttr {
        let mut shown = attr(found);
        if self.policy.static_nlink && found.kind().is_dir() {
            shown.nlink = 1;
        }
        shown
    }

    pub(super) fn reply_entry(&self, result: Result<Entry>, reply: ReplyEntry) {
        match result {
            Ok(entry) => {
                let (ttl, shown) = self.shown(&entry);
                reply.entry_with_ttls(&ttl, &self.ttl(), &shown, GENERATION);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Answers with the attributes of `ino`.
    pub(super) fn reply_attr(
        &self,
        ino: INodeNo,
        result: Result<crate::overlay::Attr>,
        reply: ReplyAttr,
    ) {
        match result {
            Ok(found) => reply.attr(&self.attr_ttl(ino), &self.file_attr(&found)),
            Err(error) => reply.error(errno(error)),
        }
    }
}

pub(super) fn reply_empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

/// Replies with a value whose length the caller may only have asked for (`size` 0).
pub(super) fn reply_xattr(result: Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(errno(Errno::RANGE)),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn reply_count(result: Result<usize>, reply: ReplyWrite) {
    match result {
        Ok(count) => reply.written(count as u32),
        Err(error) => reply.error(errno(error)),
    }
}
