//! The layers of a shape on disk, and the same files in one directory for the bare filesystem.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Outcome;
use super::run::succeed;
use super::scale::Scale;
use super::shape::Shape;

/// A shape on disk; removed when dropped.
#[derive(Debug)]
pub struct Tree {
    shape: Shape,
    scale: Scale,
    dir: PathBuf,
}

impl Tree {
    /// Makes the layers below `dir`, and the bare copy.
    pub fn make(shape: Shape, scale: Scale, dir: &Path, bare: bool) -> Outcome<Self> {
        let tree = Self { shape, scale, dir: dir.join(shape.name()) };
        // What a run that was killed has left.
        if tree.dir.exists() {
            fs::remove_dir_all(&tree.dir)?;
        }
        let layers = tree.layers();
        let roots: Vec<_> = (0..shape.layers()).map(|n| layers.join(n.to_string())).collect();
        shape.fill(scale, &roots)?;
        if bare {
            tree.fill_bare(&tree.bare())?;
        }
        Ok(tree)
    }

    /// The same files in one directory: the layers copied over each other, the top one last.
    pub fn fill_bare(&self, root: &Path) -> Outcome<()> {
        fs::create_dir_all(root)?;
        let layers = (0..self.shape.layers()).rev();
        let layers = layers.map(|layer| self.layers().join(layer.to_string()).join("."));
        succeed(Command::new("cp").arg("-a").args(layers).arg(root))
    }

    /// The directory in which the layers are named as in [`Tree::lowerdir`].
    pub fn layers(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// The layers for the option, top first, relative to their directory: 500 absolute paths would be too long.
    pub fn lowerdir(&self) -> String {
        (0..self.shape.layers()).map(|n| n.to_string()).collect::<Vec<_>>().join(":")
    }

    /// The bare copy that nobody changes.
    pub fn bare(&self) -> PathBuf {
        self.dir.join("bare")
    }

    /// Its files, relative to the root of a union.
    pub fn files(&self) -> Vec<String> {
        self.shape.files(self.scale)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("bench: {} stays behind: {error}", self.dir.display());
        }
    }
}
