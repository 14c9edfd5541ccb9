//! Parts of files mapped into memory, to be handed to the kernel and never to be looked at here.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::{Errno, Result};

/// A part of a file in memory.
///
/// Its bytes may change, and vanish, whenever somebody changes the file. The program must pass them to system calls only:
/// these fail with `EFAULT` where the program itself would die.
#[derive(Debug)]
pub struct FileWindow {
    address: NonNull<c_void>,
    length: usize,
}

// SAFETY: a range of addresses that belongs to this value, readable from every thread.
unsafe impl Send for FileWindow {}
// SAFETY: as above; no method changes anything.
unsafe impl Sync for FileWindow {}

impl FileWindow {
    /// Maps `length` bytes, at least one, of `file` from `offset` on, a multiple of the page size. They may reach
    /// beyond the end of the file.
    ///
    /// # Errors
    /// Those of mmap(2): `ENODEV` where the filesystem cannot, `ENOMEM` at a limit of the process.
    pub fn new(file: BorrowedFd<'_>, offset: u64, length: usize) -> Result<Self> {
        // SAFETY: the kernel chooses an address at which there is nothing yet.
        let address =
            unsafe { mmap(null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, offset)? };
        let mapping = Self { address: NonNull::new(address).ok_or(Errno::NOMEM)?, length };
        // SAFETY: all of the mapping, which is this value's own; the advice changes no content.
        unsafe { madvise(address, length, Advice::Sequential)? };
        Ok(mapping)
    }

    /// Reads `length` bytes from `at` on into the page cache, if they are not there yet, and makes them accessible.
    ///
    /// # Errors
    /// `EFAULT` where the file has ended or cannot be read; `EINVAL` before Linux 5.14, and outside of the mapping.
    pub fn populate(&self, at: usize, length: usize) -> Result<()> {
        let page = rustix::param::page_size();
        let start = at - at % page;
        if at.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(Errno::INVAL);
        }
        // SAFETY: the range lies in the mapping, which is this value's own; the advice changes no content.
        unsafe {
            let address = self.address.as_ptr().byte_add(start);
            madvise(address, at + length - start, Advice::LinuxPopulateRead)
        }
    }

    /// The bytes, for a system call.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: readable memory of this length as long as `self` lives. That others may change or cut the file is
        // harmless where the bytes are not looked at, which is what the type demands.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr().cast(), self.length) }
    }
}

impl Drop for FileWindow {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping; `bytes` cannot be borrowed any more.
        let unmapped = unsafe { munmap(self.address.as_ptr(), self.length) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_that_is_cut_is_an_error_of_the_call_and_not_of_the_program() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        let mapping = FileWindow::new(file.as_fd(), 0, 10_000).unwrap();
        mapping.populate(5000, 5000).unwrap();
        let mut copy = tempfile::tempfile().unwrap();
        copy.write_all(mapping.bytes()).unwrap();
        file.set_len(100).unwrap();
        assert_eq!(mapping.populate(5000, 5000), Err(Errno::FAULT));
        let gone = File::write(&mut copy, &mapping.bytes()[8192..]).unwrap_err();
        assert_eq!(Errno::from_io_error(&gone), Some(Errno::FAULT));
        assert_eq!(mapping.populate(5000, 5001), Err(Errno::INVAL));
    }
}
