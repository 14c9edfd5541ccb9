//! A directory that nobody has any business in, and proof that nobody was there.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::support::{Scratch, Snapshot, assert_same, tree};

/// A directory outside of every layer. Whoever opens, reads or changes anything in it is noticed, and so is
/// whoever holds a descriptor of it.
pub struct Canary {
    scratch: Scratch,
    before: Snapshot,
    watch: OwnedFd,
}

impl Canary {
    pub fn new() -> Self {
        let scratch = Scratch::new();
        tree::make(
            scratch.path(),
            "f outside/secret text=secret\nf outside/sub/secret text=secret\nd outside/empty",
        );
        let outside = scratch.path().join("outside");
        let before = Snapshot::exact(&outside);
        let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        let this = Self { scratch, before, watch };
        for name in ["", "sub", "empty", "secret", "sub/secret"] {
            add_watch(&this.watch, this.path(name), WatchFlags::ALL_EVENTS).unwrap();
        }
        this
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join("outside").join(name)
    }

    /// Fails if anything in it was opened, read or changed, or if `daemon` holds a descriptor of it.
    pub fn assert_untouched(&self, daemon: Pid, what: &str) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        match Reader::new(&self.watch, &mut buffer).next() {
            Err(Errno::AGAIN) => {}
            event => panic!("{what}: something outside of the layers was touched: {event:?}"),
        }
        let descriptors = format!("/proc/{}/fd", daemon.as_raw_nonzero());
        for entry in std::fs::read_dir(descriptors).unwrap() {
            // It may be closed by now.
            let Ok(meta) = std::fs::metadata(entry.unwrap().path()) else { continue };
            for name in ["", "sub", "empty", "secret", "sub/secret"] {
                let own = std::fs::metadata(self.path(name)).unwrap();
                assert!(
                    (own.dev(), own.ino()) != (meta.dev(), meta.ino()),
                    "{what}: the daemon has opened {name:?}"
                );
            }
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_same(&self.before, &Snapshot::exact(&self.path("")), "outside of the layers");
        }
    }
}

/// Fails unless each thing that the daemon opened lay below a directory that it had open: the lines of
/// strace(1) in the file `trace`, from the mount on.
pub fn assert_opened_beneath(trace: &Path) {
    let text = std::io::read_to_string(File::open(trace).unwrap()).unwrap();
    let start = text.rfind("/merged\"").expect("the trace has the mountpoint");
    let mut opened = 0;
    for line in text[start..].lines().skip(1).filter(|line| line.contains("open")) {
        opened += 1;
        let Some((call, arguments)) = line.split_once('(') else { continue };
        let quoted = arguments.split('"').nth(1).unwrap_or_default();
        let one_name = !quoted.contains('/') && quoted != "..";
        let beneath = "RESOLVE_NO_MAGICLINKS|RESOLVE_NO_SYMLINKS|RESOLVE_BENEATH";
        let fine = match call.rsplit(' ').next().unwrap() {
            "openat2" => arguments.contains(beneath) && !quoted.split('/').any(|name| name == ".."),
            "open" | "openat" if quoted.starts_with("/proc/") => is_own_descriptor(quoted),
            "openat" => one_name && (quoted == "." || arguments.contains("O_NOFOLLOW")),
            _ => false,
        };
        assert!(fine || is_own_business(quoted), "{line}");
    }
    assert!(opened > 0, "nothing was traced:\n{text}");
}

fn is_own_descriptor(path: &str) -> bool {
    path.strip_prefix("/proc/self/fd/").is_some_and(|number| number.parse::<u32>().is_ok())
}

/// What the program reads for itself, whatever is in the layers.
fn is_own_business(path: &str) -> bool {
    [
        "/proc/self/mountinfo",
        "/sys/fs/cgroup/",
        "/proc/self/cgroup",
        "/sys/devices/system/cpu/",
        "/proc/stat",
        "/proc/partitions",
    ]
    .iter()
    .any(|own| path.starts_with(own))
}
