//! What an archive has besides contents, so that it can be written again byte by byte: `docs/format.md`, "tar-split".
//!
//! A zstd stream of records: a length of 8 bytes (little-endian), then either that many bytes as they are, or where the
//! highest bit of the length is set, the hash of a content of that length of which those bytes were data. Of a file with
//! holes the parts come one by one, each with its offset.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use super::objects::ContentId;
use crate::archive::entry::{Extent, Part};

const CONTENT: u64 = 1 << 63;

/// Writes the records.
pub struct Writer {
    out: zstd::stream::write::Encoder<'static, BufWriter<File>>,
}

impl Writer {
    /// Begins a new file.
    pub fn new(file: File) -> io::Result<Self> {
        Ok(Self { out: zstd::stream::write::Encoder::new(BufWriter::new(file), 3)? })
    }

    /// Bytes that are no content.
    pub fn framing(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.out.write_all(&(bytes.len() as u64).to_le_bytes())?;
        self.out.write_all(bytes)
    }

    /// The data of a content.
    pub fn content(&mut self, extent: &Extent, id: &ContentId) -> io::Result<()> {
        let whole = [Part { offset: 0, length: extent.size }];
        for Part { offset, length } in extent.data.as_deref().unwrap_or(&whole) {
            self.out.write_all(&(CONTENT | length).to_le_bytes())?;
            self.out.write_all(&offset.to_le_bytes())?;
            self.out.write_all(id.as_bytes())?;
        }
        Ok(())
    }

    /// Ends the file.
    pub fn finish(self) -> io::Result<()> {
        self.out.finish()?.flush()
    }
}
