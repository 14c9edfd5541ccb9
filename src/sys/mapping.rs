//! Files as memory.

#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags};

use super::Result;

/// The content of a file, mapped for reading.
///
/// Only for files that nobody cuts while they are mapped, as those of a store that are renamed into place when they are
/// complete: to read behind the new end would be SIGBUS.
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is never written to, by anybody.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all of `file`.
    pub fn new(file: &File) -> Result<Self> {
        let size = rustix::fs::fstat(file)?.st_size;
        let length = usize::try_from(size).map_err(|_| super::Errno::FBIG)?;
        if length == 0 {
            return Ok(Self { start: NonNull::dangling(), length });
        }
        // SAFETY: a new mapping at an address of the kernel's choice, which no other memory has.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(super::Errno::NOMEM)?;
        Ok(Self { start, length })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped for reading over `length` bytes as long as `self` lives; of no bytes at all any address is
        // good.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: mapped by `new` and unmapped nowhere else; no reference outlives `self`.
            let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
            if let Err(error) = unmapped {
                log::error!("a mapping of {} bytes stays: {error}", self.length);
            }
        }
    }
}
