//! What the union holds, and what it has done since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::Overlay;

/// Figures of a live union.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Objects that the caller knows.
    pub nodes: usize,
    /// Descriptors that are kept open and can be closed at any time.
    pub descriptors: usize,
    /// Most of them that are kept.
    pub most_descriptors: usize,
    /// How often a descriptor was wanted and was open.
    pub descriptor_hits: u64,
    /// How often it had to be opened.
    pub descriptor_misses: u64,
    /// Objects that were brought into the upper layer.
    pub copy_ups: u64,
    /// Those among them of which only the attributes were copied.
    pub metacopies: u64,
    /// The size of the others' data in bytes, holes included.
    pub copied_bytes: u64,
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Done {
    copy_ups: AtomicU64,
    metacopies: AtomicU64,
    copied_bytes: AtomicU64,
}

impl Done {
    /// An object was brought into the upper layer with `bytes` of data, or without its data.
    pub fn copied_up(&self, bytes: Option<u64>) {
        self.copy_ups.fetch_add(1, Ordering::Relaxed);
        match bytes {
            Some(bytes) => self.copied_bytes.fetch_add(bytes, Ordering::Relaxed),
            None => self.metacopies.fetch_add(1, Ordering::Relaxed),
        };
    }
}

impl Overlay {
    /// How things are now.
    pub fn figures(&self) -> Figures {
        let usage = self.descriptors.usage();
        Figures {
            nodes: self.node_count(),
            descriptors: usage.open,
            most_descriptors: usage.most,
            descriptor_hits: usage.hits,
            descriptor_misses: usage.misses,
            copy_ups: self.done.copy_ups.load(Ordering::Relaxed),
            metacopies: self.done.metacopies.load(Ordering::Relaxed),
            copied_bytes: self.done.copied_bytes.load(Ordering::Relaxed),
        }
    }
}
