//! What a tree looks like, in one number: equal for equal trees.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File, Metadata};
use std::hash::{Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Outcome;

/// How close to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names, types, modes, owners and sizes.
    Listing,
    /// The data of files too.
    Contents,
}

/// Of all that is below `root`, which itself does not count.
pub fn of_tree(root: &Path, depth: Depth) -> Outcome<u64> {
    let mut hasher = DefaultHasher::new();
    add_directory(root, depth, &mut hasher)?;
    Ok(hasher.finish())
}

fn add_directory(directory: &Path, depth: Depth, hasher: &mut DefaultHasher) -> Outcome<()> {
    let mut names: Vec<_> =
        fs::read_dir(directory)?.map(|e| Ok(e?.file_name())).collect::<Outcome<_>>()?;
    names.sort();
    for name in names {
        let path = directory.join(&name);
        let metadata = fs::symlink_metadata(&path)?;
        name.hash(hasher);
        add_attributes(&metadata, hasher);
        if metadata.is_dir() {
            add_directory(&path, depth, hasher)?;
        } else if metadata.is_symlink() {
            fs::read_link(&path)?.hash(hasher);
        } else if depth == Depth::Contents {
            add_data(&path, hasher)?;
        }
    }
    0u8.hash(hasher);
    Ok(())
}

fn add_attributes(metadata: &Metadata, hasher: &mut DefaultHasher) {
    (metadata.mode(), metadata.uid(), metadata.gid()).hash(hasher);
    if !metadata.is_dir() {
        metadata.len().hash(hasher);
    }
}

fn add_data(path: &Path, hasher: &mut DefaultHasher) -> Outcome<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        hasher.write(&buffer[..count]);
        if count == 0 {
            return Ok(());
        }
    }
}
