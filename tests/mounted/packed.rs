//! Layers of a store as layers of a union. The other tests of this folder run over such layers too:
//! `scripts/conformance/modes packed`.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::support::packed::packed;
use crate::support::posix::{errno, exists, get_xattr, names, set_xattr, text};
use crate::support::{Builder, Scratch, Union, assert_same, tree};
use crate::{isolated, needs_root};

const TOP: &str = "
f d/both text=top mode=640 own=1000:2000
w d/deleted
o hidden
f hidden/new text=new
l link to=d/both
";

const BOTTOM: &str = "
f d/both text=bottom
f d/deleted text=deleted
f d/one text=one
h d/two to=d/one
f empty
f hidden/old text=old
f set-id text=x mode=4755
p fifo
d deep/er
";

/// The same layers as directories and as those of a store.
fn layers(scratch: &Scratch) -> [Vec<PathBuf>; 2] {
    let dirs: Vec<PathBuf> = [("top", TOP), ("bottom", BOTTOM)]
        .into_iter()
        .map(|(name, text)| {
            let dir = scratch.dir(name);
            tree::make(&dir, text);
            dir
        })
        .collect();
    let store = scratch.path().join("store");
    let stored = dirs.iter().map(|dir| packed(dir, &store)).collect();
    [dirs, stored]
}

fn union(layers: &[PathBuf]) -> Builder {
    layers.iter().fold(Union::new().unchecked_lowers(), Builder::lower_at)
}

#[test]
fn stored_layers_are_merged_as_directories_are() {
    needs_root!();
    let scratch = Scratch::new();
    let [dirs, stored] = layers(&scratch);
    assert!(stored.iter().all(|layer| layer.ends_with("index")));
    let seen = [&dirs, &stored].map(|layers| union(layers).read_only().mount().snapshot());
    assert_same(&seen[0], &seen[1], "directories and stored layers");
    for layers in [&dirs, &stored] {
        let mut union = union(layers).mount();
        fs::write(union.path("d/one"), "changed").unwrap();
        fs::remove_file(union.path("d/both")).unwrap();
        fs::rename(union.path("empty"), union.path("deep/er/empty")).unwrap();
        fs::rename(union.path("hidden"), union.path("moved")).unwrap();
        set_xattr(union.path("set-id"), "user.new", b"1").unwrap();
        union.remount();
        assert_eq!(names(union.path("")), ["d", "deep", "fifo", "link", "moved", "set-id"]);
        assert_eq!(names(union.path("d")), ["one", "two"]);
        assert_eq!(names(union.path("deep/er")), ["empty"]);
        assert_eq!(names(union.path("moved")), ["new"]);
        assert_eq!(text(union.path("d/two")), "changed");
        assert_eq!(text(union.path("moved/new")), "new");
        assert_eq!(get_xattr(union.path("set-id"), "user.new").as_deref(), Ok(&b"1"[..]));
    }
}

#[test]
fn files_of_stored_layers_have_inode_numbers_of_their_own_that_last() {
    needs_root!();
    let scratch = Scratch::new();
    let [_, stored] = layers(&scratch);
    let mut union = union(&stored).mount();
    let number = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let paths = ["d", "d/both", "d/one", "empty", "hidden/new", "set-id", "deep/er"];
    let before = paths.map(|path| number(&union.path(path)));
    let mut different = before.to_vec();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), paths.len());
    fs::write(union.path("d/both"), "changed").unwrap();
    union.remount();
    assert_eq!(paths.map(|path| number(&union.path(path))), before);
}

/// Set-user-id files, devices and owners are in the index, and need no right of who mounts it.
#[test]
fn an_ordinary_user_has_owners_and_devices_as_the_archive_says() {
    isolated!(User, {
        use plyfs::layer::packed::builder::{Body, Object};
        use std::os::unix::fs::MetadataExt;
        let scratch = Scratch::new();
        let layer = scratch.dir("store/layers/one");
        scratch.dir("store/objects");
        let mut builder = plyfs::layer::packed::Builder::new(&layer).unwrap();
        let mut put = |name: &str, mode: u32, body: Body<'_>| {
            let mut xattrs = std::iter::once((&b"security.capability"[..], &b"\x01"[..]));
            let object = Object {
                mode,
                uid: 5,
                gid: 6,
                mtime: plyfs::sys::Time::default(),
                body,
                xattrs: &mut xattrs,
            };
            builder.put([name.as_bytes()].into_iter(), object).unwrap();
        };
        put("device", libc::S_IFBLK | 0o600, Body::Number(8, 17));
        put("program", libc::S_IFREG | 0o6755, Body::Content(0, None));
        builder.write(fs::File::create_new(layer.join("index")).unwrap()).unwrap();
        let union = union(&[layer.join("index")]).read_only().mount();
        let device = fs::symlink_metadata(union.path("device")).unwrap();
        assert_eq!((device.uid(), device.gid(), device.mode()), (5, 6, libc::S_IFBLK | 0o600));
        assert_eq!(device.rdev(), rustix::fs::makedev(8, 17));
        let program = fs::metadata(union.path("program")).unwrap();
        assert_eq!((program.mode() & 0o7777, program.len()), (0o6755, 0));
    });
}

#[test]
fn attributes_that_an_archive_calls_like_marks_are_shown_and_not_obeyed() {
    needs_root!();
    use plyfs::layer::packed::builder::{Body, Object};
    let scratch = Scratch::new();
    let layer = scratch.dir("store/layers/one");
    scratch.dir("store/objects");
    let mut builder = plyfs::layer::packed::Builder::new(&layer).unwrap();
    let marks: [(&[u8], &[u8]); 3] = [
        (b"trusted.overlay.opaque", b"y"),
        (b"trusted.overlay.redirect", b"/etc"),
        (b"user.containers.override_stat", b"0:0:04755"),
    ];
    let mut xattrs = marks.iter().map(|(name, value)| (*name, *value));
    let object = Object {
        mode: libc::S_IFDIR | 0o755,
        uid: 1,
        gid: 1,
        mtime: plyfs::sys::Time::default(),
        body: Body::Nothing,
        xattrs: &mut xattrs,
    };
    builder.put([&b"d"[..]].into_iter(), object).unwrap();
    builder.write(fs::File::create_new(layer.join("index")).unwrap()).unwrap();
    let below = scratch.dir("below");
    tree::make(&below, "f d/below text=shines");
    let union = union(&[layer.join("index"), below]).mount();
    assert_eq!(names(union.path("d")), ["below"]);
    for (name, value) in marks {
        let name = std::str::from_utf8(name).unwrap();
        assert_eq!(get_xattr(union.path("d"), name).as_deref(), Ok(value), "{name}");
    }
}

#[test]
fn a_damaged_or_missing_content_is_an_error_for_its_file_alone() {
    needs_root!();
    let scratch = Scratch::new();
    let lower = scratch.dir("lower");
    tree::make(
        &lower,
        "f damaged text=abc\nf short text=abcd\nf missing text=abcde\nf sound text=sound",
    );
    let index = packed(&lower, &scratch.path().join("store"));
    let object = |content: &str| {
        let hex = blake3::hash(content.as_bytes()).to_hex();
        scratch.path().join("store/objects").join(&hex[..2]).join(&hex[2..])
    };
    fs::write(object("abc"), "abX").unwrap();
    fs::write(object("abcd"), "abc").unwrap();
    fs::remove_file(object("abcde")).unwrap();
    let read = |union: &Union, name: &str| errno(fs::read(union.path(name)));
    for option in ["verify=open", "ro"] {
        let union = union(std::slice::from_ref(&index)).option(option).mount();
        assert_eq!(text(union.path("sound")), "sound");
        for name in ["short", "missing"] {
            assert_eq!(read(&union, name), Errno::IO, "{name} with {option}");
        }
        match option {
            "verify=open" => assert_eq!(read(&union, "damaged"), Errno::IO),
            _ => assert_eq!(text(union.path("damaged")), "abX"),
        }
        assert!(exists(union.path("damaged")));
    }
}

#[test]
fn what_is_no_index_is_refused_by_name() {
    needs_root!();
    let scratch = Scratch::new();
    let lower = scratch.dir("lower");
    tree::make(&lower, "f a text=a");
    let index = packed(&lower, &scratch.path().join("store"));
    let whole = fs::read(&index).unwrap();
    for (damage, why) in [
        (&b"not an index"[..], "is neither a directory nor the index of a stored layer"),
        (&whole[..whole.len() - 1], "is neither a directory nor the index of a stored layer"),
    ] {
        fs::write(&index, damage).unwrap();
        let refusal = union(std::slice::from_ref(&index)).try_mount().err().unwrap();
        let line = format!("lowerdir: {} {why}", index.display());
        assert!(refusal.message.contains(&line), "{}", refusal.message);
    }
}

#[test]
fn a_damaged_index_is_refused_where_contents_are_verified() {
    needs_root!();
    let scratch = Scratch::new();
    let lower = scratch.dir("lower");
    tree::make(&lower, "f a text=a mode=600");
    let index = packed(&lower, &scratch.path().join("store"));
    let mut bytes = fs::read(&index).unwrap();
    // The permission bits of the second inode.
    bytes[128 + 64] ^= 0o44;
    fs::write(&index, bytes).unwrap();
    let layers = std::slice::from_ref(&index);
    let refusal = union(layers).option("verify=open").try_mount().err().unwrap();
    let line = format!("lowerdir: {} is damaged", index.display());
    assert!(refusal.message.contains(&line), "{}", refusal.message);
    let mode = |path| std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap()) & 0o777;
    assert_eq!(mode(union(layers).mount().path("a")), 0o644, "nobody has asked for it");
}

/// All layers of a store have one descriptor together, and only those are asked that have the directory.
#[test]
fn a_thousand_layers_need_no_more_descriptors_than_one() {
    needs_root!();
    let scratch = Scratch::new();
    let lower = scratch.dir("lower");
    let store = scratch.path().join("store");
    let index = |n: usize| {
        let dir = lower.join(n.to_string());
        tree::make(&dir, &format!("f dir/{n} text={n}\nf own/{n}/file"));
        packed(&dir, &store)
    };
    let layers: Vec<PathBuf> = (0..1000).map(index).collect();
    let union = union(&layers).read_only().wrapper(&["prlimit", "--nofile=256:256"]).mount();
    let process = PathBuf::from(format!("/proc/{}", union.live().pid().as_raw_nonzero()));
    let open = || fs::read_dir(process.join("fd")).unwrap().count();
    assert!(open() < 30, "{} descriptors", open());
    assert_eq!(names(union.path("dir")).len(), 1000);
    assert_eq!(names(union.path("own")).len(), 1000);
    for n in [0, 499, 999] {
        assert_eq!(text(union.path(format!("dir/{n}"))), n.to_string());
        assert_eq!(names(union.path(format!("own/{n}"))), ["file"]);
    }
    // What lies in one layer leads to that layer alone.
    let mapped = fs::read_to_string(process.join("maps")).unwrap();
    assert_eq!(mapped.matches("/store/layers/").count(), 1000);
    assert!(open() < 40, "{} descriptors", open());
}
