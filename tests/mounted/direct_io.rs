//! Requests with O_DIRECT that nobody waits for.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::needs_root;
use crate::support::Union;

const PAGE: usize = 4096;

/// A page of memory where direct I/O can have it.
#[repr(align(4096))]
struct Page([u8; PAGE]);

/// What io_submit(2) takes (include/uapi/linux/aio_abi.h: `struct iocb`).
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

const PWRITE: u16 = 1;

/// Requests that the kernel works on by itself (io_setup(2)).
struct Queue(u64);

#[allow(unsafe_code)]
impl Queue {
    fn new() -> Self {
        let mut context = 0_u64;
        // SAFETY: the kernel writes the context there.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        Self(context)
    }

    /// Begins to write a page, and waits for the end of that.
    fn write(&self, file: &File, page: &Page, offset: u64) {
        let mut request = Request {
            opcode: PWRITE,
            fd: file.as_raw_fd().cast_unsigned(),
            buffer: page.0.as_ptr() as u64,
            length: PAGE as u64,
            offset: offset.cast_signed(),
            ..Request::default()
        };
        let mut requests = [&raw mut request];
        // SAFETY: page and request live until the request has ended, which is waited for.
        let result =
            unsafe { libc::syscall(libc::SYS_io_submit, self.0, 1, requests.as_mut_ptr()) };
        assert_eq!(result, 1, "{}", std::io::Error::last_os_error());
        // Data, request, result and another result.
        let mut event = [0_i64; 4];
        let no_limit = std::ptr::null::<libc::timespec>();
        // SAFETY: there is room for one event.
        let result = unsafe {
            libc::syscall(libc::SYS_io_getevents, self.0, 1, 1, event.as_mut_ptr(), no_limit)
        };
        assert_eq!((result, event[2]), (1, PAGE as i64));
    }
}

#[allow(unsafe_code)]
impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: no request is under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// As in xfstests generic/451: the page that somebody has read into the cache meanwhile must not stay.
#[test]
fn what_was_written_shows_to_those_who_read_by_the_cache() {
    needs_root!();
    let union = Union::new().lower("d d").mount();
    let path = union.path("d/f");
    fs::write(&path, [0; PAGE]).unwrap();
    let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let cached = File::open(&path).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut page = [0; PAGE];
                while !done.load(Ordering::Relaxed) {
                    cached.read_exact_at(&mut page, 0).unwrap();
                }
            });
        }
        let queue = Queue::new();
        let mut seen = [0; PAGE];
        for round in 0..20_000_u32 {
            let page = Page([round as u8; PAGE]);
            queue.write(&direct, &page, 0);
            cached.read_exact_at(&mut seen, 0).unwrap();
            if seen != page.0 {
                done.store(true, Ordering::Relaxed);
                panic!("round {round}: {} is read after {} was written", seen[0], page.0[0]);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
