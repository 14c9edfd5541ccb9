//! What must hold for every input of the parsers that read foreign bytes: errors are fine, panics and the
//! violations below are bugs.
//!
//! One function an input, called by the fuzz target of its name, and by `tests/fuzzed.rs` with the seeds
//! and with random inputs, so that every run of the tests knows them too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use plyfs::layer::stat_override::Overridden;
use plyfs::layer::{Redirect, origin, whiteout, xattr_names};
use plyfs::mount::options::{LowerDirs, Options, table};

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
