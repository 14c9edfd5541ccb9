//! The list of changes, as `docker diff` gives it.

use std::path::{Path, PathBuf};

use super::held::Held;
use super::walk::{Deletion, Sink, Union, walk};
use super::{Kind, Layers, Result};

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The name, from `/`.
    pub path: PathBuf,
    /// What has become of it.
    pub kind: Kind,
}

/// The changes of an upper layer, in the order of the bytes of their paths. A directory in which something has changed is
/// changed; the root is not listed.
pub fn list(layers: &Layers) -> Result<Vec<Change>> {
    let union = Union::open(layers)?;
    let mut changes = List(Vec::new());
    walk(&union, &mut changes)?;
    let List(mut changes) = changes;
    changes.sort_unstable_by(|one, other| {
        one.path.as_os_str().as_encoded_bytes().cmp(other.path.as_os_str().as_encoded_bytes())
    });
    Ok(changes)
}

struct List(Vec<Change>);

impl List {
    fn push(&mut self, path: &Path, kind: Kind) {
        if path != Path::new("") {
            self.0.push(Change { path: Path::new("/").join(path), kind });
        }
    }
}

impl Sink for List {
    const WANTS_COVERED: bool = true;

    fn deleted(&mut self, path: &Path, _: Deletion) -> Result<()> {
        self.push(path, Kind::Deleted);
        Ok(())
    }

    fn opaque(&mut self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn object(&mut self, path: &Path, _: &Held<'_>, kind: Option<Kind>) -> Result<()> {
        if let Some(kind) = kind {
            self.push(path, kind);
        }
        Ok(())
    }

    fn changed_within(&mut self, path: &Path) -> Result<()> {
        self.push(path, Kind::Changed);
        Ok(())
    }
}
