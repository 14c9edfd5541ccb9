//! Fault points: named places inside mutations at which a test can kill the process.
//!
//! Compiled in only with the feature `fault-points`; otherwise [`point`] is empty. A test sets
//! `PLYFS_FAULT=<name>[:<nth>]` and the process dies by SIGKILL when it reaches that point for the nth
//! time (1 when not given), as in a power cut of the daemon alone. Where one process follows another that died,
//! `PLYFS_FAULT_DEATHS=<file>` bounds how many do: each takes a byte off the end of that file, and none dies when it is empty.

/// Every fault point of the program, in the order of the operations that they belong to.
pub const POINTS: &[&str] = &[
    "copy-up.staged",
    "copy-up.settled",
    "copy-up.indexed",
    "copy-up.published",
    "copy-up.directory-published",
    "metacopy.data-copied",
    "create.staged",
    "create.published",
    "mkdir.staged",
    "mkdir.exchanged",
    "mkdir.published",
    "link.staged",
    "link.published",
    "unlink.whiteout-staged",
    "unlink.published",
    "rmdir.whiteout-staged",
    "rmdir.moved-away",
    "rmdir.removed",
    "rename.prepared",
    "rename.target-cleared",
    "rename.opaque-set",
    "rename.published",
    "rename.exchanged",
    "convert.step",
    "import.staged",
    "import.synced",
    "import.contents-published",
    "import.published",
    "tags.staged",
    "tags.published",
    "container.staged",
    "container.published",
    "container.removed",
];

/// Dies here when the environment asks for it.
#[cfg(feature = "fault-points")]
pub fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);

    debug_assert!(POINTS.contains(&name), "fault point {name} is not listed");
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("PLYFS_FAULT").ok()?;
        let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), nth.parse().ok()?))
    });
    if let Some((wanted_name, nth)) = wanted
        && wanted_name == name
        && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
        && may_die()
    {
        let own = rustix::process::getpid();
        if rustix::process::kill_process(own, rustix::process::Signal::KILL).is_err() {
            std::process::abort();
        }
    }
}

/// Takes one of the deaths that are left, if they are counted. What cannot be counted is not died of: a test that waits for it
/// sees that.
#[cfg(feature = "fault-points")]
fn may_die() -> bool {
    let Some(path) = std::env::var_os("PLYFS_FAULT_DEATHS") else { return true };
    let Ok(left) = std::fs::File::options().write(true).open(path) else { return false };
    let Ok(number) = left.metadata().map(|metadata| metadata.len()) else { return false };
    number > 0 && left.set_len(number - 1).is_ok()
}

/// Nothing: fault points are not compiled in.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub fn point(_name: &'static str) {}
