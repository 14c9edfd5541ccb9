//! How many system calls what is asked for most costs, which docs/performance.md says too.

use std::ffi::OsStr;
use std::path::PathBuf;

use plyfs::overlay::{Config, Entry, Flow, NodeId, Overlay, UpperDirs};
use plyfs::sys::Errno;

use crate::syscalls::{Answer, watch};
use crate::tree;

const ROOT: NodeId = NodeId::ROOT;

/// What it costs to learn what one directory of one layer has.
const LIST: &str = "openat2 flistxattr getdents64 getdents64";

/// A union of so many layers, each with the directory `dir` with the same three files, and with `sub` in it.
fn union(layers: usize, dir: &tempfile::TempDir) -> Overlay {
    let lower: Vec<PathBuf> = (0..layers).map(|n| dir.path().join(n.to_string())).collect();
    for layer in &lower {
        std::fs::create_dir(layer).unwrap();
        tree::make(layer, "f dir/a text=text\nf dir/b\nf dir/c\nf dir/sub/below");
    }
    Overlay::open(&Config { lower, ..Config::default() }).unwrap()
}

/// The system calls that `work` makes, and its result.
pub fn calls<T: Send>(work: impl FnOnce() -> T + Send) -> (String, T) {
    let mut calls = Vec::new();
    let result = watch(
        |call| {
            calls.push(call.name);
            Answer::Go
        },
        work,
    );
    (calls.join(" "), result)
}

fn lookup(overlay: &Overlay, parent: NodeId, name: &str) -> (String, Option<Entry>) {
    calls(|| overlay.lookup(parent, OsStr::new(name)).unwrap())
}

fn read_dir_plus(overlay: &Overlay, id: NodeId) -> (String, usize) {
    calls(|| {
        let mut entries = 0;
        let emit = |_: plyfs::overlay::DirEntry<'_>, _: Option<&Entry>| {
            entries += 1;
            Flow::Continue
        };
        overlay.read_dir_plus(id, 0, emit).unwrap();
        entries
    })
}

fn times(count: usize, calls: &str) -> String {
    vec![calls; count].join(" ")
}

#[test]
fn looking_at_files_costs_what_is_documented() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for layers in [1, 10] {
        let scratch = tempfile::tempdir().unwrap();
        let overlay = union(layers, &scratch);
        // What is in the root of the layers, which are open.
        overlay.lookup(ROOT, OsStr::new("absent")).unwrap();

        let (cost, dir) = lookup(&overlay, ROOT, "dir");
        assert_eq!(cost, "statx", "a directory");
        let dir = dir.unwrap().node;
        let (cost, absent) = lookup(&overlay, dir, "absent");
        assert_eq!((cost, absent), (times(layers, LIST), None), "the first name in a directory");
        let (cost, absent) = lookup(&overlay, dir, "absent");
        assert_eq!((cost.as_str(), absent), ("", None), "an absent name");
        let (cost, file) = lookup(&overlay, dir, "a");
        assert_eq!(cost, "statx", "a name");
        let file = file.unwrap().node;
        assert_eq!(lookup(&overlay, dir, "a").0, "newfstatat", "a name again");
        assert_eq!(calls(|| overlay.attr(file).unwrap()).0, "newfstatat", "attributes");

        let (cost, entries) = read_dir_plus(&overlay, dir);
        let expected = format!("{} newfstatat", times(3, "statx"));
        assert_eq!((cost, entries), (expected, 6), "each entry with its attributes");
        let (cost, _) = calls(|| overlay.read_dir(dir, 0, |_| Flow::Continue).unwrap());
        assert_eq!(cost, "", "the names of a directory whose files are known");
        let sub = lookup(&overlay, dir, "sub").1.unwrap().node;
        let (cost, entries) = read_dir_plus(&overlay, sub);
        let expected = format!("{} statx", times(layers, LIST));
        assert_eq!((cost, entries), (expected, 3), "a directory with one file, never seen");

        overlay.read(file, 0, &mut [0; 4]).unwrap();
        let (cost, read) = calls(|| overlay.read(file, 0, &mut [0; 4]).unwrap());
        assert_eq!((cost.as_str(), read), ("preadv2", 4), "reading a file that is open");
    }
}

#[test]
fn attributes_of_a_lower_file_without_any_are_asked_for_once() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let union = |changing| {
        let lower = scratch.path().join(if changing { "changing" } else { "lower" });
        tree::make(&lower, "f bare text=text\nf none\nf marked user.x=1");
        Overlay::open(&Config { lower: vec![lower], changing, ..Config::default() }).unwrap()
    };
    // Not every kernel and filter of system calls has the newer ones.
    let modern =
        |cost: String| cost.replace("lgetxattr", "getxattrat").replace("llistxattr", "listxattrat");
    let capability = |overlay: &Overlay, id| {
        let (cost, value) = calls(|| overlay.get_xattr(id, OsStr::new("security.capability")));
        assert_eq!(value, Err(Errno::NODATA));
        modern(cost)
    };
    let names = |overlay: &Overlay, id| {
        let (cost, names) = calls(|| overlay.list_xattr(id).unwrap());
        (modern(cost), names.len())
    };
    let overlay = union(false);
    let find = |overlay: &Overlay, name| lookup(overlay, ROOT, name).1.unwrap().node;
    let bare = find(&overlay, "bare");
    assert_eq!(capability(&overlay, bare), "listxattrat", "the first question");
    assert_eq!(names(&overlay, bare), (String::new(), 0), "the names then");
    assert_eq!(capability(&overlay, bare), "", "the question again");
    let (cost, _) = calls(|| overlay.read(bare, 0, &mut [0; 4]).unwrap());
    assert!(!cost.contains("xattr"), "a file without any cannot be a metacopy: {cost}");
    let none = find(&overlay, "none");
    assert_eq!(names(&overlay, none), ("listxattrat".into(), 0), "the names first");
    assert_eq!(capability(&overlay, none), "", "the question then");
    let marked = find(&overlay, "marked");
    for _ in 0..2 {
        assert_eq!(capability(&overlay, marked), "listxattrat", "of a file with others");
        assert_eq!(names(&overlay, marked), ("listxattrat".into(), 1));
    }

    let overlay = union(true);
    let bare = find(&overlay, "bare");
    for _ in 0..2 {
        assert_eq!(capability(&overlay, bare), "listxattrat", "of a layer that others change");
    }
}

/// A union of so many packed layers of one store, each with the directory `dir` with the same three files and one of
/// its own.
fn packed_union(layers: usize, dir: &tempfile::TempDir) -> Overlay {
    use plyfs::layer::packed::Builder;
    use plyfs::layer::packed::builder::{Body, Object};
    std::fs::create_dir_all(dir.path().join("objects")).unwrap();
    let layer = |n: usize| {
        let mut builder = Builder::new(dir.path()).unwrap();
        for name in ["a", "b", "c", &format!("own-{n}")] {
            let object = Object {
                mode: libc::S_IFREG | 0o644,
                uid: 0,
                gid: 0,
                mtime: plyfs::sys::Time::default(),
                body: Body::Content(0, None),
                xattrs: &mut std::iter::empty(),
            };
            builder.put([&b"dir"[..], name.as_bytes()].into_iter(), object).unwrap();
        }
        let folder = dir.path().join("layers").join(n.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let index = folder.join("index");
        builder.write(std::fs::File::create_new(&index).unwrap()).unwrap();
        index
    };
    let lower = (0..layers).map(layer).collect();
    Overlay::open(&Config { lower, ..Config::default() }).unwrap()
}

#[test]
fn names_and_attributes_in_packed_layers_cost_no_system_call_however_many_there_are() {
    for layers in [1, 1000] {
        let scratch = tempfile::tempdir().unwrap();
        let overlay = packed_union(layers, &scratch);
        let (cost, found) = calls(|| {
            let dir = overlay.lookup(ROOT, OsStr::new("dir")).unwrap().unwrap().node;
            assert_eq!(overlay.lookup(dir, OsStr::new("absent")).unwrap(), None);
            let file = overlay.lookup(dir, OsStr::new("a")).unwrap().unwrap().node;
            overlay.attr(file).unwrap();
            overlay.list_xattr(file).unwrap();
            dir
        });
        let (listing, entries) = read_dir_plus(&overlay, found);
        assert_eq!(entries, layers + 5);
        // What the memory for a thousand names costs is no question to a layer.
        let asked = [cost, listing].join(" ");
        let memory = ["brk", "mmap", "munmap", "mremap", "madvise", "mprotect", "futex", ""];
        let asked: Vec<_> = asked.split(' ').filter(|call| !memory.contains(call)).collect();
        assert!(asked.is_empty(), "{layers} layers: {asked:?}");
    }
}

#[test]
fn opening_a_union_costs_what_is_documented() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // How long the paths are is not our doing.
    let own = |calls: &str| calls.split(' ').filter(|call| *call != "readlink").count();
    let opened = |layers: usize| {
        let scratch = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = |name: &str| {
            let path = scratch.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let lower = (0..layers).map(|n| path(&n.to_string())).collect();
        let upper = Some(UpperDirs { upper: path("upper"), work: path("work") });
        let config = Config { lower, upper, ..Config::default() };
        let open = || calls(|| drop(Overlay::open(&config).unwrap())).0;
        [open(), open()]
    };
    let [one, eleven] = [1, 11].map(opened);
    assert_eq!((own(&one[0]), own(&one[1])), (75, 69), "with a new workdir, and again: {one:#?}");
    for (few, many) in one.iter().zip(eleven) {
        assert_eq!(own(&many) - own(few), 10 * 13, "each lower layer: {many}");
    }
}
