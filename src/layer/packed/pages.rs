//! Bytes on disk, of which a few are in memory.
//!
//! A layer may have millions of names. What is known of them while it is built is kept in pages, each of which has one place
//! in memory that it shares with others; which of them is there was used last. What has to make room goes to a file
//! without a name. Where everything has room there is no file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Bytes that come and go together.
const PAGE: usize = 4096;

/// A row of bytes that grows; what was never written to is zero.
pub struct Pages {
    folder: Arc<Path>,
    file: Option<File>,
    length: u64,
    /// Page number `n` is in the frame `n` modulo their number, or in the file.
    frames: Vec<Option<Box<Frame>>>,
}

struct Frame {
    page: u64,
    changed: bool,
    bytes: [u8; PAGE],
}

impl Pages {
    /// No bytes yet. At most `memory` bytes, and at least a page, will be in memory, the others in a file in `folder`.
    pub fn new(folder: Arc<Path>, memory: usize) -> Self {
        let frames = (0..memory.div_ceil(PAGE).max(1)).map(|_| None).collect();
        Self { folder, file: None, length: 0, frames }
    }

    /// The number of bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Adds bytes at the end; returns where they begin.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.length;
        self.write(at, bytes)?;
        Ok(at)
    }

    /// Fills `into` with the bytes from `at`.
    pub fn read(&mut self, mut at: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let start = (at % PAGE as u64) as usize;
            let (piece, rest) = into.split_at_mut(into.len().min(PAGE - start));
            piece.copy_from_slice(&self.page(at / PAGE as u64)?.bytes[start..][..piece.len()]);
            at += piece.len() as u64;
            into = rest;
        }
        Ok(())
    }

    /// Puts bytes at `at`, in place of what is there or behind the end.
    pub fn write(&mut self, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let start = (at % PAGE as u64) as usize;
            let (piece, rest) = bytes.split_at(bytes.len().min(PAGE - start));
            let frame = self.page(at / PAGE as u64)?;
            frame.bytes[start..][..piece.len()].copy_from_slice(piece);
            frame.changed = true;
            at += piece.len() as u64;
            bytes = rest;
        }
        self.length = self.length.max(at);
        Ok(())
    }

    /// The record `number` of those of `N` bytes that lie one after the other.
    pub fn get<const N: usize>(&mut self, number: u32) -> io::Result<[u8; N]> {
        let mut record = [0; N];
        self.read(u64::from(number) * N as u64, &mut record)?;
        Ok(record)
    }

    /// Changes a record.
    pub fn set<const N: usize>(&mut self, number: u32, record: [u8; N]) -> io::Result<()> {
        self.write(u64::from(number) * N as u64, &record)
    }

    /// Writes all bytes to `out`.
    pub fn copy_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        for page in 0..self.length.div_ceil(PAGE as u64) {
            let left = self.length - page * PAGE as u64;
            let frame = self.page(page)?;
            out.write_all(&frame.bytes[..PAGE.min(usize::try_from(left).unwrap_or(PAGE))])?;
        }
        Ok(())
    }

    fn page(&mut self, page: u64) -> io::Result<&mut Frame> {
        let place = (page % self.frames.len() as u64) as usize;
        // What nobody has had in memory yet has not been written to.
        let frame = self.frames[place]
            .get_or_insert_with(|| Box::new(Frame { page, changed: false, bytes: [0; PAGE] }));
        if frame.page == page {
            return Ok(frame);
        }
        if frame.changed {
            let file = match &mut self.file {
                Some(file) => file,
                file => file.insert(nameless(&self.folder)?),
            };
            file.write_all_at(&frame.bytes, frame.page * PAGE as u64)?;
            frame.changed = false;
        }
        let known = match &self.file {
            Some(file) => read_at(file, page * PAGE as u64, &mut frame.bytes)?,
            None => 0,
        };
        frame.bytes[known..].fill(0);
        frame.page = page;
        Ok(frame)
    }
}

/// A file in `folder` that goes when it is closed.
pub(super) fn nameless(folder: &Path) -> io::Result<File> {
    let path = folder.join("pages");
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Reads from `at` up to the end of the file, or of `into`; returns how many bytes.
fn read_at(file: &File, at: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut known = 0;
    while known < into.len() {
        match file.read_at(&mut into[known..], at + known as u64)? {
            0 => break,
            count => known += count,
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_in_memory_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let mut pages = Pages::new(folder.path().into(), 2 * PAGE);
        let record = |n: u32| [n, n ^ 7, !n].map(u32::to_le_bytes);
        let mut all = Vec::new();
        for n in 0..5000 {
            assert_eq!(pages.push(record(n).as_flattened()).unwrap(), u64::from(n) * 12);
            all.extend_from_slice(record(n).as_flattened());
        }
        for n in (0..5000).rev().step_by(7) {
            let changed = record(n + 1);
            pages.write(u64::from(n) * 12, changed.as_flattened()).unwrap();
            all[n as usize * 12..][..12].copy_from_slice(changed.as_flattened());
        }
        for n in (0..5000).step_by(3) {
            assert_eq!(pages.get::<12>(n).unwrap(), all[n as usize * 12..][..12]);
        }
        let mut copy = Vec::new();
        pages.copy_to(&mut copy).unwrap();
        assert!(copy == all);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_was_never_written_is_zero() {
        let folder = tempfile::tempdir().unwrap();
        let mut pages = Pages::new(folder.path().into(), PAGE);
        pages.write(10 * PAGE as u64, &[1]).unwrap();
        pages.write(0, &[1]).unwrap();
        for page in 1..10 {
            assert_eq!(pages.get::<PAGE>(page).unwrap(), [0; PAGE]);
        }
        assert_eq!(pages.get::<PAGE>(10).unwrap()[0], 1);
    }
}
