//! Compressed archives. The form is found by the first bytes: media types and file names lie.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::Limits;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), any number of members.
    Gzip,
    /// Zstandard (RFC 8878), any number of frames.
    Zstd,
}

/// The largest window that a zstd frame may ask for: 2^27 bytes, what the zstd program takes by default.
const LARGEST_WINDOW: u32 = 27;

impl Compression {
    /// The form of data that begins with `start`, of which 4 bytes are needed where there are so many.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, which may come before the first that has data (RFC 8878, 3.1.2).
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// What a compressed stream holds. Fails when it grows beyond the limits.
pub struct Decompressed<R: Read> {
    stream: Stream<R>,
    compression: Compression,
    limits: Limits,
    given: u64,
}

enum Stream<R: Read> {
    Plain(BufReader<Counted<R>>),
    Gzip(Box<MultiGzDecoder<BufReader<Counted<R>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Counted<R>>>>),
}

/// What begins so is compressed in a form that is not read here. 10 bytes are needed.
pub fn foreign(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
        // The first block begins with the digits of pi, so no name of a member does.
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some("bzip2"),
        _ => None,
    }
}

impl<R: Read> Decompressed<R> {
    /// Finds out how `source` is compressed.
    ///
    /// # Errors
    /// Those of reading it, and for forms other than [`Compression`].
    pub fn new(source: R, limits: Limits) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(128 << 10, Counted { source, read: 0 });
        let start = source.fill_buf()?;
        if let Some(form) = foreign(start) {
            let line = format!("it is compressed with {form}; decompress it, or use gzip or zstd");
            return Err(io::Error::other(line));
        }
        let compression = Compression::of(start);
        let stream = match compression {
            Compression::None => Stream::Plain(source),
            Compression::Gzip => Stream::Gzip(Box::new(MultiGzDecoder::new(source))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(LARGEST_WINDOW)?;
                Stream::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { stream, compression, limits, given: 0 })
    }

    /// How the stream is compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    fn compressed(&self) -> u64 {
        match &self.stream {
            Stream::Plain(source) => source.get_ref().read,
            Stream::Gzip(decoder) => decoder.get_ref().get_ref().read,
            Stream::Zstd(decoder) => decoder.get_ref().get_ref().read,
        }
    }

    fn check(&self) -> io::Result<()> {
        let refused = |why: String| Err(io::Error::other(why));
        let Limits { bytes, ratio, ratio_from, .. } = self.limits;
        if self.given > bytes {
            return refused(format!("the archive holds more than {bytes} bytes"));
        }
        if self.given > ratio_from && self.given / ratio > self.compressed() {
            return refused(format!(
                "the archive holds more than {ratio} times what it is compressed to"
            ));
        }
        Ok(())
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.stream {
            Stream::Plain(source) => source.read(buffer),
            Stream::Gzip(decoder) => decoder.read(buffer),
            Stream::Zstd(decoder) => decoder.read(buffer),
        }?;
        self.given += count as u64;
        self.check()?;
        Ok(count)
    }
}

/// Counts what is read.
struct Counted<R> {
    source: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn all(data: &[u8], limits: Limits) -> io::Result<Vec<u8>> {
        let mut result = Vec::new();
        Decompressed::new(data, limits)?.read_to_end(&mut result)?;
        Ok(result)
    }

    #[test]
    fn several_members_and_frames_are_one_stream() {
        let zstd = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0], &b"xx"[..]].concat();
        for (stream, form) in [
            ([gzip(b"one "), gzip(b"two")].concat(), Compression::Gzip),
            ([zstd(b"one "), skippable.clone(), zstd(b"two")].concat(), Compression::Zstd),
            ([skippable, zstd(b"one "), zstd(b"two")].concat(), Compression::Zstd),
            (b"one two".to_vec(), Compression::None),
        ] {
            assert_eq!(
                Decompressed::new(&stream[..], Limits::default()).unwrap().compression(),
                form
            );
            assert_eq!(all(&stream, Limits::default()).unwrap(), b"one two", "{form:?}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_or_damaged_is_an_error() {
        let whole = gzip(&[7; 10_000]);
        all(&whole[..whole.len() - 4], Limits::default()).unwrap_err();
        let mut damaged = whole;
        let last = damaged.len() - 6;
        damaged[last] ^= 1;
        all(&damaged, Limits::default()).unwrap_err();
        let whole = zstd::encode_all(&[7; 10_000][..], 1).unwrap();
        all(&whole[..whole.len() - 2], Limits::default()).unwrap_err();
    }

    #[test]
    fn other_forms_are_named() {
        let xz = [&[0xfd], &b"7zXZ\0\0\x04"[..]].concat();
        let bzip2 = b"BZh91AY&SY\x01";
        for (stream, form) in [(&xz[..], "xz"), (bzip2, "bzip2")] {
            let line = all(stream, Limits::default()).unwrap_err().to_string();
            assert_eq!(
                line,
                format!("it is compressed with {form}; decompress it, or use gzip or zstd")
            );
        }
        assert_eq!(all(b"BZh9.txt", Limits::default()).unwrap(), b"BZh9.txt");
    }

    #[test]
    fn bombs_are_refused() {
        let limits = Limits { ratio: 100, ratio_from: 100_000, ..Limits::default() };
        let zeros = vec![0; 200_000];
        for bomb in [gzip(&zeros), zstd::encode_all(&zeros[..], 1).unwrap()] {
            assert_eq!(all(&bomb, Limits::default()).unwrap(), zeros);
            let error = all(&bomb, limits).unwrap_err().to_string();
            assert_eq!(error, "the archive holds more than 100 times what it is compressed to");
            let limits = Limits { bytes: 150_000, ..Limits::default() };
            let error = all(&bomb, limits).unwrap_err().to_string();
            assert_eq!(error, "the archive holds more than 150000 bytes");
        }
    }
}
