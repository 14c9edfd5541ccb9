//! The invariants of the fuzz targets, over their seeds and over random inputs made of what these parsers look for.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz TARGET` looks for more of them; an input that it finds becomes a seed.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "fuzz/src/lib.rs"]
mod invariants;

use std::path::Path;

use plyfs::mount::options::table;
use proptest::prelude::*;

/// Inputs of the words that mean something to one parser, and of arbitrary bytes.
fn inputs(words: Vec<&'static str>) -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    let bytes = prop::collection::vec(any::<u8>(), 0..4);
    let number = any::<u32>().prop_map(|number| number.to_string().into_bytes());
    let piece = prop_oneof![6 => word, 1 => bytes, 1 => number];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Every fuzz target: its seeds and random inputs.
macro_rules! targets {
    ($($name:ident: $words:expr;)*) => {
        $(
            #[test]
            fn $name() {
                seeds(stringify!($name), invariants::$name);
                let config = ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() };
                proptest!(config, |(input in inputs($words))| invariants::$name(&input));
            }
        )*
        const TARGETS: &[&str] = &[$(stringify!($name)),*];
    };
}

const OPTION_VALUES: &[&str] = &[
    "=",
    ",",
    ":",
    "::",
    "\\",
    "\"",
    "0",
    "1",
    "-",
    "on",
    "lowerdir=a,",
    "/b",
    "0:0:1",
    "upperdir=u,workdir=w",
];

targets! {
    options: table::all().map(|option| option.name).chain(OPTION_VALUES.iter().copied()).collect();
    override_stat: vec![":", "0", "755", "-", "char", "block", "dir", "file", "symlink", "pipe", "socket", "\0", "104711"];
    origin: vec!["00", "fb", "1d", "FB", "+", "\0", "\u{fb}", "0001000000000000000000000000000000003b60990068add8b6"];
    redirect: vec!["/", ".", "..", "a", "name", "\0", "//"];
    archive: vec!["x", "L", "K", "S", "11 path=a/b\n", "9 size=9\n", "22 GNU.sparse.major=1\n", "22 GNU.sparse.minor=0\n",
        "25 GNU.sparse.realsize=9\n", "21 GNU.sparse.map=0,1\n", "25 SCHILY.xattr.user.a=b\n", "13 mtime=1.5\n", "\0\0\0\0"];
    packed_index: vec!["\0\0\u{1}", "\0\0\u{2}", "\0\u{1}", "\0\u{2}", "\0\u{3}", "\u{1}", "\u{40}", "\0", "aaaa"];
    names: vec![".wh.", ".", "..", "overlay.", "fuseoverlayfs.", "opq", "x"];
}

fn seeds(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "{target} has no seeds");
}

/// A target that the tests do not know would be run by nobody.
#[test]
fn every_fuzz_target_is_here() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<String> =
        names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    found.sort();
    let mut known = TARGETS.to_vec();
    known.sort_unstable();
    assert_eq!(found, known);
}
