//! What the kernel has asked for, and how long the answers took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::overlay::{Figures, Overlay};

/// The attribute of the root directory that answers with a [`Report`] as JSON. It is in no list.
pub const ATTRIBUTE: &str = "user.plyfs.stats";

/// Upper bounds of the buckets are 1, 2, 4, … microseconds; the last bucket, from 2^22 us (4 s) on, has none.
const BUCKETS: usize = 24;

macro_rules! messages {
    ($($message:ident = $name:literal,)*) => {
        /// The messages that are counted, named as in linux/fuse.h.
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs)]
        pub(super) enum Message { $($message),* }

        impl Message {
            const NAMES: &[&str] = &[$($name),*];
        }
    };
}

messages! {
    Lookup = "LOOKUP",
    Forget = "FORGET",
    Getattr = "GETATTR",
    Setattr = "SETATTR",
    Readlink = "READLINK",
    Symlink = "SYMLINK",
    Mknod = "MKNOD",
    Mkdir = "MKDIR",
    Unlink = "UNLINK",
    Rmdir = "RMDIR",
    Rename = "RENAME",
    Link = "LINK",
    Open = "OPEN",
    Read = "READ",
    Write = "WRITE",
    Statfs = "STATFS",
    Release = "RELEASE",
    Fsync = "FSYNC",
    Setxattr = "SETXATTR",
    Getxattr = "GETXATTR",
    Listxattr = "LISTXATTR",
    Removexattr = "REMOVEXATTR",
    Flush = "FLUSH",
    Opendir = "OPENDIR",
    Readdir = "READDIR",
    Readdirplus = "READDIRPLUS",
    Releasedir = "RELEASEDIR",
    Fsyncdir = "FSYNCDIR",
    Create = "CREATE",
    Ioctl = "IOCTL",
    Fallocate = "FALLOCATE",
    Lseek = "LSEEK",
    CopyFileRange = "COPY_FILE_RANGE",
}

/// The counters of one kind of message.
#[derive(Default)]
struct Counters {
    received: AtomicU64,
    total_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// The counters of one mount.
pub(super) struct Statistics {
    counters: Vec<Counters>,
}

/// Notes how long a message took when it goes out of scope, which is when it has been answered.
pub(super) struct Timed<'a> {
    counters: &'a Counters,
    start: Instant,
}

impl Statistics {
    pub fn new() -> Self {
        Self { counters: Message::NAMES.iter().map(|_| Counters::default()).collect() }
    }

    /// To be held while `message` is being answered.
    pub fn time(&self, message: Message) -> Timed<'_> {
        let counters = &self.counters[message as usize];
        counters.received.fetch_add(1, Ordering::Relaxed);
        Timed { counters, start: Instant::now() }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        let bucket = bucket(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.counters.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counters.total_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// The bucket for an answer that took `us` microseconds (rounded down).
fn bucket(us: u64) -> usize {
    (u64::BITS - us.leading_zeros()).min(BUCKETS as u32 - 1) as usize
}

/// What a live mount tells about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The messages that there were, by their names in linux/fuse.h.
    pub messages: BTreeMap<String, Latency>,
    /// What the union holds and has done.
    pub union: Figures,
}

/// How often a message came and how long its answers took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The number of messages, answered or not yet.
    pub count: u64,
    /// The time of all answers together, in nanoseconds.
    pub total_ns: u64,
    /// The number of answers that took less than 1, 2, 4, 8, … microseconds and not less than the one before.
    /// Trailing zeros are left out.
    pub buckets: Vec<u64>,
}

impl Latency {
    /// The time in microseconds that `share` (0 to 1) of the answers did not exceed, rounded up to a power
    /// of two.
    pub fn quantile_us(&self, share: f64) -> u64 {
        let answered: u64 = self.buckets.iter().sum();
        let wanted = (answered as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (exponent, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return 1 << exponent;
            }
        }
        0
    }

    /// What has come since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.buckets.iter().copied().chain(std::iter::repeat(0));
        Self {
            count: self.count.saturating_sub(earlier.count),
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
            buckets: self
                .buckets
                .iter()
                .zip(before)
                .map(|(now, then)| now.saturating_sub(then))
                .collect(),
        }
    }
}

/// Tells about a mount, from outside the thread that serves it.
#[derive(Clone)]
pub struct Reporter {
    pub(super) overlay: Arc<Overlay>,
    pub(super) statistics: Arc<Statistics>,
}

impl Reporter {
    /// How things are now.
    pub fn report(&self) -> Report {
        let counted = Message::NAMES.iter().zip(&self.statistics.counters);
        let messages = counted.filter_map(|(name, counters)| {
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let count = load(&counters.received);
            let mut buckets: Vec<u64> = counters.buckets.iter().map(load).collect();
            buckets.truncate(buckets.iter().rposition(|count| *count > 0).map_or(0, |at| at + 1));
            let latency = Latency { count, total_ns: load(&counters.total_ns), buckets };
            (count > 0).then(|| ((*name).to_owned(), latency))
        });
        Report { messages: messages.collect(), union: self.overlay.figures() }
    }

    /// The same as one line of JSON.
    ///
    /// # Errors
    /// None that can happen: there is nothing in a report that JSON cannot hold.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.report())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_double() {
        let expected =
            [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1000, 10), (u64::MAX, BUCKETS - 1)];
        for (us, place) in expected {
            assert_eq!(bucket(us), place, "{us}");
        }
    }

    #[test]
    fn quantiles_come_from_the_buckets() {
        let latency = Latency { count: 100, total_ns: 0, buckets: vec![0, 90, 0, 9, 1] };
        assert_eq!([0.5, 0.9, 0.99, 1.0].map(|share| latency.quantile_us(share)), [2, 2, 8, 16]);
        assert_eq!(Latency::default().quantile_us(0.5), 0);
        let later = Latency { count: 109, total_ns: 5, buckets: vec![1, 91, 0, 9, 1, 7] };
        let since = later.since(&latency);
        assert_eq!((since.count, since.buckets), (9, vec![1, 1, 0, 0, 0, 7]));
    }
}
