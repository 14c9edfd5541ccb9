//! Writing zstd: the same data always becomes the same bytes, in whatever pieces it comes.

use std::io::{self, Write};

use zstd::stream::write::Encoder;

/// A zstd stream that is being written.
pub struct ZstdWriter<W: Write> {
    encoder: Encoder<'static, W>,
    /// What has not been handed on: all pieces have one size.
    piece: Vec<u8>,
}

const PIECE: usize = 256 << 10;
/// Smaller than the fastest gzip, and faster.
const LEVEL: i32 = 3;

impl<W: Write> ZstdWriter<W> {
    /// Begins a stream.
    pub fn new(out: W) -> io::Result<Self> {
        Ok(Self { encoder: Encoder::new(out, LEVEL)?, piece: Vec::with_capacity(PIECE) })
    }

    /// Ends the stream, and gives back what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.encoder.write_all(&self.piece)?;
        self.encoder.finish()
    }
}

impl<W: Write> Write for ZstdWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = buffer.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buffer[..count]);
        if self.piece.len() == PIECE {
            self.encoder.write_all(&self.piece)?;
            self.piece.clear();
        }
        Ok(count)
    }

    /// Does nothing: what is not a whole piece has to wait.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
