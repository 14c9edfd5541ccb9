//! The seccomp filter that stops a thread at its filesystem calls, and the descriptor by which they are answered
//! (seccomp_unotify(2)).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::call::Call;
use super::table;
use super::{Answer, Errno};

/// Hears of the filesystem calls of the thread that installed it.
pub struct Listener(OwnedFd);

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7; // AUDIT_ARCH_AARCH64

/// The offsets of `nr` and `arch` in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

impl Listener {
    /// Stops this thread, and those that it starts, at every call in the table from now on.
    pub fn install() -> io::Result<Self> {
        let mut program = program();
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).expect("a short program"),
            filter: program.as_mut_ptr(),
        };
        // SAFETY: changes an attribute of this thread; no memory is passed.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
        // SAFETY: the kernel copies the program, which outlives the call.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const filter,
            )
        })?;
        // SAFETY: seccomp has just returned this descriptor, nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// The next call, with the id to answer it by; `None` when the watched threads are gone.
    pub fn next(&self) -> io::Result<Option<(u64, Call)>> {
        loop {
            let mut ready =
                libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one structure, which outlives the call.
            let found = unsafe { libc::poll(&raw mut ready, 1, -1) };
            if found < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                continue;
            }
            check(found.into())?;
            if ready.revents & libc::POLLIN == 0 {
                return Ok(None);
            }
            // SAFETY: the kernel wants it zeroed, and all zeroes are valid.
            let mut heard: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the kernel fills in this structure of the size that the request tells.
            let result = unsafe {
                libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut heard)
            };
            match check(result.into()) {
                Ok(_) => return Ok(Some((heard.id, Call::new(heard.data.nr, heard.data.args)))),
                // The thread was interrupted meanwhile and comes again.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets the thread go on.
    pub fn answer(&self, id: u64, answer: Answer) -> io::Result<()> {
        let (error, flags) = match answer {
            Answer::Go => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Fail(errno) => (-errno.raw_os_error(), 0),
        };
        let response = libc::seccomp_notif_resp { id, val: 0, error, flags };
        // SAFETY: the kernel reads this structure of the size that the request tells.
        let result = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND as _,
                &raw const response,
            )
        };
        match check(result.into()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result.map(drop),
        }
    }
}

/// Notifies of each call in the table and allows all others.
fn program() -> Vec<libc::sock_filter> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let ret = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let skip = |count: usize| u8::try_from(count).expect("a short program");
    let calls = table::all().count();
    let mut program = vec![
        step(load, 0, 0, ARCH),
        step(equal, 0, skip(calls + 1), ARCHITECTURE),
        step(load, 0, 0, NUMBER),
    ];
    for (at, entry) in table::all().enumerate() {
        program.push(step(equal, skip(calls - at), 0, entry.number as u32));
    }
    program.push(step(ret, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(step(ret, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    program
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
