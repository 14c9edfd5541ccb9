//! What an archive has besides contents, so that it can be written again byte by byte: `docs/format.md`, "tar-split".
//!
//! A zstd stream of records: a length of 8 bytes (little-endian), then either that many bytes as they are, or where the
//! highest bit of the length is set, an offset of 8 bytes and the hash of a content, of which that many bytes from the
//! offset were data. Of a file with holes the parts come one by one.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use super::objects::{ContentId, Objects};
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

/// Writes the archive whose records are in `split`, with the contents that `objects` has, to `out`.
///
/// # Errors
/// `UnexpectedEof` if the records, or a content, are shorter than they should be.
pub fn restore(split: File, objects: &Objects, out: &mut impl Write) -> io::Result<()> {
    let mut records = zstd::stream::read::Decoder::new(split)?;
    while let Some(length) = next_length(&mut records)? {
        if length & CONTENT == 0 {
            copy(&mut records, length, out)?;
            continue;
        }
        let offset = u64::from_le_bytes(array(&mut records)?);
        let mut content = objects.get(&ContentId::from_bytes(array(&mut records)?))?;
        if offset > 0 {
            content.seek(SeekFrom::Start(offset))?;
        }
        copy(&mut content, length & !CONTENT, out)?;
    }
    Ok(())
}

/// Calls `each` with the contents that the records in `split` name, in their order.
pub fn contents(split: File, mut each: impl FnMut(ContentId)) -> io::Result<()> {
    let mut records = zstd::stream::read::Decoder::new(split)?;
    while let Some(length) = next_length(&mut records)? {
        if length & CONTENT == 0 {
            copy(&mut records, length, &mut io::sink())?;
        } else {
            let _offset: [u8; 8] = array(&mut records)?;
            each(ContentId::from_bytes(array(&mut records)?));
        }
    }
    Ok(())
}

/// The length that the next record begins with; `None` at the end.
fn next_length(records: &mut impl Read) -> io::Result<Option<u64>> {
    let mut first = [0];
    if records.read(&mut first)? == 0 {
        return Ok(None);
    }
    let rest: [u8; 7] = array(records)?;
    let mut length = [0; 8];
    length[0] = first[0];
    length[1..].copy_from_slice(&rest);
    Ok(Some(u64::from_le_bytes(length)))
}

fn array<const N: usize>(source: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn copy(source: &mut impl Read, length: u64, out: &mut impl Write) -> io::Result<()> {
    match io::copy(&mut source.take(length), out)? {
        copied if copied == length => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
