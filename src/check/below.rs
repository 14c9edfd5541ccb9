//! What lies below the checked layer: its lower layers, as unions of their own, read as a mount reads them.

use std::path::PathBuf;

use super::CheckError;
use crate::layer::{Name, Redirect};
use crate::overlay::{Config, NodeId, Overlay};
use crate::sys::{Errno, FileKind, Result};

/// The lower layers, and where in them the walk through the upper layer is.
pub struct Below {
    /// The union of the lower layers alone.
    lowers: Overlay,
    /// The union of the upper layer and those, read-only: what finds the data of metacopy files.
    whole: Overlay,
    levels: Vec<Level>,
}

/// One directory on the way of the walk.
struct Level {
    name: Name,
    /// What it merges with in the union of the lower layers.
    merged: Option<NodeId>,
    /// The directory in the whole union, once it was asked for.
    whole: Option<NodeId>,
}

impl Below {
    /// Opens the unions.
    ///
    /// # Errors
    /// The line that a mount of these layers would give.
    pub fn open(
        upper: PathBuf,
        lower: Vec<PathBuf>,
        data_only: Vec<PathBuf>,
    ) -> std::result::Result<Self, CheckError> {
        let open = |lower: Vec<PathBuf>| {
            let config = Config { lower, data_only: data_only.clone(), ..Config::default() };
            Overlay::open(&config).map_err(|error| CheckError::Failed(error.to_string()))
        };
        let whole = open(std::iter::once(upper).chain(lower.iter().cloned()).collect())?;
        Ok(Self { lowers: open(lower)?, whole, levels: Vec::new() })
    }

    /// Follows the walk into the directory `name` (the root first, whatever its name), which is opaque or
    /// has this redirect. Returns whether the redirect leads to a directory, if there is one.
    pub fn enter(&mut self, name: Name, opaque: bool, redirect: Option<&Redirect>) -> Result<bool> {
        let merged = match (self.levels.last(), redirect) {
            _ if opaque => None,
            (None, _) => Some(NodeId::ROOT),
            (Some(_), Some(Redirect::Absolute(dirs, name))) => self.at_path(dirs, name)?,
            (Some(parent), Some(Redirect::Sibling(name))) => self.dir(parent.merged, name)?,
            (Some(parent), None) => self.dir(parent.merged, &name)?,
        };
        let found = opaque || redirect.is_none() || merged.is_some();
        let whole = self.levels.is_empty().then_some(NodeId::ROOT);
        self.levels.push(Level { name, merged, whole });
        Ok(found)
    }

    /// Follows the walk out of the directory that it entered last.
    pub fn leave(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        for (union, node) in [(&self.lowers, level.merged), (&self.whole, level.whole)] {
            if let Some(node) = node.filter(|node| *node != NodeId::ROOT) {
                union.forget(node, 1);
            }
        }
    }

    /// Whether the lower layers have `name` in the directory that was entered last.
    pub fn has(&self, name: &Name) -> Result<bool> {
        let Some(dir) = self.levels.last().and_then(|level| level.merged) else { return Ok(false) };
        let Some(entry) = self.lowers.lookup(dir, name)? else { return Ok(false) };
        self.lowers.forget(entry.node, 1);
        Ok(true)
    }

    /// Whether the data of the metacopy file `name`, in the directory that was entered last, can be read.
    pub fn has_data(&mut self, name: &Name) -> Result<bool> {
        match self.read(name) {
            Ok(()) => Ok(true),
            Err(Errno::IO) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, name: &Name) -> Result<()> {
        let Some(dir) = self.whole_dir()? else { return Ok(()) };
        // A name that is hidden from the union needs no data.
        let Some(entry) = self.whole.lookup(dir, name)? else { return Ok(()) };
        let read = self.whole.read(entry.node, 0, &mut [0]);
        self.whole.forget(entry.node, 1);
        read.map(drop)
    }

    /// The directory that was entered last, in the whole union, which is followed only as far as needed.
    fn whole_dir(&mut self) -> Result<Option<NodeId>> {
        let known = self.levels.iter().rposition(|level| level.whole.is_some());
        let Some(known) = known else { return Ok(None) };
        for at in known + 1..self.levels.len() {
            let Some(parent) = self.levels[at - 1].whole else { return Ok(None) };
            let entry = self.whole.lookup(parent, &self.levels[at].name)?;
            self.levels[at].whole = entry.map(|entry| entry.node);
        }
        Ok(self.levels.last().and_then(|level| level.whole))
    }

    /// The directory `name` in `parent` of the union of the lower layers, with a reference on it.
    fn dir(&self, parent: Option<NodeId>, name: &Name) -> Result<Option<NodeId>> {
        let Some(parent) = parent else { return Ok(None) };
        let Some(entry) = self.lowers.lookup(parent, name)? else { return Ok(None) };
        if entry.attr.kind() != FileKind::Directory {
            self.lowers.forget(entry.node, 1);
            return Ok(None);
        }
        Ok(Some(entry.node))
    }

    fn at_path(&self, dirs: &[Name], name: &Name) -> Result<Option<NodeId>> {
        let mut at = Some(NodeId::ROOT);
        for name in dirs.iter().chain([name]) {
            let next = self.dir(at, name)?;
            if let Some(passed) = at.filter(|node| *node != NodeId::ROOT) {
                self.lowers.forget(passed, 1);
            }
            at = next;
        }
        Ok(at)
    }
}
