//! A bounded cache of open descriptors.
//!
//! RLIMIT_NOFILE can be 1,024 or less, a tree has millions of files, and with zero-message opens the
//! daemon is never told which of them are in use. So every descriptor but those of the layer roots can
//! be closed at any time and opened again by name; descriptors in use stay open through their `Arc`.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

/// What a cached descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A directory of a lower layer, by the serial number of its `LowerDir`.
    LowerDir(u64),
    /// The upper directory of a node, by the node's id.
    UpperDir(u64),
    /// The data of a node's file, by the node's id.
    Data(u64),
}

/// An open descriptor and what it may be used for.
#[derive(Clone, Debug)]
pub struct Cached {
    /// The descriptor.
    pub fd: Arc<OwnedFd>,
    /// Whether it was opened for writing too.
    pub writable: bool,
}

/// The cache: the least recently used descriptor makes room for a new one.
pub struct Descriptors {
    cache: Mutex<LruCache<Key, Cached>>,
}

impl Descriptors {
    /// A cache of at most `capacity` descriptors (at least 8).
    pub fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity.max(8)).unwrap_or(NonZeroUsize::MIN);
        Self { cache: Mutex::new(LruCache::new(capacity)) }
    }

    /// The descriptor kept for `key`.
    pub fn get(&self, key: Key) -> Option<Cached> {
        self.cache.lock().get(&key).cloned()
    }

    /// Keeps a descriptor for `key`, instead of any that was kept before.
    pub fn put(&self, key: Key, fd: OwnedFd, writable: bool) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        // The evicted descriptor is closed after the lock is released: close(2) may block.
        let evicted = self.cache.lock().push(key, Cached { fd: fd.clone(), writable });
        drop(evicted);
        fd
    }

    /// Forgets what is kept for `key`.
    pub fn remove(&self, key: Key) {
        let removed = self.cache.lock().pop(&key);
        drop(removed);
    }

    /// The number of descriptors kept now.
    pub fn len(&self) -> usize {
        self.cache.lock().len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
