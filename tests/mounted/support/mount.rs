//! A mount held by a process of ours: start, wait until it answers, unmount, wait until it is gone.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};

use super::scratch::{detach, mounts};

/// How long a mount may take to come and a process to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a mount may exist before it is torn down and its test fails, unless told otherwise.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// The program under test.
pub fn program() -> PathBuf {
    std::env::var_os("PLYFS_TEST_PROGRAM")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_plyfs")), PathBuf::from)
}

/// With `PLYFS_TEST_PROGRAM=kernel` the tests judge the kernel's overlay: what it fails besides the
/// known differences is a mistake of the test.
pub fn kernel_under_test() -> bool {
    std::env::var_os("PLYFS_TEST_PROGRAM").is_some_and(|program| program == "kernel")
}

/// Something that mounts unions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The program under test.
    Plyfs,
    /// Another program with the command line of fuse-overlayfs.
    Peer(PathBuf),
    /// The overlay filesystem of the kernel; `lowerdir=` and so on are its mount data.
    Kernel,
}

/// A live mount; on drop it is detached and its process ended.
pub struct Mount {
    point: PathBuf,
    /// None for the kernel's own filesystem.
    daemon: Option<Child>,
    log: PathBuf,
    watchdog: Option<Watchdog>,
}

/// Why a program refused to mount.
#[derive(Debug)]
pub struct Refusal {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub message: String,
}

impl Mount {
    /// Starts `command`, which stays in the foreground and mounts on the directory `point`, and
    /// waits until the mount answers. What the command writes is added to the file `log`.
    pub fn start(
        mut command: Command,
        point: &Path,
        log: &Path,
        lifetime: Duration,
    ) -> Result<Self, Refusal> {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let written = output.metadata().unwrap().len();
        // The mount table is opened first: it tells of every change since.
        let table = File::open("/proc/self/mountinfo").unwrap();
        let before = upon(point);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let mut daemon = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        if !wait_for_mount(&table, &daemon, || upon(point) > before) {
            end(&mut daemon);
            let text = fs::read(log).unwrap();
            let message = String::from_utf8_lossy(&text[written as usize..]).into_owned();
            return Err(Refusal { status: daemon.wait().unwrap(), message });
        }
        let watchdog = Watchdog::start(point, &daemon, lifetime);
        let this = Self {
            point: point.to_owned(),
            daemon: Some(daemon),
            log: log.to_owned(),
            watchdog: Some(watchdog),
        };
        // Waits for the handshake: the kernel lets nobody in before.
        fs::metadata(point).unwrap_or_else(|error| panic!("the mount does not answer: {error}"));
        Ok(this)
    }

    /// Has the kernel mount an overlay of its own on `point`, with these options.
    pub fn kernel(options: &OsStr, point: &Path) -> Self {
        let data = CString::new(options.as_bytes()).unwrap();
        // The overlay that had these layers lives on in namespaces that others have just begun or ended.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) =
            mount("overlay", point, "overlay", MountFlags::empty(), data.as_c_str())
        {
            let busy = error == Errno::BUSY && Instant::now() < deadline;
            assert!(busy, "kernel overlay {options:?}: {error}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { point: point.to_owned(), daemon: None, log: PathBuf::new(), watchdog: None }
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// The process that serves it.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.daemon.as_ref().expect("the kernel has no process"))
    }

    /// What the program wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Unmounts, which fails if files stay open, and waits until the program has ended well.
    pub fn unmount(mut self) {
        // A process that another test is just starting holds copies of our files until its exec.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = try_unmount(&self.point) {
            assert!(Instant::now() < deadline, "umount: {error}");
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(mut daemon) = self.daemon.take() {
            assert!(
                ended(&daemon, PATIENCE),
                "still running after the unmount; {}:\n{}",
                holders(&self.point),
                self.log()
            );
            let status = daemon.wait().unwrap();
            assert!(status.success(), "ended with {status} after the unmount:\n{}", self.log());
        } else {
            // Namespaces that other tests have just begun have a copy of it, and take our layers for used, until they
            // have their own view or end.
            while is_mounted_anywhere(&self.point) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Stops the program and waits until it has stopped: from then on it answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "{status:?}");
    }

    /// Waits for the program to end by itself.
    pub fn wait(mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("the kernel has no process");
        assert!(ended(&daemon, PATIENCE), "still running:\n{}", self.log());
        daemon.wait().unwrap()
    }

    /// Kills the program without warning and clears away the dead mount.
    pub fn kill(mut self) {
        let mut daemon = self.daemon.take().expect("the kernel cannot be killed");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        detach(&self.point);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.daemon.is_some() || self.watchdog.is_none() {
            detach(&self.point);
        }
        if let Some(mut daemon) = self.daemon.take()
            && !ended(&daemon, PATIENCE)
        {
            abort_connection(self.watchdog.as_ref().and_then(|dog| dog.connection));
            end(&mut daemon);
        }
        if std::thread::panicking() {
            eprintln!("the program wrote:\n{}", self.log());
        }
        let hung = self.watchdog.take().is_some_and(|dog| dog.fired.load(Ordering::SeqCst));
        assert!(!hung || std::thread::panicking(), "the mount hung and was torn down");
    }
}

/// Unmounts as root, else in the way of ordinary users.
fn try_unmount(point: &Path) -> std::io::Result<()> {
    match unmount(point, UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => {
            let output = Command::new("fusermount3").arg("-u").arg(point).output()?;
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then_some(()).ok_or_else(|| std::io::Error::other(message))
        }
        result => Ok(result?),
    }
}

/// The processes whose mount namespace still has a copy of the mount: it lives as long as they.
fn holders(point: &Path) -> String {
    let mut found = String::from("also mounted for");
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let table = fs::read(process.path().join("mountinfo")).unwrap_or_default();
        let needle = point.as_os_str().as_bytes();
        if table
            .split(|b| *b == b' ')
            .any(|word| word == needle.strip_suffix(b"/").unwrap_or(needle))
        {
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found += &format!(" [{} {command}]", process.file_name().to_string_lossy());
        }
    }
    found
}

/// Ends a mount that lives too long, so that nobody waits for it for ever.
struct Watchdog {
    connection: Option<u32>,
    fired: Arc<AtomicBool>,
    off: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn start(point: &Path, daemon: &Child, lifetime: Duration) -> Self {
        let connection = mounts().iter().rfind(|m| m.point == point).map(|m| m.minor);
        let fired = Arc::new(AtomicBool::new(false));
        let (off, signal) = channel();
        let (pid, seen) = (Pid::from_child(daemon), Arc::clone(&fired));
        let thread = std::thread::spawn(move || {
            if signal.recv_timeout(lifetime) == Err(RecvTimeoutError::Timeout) {
                seen.store(true, Ordering::SeqCst);
                abort_connection(connection);
                kill_process(pid, Signal::KILL).ok();
            }
        });
        Self { connection, fired, off: Some(off), thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.off.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Whether any process has something mounted on `point`, which holds no character that mountinfo escapes.
fn is_mounted_anywhere(point: &Path) -> bool {
    let here = format!(" {} ", point.display());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut tables = processes.map(|process| fs::read_to_string(process.path().join("mountinfo")));
    tables.any(|mounts| mounts.is_ok_and(|mounts| mounts.contains(&here)))
}

/// Makes every request on a FUSE connection fail. Killing the daemon is not enough where it waits
/// for itself.
fn abort_connection(connection: Option<u32>) {
    const CONTROL: &str = "/sys/fs/fuse/connections";
    let Some(number) = connection else { return };
    let abort = Path::new(CONTROL).join(number.to_string()).join("abort");
    if !abort.exists() {
        mount("none", CONTROL, "fusectl", MountFlags::empty(), None).ok();
    }
    fs::write(abort, "1").ok();
}

/// Number of mounts upon each other at `point`.
fn upon(point: &Path) -> usize {
    mounts().iter().filter(|m| m.point == point).count()
}

/// Waits until `mounted`; false if the process ends before, or takes too long.
fn wait_for_mount(table: &File, daemon: &Child, mounted: impl Fn() -> bool) -> bool {
    let process = pidfd_open(Pid::from_child(daemon), PidfdFlags::empty()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !mounted() {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut watched =
            [PollFd::new(table, PollFlags::PRI), PollFd::new(&process, PollFlags::IN)];
        poll(&mut watched, Some(&timeout(left))).unwrap();
        if left.is_zero() || watched[1].revents().contains(PollFlags::IN) {
            return mounted() && !watched[1].revents().contains(PollFlags::IN);
        }
    }
    true
}

/// Waits for the end of a process; false if it takes longer than `limit`.
fn ended(daemon: &Child, limit: Duration) -> bool {
    let process = pidfd_open(Pid::from_child(daemon), PidfdFlags::empty()).unwrap();
    let mut watched = [PollFd::new(&process, PollFlags::IN)];
    poll(&mut watched, Some(&timeout(limit))).unwrap() == 1
}

fn timeout(left: Duration) -> Timespec {
    Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
}

/// Kills and reaps; a process that already ended is no error.
fn end(daemon: &mut Child) {
    daemon.kill().ok();
    daemon.wait().ok();
}

/// `key=path` for an option list, with colons and commas escaped.
pub fn path_option(key: &str, paths: &[PathBuf]) -> OsString {
    let mut text = OsString::from(key);
    for (index, path) in paths.iter().enumerate() {
        text.push(if index == 0 { "=" } else { ":" });
        let mut bytes = Vec::new();
        for &byte in path.as_os_str().as_bytes() {
            if matches!(byte, b':' | b',' | b'\\') {
                bytes.push(b'\\');
            }
            bytes.push(byte);
        }
        text.push(OsStr::from_bytes(&bytes));
    }
    text
}
