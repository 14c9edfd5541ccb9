//! Handing data on in pieces of one size, in whatever pieces it comes: compressors end blocks where a piece ends.

use std::io::{self, Write};

const PIECE: usize = 256 << 10;

/// Hands what is written on to `out` in pieces of one size, the last excepted.
pub struct Pieces<W> {
    out: W,
    piece: Vec<u8>,
}

impl<W: Write> Pieces<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, piece: Vec::with_capacity(PIECE) }
    }

    /// Hands the rest on, and gives back what it was handed to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&self.piece)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = buffer.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buffer[..count]);
        if self.piece.len() == PIECE {
            self.out.write_all(&self.piece)?;
            self.piece.clear();
        }
        Ok(count)
    }

    /// Does nothing: what is not a whole piece has to wait.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
