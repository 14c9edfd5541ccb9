//! Compressing an archive: the same data always becomes the same bytes, in whatever pieces it comes.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use super::Compression;
use super::pieces::Pieces;

/// The level of zstd: smaller than the fastest gzip, and faster.
const ZSTD_LEVEL: i32 = 3;

/// A stream that is compressed while it is written.
pub enum Compressor<W: Write> {
    /// As it comes.
    None(W),
    /// At the fastest level.
    Gzip(Box<Pieces<GzEncoder<W>>>),
    /// At level 3.
    Zstd(Box<Pieces<ZstdEncoder<'static, W>>>),
}

impl<W: Write> Compressor<W> {
    /// Begins a stream.
    ///
    /// # Errors
    /// There is no memory for zstd.
    pub fn new(compression: Compression, out: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(out),
            Compression::Gzip => {
                let encoder = GzEncoder::new(out, flate2::Compression::fast());
                Self::Gzip(Box::new(Pieces::new(encoder)))
            }
            Compression::Zstd => {
                Self::Zstd(Box::new(Pieces::new(ZstdEncoder::new(out, ZSTD_LEVEL)?)))
            }
        })
    }

    /// Ends the stream, and gives back what it was written to.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::None(out) => Ok(out),
            Self::Gzip(pieces) => pieces.finish()?.finish(),
            Self::Zstd(pieces) => pieces.finish()?.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(buffer),
            Self::Gzip(pieces) => pieces.write(buffer),
            Self::Zstd(pieces) => pieces.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(out) => out.flush(),
            Self::Gzip(pieces) => pieces.flush(),
            Self::Zstd(pieces) => pieces.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::archive::{Decompressed, Limits};

    #[test]
    fn pieces_do_not_show() {
        let data: Vec<u8> = (0..300_000_u32)
            .flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_le_bytes())
            .collect();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let compress = |piece: usize| {
                let mut out = Compressor::new(compression, Vec::new()).unwrap();
                data.chunks(piece).for_each(|piece| out.write_all(piece).unwrap());
                out.finish().unwrap()
            };
            let whole = compress(data.len());
            for piece in [1000, 4096, 65_536, 100_001] {
                assert!(compress(piece) == whole, "{compression:?}: {piece}");
            }
            let mut back = Vec::new();
            let mut stream = Decompressed::new(&whole[..], Limits::default()).unwrap();
            assert_eq!(stream.compression(), compression);
            stream.read_to_end(&mut back).unwrap();
            assert!(back == data, "{compression:?}");
        }
    }
}
