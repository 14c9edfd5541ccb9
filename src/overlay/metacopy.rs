//! Metacopy files: attributes in one layer, data in one below (the kernel's `metacopy=on`, and data-only
//! layers). They are always read; data that cannot be found is an error, never NULs.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::Overlay;
use super::node::Node;
use crate::layer::dir_marks::{PREFIXES, Redirect};
use crate::layer::{LayerIndex, LowerDir, LowerPlace, Name, Upper};
use crate::sys::{Errno, FileKind, Object, Result, data, fault};

/// What a metacopy file says of its data: where else it is, if not under the same name.
struct Mark {
    redirect: Option<Redirect>,
}

impl Mark {
    /// Reads the mark, from the names of an object's attributes and a way to get their values.
    fn read(
        names: &[Box<OsStr>],
        value: impl Fn(&OsStr) -> Result<Option<Vec<u8>>>,
    ) -> Result<Option<Self>> {
        let find = |mark: &str| {
            names.iter().find(|name| {
                PREFIXES.iter().any(|prefix| {
                    name.to_str().and_then(|name| name.strip_prefix(prefix)) == Some(mark)
                })
            })
        };
        if find("metacopy").is_none() {
            return Ok(None);
        }
        let Some(redirect) = find("redirect") else { return Ok(Some(Self { redirect: None })) };
        let value = value(redirect)?.ok_or(Errno::IO)?;
        let redirect = Redirect::parse(&value).ok_or(Errno::IO)?;
        Ok(Some(Self { redirect: Some(redirect) }))
    }
}

impl Overlay {
    /// Opens the data of a lower file for reading, wherever it is.
    pub(super) fn lower_data(&self, node: &Node, place: &LowerPlace) -> Result<OwnedFd> {
        match self.lower_mark(place)? {
            None => self.lowers.open(place),
            Some(mark) => {
                let source = self.find_data(node, place.layer(), place_name(place), mark)?;
                self.lowers.open(&source)
            }
        }
    }

    /// Where the data of an upper file is, if that is only a metacopy.
    pub(super) fn upper_data_source(
        &self,
        node: &Node,
        object: &Object,
    ) -> Result<Option<LowerPlace>> {
        if node.state.lock().complete {
            return Ok(None);
        }
        let Some(mark) = Mark::read(&object.xattr_names()?, |name| object.xattr(name))? else {
            node.state.lock().complete = true;
            return Ok(None);
        };
        let name = node.state.lock().names.first().map(|name| name.name.clone());
        self.find_data(node, LayerIndex::UPPER, name, mark).map(Some)
    }

    /// Fills an upper metacopy file with the first `keep` bytes of its data, before it is changed.
    pub(super) fn complete_data(&self, upper: &Upper, node: &Node, keep: u64) -> Result<()> {
        if node.state.lock().complete {
            return Ok(());
        }
        let _only_one = node.copy_up.lock();
        let object = self.upper_object(node)?;
        let Some(source) = self.upper_data_source(node, &object)? else { return Ok(()) };
        let before = object.stat()?;
        let target = object.open(OFlags::RDWR)?;
        // The file stays a metacopy until all is there: a crash leaves the lower data valid.
        data::copy(self.lowers.open(&source)?.as_fd(), target.as_fd(), keep.min(before.size))?;
        if keep >= before.size {
            rustix::fs::ftruncate(&target, before.size)?;
        }
        if !upper.volatile {
            rustix::fs::fsync(&target)?;
        }
        fault::point("metacopy.data-copied");
        for name in object.xattr_names()? {
            let marks = PREFIXES.iter().filter_map(|prefix| name.to_str()?.strip_prefix(prefix));
            if marks.into_iter().any(|mark| mark == "metacopy") {
                object.remove_xattr(&name)?;
            }
        }
        let time = |time| Some(crate::sys::object::NewTime::At(time));
        object.set_times(time(before.atime), time(before.mtime))?;
        node.state.lock().complete = true;
        self.descriptors.remove(crate::layer::descriptors::Key::Data(node.id.0));
        Ok(())
    }

    fn lower_mark(&self, place: &LowerPlace) -> Result<Option<Mark>> {
        Mark::read(&self.lowers.xattr_names(place)?, |name| self.lowers.xattr(place, name))
    }

    /// Follows metacopy files downwards until one holds data.
    fn find_data(
        &self,
        node: &Node,
        mut layer: LayerIndex,
        mut name: Option<Name>,
        mut mark: Mark,
    ) -> Result<LowerPlace> {
        let parent = node.state.lock().names.first().map(|name| name.parent.clone());
        let siblings = match parent {
            Some(parent) => self.contents(&parent)?.stack.clone(),
            None => Arc::from([]),
        };
        loop {
            let found = match &mark.redirect {
                Some(Redirect::Absolute(path)) => self.find_by_path(path, layer)?,
                Some(Redirect::Sibling(other)) => self.find_in(&siblings, other, layer)?,
                None => match &name {
                    Some(name) => self.find_in(&siblings, name, layer)?,
                    None => None,
                },
            };
            let Some(place) = found else {
                log::error!("{}: the data of this metacopy file is missing", node.path().display());
                return Err(Errno::IO);
            };
            match self.lower_mark(&place)? {
                None => return Ok(place),
                Some(next) => {
                    (layer, name, mark) = (place.layer(), place_name(&place), next);
                }
            }
        }
    }

    /// The regular file `name` in the topmost of `dirs` below layer `below` that has the name at all.
    fn find_in(
        &self,
        dirs: &[Arc<LowerDir>],
        name: &Name,
        below: LayerIndex,
    ) -> Result<Option<LowerPlace>> {
        for dir in dirs.iter().filter(|dir| dir.layer > below) {
            let (_, listing) = self.lowers.list(dir)?;
            if listing.whiteouts.contains_key(name) {
                return Ok(None);
            }
            match listing.entries.iter().find(|entry| entry.name == *name) {
                Some(entry) if entry.kind == FileKind::Regular => {
                    return Ok(Some(LowerPlace::Child(dir.clone(), name.clone())));
                }
                Some(_) => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    /// The regular file at `path` in the merged layers below `below`, or else in a data-only layer.
    fn find_by_path(&self, path: &[Name], below: LayerIndex) -> Result<Option<LowerPlace>> {
        let Some((name, dirs)) = path.split_last() else { return Ok(None) };
        let parents = self.lower_stack_at(dirs, below)?;
        if let Some(place) = self.find_in(&parents, name, below)? {
            return Ok(Some(place));
        }
        for root in self.lowers.data_roots() {
            let dir = dirs.iter().fold(root.clone(), |dir, name| dir.child(name.clone()));
            let place = LowerPlace::Child(dir, name.clone());
            match self.lowers.stat(&place) {
                Ok(stat) if stat.kind() == FileKind::Regular => return Ok(Some(place)),
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

fn place_name(place: &LowerPlace) -> Option<Name> {
    match place {
        LowerPlace::Dir(_) => None,
        LowerPlace::Child(_, name) => Some(name.clone()),
    }
}
