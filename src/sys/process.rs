//! This process: forking, signals as a descriptor, descriptors and their limit.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::io::{Errno, FdFlags, Result, fcntl_getfd, read};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};

/// The error that the last libc call of this thread left behind.
pub(super) fn last_errno() -> Errno {
    let code = std::io::Error::last_os_error().raw_os_error();
    code.map_or(Errno::IO, Errno::from_raw_os_error)
}

fn check(result: libc::c_int) -> Result<libc::c_int> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// The supplementary groups of a thread, as this process's user namespace numbers them.
///
/// # Errors
/// `NotFound` where the thread is not to be seen (number 0, another pid namespace, no /proc).
pub fn supplementary_groups(thread: u32) -> std::io::Result<Vec<u32>> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    Ok(line.unwrap_or_default().split_whitespace().filter_map(|gid| gid.parse().ok()).collect())
}

/// Which side of a [`fork`] this process is.
#[derive(Debug)]
pub enum Fork {
    /// The caller; the child has this id.
    Parent(Pid),
    /// The copy.
    Child,
}

/// fork(2). To be called while the process has one thread only: a lock that another thread holds
/// would stay locked in the child for ever.
///
/// # Errors
/// `EAGAIN` and `ENOMEM` of fork(2).
pub fn fork() -> Result<Fork> {
    // SAFETY: the daemon forks before it starts a thread (see the contract above), so the child
    // is a complete copy in which every lock is in a known state.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid).map_or(Fork::Child, Fork::Parent))
}

/// Has a child process start to write out the filesystem of the open directory `dir` (syncfs(2)). The child keeps
/// nothing else open, so it may be one of our own: if it hangs there, it is let go when we end.
///
/// # Errors
/// Those of fork(2).
pub fn sync_in_child(dir: BorrowedFd<'_>) -> Result<Pid> {
    const ROOT: RawFd = 3;
    // SAFETY: between fork and _exit the child makes system calls only, with numbers and a constant string, so it does
    // not matter what locks other threads hold.
    let pid = check(unsafe {
        let dir = dir.as_raw_fd();
        let pid = libc::fork();
        if pid == 0 {
            let alone = libc::dup2(dir, ROOT) == ROOT
                && libc::syscall(libc::SYS_close_range, ROOT + 1, libc::c_uint::MAX, 0) == 0;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            let root = if alone { libc::openat(ROOT, c".".as_ptr(), flags) } else { -1 };
            libc::_exit(if root >= 0 && libc::syncfs(root) == 0 { 0 } else { 1 });
        }
        pid
    })?;
    Pid::from_raw(pid).ok_or(Errno::CHILD)
}

/// Whether this process is root of the machine, and not only of a user namespace: the users of the initial one are all
/// users (user_namespaces(7)).
pub fn is_real_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    rustix::process::geteuid().is_root() && is_whole
}

/// What tells this boot of the machine from all others (random(4)).
///
/// # Errors
/// Those of reading it: it may be hidden from a container.
pub fn boot_id() -> std::io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim_end().to_owned())
}

/// Signals that are kept from interrupting the process and read from a descriptor instead.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks `signals` in this thread and in every thread that it starts from now on.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn block(signals: &[Signal]) -> Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set; every number is a valid signal's.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
            }
            set.assume_init()
        };
        // SAFETY: both calls only read the set, which outlives them.
        let fd = unsafe {
            let code = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if code != 0 {
                return Err(Errno::from_raw_os_error(code));
            }
            check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC))?
        };
        // SAFETY: signalfd has just returned this descriptor, nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes the next signal, waiting for one.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn take(&self) -> Result<Signal> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        read(&self.0, &mut info)?;
        // The first field of signalfd_siginfo, `ssi_signo: u32`.
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        Signal::from_named_raw(number).ok_or(Errno::INVAL)
    }
}

/// Lets every signal through to this thread again, as a program expects that is executed now.
///
/// # Errors
/// Those of pthread_sigmask(3).
pub fn unblock_signals() -> Result<()> {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, which the other call only reads.
    let code = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code)) }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the caller started us with `signal` ignored, as nohup(1) does with SIGHUP and a shell
/// with SIGINT for what it puts in the background.
pub fn is_ignored(signal: Signal) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: only asks; on success the kernel has filled the structure in.
    unsafe {
        libc::sigaction(signal.as_raw(), std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Raises the soft limit of open descriptors to the hard one.
///
/// # Errors
/// Those of setrlimit(2).
pub fn raise_descriptor_limit() -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
}

/// Raises the soft limit of file sizes to the hard one, and makes a write beyond that fail with `EFBIG`
/// instead of ending the process. (The limits of those who write are the kernel's business.)
///
/// # Errors
/// Those of setrlimit(2) and sigaction(2).
pub fn lift_file_size_limit() -> Result<()> {
    // SAFETY: ignoring a signal installs no handler.
    if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(Errno::INVAL);
    }
    let Rlimit { current, maximum } = getrlimit(Resource::Fsize);
    if current == maximum {
        return Ok(());
    }
    setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum })
}

/// Bounds how much free memory the allocator keeps at the end of each thread's own heap, where
/// [`give_memory_back`] does not reach. By itself glibc allows twice the largest piece that was ever freed, up to
/// 64 MiB. To be called before there are threads.
pub fn bound_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const KEPT: i32 = 512 * 1024;
        // What is larger has a mapping of its own. The buffers of messages are not: a mapping for each is slow.
        const LARGEST_IN_HEAP: i32 = 1024 * 1024;
        // SAFETY: sets two numbers of the allocator.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_IN_HEAP);
        }
    }
}

/// Gives free memory back to the system. The allocator of glibc keeps it where it lies between what is in use.
pub fn give_memory_back() {
    // SAFETY: looks at nothing but free memory; it may be called at any time by any thread.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has large pieces of memory come from the system one by one, from now on. Otherwise glibc, once it has seen one
/// returned, puts those that follow onto its heaps, where they are filled with zeros at once and take room that
/// nobody may ever use.
pub fn keep_large_memory_apart() {
    // SAFETY: changes a number that the allocator looks at; to be called by any thread at any time.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
    }
}

/// Descriptors above 2 that whoever started us left open, knowingly or not.
#[derive(Debug)]
pub struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Finds them: what we open ourselves is close-on-exec, so a descriptor that is not came
    /// through exec. None are found where /proc is not mounted.
    pub fn find() -> Self {
        let listing = std::fs::read_dir(Path::new("/proc/self/fd")).into_iter().flatten();
        let numbers =
            listing.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(numbers.filter(|&fd| fd > 2 && crosses_exec(fd)).collect())
    }

    /// Closes them, so that nobody waits for us to close the other end of his pipe.
    pub fn close(&mut self) {
        for fd in self.0.drain(..) {
            // SAFETY: no value of this program owns a descriptor that it did not open.
            unsafe { rustix::io::close(fd) };
        }
    }
}

/// Makes the descriptor `which` refer to what `target` refers to (dup3(2)), for whoever uses it by its number.
///
/// # Errors
/// Those of dup3(2).
pub fn redirect(which: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the number stays open, and its owner's, throughout: dup3 replaces at once what is behind it.
    check(unsafe { libc::dup3(target.as_raw_fd(), which.as_raw_fd(), libc::O_CLOEXEC) }).map(|_| ())
}

fn crosses_exec(fd: RawFd) -> bool {
    // SAFETY: borrowed for one call that changes nothing; EBADF if it has been closed meanwhile.
    let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) });
    flags.is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::pipe::{PipeFlags, pipe, pipe_with};

    use super::*;

    #[test]
    fn the_descriptor_limit_rises_to_the_hard_one() {
        raise_descriptor_limit().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn blocked_signals_are_read() {
        std::thread::spawn(|| {
            let signals = Signals::block(&[Signal::USR1, Signal::USR2]).unwrap();
            for signal in [Signal::USR2, Signal::USR1] {
                // SAFETY: sends this thread a signal that it blocks.
                let sent = unsafe { libc::pthread_kill(libc::pthread_self(), signal.as_raw()) };
                assert_eq!(sent, 0);
                assert_eq!(signals.take().unwrap(), signal);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn only_descriptors_that_cross_exec_count_as_inherited() {
        let (stray, _stray_writer) = pipe().unwrap();
        let (own, _own_writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let Inherited(found) = Inherited::find();
        assert!(found.contains(&stray.as_raw_fd()));
        assert!(!found.contains(&own.as_raw_fd()));
    }

    #[test]
    fn sigpipe_is_ignored_by_the_runtime_and_sigterm_is_not() {
        assert!(is_ignored(Signal::PIPE));
        assert!(!is_ignored(Signal::TERM));
    }
}
