//! A union for many threads, and the time that they have.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plyfs::overlay::{Caller, Config, Entry, NodeId, Overlay, RenameFlags, UpperDirs};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

/// Descriptors that the union may have: so few that files are opened again all the time.
const DESCRIPTORS: u64 = 140;

/// Layers on disk.
pub struct Stage {
    dir: TempDir,
}

impl Stage {
    /// One lower layer, filled by `fill`, and an empty upper one.
    pub fn new(fill: impl FnOnce(&Path)) -> Self {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum }).unwrap();
        rustix::process::umask(rustix::fs::Mode::empty());
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        fill(&dir.path().join("lower"));
        Self { dir }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The union of them.
    pub fn open(&self) -> Overlay {
        let upper = UpperDirs { upper: self.path("upper"), work: self.path("work") };
        let config = Config {
            lower: vec![self.path("lower")],
            upper: Some(upper),
            volatile: true,
            ..Config::default()
        };
        Overlay::open(&crate::mode::applied(config)).unwrap()
    }
}

/// Runs `work` in a thread for each number below `threads`, for a moment or for the time of a soak; `work` is told
/// its number, and asks the second argument whether to go on.
pub fn at_once(threads: u64, work: impl Fn(u64, &dyn Fn() -> bool) + Sync) {
    let soak = std::env::var("PLYFS_SOAK_SECONDS").map(|text| text.parse().unwrap());
    let end = Instant::now() + soak.map_or(Duration::from_secs(2), Duration::from_secs);
    // One that fails ends the others, too.
    let failed = AtomicBool::new(false);
    let goes_on = || Instant::now() < end && !failed.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (work, failed, goes_on) = (&work, &failed, &goes_on);
            scope.spawn(move || {
                struct Fails<'a>(&'a AtomicBool);
                impl Drop for Fails<'_> {
                    fn drop(&mut self) {
                        self.0.fetch_or(std::thread::panicking(), Ordering::Relaxed);
                    }
                }
                let _on_panic = Fails(failed);
                work(number, goes_on);
            });
        }
    });
}

/// Who makes files here.
pub fn caller() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, thread: 0 }
}

/// Makes a file of these bytes, and gives back the reference on it.
pub fn write_file(union: &Overlay, parent: NodeId, name: &str, bytes: &[u8]) -> Result<(), Errno> {
    let made = union.create(caller(), parent, OsStr::new(name), 0o644, 0)?;
    let written = union.write(made.node, 0, bytes, None);
    union.forget(made.node, 1);
    assert_eq!(written?, bytes.len());
    Ok(())
}

pub fn lookup(union: &Overlay, parent: NodeId, name: &str) -> Option<Entry> {
    union.lookup(parent, OsStr::new(name)).unwrap()
}

pub fn rename(union: &Overlay, from: &str, to: &str) -> Result<(), Errno> {
    let flags = RenameFlags::default();
    union.rename(NodeId::ROOT, OsStr::new(from), NodeId::ROOT, OsStr::new(to), flags)
}

/// All that is in a file.
pub fn read(union: &Overlay, node: NodeId) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; 8192];
    let count = union.read(node, 0, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}
