//! Whether a name can get onto the disk before the data of its file.
//!
//! ext4 and xfs note where data is, and how much there is of it, in the order of their log, and only when it has been
//! written: otherwise a crash would show what the blocks held before. So a name that is made when the data has been
//! written lies behind it in the log, and nothing has to wait for the log itself, nor for the caches of the disk, which
//! are emptied before the log goes on. fsync(2) waits for both.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::{Result, data, inode_flags, stat};

const EXT4: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;
/// `FS_XFLAG_REALTIME`: the data is on another device than the log takes care of.
const REALTIME: u32 = 1;
/// The inode of a journal on the device of its ext4.
const JOURNAL: u32 = 8;

/// What a filesystem is known to promise about names and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOrder {
    /// Nothing: not f2fs, nor ext4 without a journal; nor btrfs, which writes the size of a file into the log of another
    /// that is synced before the file's own data.
    Unknown,
    /// Names stay behind data that was written before, of every file.
    Journal,
    /// The same of files that have their data on the main device of an xfs.
    MainDevice,
}

impl WriteOrder {
    /// The order of the filesystem that `dir` is on.
    ///
    /// # Errors
    /// Those of fstatfs(2).
    pub fn of(dir: BorrowedFd<'_>) -> Result<Self> {
        Ok(match rustix::fs::fstatfs(dir)?.f_type as u64 {
            EXT4 if has_journal(stat::stat_fd(dir)?.dev) => Self::Journal,
            XFS => Self::MainDevice,
            _ => Self::Unknown,
        })
    }

    /// Sees to it that a name that `file` gets, or an attribute that it loses, after this never gets onto the disk without
    /// the data that it has now.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn settle(self, file: BorrowedFd<'_>) -> Result<()> {
        match self {
            Self::Journal => data::write_and_wait(file),
            Self::MainDevice if !is_realtime(file)? => data::write_and_wait(file),
            Self::Unknown | Self::MainDevice => rustix::fs::fsync(file),
        }
    }
}

/// Whether an ext4 has a journal, and on its own device: what else is called ext4 has none, or no cache of the disk that
/// is emptied for it. Where /proc does not tell there is none.
fn has_journal(device: u64) -> bool {
    let Ok(partitions) = std::fs::read_to_string("/proc/partitions") else { return false };
    let name = device_name(&partitions, device).map(|name| name.replace('/', "!"));
    name.is_some_and(|name| Path::new(&format!("/proc/fs/jbd2/{name}-{JOURNAL}")).exists())
}

/// The kernel's name of a block device.
fn device_name(partitions: &str, device: u64) -> Option<&str> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    partitions.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let is_it = fields.next()?.parse() == Ok(major) && fields.next()?.parse() == Ok(minor);
        fields.nth(1).filter(|_| is_it)
    })
}

fn is_realtime(file: BorrowedFd<'_>) -> Result<bool> {
    let [a, b, c, d, ..] = inode_flags::get_extended(file)?;
    Ok(u32::from_ne_bytes([a, b, c, d]) & REALTIME != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_number() {
        let text = "major minor  #blocks  name\n\n 259        0  500107608 nvme0n1\n 104        1  1 cciss/c0d0p1\n";
        let name = |major, minor| device_name(text, rustix::fs::makedev(major, minor));
        assert_eq!(name(259, 0), Some("nvme0n1"));
        assert_eq!(name(104, 1), Some("cciss/c0d0p1"));
        assert_eq!(name(0, 0), None);
    }
}
