//! Writing gzip: the same data always becomes the same bytes, in whatever pieces it comes.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::pieces::Pieces;

/// A gzip stream that is being written, at the fastest level.
pub struct GzipWriter<W: Write> {
    pieces: Pieces<GzEncoder<W>>,
}

impl<W: Write> GzipWriter<W> {
    /// Begins a stream.
    pub fn new(out: W) -> Self {
        Self { pieces: Pieces::new(GzEncoder::new(out, Compression::fast())) }
    }

    /// Ends the stream, and gives back what it was written to.
    pub fn finish(self) -> io::Result<W> {
        self.pieces.finish()?.finish()
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.pieces.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pieces.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn pieces_do_not_show() {
        let data: Vec<u8> = (0..1_000_000_u32)
            .flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_le_bytes())
            .collect();
        let compress = |piece: usize| {
            let mut writer = GzipWriter::new(Vec::new());
            data.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
            writer.finish().unwrap()
        };
        let whole = compress(data.len());
        for piece in [1000, 4096, 65_536, 100_001] {
            assert!(compress(piece) == whole, "{piece}");
        }
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&whole[..]).read_to_end(&mut back).unwrap();
        assert!(back == data);
    }
}
