//! What a daemon leaves to the next one if it dies: a file in memory that both, and their supervisor, have open. It is a part of
//! what is handed over to other versions: whoever changes its meaning changes `handover::FORMAT`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::fuse::Agreed;
use crate::sys::backing;

/// Where the numbers are, 8 bytes each, of the machine's byte order.
#[derive(Clone, Copy)]
enum Slot {
    /// What was agreed on with the kernel, and 1 more; 0 if nothing was yet.
    Agreed,
    /// Not 0 if nobody can go on.
    Spoiled,
    /// Which daemon came to serve last, and 1 more.
    Served,
    /// How many pairs of number and id follow.
    Known,
    Pairs,
}

/// The file.
#[derive(Debug)]
pub(super) struct Estate(File);

impl From<OwnedFd> for Estate {
    /// One that another process has left.
    fn from(file: OwnedFd) -> Self {
        Self(file.into())
    }
}

impl AsFd for Estate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Estate {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let estate = Self(backing::memory_file()?.into());
        estate.0.set_len(Slot::Pairs as u64 * 8)?;
        Ok(estate)
    }

    /// What was agreed on with the kernel; the ids of objects that the last daemon found, by their numbers; and which
    /// daemon that was, 0 for the first.
    ///
    /// # Errors
    /// Also when no daemon can go on.
    pub fn read(&self) -> io::Result<(Agreed, HashMap<u64, u64>, u16)> {
        let (Some(agreed), Some(last)) =
            (self.get(Slot::Agreed)?.checked_sub(1), self.get(Slot::Served)?.checked_sub(1))
        else {
            return Err(io::Error::other("it died before it served"));
        };
        if self.get(Slot::Spoiled)? != 0 {
            return Err(io::Error::other("files with the same inode number cannot be told apart"));
        }
        let mut bytes = vec![0; self.get(Slot::Known)? as usize * 16];
        self.0.read_exact_at(&mut bytes, Slot::Pairs as u64 * 8)?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_ne_bytes(*number)).collect();
        let (pairs, _) = numbers.as_chunks::<2>();
        let known = pairs.iter().map(|[number, id]| (*number, *id)).collect();
        Ok((Agreed::from_bits(agreed), known, last as u16))
    }

    /// Leaves the ids of objects that were found. Whoever dies meanwhile leaves some of those that were left before.
    pub fn leave(&self, known: &HashMap<u64, u64>) -> io::Result<()> {
        let numbers = known.iter().flat_map(|(number, id)| [*number, *id]);
        let bytes: Vec<u8> = numbers.flat_map(u64::to_ne_bytes).collect();
        self.0.write_all_at(&bytes, Slot::Pairs as u64 * 8)?;
        self.set(Slot::Known, known.len() as u64)
    }

    /// Notes what was agreed on with the kernel.
    pub fn agree(&self, agreed: Agreed) -> io::Result<()> {
        self.set(Slot::Agreed, agreed.bits() + 1)
    }

    /// Notes that nobody can go on.
    pub fn spoil(&self) {
        if let Err(error) = self.set(Slot::Spoiled, 1) {
            // Memory for a page that is there.
            log::error!("what is left to the next daemon: {error}");
        }
    }

    /// Notes that the `generation`-th daemon after the first answers.
    pub fn serve(&self, generation: u16) -> io::Result<()> {
        self.set(Slot::Served, u64::from(generation) + 1)
    }

    /// Changes whenever a daemon has come to answer.
    pub fn served(&self) -> io::Result<u64> {
        self.get(Slot::Served)
    }

    fn get(&self, slot: Slot) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, slot as u64 * 8)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn set(&self, slot: Slot, value: u64) -> io::Result<()> {
        self.0.write_all_at(&value.to_ne_bytes(), slot as u64 * 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found() {
        let estate = Estate::new().unwrap();
        estate.read().unwrap_err();
        let agreed = Agreed { zero_open: true, zero_opendir: false, checks_flags: true };
        estate.agree(agreed).unwrap();
        estate.serve(0).unwrap();
        assert_eq!(estate.read().unwrap(), (agreed, HashMap::new(), 0));
        let known = HashMap::from([(1, 1), (u64::MAX, 7), (77, 1 << 63)]);
        estate.leave(&known).unwrap();
        estate.serve(1).unwrap();
        assert_eq!(estate.read().unwrap(), (agreed, known, 1));
        estate.leave(&HashMap::new()).unwrap();
        assert_eq!(estate.read().unwrap().1, HashMap::new());
        estate.spoil();
        estate.read().unwrap_err();
    }
}
