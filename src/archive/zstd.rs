//! Writing zstd: the same data always becomes the same bytes, in whatever pieces it comes.

use std::io::{self, Write};

use zstd::stream::write::Encoder;

use super::pieces::Pieces;

/// A zstd stream that is being written.
pub struct ZstdWriter<W: Write> {
    pieces: Pieces<Encoder<'static, W>>,
}

/// Smaller than the fastest gzip, and faster.
const LEVEL: i32 = 3;

impl<W: Write> ZstdWriter<W> {
    /// Begins a stream.
    pub fn new(out: W) -> io::Result<Self> {
        Ok(Self { pieces: Pieces::new(Encoder::new(out, LEVEL)?) })
    }

    /// Ends the stream, and gives back what it was written to.
    pub fn finish(self) -> io::Result<W> {
        self.pieces.finish()?.finish()
    }
}

impl<W: Write> Write for ZstdWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.pieces.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pieces.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_show() {
        let data: Vec<u8> = (0..1_000_000_u32)
            .flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_le_bytes())
            .collect();
        let compress = |piece: usize| {
            let mut writer = ZstdWriter::new(Vec::new()).unwrap();
            data.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
            writer.finish().unwrap()
        };
        let whole = compress(data.len());
        for piece in [1000, 4096, 65_536, 100_001] {
            assert!(compress(piece) == whole, "{piece}");
        }
        assert!(zstd::decode_all(&whole[..]).unwrap() == data);
    }
}
