//! How many system calls a change costs, which docs/performance.md says too.

use std::ffi::OsStr;

use plyfs::overlay::{Caller, Config, NodeId, Overlay, RenameFlags, UpperDirs};

use crate::costs::calls;
use crate::tree;

const ROOT: Caller = Caller { uid: 0, gid: 0, thread: 0 };

/// A union with a lower layer and an empty upper one, whose directory `d` has been copied up.
struct Changed {
    overlay: Overlay,
    dir: NodeId,
    _scratch: tempfile::TempDir,
}

impl Changed {
    /// `None` for an ordinary user, to whom some of it costs more.
    fn new(lower_tree: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let scratch = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| {
            let path = scratch.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        });
        tree::make(&lower, lower_tree);
        let upper = Some(UpperDirs { upper, work });
        let overlay = Overlay::open(&Config { lower: vec![lower], upper, ..Config::default() });
        let overlay = overlay.unwrap();
        let dir = overlay.lookup(NodeId::ROOT, OsStr::new("d")).unwrap().unwrap().node;
        let changed = Self { overlay, dir, _scratch: scratch };
        changed.create("first");
        Some(changed)
    }

    fn create(&self, name: &str) -> String {
        let create = || self.overlay.create(ROOT, self.dir, OsStr::new(name), 0o644, 0).unwrap();
        calls(create).0
    }

    /// As the kernel does before it sends any change of a name.
    fn lookup(&self, name: &str) -> NodeId {
        self.overlay.lookup(self.dir, OsStr::new(name)).unwrap().unwrap().node
    }

    fn make_dir(&self, name: &str) -> String {
        let make = || self.overlay.make_dir(ROOT, self.dir, OsStr::new(name), 0o755, 0).unwrap();
        calls(make).0
    }

    fn unlink(&self, name: &str) -> String {
        calls(|| self.overlay.unlink(self.dir, OsStr::new(name)).unwrap()).0
    }

    fn rmdir(&self, name: &str) -> String {
        calls(|| self.overlay.rmdir(self.dir, OsStr::new(name)).unwrap()).0
    }

    fn rename(&self, from: &str, to: &str) -> String {
        let (from, to) = (OsStr::new(from), OsStr::new(to));
        let flags = RenameFlags::default();
        calls(|| self.overlay.rename(self.dir, from, self.dir, to, flags).unwrap()).0
    }
}

#[test]
fn what_is_new_is_made_renamed_and_deleted_by_as_few_calls_as_without_a_union() {
    let Some(union) = Changed::new("f d/old") else { return };
    assert_eq!(union.create("file"), "openat fstat");
    assert_eq!(union.make_dir("dir"), "mkdirat newfstatat");
    assert_eq!(union.rename("file", "renamed"), "renameat2");
    union.create("other");
    assert_eq!(union.rename("other", "renamed"), "renameat2", "onto a file that is open");
    assert_eq!(union.unlink("renamed"), "unlinkat", "a file that is open");
    // It stays reachable for those who have it as their working directory.
    assert_eq!(union.rmdir("dir"), "openat2 unlinkat");
}

#[test]
fn what_lower_layers_have_is_deleted_by_one_call() {
    let Some(union) = Changed::new("f d/file\nf d/changed\nd d/dir") else { return };
    for name in ["file", "changed", "dir"] {
        union.lookup(name);
    }
    assert_eq!(union.unlink("file"), "linkat");
    union.overlay.read_dir(union.lookup("dir"), 0, |_| plyfs::overlay::Flow::Continue).unwrap();
    assert_eq!(union.rmdir("dir"), "linkat");
    union.overlay.write(union.lookup("changed"), 0, b"x", None).unwrap();
    // A whiteout is made, and takes its place.
    assert_eq!(union.unlink("changed"), "linkat renameat");
}
