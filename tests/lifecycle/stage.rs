//! A directory with one lower layer, an upper and a mountpoint, and the means to watch a mount.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The ordinary user of these tests (nobody).
pub const USER: u32 = 65534;

/// Layers and a mountpoint of a test's own. What is still mounted or running when it is dropped is
/// taken away.
pub struct Stage {
    root: TempDir,
    user: Option<u32>,
    program: PathBuf,
}

impl Stage {
    /// A stage for whoever runs the tests.
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("plyfs-lifecycle-").tempdir().unwrap();
        for name in ["lower", "upper", "work", "mnt"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("lower/hello"), "hello").unwrap();
        Self { root, user: None, program: env!("CARGO_BIN_EXE_plyfs").into() }
    }

    /// A stage whose owner and caller is an ordinary user; `None` where that cannot be had.
    pub fn of_user() -> Option<Self> {
        if !is_root("mounting as an ordinary user") {
            return None;
        }
        open_device_to_all();
        let mut stage = Self::new();
        stage.user = Some(USER);
        // The build directory may be closed to others.
        stage.own_program();
        let entries = fs::read_dir(stage.root.path()).unwrap().map(|entry| entry.unwrap().path());
        for path in entries.chain([stage.root.path().into(), stage.path("lower/hello")]) {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        Some(stage)
    }

    /// Gives the stage a program of its own.
    pub fn own_program(&mut self) {
        let program = self.path("plyfs");
        fs::copy(&self.program, &program).unwrap();
        self.program = program;
    }

    /// Whether root owns and calls everything.
    pub fn is_of_root(&self) -> bool {
        self.user.is_none()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    /// `lowerdir=...` of this stage, alone.
    pub fn read_only(&self) -> String {
        format!("lowerdir={}", self.path("lower").display())
    }

    /// With upper and work directory.
    pub fn writable(&self) -> String {
        let [upper, work] = ["upper", "work"].map(|name| self.path(name).display().to_string());
        format!("{},upperdir={upper},workdir={work}", self.read_only())
    }

    /// The program under test.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `command`, to be run by the stage's user.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.stdin(Stdio::null()).current_dir("/");
        command
    }

    /// `plyfs -o OPTIONS MNT`, ready to be run.
    pub fn plyfs(&self, options: &str) -> Command {
        let mut command = self.command(&self.program);
        if let Some(mode) = crate::mode::options() {
            command.arg("-o").arg(mode);
        }
        command.arg("-o").arg(options).arg(self.mountpoint());
        command
    }

    /// Program, options and mountpoint of a read-only mount, for a script.
    pub fn arguments(&self) -> [String; 3] {
        [
            self.program.display().to_string(),
            self.read_only(),
            self.mountpoint().display().to_string(),
        ]
    }

    /// Mounts read-only in the background; the daemon.
    pub fn mount(&self) -> Daemon {
        succeeds(&mut self.plyfs(&self.read_only()));
        self.daemon()
    }

    /// The one process that serves this stage's mountpoint.
    pub fn daemon(&self) -> Daemon {
        let daemons = self.daemons();
        assert_eq!(daemons.len(), 1, "{daemons:?}");
        daemons[0]
    }

    /// The processes that were started with this stage's mountpoint, except `plyfs umount`.
    pub fn daemons(&self) -> Vec<Daemon> {
        let mountpoint = self.mountpoint();
        let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            entry.ok()?.file_name().to_str()?.parse::<i32>().ok().and_then(Pid::from_raw)
        });
        let serves = |pid: &Pid| {
            let cmdline = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
            let cmdline = cmdline.unwrap_or_default();
            let mut arguments = cmdline.split(|byte| *byte == 0);
            let is_plyfs = arguments
                .next()
                .is_some_and(|name| name.ends_with(b"plyfs") || name.ends_with(b"fuse-overlayfs"));
            is_plyfs && arguments.any(|text| text == mountpoint.as_os_str().as_encoded_bytes())
        };
        ids.filter(serves).map(Daemon).filter(|daemon| daemon.is_running()).collect()
    }

    /// The mountinfo lines of what is mounted in this stage, in order.
    pub fn mounts(&self) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.root.path().to_str().unwrap();
        text.lines().filter(|line| line.contains(root)).map(str::to_owned).collect()
    }

    /// What the file of the lower layer holds, seen through the mount.
    pub fn read(&self) -> String {
        let output = run(self.command("cat").arg(self.mountpoint().join("hello")));
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for daemon in self.daemons() {
            if let Err(error) = kill_process(daemon.0, Signal::KILL) {
                eprintln!("a daemon is left: {error}");
            }
        }
        for line in self.mounts().iter().rev() {
            let path = line.split(' ').nth(4).unwrap_or_default();
            let detach = rustix::mount::UnmountFlags::DETACH;
            if let Err(error) = rustix::mount::unmount(path, detach) {
                eprintln!("{path} is left: {error}");
            }
        }
    }
}

/// A process that serves a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daemon(pub Pid);

impl Daemon {
    /// False when it has ended, also while nobody has reaped it. It has not as long as one of its threads has its
    /// descriptors, though the first one may be gone.
    pub fn is_running(self) -> bool {
        const THREADS: usize = 17;
        self.stat()
            .is_some_and(|fields| fields[0] != "X" && (fields[0] != "Z" || fields[THREADS] != "1"))
    }

    /// The fields of /proc/PID/stat from the third on: state, parent, group, session.
    pub fn stat(self) -> Option<Vec<String>> {
        let line = fs::read_to_string(self.proc("stat")).ok()?;
        let (_, fields) = line.rsplit_once(')')?;
        Some(fields.split_whitespace().map(str::to_owned).collect())
    }

    /// A path below its directory in /proc.
    pub fn proc(self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.0.as_raw_nonzero()).into()
    }

    pub fn signal(self, signal: Signal) {
        kill_process(self.0, signal).unwrap();
    }

    pub fn ends(self) {
        wait_until("the daemon has ended", || !self.is_running());
    }
}

/// Polls until `condition` holds.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `command` until it has ended and every copy of its pipes is closed. Its process group is
/// killed if that takes too long.
pub fn run(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().unwrap();
    let group = Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let ended = receiver.recv_timeout(DEADLINE).unwrap_or_else(|_late| {
        let killed = kill_process_group(group, Signal::KILL);
        panic!("not within {DEADLINE:?}: {command:?} (killed: {killed:?})")
    });
    ended.unwrap()
}

/// Runs `command`, which must succeed and print nothing.
pub fn succeeds(command: &mut Command) {
    let output = run(command);
    let printed = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {printed:?}");
    assert_eq!(printed, Default::default(), "{command:?}");
}

/// Runs `command`, which must fail with one line on standard error and nothing else; the line.
pub fn fails(command: &mut Command) -> String {
    let output = run(command);
    assert!(!output.status.success(), "{command:?}");
    assert_eq!(text(&output.stdout), "");
    let line = text(&output.stderr);
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

/// A shell command as whoever runs the tests; `$1` and on are `arguments`.
pub fn shell<A: AsRef<OsStr>>(script: &str, arguments: &[A]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-ec", script, "sh"]).args(arguments).stdin(Stdio::null());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Whether the tests run as root; says what is not tested if they do not.
pub fn is_root(what: &str) -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("not run without root: {what}");
    }
    root
}

fn open_device_to_all() {
    let mode = fs::metadata("/dev/fuse").unwrap().permissions().mode();
    if mode & 0o666 != 0o666 {
        eprintln!("CHANGING /dev/fuse from mode {:o} to 666", mode & 0o777);
        fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).unwrap();
    }
}

/// A process with its working directory at `directory`, ended when dropped.
pub struct Visitor(Child);

impl Visitor {
    pub fn in_directory(stage: &Stage, directory: &Path) -> Self {
        let child = stage.command("sleep").arg("60").current_dir(directory).spawn().unwrap();
        Self(child)
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        for result in [self.0.kill(), self.0.wait().map(|_| ())] {
            if let Err(error) = result {
                eprintln!("sleep: {error}");
            }
        }
    }
}

/// The error that a daemon which is gone leaves to those who still have its files open.
pub fn is_not_connected(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error())
}
