//! How the union is offered to the kernel, as the mount options say.

use std::time::Duration;

use fuser::FopenFlags;

/// How the union is offered to the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whether the kernel need not tell of opens. If it does, a file is copied up when it is opened for
    /// writing, and not only when it is first changed.
    pub zero_open: bool,
    /// Whether the kernel is to read and write regular files by itself. Then it tells of their opens.
    pub passthrough: bool,
    /// How long the kernel may answer from its caches; `None` for ever.
    pub timeout: Option<Duration>,
    /// What the kernel does with data that was read.
    pub pages: Pages,
    /// Whether ACLs are offered.
    pub acl: bool,
    /// Whether extended attributes are offered.
    pub xattr: bool,
    /// Whether the kernel collects writes and sends them later.
    pub writeback: bool,
    /// The largest write that the kernel sends in one message, in bytes.
    pub max_write: u32,
    /// Whether directories always have the link count 1.
    pub static_nlink: bool,
    /// Whether another process is to go on when this one dies.
    pub supervised: bool,
    /// The most threads that answer; `None` leaves it to [`Readers`](super::Readers).
    pub threads: Option<u32>,
}

/// What becomes of data that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// It stays in the page cache: only this mount changes files.
    Kept,
    /// It stays until the file is opened again, or has another time or size.
    UntilOpened,
    /// It does not stay: every read is a message.
    None,
}

impl Pages {
    /// What is said of a file that is opened.
    pub(super) fn of_opened(self) -> FopenFlags {
        match self {
            Self::Kept => FopenFlags::FOPEN_KEEP_CACHE,
            Self::UntilOpened => FopenFlags::empty(),
            Self::None => FopenFlags::FOPEN_DIRECT_IO,
        }
    }
}
