//! A bounded cache of open descriptors.
//!
//! RLIMIT_NOFILE can be 1,024 or less, a tree has millions of files, and with zero-message opens the
//! daemon is never told which of them are in use. So every descriptor but those of the layer roots can
//! be closed at any time and opened again by name; descriptors in use stay open through their `Arc`.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use crate::sys::{Errno, Result};

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
    /// The size of a lower file in bytes, which never changes.
    pub size: Option<u64>,
}

/// The cache: the least recently used descriptor makes room for a new one.
pub struct Descriptors {
    cache: Mutex<LruCache<Key, Cached>>,
    /// The most descriptors, of those kept here and those set apart.
    capacity: usize,
    /// Descriptors that cannot be closed, and that others keep.
    apart: AtomicUsize,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// How a cache of descriptors is used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Descriptors that are kept now.
    pub open: usize,
    /// Most that are kept.
    pub most: usize,
    /// How often one was asked for and was there.
    pub hits: u64,
    /// How often it was not.
    pub misses: u64,
}

impl Descriptors {
    /// A cache of at most `capacity` descriptors (at least 8).
    pub fn new(capacity: usize) -> Self {
        Self {
            // Grows as it fills: room for all of them would be half a megabyte for each mount.
            cache: Mutex::new(LruCache::unbounded()),
            capacity: capacity.max(8),
            apart: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The descriptor kept for `key`.
    pub fn get(&self, key: Key) -> Option<Cached> {
        let found = self.cache.lock().get(&key).cloned();
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Whether one is kept for `key`.
    pub fn has(&self, key: Key) -> bool {
        self.cache.lock().contains(&key)
    }

    /// Keeps a descriptor for `key`, instead of any that was kept before.
    pub fn put(&self, key: Key, fd: OwnedFd, writable: bool) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        self.put_shared(key, Cached { fd: fd.clone(), writable, size: None });
        fd
    }

    /// The same for a descriptor that is in use already.
    pub fn put_shared(&self, key: Key, cached: Cached) {
        // The evicted descriptor is closed after the lock is released: close(2) may block.
        let mut evicted = Vec::new();
        {
            let mut cache = self.cache.lock();
            evicted.extend(cache.push(key, cached));
            while cache.len() > 1
                && cache.len() + self.apart.load(Ordering::Relaxed) > self.capacity
            {
                evicted.extend(cache.pop_lru());
            }
        }
        drop(evicted);
    }

    /// Sets one descriptor apart for what cannot be opened again, unless half of them are: whether it may be.
    pub fn set_one_apart(&self) -> bool {
        let mut apart = self.apart.load(Ordering::Relaxed);
        while apart < self.capacity / 2 {
            let more = apart + 1;
            let set =
                self.apart.compare_exchange_weak(apart, more, Ordering::Relaxed, Ordering::Relaxed);
            match set {
                Ok(_) => return true,
                Err(now) => apart = now,
            }
        }
        false
    }

    /// Sets one descriptor apart however many there are.
    pub fn set_apart(&self) {
        self.apart.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a descriptor that was set apart is closed.
    pub fn give_back(&self) {
        self.apart.fetch_sub(1, Ordering::Relaxed);
    }

    /// Opens something; where the process has no descriptor left, closes half of the kept ones and tries
    /// once more.
    pub fn with_room<T>(&self, open: impl Fn() -> Result<T>) -> Result<T> {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.make_room();
                open()
            }
            result => result,
        }
    }

    fn make_room(&self) {
        let evicted: Vec<_> = {
            let mut cache = self.cache.lock();
            (0..cache.len().div_ceil(2)).filter_map(|_| cache.pop_lru()).collect()
        };
        drop(evicted);
    }

    /// Forgets what is kept for `key`.
    pub fn remove(&self, key: Key) {
        let removed = self.cache.lock().pop(&key);
        drop(removed);
    }

    /// How the cache is used.
    pub fn usage(&self) -> Usage {
        let (open, most) = {
            let cache = self.cache.lock();
            (cache.len(), self.capacity)
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage { open, most, hits: count(&self.hits), misses: count(&self.misses) }
    }
}
