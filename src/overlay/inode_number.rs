//! One space of inode numbers for layers on several filesystems.
//!
//! Objects on the first filesystem (the upper's, or the top layer's) keep their numbers. Those on others
//! get the position of their filesystem in bits 48 to 62; a number that needs these bits itself is
//! folded. Bit 63 is never used: node ids from there on are not inode numbers.

use parking_lot::RwLock;

const FILESYSTEM_SHIFT: u32 = 48;
const NUMBER_MASK: u64 = (1 << FILESYSTEM_SHIFT) - 1;

/// The filesystems met so far, in the order in which their numbers are told apart.
pub(super) struct InodeNumbers {
    filesystems: RwLock<Vec<u64>>,
    truncate: bool,
}

impl InodeNumbers {
    /// No filesystem met yet; `truncate` is whether numbers must fit 32 bits (`ino32_t`).
    pub fn new(truncate: bool) -> Self {
        Self { filesystems: RwLock::default(), truncate }
    }

    /// The union's number for inode `ino` on filesystem `dev`.
    pub fn number(&self, dev: u64, ino: u64) -> u64 {
        self.number_at(self.filesystem(dev), ino)
    }

    /// The union's number for inode `ino` on the filesystem that was met first: the upper layer's, if there is one.
    pub fn on_first(&self, ino: u64) -> u64 {
        self.number_at(0, ino)
    }

    fn number_at(&self, filesystem: u64, ino: u64) -> u64 {
        let number = match filesystem {
            0 if ino < 1 << 63 => ino,
            at => (at << FILESYSTEM_SHIFT) | fold(ino),
        };
        // The bits of the filesystem come among those that numbers of files seldom have.
        if self.truncate { (number ^ (number >> 32)) & u64::from(u32::MAX) } else { number }
    }

    fn filesystem(&self, dev: u64) -> u64 {
        let known = |list: &[u64]| list.iter().position(|known| *known == dev);
        if let Some(at) = known(&self.filesystems.read()) {
            return at as u64;
        }
        let mut list = self.filesystems.write();
        known(&list).unwrap_or_else(|| {
            list.push(dev);
            list.len() - 1
        }) as u64
            & 0x7fff
    }
}

fn fold(ino: u64) -> u64 {
    (ino ^ (ino >> FILESYSTEM_SHIFT)) & NUMBER_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystems_do_not_collide() {
        let numbers = InodeNumbers::new(false);
        assert_eq!(numbers.number(77, 12), 12);
        assert_ne!(numbers.number(78, 12), 12);
        assert_ne!(numbers.number(78, 12), numbers.number(79, 12));
        assert_eq!(numbers.number(78, 12), numbers.number(78, 12));
        assert!(numbers.number(78, u64::MAX) < 1 << 63);
    }
}
