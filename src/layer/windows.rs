//! Windows onto large lower files that are being read from one end to the other.
//!
//! The kernel copies what it is given in reply to a READ anyway. Out of a mapped file it copies straight from the page
//! cache; out of a buffer, what read(2) has copied there first. Mapping pays when it is used several times, so it is
//! done for reads that follow upon each other, and for nothing else. There are few windows at a time: mapped pages count
//! as memory of this program, whoever else uses them.

use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::sys::file_window::FileWindow;

/// Shorter reads are left to read(2), in bytes.
pub const SHORTEST_READ: usize = 64 * 1024;

/// Windows begin at multiples of this. A page of page tables spans it.
const STRIDE: u64 = 2 << 20;

/// The length of a window: a read that begins in its first [`STRIDE`] lies in it.
const LENGTH: u64 = 2 * STRIDE;

/// How far a read may begin from where the last one ended: several are under way at once.
const NEAR: u64 = 1 << 20;

/// Most files with a window.
const MOST: usize = 8;

/// The files that have been read last.
#[derive(Default)]
pub struct Windows {
    files: Mutex<Vec<Reading>>,
}

struct Reading {
    /// The descriptor is who it is: nodes may change their data, and numbers may be used again.
    file: Arc<OwnedFd>,
    next: u64,
    window: Option<Window>,
}

#[derive(Clone)]
struct Window {
    start: u64,
    mapping: Arc<FileWindow>,
}

/// Bytes of a file where the page cache has them, to be handed to the kernel.
pub struct View {
    mapping: Arc<FileWindow>,
    from: usize,
    to: usize,
}

impl Deref for View {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.mapping.bytes()[self.from..self.to]
    }
}

impl Windows {
    /// The `length` bytes at `offset` of `file`, all of which must exist, if it is read in sequence and has no
    /// holes in the way of mapping it. What cannot be had here is left to read(2), which also tells why.
    pub fn view(&self, file: &Arc<OwnedFd>, offset: u64, length: usize) -> Option<View> {
        if length < SHORTEST_READ || length as u64 > STRIDE {
            return None;
        }
        let window = match self.find(file, offset, length as u64)? {
            Ok(window) => window,
            Err(start) => self.open(file, start)?,
        };
        let from = (offset - window.start) as usize;
        window.mapping.populate(from, length).ok()?;
        Some(View { mapping: window.mapping, from, to: from + length })
    }

    /// The window of `file` for a read that continues others, or where it should begin.
    fn find(&self, file: &Arc<OwnedFd>, offset: u64, length: u64) -> Option<Result<Window, u64>> {
        let mut files = self.files.lock();
        let Some(at) = files.iter().position(|known| Arc::ptr_eq(&known.file, file)) else {
            let evicted = (files.len() == MOST).then(|| files.remove(0));
            files.push(Reading { file: file.clone(), next: offset + length, window: None });
            drop(files);
            // Closed and unmapped after the lock is released.
            drop(evicted);
            return None;
        };
        files[at..].rotate_left(1);
        let reading = files.last_mut()?;
        let near = offset.abs_diff(reading.next) <= NEAR;
        reading.next = offset + length;
        let end = offset + length;
        let inside = |window: &&Window| window.start <= offset && end <= window.start + LENGTH;
        match reading.window.as_ref().filter(inside) {
            Some(window) => Some(Ok(window.clone())),
            None => near.then_some(Err(offset - offset % STRIDE)),
        }
    }

    fn open(&self, file: &Arc<OwnedFd>, start: u64) -> Option<Window> {
        let mapping = Arc::new(FileWindow::new(file.as_fd(), start, LENGTH as usize).ok()?);
        let window = Window { start, mapping };
        let mut files = self.files.lock();
        let reading = files.iter_mut().find(|known| Arc::ptr_eq(&known.file, file));
        let replaced = reading.and_then(|reading| reading.window.replace(window.clone()));
        drop(files);
        drop(replaced);
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(length: usize) -> (Arc<OwnedFd>, Vec<u8>) {
        let content: Vec<u8> = (0..length).map(|n| (n / 1000) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (Arc::new(file.into()), content)
    }

    #[test]
    fn reads_in_sequence_are_views_of_the_file() {
        let (file, content) = file(9 << 20);
        let windows = Windows::default();
        let size = 128 << 10;
        for at in (0..content.len()).step_by(size) {
            match windows.view(&file, at as u64, size) {
                Some(view) => assert!(*view == content[at..at + size], "{at}"),
                None => assert_eq!(at, 0),
            }
        }
        let across = (4 << 20) - 4096;
        assert!(windows.view(&file, across, size).is_none(), "far from where the last one ended");
        assert!(*windows.view(&file, across + 4096, size).unwrap() == content[4 << 20..][..size]);
    }

    #[test]
    fn windows_are_few_and_those_of_the_files_read_last() {
        let windows = Windows::default();
        let files: Vec<_> = (0..=MOST).map(|_| file(1 << 20).0).collect();
        for at in [0, 1] {
            for file in &files[1..] {
                let view = windows.view(file, at * SHORTEST_READ as u64, SHORTEST_READ);
                assert_eq!(view.is_some(), at == 1);
            }
        }
        assert!(windows.view(&files[0], 0, SHORTEST_READ).is_none());
        assert!(windows.view(&files[1], 2 * SHORTEST_READ as u64, SHORTEST_READ).is_none());
        assert!(windows.view(&files[MOST], 2 * SHORTEST_READ as u64, SHORTEST_READ).is_some());
        assert_eq!(windows.files.lock().len(), MOST);
    }
}
