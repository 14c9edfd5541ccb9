//! Layer archives: streams of tar entries, as images keep and exchange their layers.
//!
//! What is read here comes from strangers. Nothing is ever made on disk under a name from an archive; every
//! length is bounded by [`Limits`] before memory is taken for it; and an archive that two readers could
//! understand in two ways is refused (see `docs/store.md`). Formats: POSIX.1-2017 pax, GNU tar manual ("Basic Tar
//! Format"), OCI image specification ("Image Layer Filesystem Changeset").

pub mod compression;
pub mod compressor;
pub mod entry;
pub mod entry_path;
mod header;
pub mod limits;
pub mod oci_whiteout;
mod pax;
mod pieces;
pub mod reader;
mod sparse;
pub mod writer;

use std::fmt;
use std::io;

pub use compression::{Compression, Decompressed, foreign};
pub use compressor::Compressor;
pub use entry::{Entry, Kind, Xattr};
pub use entry_path::EntryPath;
pub use limits::Limits;
pub use reader::Reader;

/// Why an archive is not taken.
#[derive(Debug)]
pub struct Refusal {
    /// The entry that is wrong, as it is called in the archive; `None` for the archive itself.
    entry: Option<Vec<u8>>,
    problem: String,
}

impl Refusal {
    /// A refusal of the archive itself.
    pub fn new(problem: impl Into<String>) -> Self {
        Self { entry: None, problem: problem.into() }
    }

    /// The same for the entry called `name`, unless it names one already. The root has no name.
    #[must_use]
    pub fn of(mut self, name: &[u8]) -> Self {
        if self.entry.is_none() && !name.is_empty() {
            self.entry = Some(name.to_vec());
        }
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(entry) = &self.entry {
            write!(f, "entry {}: ", Shown(entry))?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Refusal {}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::new(match error.kind() {
            io::ErrorKind::UnexpectedEof => "the archive ends too early".to_owned(),
            _ => error.to_string(),
        })
    }
}

/// The result of reading an archive.
pub type Result<T> = std::result::Result<T, Refusal>;

/// Bytes from an archive as they may be shown on a terminal: cut to a line's length, without control characters.
pub struct Shown<'a>(pub &'a [u8]);

/// More of a name says nothing to a person.
const LONGEST_SHOWN: usize = 300;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(LONGEST_SHOWN)];
        for chunk in shown.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?
                } else {
                    write!(f, "{c}")?
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        if self.0.len() > LONGEST_SHOWN { f.write_str("...") } else { Ok(()) }
    }
}
