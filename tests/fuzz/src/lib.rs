//! What must hold for every input of the parsers that read foreign bytes: errors are fine, panics and the
//! violations below are bugs.
//!
//! One function an input, called by the fuzz target of its name, and by `tests/fuzzed.rs` with the seeds
//! and with random inputs, so that every run of the tests knows them too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use plyfs::archive::{Decompressed, Kind, Limits, Reader};
use plyfs::layer::packed::builder::{Body, Object};
use plyfs::layer::packed::{Builder, Index};
use plyfs::layer::stat_override::Overridden;
use plyfs::layer::{Redirect, origin, whiteout, xattr_names};
use plyfs::mount::options::{LowerDirs, Options, table};
use plyfs::sys::FileKind;

/// The text of `-o`.
pub fn options(text: &[u8]) {
    let parse = |text: &[u8]| Options::parse(&[OsStr::from_bytes(text)]);
    let parsed = parse(text);
    assert_eq!(parsed, parse(&[b",,", text].concat()), "empty options mean something");
    match &parsed {
        Ok(options) => {
            options.warnings.iter().for_each(|line| assert_one_line(line));
            if options.vfs.remount && options.lower.is_empty() {
                return;
            }
            assert!(!options.lower.is_empty());
            let paths = options.lower.iter().chain(&options.data_only);
            assert!(paths.clone().all(|path| !path.as_os_str().is_empty()));
            let dirs =
                LowerDirs { layers: options.lower.clone(), data_only: options.data_only.clone() };
            let again = parse(&[b"lowerdir=", dirs.render().as_bytes()].concat()).unwrap();
            assert_eq!((again.lower, again.data_only), (dirs.layers, dirs.data_only));
        }
        Err(error) => {
            assert!(table::all().any(|option| option.name == error.option), "{error}");
            assert_one_line(&error.to_string());
        }
    }
}

fn assert_one_line(line: &str) {
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert!(line.len() < 1000, "{} bytes", line.len());
}

/// The value of an `override_stat` attribute.
pub fn override_stat(value: &[u8]) {
    let Some(stored) = Overridden::parse(value) else { return };
    assert!(stored.permissions <= 0o7777);
    let written = stored.value();
    assert_eq!(Overridden::parse(written.as_bytes()), Some(stored));
    assert_eq!(Overridden::parse(written.as_bytes()).unwrap().value(), written);
}

/// An origin, and the name of an index entry.
pub fn origin(bytes: &[u8]) {
    let name = origin::index_name(bytes);
    assert_eq!(origin::from_index_name(&name).as_deref(), Some(bytes));
    if origin::is_origin(bytes) {
        assert!(bytes.len() >= 21 && bytes.len() <= 255);
    }
    if let Ok(name) = std::str::from_utf8(bytes)
        && let Some(blob) = origin::from_index_name(name)
    {
        assert_eq!(origin::index_name(&blob), name.to_ascii_lowercase(), "two names of one origin");
    }
}

/// The value of a redirect.
pub fn redirect(value: &[u8]) {
    let Some(redirect) = Redirect::parse(value) else { return };
    assert_eq!(redirect.value(), value);
    let (dirs, name) = match &redirect {
        Redirect::Sibling(name) => (&[][..], name),
        Redirect::Absolute(dirs, name) => (dirs.as_slice(), name),
    };
    for name in dirs.iter().chain([name]) {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= 255 && bytes != b"." && bytes != b"..");
        assert!(!bytes.contains(&b'/') && !bytes.contains(&0));
    }
}

/// A name, of a file and of an extended attribute.
pub fn names(bytes: &[u8]) {
    let name = OsStr::from_bytes(bytes);
    let is_mark = whiteout::hidden_by(name).is_some();
    assert!(!is_mark || whiteout::has_prefix(name));
    if let Some(hidden) = whiteout::hidden_by(name) {
        assert!(!hidden.is_empty() && hidden != "." && hidden != "..");
        assert_eq!(whiteout::dot_file(hidden), name);
    }
    if !bytes.is_empty() && name != "." && name != ".." {
        assert_eq!(whiteout::hidden_by(&whiteout::dot_file(name)), Some(name));
    }
    let prefixes: [&[u8]; 4] = [b"", b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs."];
    for prefix in prefixes {
        let own = OsString::from_vec([prefix, bytes].concat());
        match xattr_names::stored(&own) {
            Some(stored) => assert_eq!(xattr_names::shown(&stored).as_deref(), Some(&*own)),
            None => assert!(own.len() > 255 - "fuseoverlayfs.".len()),
        }
        if let Some(shown) = xattr_names::shown(&own) {
            assert_eq!(xattr_names::stored(&shown).as_deref().unwrap_or(&own), own);
        }
    }
}

/// An archive: as it is, and as the data of an extended header or a sparse file in one.
pub fn archive(bytes: &[u8]) {
    read_archive(bytes);
    let Some((flag, data)) = bytes.split_first() else { return };
    let mut archive = header(b"xLKSg05"[usize::from(*flag) % 7], data.len());
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive.extend_from_slice(&header(b'0', 10));
    archive.extend_from_slice(b"0123456789");
    archive.resize(archive.len().next_multiple_of(512), 0);
    read_archive(&archive);
}

/// A header of an entry called `n`. A sparse file begins with an empty map.
fn header(flag: u8, size: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[0] = b'n';
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[156] = flag;
    header[257..265].copy_from_slice(b"ustar  \0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn read_archive(bytes: &[u8]) {
    let limits = Limits { bytes: 1 << 20, entries: 1000, header: 4096, ..Limits::default() };
    let Ok(source) = Decompressed::new(bytes, limits) else { return };
    let mut reader = Reader::new(source, limits);
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) => {
                for name in entry.path.names() {
                    assert!(!name.is_empty() && name.len() <= 255 && name != b"." && name != b"..");
                    assert!(!name.contains(&b'/') && !name.contains(&0));
                }
                assert_ne!(entry.uid, u32::MAX);
                assert!(entry.permissions <= 0o7777);
                if let Kind::Regular(extent) = &entry.kind {
                    assert!(extent.stored() <= extent.size && extent.size <= limits.bytes);
                }
                assert!(reader.take_framing().len() as u64 <= 4 * limits.header + (4 << 20));
            }
            Ok(None) => return,
            Err(refusal) => return assert_one_line(&refusal.to_string()),
        }
    }
}

/// An index in which, for each 4 bytes, the byte at the place that the first three are is changed to the fourth. Every
/// question has an answer or an error, and the way down from the root ends.
pub fn packed_index(damage: &[u8]) {
    let mut index = sound_index();
    let length = index.len();
    for [high, middle, low, value] in damage.as_chunks::<4>().0 {
        let place = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        index[place % length] = *value;
    }
    static SERIAL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("plyfs-index-{}-{serial}", std::process::id()));
    std::fs::write(&path, &index).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let Ok(index) = Index::open(&file) else { return };
    index.is_sound();
    let mut dirs = vec![0];
    let mut visited = 0;
    while let Some(dir) = dirs.pop() {
        visited += 1;
        assert!(visited <= index.inodes(), "a directory was found twice");
        let Ok(entries) = index.entries(dir) else { continue };
        for entry in entries {
            let Ok(entry) = entry else { break };
            let Some(number) = entry.inode else { continue };
            if let Ok(Some(found)) = index.find(dir, entry.name) {
                assert_eq!(found.name, entry.name);
            }
            let Ok(inode) = index.inode(number) else { continue };
            assert!(index.link_target(&inode).is_err() || inode.kind() == FileKind::Symlink);
            assert!(index.content(&inode).is_err() || inode.kind() == FileKind::Regular);
            drop(index.xattrs(&inode));
            if inode.kind().is_dir() {
                dirs.push(number);
            }
        }
    }
}

/// A small index with something of every kind.
fn sound_index() -> Vec<u8> {
    fn put(builder: &mut Builder, path: &str, mode: u32, body: Body<'_>) {
        let pairs = [(&b"user.a"[..], &b"1"[..])];
        let mut xattrs = pairs.iter().copied();
        let mtime = plyfs::sys::Time::default();
        let object = Object { mode, uid: 1, gid: 2, mtime, body, xattrs: &mut xattrs };
        builder.put(path.split('/').map(str::as_bytes), object).unwrap();
    }
    let mut builder = Builder::new(&std::env::temp_dir()).unwrap();
    for dir in ["a", "a/b", "a/b/c", "d"] {
        put(&mut builder, dir, 0o040_755, Body::Nothing);
    }
    for file in ["a/1", "a/2", "a/b/3", "a/b/c/4", "d/5"] {
        put(&mut builder, file, 0o100_644, Body::Content(3, Some([7; 32])));
    }
    put(&mut builder, "link", 0o120_777, Body::Target(b"a/b"));
    put(&mut builder, "device", 0o020_600, Body::Number(1, 3));
    let path = |path: &'static str| path.split('/').map(str::as_bytes);
    builder.link(path("d/6"), path("a/1")).unwrap();
    builder.whiteout(path("d"), b"gone").unwrap();
    builder.opaque(path("a/b")).unwrap();
    let mut file = std::io::Cursor::new(Vec::new());
    builder.write(&mut file).unwrap();
    file.into_inner()
}
