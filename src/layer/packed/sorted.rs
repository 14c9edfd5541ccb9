//! Names in the order of their bytes, more of them than there should be in memory.
//!
//! As many as have room are sorted at once; what there is more is written to a file in runs, each sorted by itself, which
//! are merged when all are known.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::pages::nameless;

/// Memory for names that are being sorted, in bytes.
const MEMORY: usize = 8 << 20;

/// Different names of at most 255 bytes, each with a number.
pub(super) struct Sorter {
    folder: Arc<Path>,
    memory: usize,
    names: Vec<u8>,
    items: Vec<Item>,
    file: Option<File>,
    /// Where the runs end in the file.
    runs: Vec<u64>,
}

struct Item {
    at: u32,
    length: u8,
    number: u32,
}

impl Sorter {
    pub fn new(folder: &Arc<Path>) -> Self {
        Self {
            folder: folder.clone(),
            memory: MEMORY,
            names: Vec::new(),
            items: Vec::new(),
            file: None,
            runs: Vec::new(),
        }
    }

    pub fn push(&mut self, name: &[u8], number: u32) -> io::Result<()> {
        if self.names.len() + (self.items.len() + 1) * size_of::<Item>() > self.memory {
            self.write_run()?;
        }
        self.items.push(Item { at: self.names.len() as u32, length: name.len() as u8, number });
        self.names.extend_from_slice(name);
        Ok(())
    }

    /// Calls `each` with all numbers, in the order of their names, and forgets them.
    pub fn drain(&mut self, mut each: impl FnMut(u32) -> io::Result<()>) -> io::Result<()> {
        if self.runs.is_empty() {
            self.sort();
            self.names.clear();
            return self.items.drain(..).try_for_each(|item| each(item.number));
        }
        self.write_run()?;
        let mut runs = Vec::new();
        let mut start = 0;
        for end in self.runs.drain(..) {
            let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?.try_clone()?;
            runs.push(BufReader::with_capacity(16 << 10, Run { file, at: start, end }));
            start = end;
        }
        let mut heads = BinaryHeap::new();
        for (run, source) in runs.iter_mut().enumerate() {
            heads.extend(next(source)?.map(|(name, number)| Reverse((name, number, run))));
        }
        while let Some(Reverse((_, number, run))) = heads.pop() {
            each(number)?;
            heads.extend(next(&mut runs[run])?.map(|(name, number)| Reverse((name, number, run))));
        }
        Ok(())
    }

    fn sort(&mut self) {
        let names = &self.names;
        let name = |item: &Item| &names[item.at as usize..][..item.length.into()];
        self.items.sort_unstable_by(|one, other| name(one).cmp(name(other)));
    }

    fn write_run(&mut self) -> io::Result<()> {
        self.sort();
        let file = match &mut self.file {
            Some(file) => file,
            file => file.insert(nameless(&self.folder)?),
        };
        let at = self.runs.last().copied().unwrap_or(0);
        let mut out = BufWriter::with_capacity(64 << 10, WriteAt { file, at });
        for item in self.items.drain(..) {
            out.write_all(&[item.length])?;
            out.write_all(&self.names[item.at as usize..][..item.length.into()])?;
            out.write_all(&item.number.to_le_bytes())?;
        }
        out.flush()?;
        self.runs.push(out.get_ref().at);
        self.names.clear();
        Ok(())
    }
}

/// The next name of a run, with its number.
fn next(run: &mut impl Read) -> io::Result<Option<(Box<[u8]>, u32)>> {
    let mut length = [0];
    if run.read(&mut length)? == 0 {
        return Ok(None);
    }
    let mut name = vec![0; length[0].into()];
    run.read_exact(&mut name)?;
    let mut number = [0; 4];
    run.read_exact(&mut number)?;
    Ok(Some((name.into(), u32::from_le_bytes(number))))
}

struct Run {
    file: File,
    at: u64,
    end: u64,
}

impl Read for Run {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

struct WriteAt<'f> {
    file: &'f File,
    at: u64,
}

impl Write for WriteAt<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_order_in_memory_and_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(&folder.path().into());
        for (memory, count) in [(MEMORY, 1000_u32), (4000, 1000), (4000, 3), (4000, 0), (4000, 700)]
        {
            sorter.memory = memory;
            let mut names: Vec<String> =
                (0..count).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
            for (number, name) in names.iter().enumerate() {
                sorter.push(name.as_bytes(), number as u32).unwrap();
            }
            let mut drained = Vec::new();
            let each = |number: u32| {
                drained.push(names[number as usize].clone());
                Ok(())
            };
            sorter.drain(each).unwrap();
            names.sort();
            assert_eq!(drained, names, "{memory} {count}");
        }
    }
}
