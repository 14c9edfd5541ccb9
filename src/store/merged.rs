//! The tree of an image, or of one of its layers, out of packed indexes and without a mount.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use crate::layer::packed::PackedLayer;
use crate::layer::packed::format::{Inode, ROOT};
use crate::sys::Result;

/// An inode of one of the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Which layer, from the top.
    pub layer: usize,
    /// The inode in its index.
    pub inode: u32,
}

/// What the layers say about one object: the root, or what has a name.
#[derive(Debug, Default)]
pub struct Found {
    /// A directory's parts, top first; of anything else one. Empty for a name that does not exist.
    pub parts: Vec<Part>,
    /// The part that has its attributes: an implied directory has those of the same directory below, also where that
    /// is covered.
    described: Option<Part>,
    /// Whether nothing further down is seen in it.
    covered: bool,
    /// Whether the layers further down have no say.
    closed: bool,
    /// The layer that deletes the name, where none above it has it.
    whiteout: Option<usize>,
    /// The same, if there is something below to be deleted.
    pub deleted_by: Option<usize>,
}

impl Found {
    /// The part that has its attributes; `None` for a name that does not exist.
    pub fn described(&self) -> Option<Part> {
        self.described.or(self.parts.first().copied())
    }

    fn delete(&mut self, layer: usize) {
        if !self.closed {
            self.whiteout = self.parts.is_empty().then_some(layer);
        }
        self.closed = true;
    }

    fn add(&mut self, part: Part, record: &Inode) {
        if self.closed {
            self.deleted_by = self.deleted_by.or(self.whiteout);
            return;
        }
        let is_dir = record.kind().is_dir();
        // What is no directory ends the directories above it.
        self.closed = !is_dir;
        if !is_dir && !self.parts.is_empty() {
            return;
        }
        if !self.covered {
            self.parts.push(part);
        }
        self.covered |= record.opaque;
        if !record.implied {
            self.described.get_or_insert(part);
        }
    }
}

/// The layers of an image, top first.
pub struct Layers(pub Vec<PackedLayer>);

impl Layers {
    /// The root, from the layer `first` on.
    pub fn root(&self, first: usize) -> Result<Found> {
        let mut root = Found::default();
        for layer in first..self.0.len() {
            root.add(Part { layer, inode: ROOT }, &self.0[layer].index().inode(ROOT)?);
        }
        Ok(root)
    }

    /// What is in the directory with these parts, in the order of names.
    pub fn children(&self, dir: &[Part]) -> Result<BTreeMap<&OsStr, Found>> {
        let mut children: BTreeMap<&OsStr, Found> = BTreeMap::new();
        for part in dir {
            let index = self.0[part.layer].index();
            for entry in index.entries(part.inode)? {
                let entry = entry?;
                let found = children.entry(entry.name).or_default();
                match entry.inode {
                    Some(inode) => {
                        found.add(Part { layer: part.layer, inode }, &index.inode(inode)?);
                    }
                    None => found.delete(part.layer),
                }
            }
        }
        Ok(children)
    }
}
