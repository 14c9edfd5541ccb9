//! Attacks: by who made a layer, who owned the upper layer before, who works in the mount, and by other users of the
//! machine. Nothing outside the layers is ever opened or changed, one bad object does not harm its neighbours, and the
//! daemon lives on.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

mod callers;
mod canary;
mod failing;
mod layer;
mod marks;
mod race;
mod redirects;
mod workdir;

/// The names in a directory, or why they cannot be read.
fn listing(path: impl AsRef<Path>) -> Result<Vec<String>, Errno> {
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let names: std::io::Result<Vec<_>> =
        fs::read_dir(path).and_then(|dir| dir.map(|entry| entry.map(name)).collect());
    let mut names = names.map_err(|error| Errno::from_io_error(&error).unwrap())?;
    names.sort();
    Ok(names)
}
