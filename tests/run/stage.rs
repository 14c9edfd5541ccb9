//! A store with an image of busybox, and the three kinds of callers.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Root, without a user namespace.
    Root,
    /// An ordinary user with subordinate ids.
    Mapped,
    /// An ordinary user without.
    Single,
}

/// All of them.
pub const CALLERS: [Caller; 3] = [Caller::Root, Caller::Mapped, Caller::Single];

/// The first subordinate id of the ordinary user.
pub const SUBORDINATE: u32 = 500_000;

/// A store of a caller's with the image `busybox`.
pub struct Stage {
    dir: tempfile::TempDir,
    pub caller: Caller,
}

/// What is left out of busybox is not needed by the tests.
const APPLETS: [&str; 34] = [
    "sh", "cat", "ls", "id", "echo", "sleep", "mount", "ps", "chown", "stat", "env", "true",
    "false", "kill", "hostname", "touch", "tty", "pwd", "stty", "grep", "head", "ln", "mkdir",
    "rm", "dd", "mknod", "wc", "readlink", "test", "sort", "usleep", "chroot", "umount", "sed",
];

impl Stage {
    pub fn new(caller: Caller) -> Self {
        Self::with(caller, |_root| ())
    }

    /// With an image that has more in it.
    pub fn with(caller: Caller, add: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("plyfs-run-").tempdir().unwrap();
        let stage = Self { dir, caller };
        let root = stage.path("image");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir(root.join("etc")).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nann:x:7:8::/home/ann:\n")
            .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nann:x:8:\nstaff:x:50:ann\n").unwrap();
        add(&root);
        // The build directory may be closed to others.
        fs::copy(env!("CARGO_BIN_EXE_plyfs"), stage.path("plyfs")).unwrap();
        let (uid, gid) = stage.ids();
        let line = format!("{uid}:{SUBORDINATE}:65536\n");
        let subordinate = if caller == Caller::Mapped { line.as_str() } else { "" };
        fs::write(stage.path("subordinate"), subordinate).unwrap();
        fs::set_permissions(stage.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["", "store"] {
            fs::create_dir_all(stage.path(name)).unwrap();
            chown(stage.path(name), Some(uid), Some(gid)).unwrap();
        }
        stage.says("image", &["import", stage.path("image").to_str().unwrap(), "busybox"]);
        stage
    }

    fn ids(&self) -> (u32, u32) {
        match self.caller {
            Caller::Root => (0, 0),
            Caller::Mapped | Caller::Single => ordinary_user(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory of the caller's.
    pub fn directory(&self, name: &str) -> PathBuf {
        let (uid, gid) = self.ids();
        fs::create_dir_all(self.path(name)).unwrap();
        chown(self.path(name), Some(uid), Some(gid)).unwrap();
        self.path(name)
    }

    /// `plyfs COMMAND --store STORE WORDS`, called by the caller.
    pub fn command<S: AsRef<OsStr>>(&self, command: &str, words: &[S]) -> Command {
        // newuidmap knows no other files.
        let script = "mount --bind \"$1\" /etc/subuid && mount --bind \"$1\" /etc/subgid && \
                      shift && exec \"$@\"";
        let mut plyfs = Command::new("unshare");
        plyfs.args(["-m", "--propagation", "slave", "sh", "-c", script, "sh"]);
        plyfs.arg(self.path("subordinate"));
        if self.caller != Caller::Root {
            let (uid, gid) = self.ids();
            plyfs.arg("setpriv").arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
            plyfs.args(["--clear-groups", "--inh-caps=-all"]);
        }
        plyfs.arg(self.path("plyfs")).arg(command).arg("--store").arg(self.path("store"));
        plyfs.args(words).current_dir(self.dir.path()).stdin(Stdio::null());
        plyfs
    }

    /// `plyfs run --rm busybox sh -c SCRIPT`, called by the words of `how` instead of by the caller.
    pub fn called_by(&self, how: &[&str], script: &str) -> Output {
        let mut command = Command::new(how[0]);
        command.args(&how[1..]).arg(self.path("plyfs")).arg("run").arg("--store");
        command.arg(self.path("store")).args(["--rm", "busybox", "sh", "-c", script]);
        command.current_dir(self.dir.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command; what it prints, if it succeeds.
    pub fn says<S: AsRef<OsStr>>(&self, command: &str, words: &[S]) -> String {
        let output = self.command(command, words).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{:?} {command}: {error}", self.caller);
        String::from_utf8(output.stdout).unwrap()
    }

    /// `plyfs run OPTIONS busybox sh -c SCRIPT`.
    pub fn script(&self, options: &[&str], script: &str) -> Output {
        let words = [options, &["busybox", "sh", "-c", script]].concat();
        self.command("run", &words).output().unwrap()
    }

    /// What a script prints, which ends with 0.
    pub fn shell(&self, options: &[&str], script: &str) -> String {
        let output = self.script(options, script);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{:?}: {script}: {}{error}", self.caller, text(&output));
        text(&output)
    }

    /// Exit status and last line of the errors.
    pub fn fails<S: AsRef<OsStr>>(&self, words: &[S]) -> (i32, String) {
        let output = self.command("run", words).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let line = error.lines().last().unwrap_or_default().to_owned();
        (output.status.code().unwrap_or(-1), line)
    }

    /// Names of the containers.
    pub fn containers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("store/containers")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A path in the layer of a container.
    pub fn in_layer(&self, container: &str, path: &str) -> PathBuf {
        self.path("store/containers").join(container).join("upper").join(path)
    }

    /// The processes that work for this store.
    pub fn processes(&self) -> Vec<u32> {
        let store = self.path("store");
        let store = store.as_os_str().as_encoded_bytes();
        let pids = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let works = |pid: &u32| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            cmdline.split(|byte| *byte == 0).any(|word| word == store)
        };
        pids.filter(works).collect()
    }

    /// Fails if something is left of what has run: a process, a mount, a record of one.
    pub fn nothing_is_left(&self) {
        wait_until("all processes have ended", || self.processes().is_empty());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "{mounts}");
        assert_eq!(fs::read_dir(self.path("store/mounts")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(self.path("store/tmp")).unwrap().count(), 0);
    }
}

/// Leaves the test where it cannot run, and says so.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "{} needs root", module_path!());
            eprintln!("SKIP {}: not root", module_path!());
            return;
        }
    };
}

pub fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Polls until `condition` holds.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first account for people, else that of `daemon`, which exists everywhere.
pub fn ordinary_user() -> (u32, u32) {
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let ids = accounts.lines().filter_map(|line| {
        let mut words = line.split(':').skip(2).map(str::parse::<u32>);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    });
    ids.into_iter().find(|(uid, _)| (1000..60000).contains(uid)).unwrap_or((1, 1))
}
