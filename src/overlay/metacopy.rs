//! Metacopy files: attributes in one layer, data in one below (the kernel's `metacopy=on`, and data-only
//! layers). They are always read; data that cannot be found is an error, never NULs.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, XattrFlags};

use super::Overlay;
use super::attr::CAPABILITY;
use super::copy_up::Cut;
use super::directory::Search;
use super::locate::Located;
use super::node::Node;
use super::node_state::Unsynced;
use crate::layer::dir_marks::{PREFIXES, Redirect, marked_names};
use crate::layer::undo::undo;
use crate::layer::{LayerIndex, LowerDir, LowerPlace, Name, Upper, owner_rights};
use crate::sys::object::NewTime;
use crate::sys::stat::stat_fd;
use crate::sys::{Errno, FileKind, Object, Result, Stat, data, fault};

/// The mark of a metacopy file, after the prefix (the kernel's `OVL_XATTR_METACOPY`).
const METACOPY: &str = "metacopy";

/// What a metacopy file says of its data: where else it is, if not under the same name.
struct Mark {
    redirect: Option<Redirect>,
}

impl Mark {
    /// Reads the mark, from the list of an object's attributes and a way to get their values.
    fn read(
        listed: Result<Vec<Box<OsStr>>>,
        value: impl Fn(&OsStr) -> Result<Option<Vec<u8>>>,
    ) -> Result<Option<Self>> {
        let names = marked_names(listed, &value)?;
        let find = |mark: &str| {
            names.iter().find(|name| {
                PREFIXES.iter().any(|prefix| {
                    name.to_str().and_then(|name| name.strip_prefix(prefix)) == Some(mark)
                })
            })
        };
        if find(METACOPY).is_none() {
            return Ok(None);
        }
        let Some(redirect) = find("redirect") else { return Ok(Some(Self { redirect: None })) };
        let value = value(redirect)?.ok_or(Errno::IO)?;
        let redirect = Redirect::parse(&value).ok_or(Errno::IO)?;
        Ok(Some(Self { redirect: Some(redirect) }))
    }
}

/// What a write changes of a file's attributes, as it was before.
struct Before {
    stat: Stat,
    capability: Option<Vec<u8>>,
}

impl Before {
    /// Gives the file, which has been written to through `target`, its attributes back.
    fn set_back(&self, object: &Object, target: &OwnedFd) -> Result<()> {
        let permissions = self.stat.permissions();
        let permissions = match stat_fd(target.as_fd()) {
            Ok(now) if now.permissions() == permissions => Ok(()),
            _ => object.set_permissions(permissions),
        };
        let capability = match &self.capability {
            Some(value) => object.set_xattr(OsStr::new(CAPABILITY), value, XattrFlags::empty()),
            None => Ok(()),
        };
        let time = |time| Some(NewTime::At(time));
        let times = object.set_times(time(self.stat.atime), time(self.stat.mtime));
        permissions.and(capability).and(times)
    }
}

impl Overlay {
    /// Makes a staged file, which is to get the attributes `stat`, a metacopy; false where it has to have its
    /// data: without the option, with several names (each would have to lead to the data), or without data.
    pub(super) fn stage_metacopy(
        &self,
        upper: &Upper,
        stat: &Stat,
        target: &Arc<OwnedFd>,
    ) -> Result<bool> {
        if !self.metacopy || stat.nlink > 1 || stat.size == 0 {
            return Ok(false);
        }
        match upper.namespaces.set(&Object::Own(target.clone()), METACOPY, b"") {
            Err(Errno::OPNOTSUPP | Errno::PERM) => return Ok(false),
            result => result?,
        }
        // The kernel's form: as long as the data.
        rustix::fs::ftruncate(target, stat.size)?;
        Ok(true)
    }

    /// Where the data of a lower file is.
    pub(super) fn lower_data_place(&self, node: &Node, place: &LowerPlace) -> Result<LowerPlace> {
        self.listed_data_place(node, place, || self.lower_xattr_names(node, place))
    }

    /// The same for those who know its attributes, or ask for them.
    pub(super) fn listed_data_place(
        &self,
        node: &Node,
        place: &LowerPlace,
        listed: impl FnOnce() -> Result<Vec<Box<OsStr>>>,
    ) -> Result<LowerPlace> {
        match self.lower_mark(place, listed)? {
            None => Ok(place.clone()),
            Some(mark) => {
                let stack = self.stack_of_parent(node)?;
                self.find_data(node, stack, place.layer(), place.name().cloned(), mark)
            }
        }
    }

    /// Where the data of an upper file is, if that is only a metacopy. To be called without a directory's lock.
    pub(super) fn upper_data_source(
        &self,
        node: &Node,
        object: &Object,
    ) -> Result<Option<LowerPlace>> {
        self.upper_data_source_in(node, object, || self.stack_of_parent(node))
    }

    /// Finds the data of an upper file that has just been looked up in a directory with these lower parts, if
    /// it may be a metacopy: one has fewer blocks than its size needs. Its blocks are those of the data.
    pub(super) fn note_data_source(
        &self,
        node: &Node,
        stat: &Stat,
        stack: &Arc<[Arc<LowerDir>]>,
    ) -> Result<()> {
        if node.kind != FileKind::Regular || stat.blocks.saturating_mul(512) >= stat.size {
            return Ok(());
        }
        let Located::Upper(object) = self.locate(node)? else { return Ok(()) };
        match self.upper_data_source_in(node, &object, || Ok(stack.clone())) {
            // What has no data can still be looked at.
            Ok(_) | Err(Errno::IO) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn upper_data_source_in(
        &self,
        node: &Node,
        object: &Object,
        stack: impl FnOnce() -> Result<Arc<[Arc<LowerDir>]>>,
    ) -> Result<Option<LowerPlace>> {
        if let Some(data_source) = node.known_data_source() {
            return Ok(data_source);
        }
        let value = |name: &OsStr| owner_rights::xattr(object, name);
        let Some(mark) = Mark::read(object.xattr_names(), value)? else {
            node.state.lock().complete = true;
            return Ok(None);
        };
        let name = node.first_name().map(|name| name.name);
        let source = self.find_data(node, stack()?, LayerIndex::UPPER, name, mark)?;
        let mut state = node.state.lock();
        if !state.complete {
            state.data_source = Some(source.clone());
        }
        Ok(Some(source))
    }

    /// The lower parts of the directory that `node` is in.
    fn stack_of_parent(&self, node: &Node) -> Result<Arc<[Arc<LowerDir>]>> {
        match node.first_name().map(|name| name.parent) {
            Some(parent) => Ok(self.contents(&parent)?.stack.clone()),
            None => Ok(Arc::from([])),
        }
    }

    /// Notes where the data of an upper file is, if that may be only a metacopy, before the file loses the
    /// name by which the data is found. To be called without a directory's lock.
    pub(super) fn remember_data(&self, node: &Node) -> Result<()> {
        if node.kind != FileKind::Regular || !node.is_upper() || node.is_complete() {
            return Ok(());
        }
        match self.at(node, |at| self.upper_data_source(node, &at.upper()?)) {
            // A file whose data is missing can still be deleted.
            Ok(_) | Err(Errno::IO) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Fills an upper metacopy file with its data, before it is changed; of one that is to be `cut`, with what is
    /// left then: true if it has been cut. If it fails, the file is as it was.
    pub(super) fn complete_data(
        &self,
        upper: &Upper,
        node: &Node,
        cut: Option<Cut>,
    ) -> Result<bool> {
        if node.is_complete() {
            return Ok(false);
        }
        let _only_one = node.copy_up.lock();
        let source = self.at(node, |at| self.upper_data_source(node, &at.upper()?))?;
        let Some(source) = source else { return Ok(false) };
        let object = Object::Own(self.at(node, |at| at.upper()?.pin())?);
        let before =
            Before { stat: object.stat()?, capability: object.xattr(OsStr::new(CAPABILITY))? };
        let target = self.open_upper(&object, OFlags::RDWR)?;
        let source = self.lowers.open_source(&source, None)?;
        let cut = cut.filter(|cut| cut.size < before.stat.size);
        let length = cut.map_or(before.stat.size, |cut| cut.size);
        // The file stays a metacopy until all is there: a crash leaves the lower data valid.
        let writing = upper.writing();
        let filled = data::copy(&source, target.as_fd(), length, writing, &upper.unshared)
            .and_then(|()| rustix::fs::ftruncate(&target, length))
            .and_then(|()| upper.settle(target.as_fd()))
            .inspect(|()| fault::point("metacopy.data-copied"))
            .and_then(|()| match cut {
                // What is not cut has changed in no way that anybody can see.
                None => before.set_back(&object, &target),
                Some(Cut { caller, .. }) if caller.uid != 0 => self.drop_privileges(caller, node),
                Some(_) => Ok(()),
            })
            .and_then(|()| remove_mark(&object));
        filled.inspect_err(|_| {
            undo(rustix::fs::ftruncate(&target, before.stat.size));
            undo(before.set_back(&object, &target));
        })?;
        {
            let mut state = node.state.lock();
            state.complete = true;
            state.data_source = None;
            state.unsynced = state.unsynced.max(Unsynced::Attributes);
        }
        self.descriptors.remove(crate::layer::descriptors::Key::Data(node.id.0));
        Ok(cut.is_some())
    }

    fn lower_mark(
        &self,
        place: &LowerPlace,
        listed: impl FnOnce() -> Result<Vec<Box<OsStr>>>,
    ) -> Result<Option<Mark>> {
        if self.lowers.is_data_only(place.layer()) {
            return Ok(None);
        }
        let value = |name: &OsStr| self.lowers.xattr(place, name);
        let mark = Mark::read(listed(), value);
        mark.inspect_err(|error| self.lowers.report(place, "cannot find the data of", *error))
    }

    /// Follows metacopy files downwards until one holds data.
    fn find_data(
        &self,
        node: &Node,
        mut siblings: Arc<[Arc<LowerDir>]>,
        mut layer: LayerIndex,
        mut name: Option<Name>,
        mut mark: Mark,
    ) -> Result<LowerPlace> {
        let budget = Search::budget();
        loop {
            if let Some(redirect) = &mark.redirect {
                name = Some(redirect.name().clone());
            }
            let mut found = None;
            if let Some(Redirect::Absolute(dirs, name)) = &mark.redirect {
                siblings = self.lower_stack_at(dirs, layer, Search::new(&budget).deeper())?.into();
                found = self.find_in_data_layers(dirs, name)?;
            }
            if let Some(name) = &name {
                found = self.find_in(&siblings, name, layer)?.or(found);
            }
            let Some(place) = found else {
                log::error!("{}: the data of this metacopy file is missing", node.path().display());
                return Err(Errno::IO);
            };
            match self.lower_mark(&place, || self.lowers.xattr_names(&place))? {
                None => return Ok(place),
                Some(next) => (layer, mark) = (place.layer(), next),
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

    /// The regular file at a path in a data-only layer.
    fn find_in_data_layers(&self, dirs: &[Name], name: &Name) -> Result<Option<LowerPlace>> {
        for root in self.lowers.data_roots() {
            let dir = dirs.iter().fold(root.clone(), |dir, name| dir.child(name.clone()));
            let place = LowerPlace::Child(dir, name.clone());
            match self.lowers.stat(&place) {
                Ok(stat) if stat.kind() == FileKind::Regular => return Ok(Some(place)),
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Takes the mark from a file that has its data. It may have one in each namespace.
fn remove_mark(object: &Object) -> Result<()> {
    for name in object.xattr_names()? {
        let marks = PREFIXES.iter().filter_map(|prefix| name.to_str()?.strip_prefix(prefix));
        if marks.into_iter().any(|mark| mark == METACOPY) {
            object.remove_xattr(&name)?;
        }
    }
    Ok(())
}
