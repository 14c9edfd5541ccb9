//! How much an archive may ask for.

/// Bounds on one layer archive. What is beyond them is no layer that anybody has made in earnest.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries, duplicates included.
    pub entries: u64,
    /// Bytes of the uncompressed archive, and of each file in it when it is written out.
    pub bytes: u64,
    /// Uncompressed bytes for each compressed one, after the first [`Self::ratio_from`] uncompressed bytes.
    pub ratio: u64,
    /// Uncompressed bytes before the ratio counts.
    pub ratio_from: u64,
    /// Bytes of the extended headers (pax records, long names) of one entry.
    pub header: u64,
    /// Bytes of the value of one extended attribute (the kernel's XATTR_SIZE_MAX).
    pub xattr: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            bytes: 64 << 30,
            ratio: 1000,
            ratio_from: 64 << 20,
            header: 1 << 20,
            xattr: 65_536,
        }
    }
}
