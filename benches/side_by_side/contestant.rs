//! Who takes part.

use std::path::{Path, PathBuf};

use super::arguments::Arguments;

/// Something that shows layers as one tree.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// Its name in the results.
    pub key: String,
    /// What it is.
    pub kind: Kind,
}

/// What a contestant is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// No union at all: the same files in one directory.
    Bare,
    /// The overlay filesystem of the kernel.
    Kernel,
    /// plyfs, with these options.
    Plyfs(PathBuf, String),
    /// A fuse-overlayfs.
    Peer(PathBuf),
}

/// The names of all; the reports know them by these.
pub const KEYS: [&str; 5] = ["plyfs", "kernel", "fuse-overlayfs-2", "fuse-overlayfs-1", "bare"];

/// All that take part, of the programs that lie in `programs`.
pub fn all(arguments: &Arguments, programs: &Path) -> Vec<Contestant> {
    let named = |key: &str, kind| Contestant { key: key.to_owned(), kind };
    let program = |key: &str| Some(programs.join(key)).filter(|path| path.exists());
    let plyfs = programs.join("plyfs");
    let mut all = vec![
        named("bare", Kind::Bare),
        named("kernel", Kind::Kernel),
        named("plyfs", Kind::Plyfs(plyfs.clone(), String::new())),
    ];
    for key in ["fuse-overlayfs-2", "fuse-overlayfs-1"] {
        all.extend(program(key).map(|path| named(key, Kind::Peer(path))));
    }
    all.retain(|contestant| arguments.wants_peer(&contestant.key));
    for options in &arguments.variants {
        let key = format!("plyfs {options}");
        all.push(named(&key, Kind::Plyfs(plyfs.clone(), options.clone())));
    }
    all
}
