//! How many system calls a change costs, which docs/performance.md says too.

use std::ffi::OsStr;

use plyfs::overlay::{Caller, Config, NodeId, Overlay, RenameFlags, SetAttr, UpperDirs};
use plyfs::sys::object::NewTime;

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
fn what_is_made_for_others_or_in_the_place_of_a_whiteout_is_staged_by_as_few_calls() {
    let Some(union) = Changed::new("f d/old\nf d/gone") else { return };
    let other = Caller { uid: 5, gid: 5, thread: 0 };
    let make = |name: &str, mode| {
        let name = OsStr::new(name);
        calls(|| union.overlay.create(other, union.dir, name, mode, 0).unwrap()).0
    };
    assert_eq!(make("file", 0o644), "openat fstat fchownat linkat fstat");
    assert_eq!(make("with-set-id", 0o4755), "openat fstat fchownat fchmodat linkat fstat");
    let dir = OsStr::new("dir");
    let make_dir = || union.overlay.make_dir(other, union.dir, dir, 0o755, 0).unwrap();
    assert_eq!(calls(make_dir).0, "mkdirat newfstatat fchownat renameat2 newfstatat");
    for name in ["old", "gone"] {
        union.unlink(name);
    }
    assert_eq!(union.create("old"), "openat fstat renameat fstat", "in the place of a whiteout");
    // Opaque, and the whiteout is removed that it was exchanged for.
    let opaque = "mkdirat newfstatat lsetxattr lsetxattr renameat2 unlinkat newfstatat";
    assert_eq!(union.make_dir("gone"), opaque);
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

/// Of a file with data, without attributes and holes, that the daemon's own user owns, until it has its name.
const COPY_UP: &str = "openat fstat openat fstat listxattr open copy_file_range utimensat setxattr SETTLE fstat linkat utimensat";

#[test]
fn a_small_file_is_copied_up_by_thirteen_calls() {
    let lower = "early data mode owner times".split(' ').map(|name| format!("f d/{name} text=x"));
    let Some(union) = Changed::new(&lower.collect::<Vec<_>>().join("\n")) else { return };
    let overlay = &union.overlay;
    let check = |name, expected: &str, change: &(dyn Fn(NodeId) + Sync)| {
        let node = union.lookup(name);
        let cost = calls(|| change(node)).0;
        // How data gets onto the disk, and whether it is shared, depends on the filesystem.
        let cost = cost.replace("sync_file_range", "SETTLE").replace("fsync", "SETTLE");
        let cost = cost.replace("ioctl", "copy_file_range");
        assert_eq!(cost, format!("{COPY_UP} {expected}"), "{name}");
        assert_eq!(calls(|| change(node)).0, expected, "{name} again");
    };
    let set = |node, change| {
        overlay.set_attr(ROOT, node, &change).unwrap();
    };
    let now = Some(NewTime::Now);
    // Whether data can be shared is tried once, and the directory is marked once.
    overlay.write(union.lookup("early"), 0, b"y", None).unwrap();
    check("data", "pwrite64", &|node| assert_eq!(overlay.write(node, 0, b"y", None), Ok(1)));
    check("mode", "fchmodat2 newfstatat", &|node| {
        set(node, SetAttr { mode: Some(0o600), ..SetAttr::default() });
    });
    check("owner", "fchownat newfstatat", &|node| {
        set(node, SetAttr { uid: Some(7), ..SetAttr::default() });
    });
    check("times", "utimensat newfstatat", &|node| {
        set(node, SetAttr { atime: now, mtime: now, ..SetAttr::default() });
    });
}
