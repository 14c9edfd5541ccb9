//! Who runs a test: root, root of a user namespace, an ordinary user. And skipping, loudly.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::mode;
use super::scratch::Scratch;

/// Set in a process that runs one test on behalf of another.
const INSIDE: &str = "PLYFS_TEST_INSIDE";

/// An identity to run a test under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Real root, in a process of its own (for the umask, limits and the working directory).
    Root,
    /// An ordinary user inside `unshare -Urm`.
    UserNamespace,
    /// An ordinary user who mounts through `fusermount3`.
    User,
}

/// What is missing for tests as root, if anything.
pub fn missing_for_root() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".into());
    }
    missing_device()
}

fn missing_device() -> Option<String> {
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    device.err().map(|error| format!("/dev/fuse: {error}"))
}

/// Says so where the output capture does not hide it. Under CI nothing may be skipped.
pub fn skip(test: &str, reason: &str) {
    std::io::stderr().write_all(format!("SKIP {test}: {reason}\n").as_bytes()).unwrap();
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {reason}");
}

/// Leaves the test with a loud line if it cannot run here as root.
#[macro_export]
macro_rules! needs_root {
    () => {
        if let Some(reason) = $crate::support::privilege::missing_for_root() {
            $crate::support::privilege::skip(module_path!(), &reason);
            return;
        }
    };
}

/// Runs a block, which must be the whole of a test, in a process of its own:
/// `isolated!(User, { … })` with the name of an [`Identity`].
#[macro_export]
macro_rules! isolated {
    ($identity:ident, $body:expr) => {{
        fn here() {}
        let place = std::any::type_name_of_val(&here);
        let identity = $crate::support::privilege::Identity::$identity;
        $crate::support::privilege::isolated(identity, place, || $body);
    }};
}

/// Runs `body` in a process of its own; `place` is the path of a function inside the test.
///
/// The test binary is started again for this one test; there `isolated` just runs `body`.
pub fn isolated(identity: Identity, place: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        body();
        return;
    }
    let test = test_name(place);
    if let Some(reason) = missing_for_root() {
        skip(&test, &reason);
        return;
    }
    if identity != Identity::Root && !device_is_for_all() {
        skip(&test, "/dev/fuse is for root alone");
        return;
    }
    if identity != Identity::Root
        && let Some(option) = mode::has(&["io=passthrough"])
    {
        mode::skip(&test, &option);
        return;
    }
    run_again(identity, &test);
}

fn device_is_for_all() -> bool {
    let mut command = Command::new("setpriv");
    as_user(&mut command).args(["test", "-w", "/dev/fuse"]);
    command.status().is_ok_and(|status| status.success())
}

fn run_again(identity: Identity, test: &str) {
    let scratch = Scratch::new();
    let home = scratch.dir("home");
    let programs = scratch.dir("programs");
    let runner = install(&std::env::current_exe().unwrap(), &programs.join("tests"));
    let mut program = super::mount::program();
    if !super::mount::kernel_under_test() {
        program = install(&program, &programs.join("plyfs"));
    }
    let mut command = Command::new("setpriv");
    match identity {
        Identity::Root => {}
        Identity::User => {
            as_user(&mut command);
        }
        Identity::UserNamespace => {
            // It would keep what other tests have mounted just then, and so their programs, to its end.
            as_user(&mut command).args(["unshare", "-Urm", "--propagation", "slave"]);
        }
    }
    if identity != Identity::Root {
        let (uid, gid) = ordinary_user();
        chown(&home, Some(uid), Some(gid)).unwrap();
    }
    command.arg(runner).args(["--exact", test, "--nocapture", "--include-ignored"]);
    command.arg("--test-threads=1").current_dir(&home);
    command.env("PLYFS_TEST_DIR", &home).env("PLYFS_TEST_PROGRAM", program).env(INSIDE, "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} as {identity:?}: {}\n{text}", output.status);
    assert!(text.contains("1 passed"), "{test} was not found in the test binary:\n{text}");
}

/// A copy that every user can reach.
fn install(from: &Path, to: &Path) -> PathBuf {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap();
    }
    to.to_owned()
}

/// Makes `command`, which is `setpriv`, drop all privilege.
fn as_user(command: &mut Command) -> &mut Command {
    let (uid, gid) = ordinary_user();
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
    command.args(["--clear-groups", "--inh-caps=-all"])
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

/// The test as the test binary knows it: without the name of the binary and the inner function.
fn test_name(place: &str) -> String {
    let path = place.split_once("::").map_or(place, |(_, path)| path);
    path.trim_end_matches("::here").to_owned()
}

/// Runs `program` as an ordinary user; true if it succeeds.
pub fn succeeds_as_user<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> bool {
    let mut command = Command::new("setpriv");
    as_user(&mut command).arg(program).args(arguments);
    command.status().unwrap().success()
}
