//! Copy-up: bringing an object of a lower layer into the upper one before its first change.
//!
//! A copy is staged in the workdir with its final data and attributes, synced unless the mount is
//! volatile, and published by one link or rename: a crash leaves the old object or the new one. Only the
//! node's own copy-up lock is held while data moves.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::AtFlags;

use super::copy_attributes::{Original, first_permissions};
use super::directory::Contents;
use super::node::{NameRef, Node};
use super::node_state::Place;
use super::pins::Pinned;
use super::{Caller, Delay, Overlay};
use crate::layer::descriptors::Key as DescriptorKey;
use crate::layer::index::Identity;
use crate::layer::undo::undo;
use crate::layer::workdir::{Staged, link};
use crate::layer::{LowerPlace, Upper, owner_rights};
use crate::sys::object::NewTime;
use crate::sys::{Errno, FileKind, Object, Result, Stat, data, fault};

/// Bytes that are copied in the time of a few messages.
const SMALL: u64 = 128 * 1024;

/// What of an object has to be in the upper layer before a change.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// Names and attributes. Where `metacopy=on` allows it, a regular file's data stays below.
    Attributes,
    /// All that there is.
    Data,
    /// Of a regular file that is to be cut, what is left then.
    Cut(Cut),
}

/// How a file is about to be cut. Its copy is so from the start: a copy that is published with less data than
/// the file has may not fail to be the cut file.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// To this size in bytes.
    pub size: u64,
    /// By this user.
    pub caller: Caller,
}

/// A copy that waits in the workdir for being published.
struct Copy<'u> {
    staged: Staged<'u>,
    /// The staged object as it was when it was made.
    made: Stat,
    /// What it is a copy of.
    place: LowerPlace,
    /// Its size in bytes, of a regular file.
    size: u64,
    /// The number of names of the lower file.
    lower_links: i32,
    /// Where the data is, of a copy without data.
    data_source: Option<LowerPlace>,
    /// Whether it is the file as it is to be cut.
    cut: bool,
}

/// A copy that has got its name.
struct Published {
    /// The inode as it was when it was made.
    made: Stat,
    /// Its size in bytes, of a regular file.
    size: u64,
    /// The number of names of the lower file.
    lower_links: i32,
    /// Its entry in the index, of a file with several names.
    indexed: Option<Place>,
    /// Where the data is, of a copy without data.
    data_source: Option<LowerPlace>,
}

impl Overlay {
    /// Makes sure that `node` is in the upper layer under all names that are known, all its parents first.
    pub(super) fn copy_up(&self, node: &Arc<Node>, wanted: Wanted) -> Result<()> {
        self.copy_up_to(node, wanted).map(drop)
    }

    /// The same for a file that is to be cut; true if it has been, by the copy.
    pub(super) fn copy_up_cut(&self, node: &Arc<Node>, cut: Cut) -> Result<bool> {
        self.copy_up_to(node, Wanted::Cut(cut))
    }

    fn copy_up_to(&self, node: &Arc<Node>, wanted: Wanted) -> Result<bool> {
        let upper = self.writable()?;
        if node.state.lock().is_settled(wanted) {
            return Ok(false);
        }
        let mut cut = false;
        while let Some(next) = highest_lower(node) {
            cut |= self.pins.with_space(|| self.copy_up_one(upper, &next, wanted))?;
        }
        if node.kind.is_dir() {
            return Ok(false);
        }
        if node.kind == FileKind::Regular {
            cut |= match wanted {
                Wanted::Attributes => false,
                Wanted::Data => self.complete_data(upper, node, None)?,
                Wanted::Cut(how) => self.complete_data(upper, node, Some(how))?,
            };
        }
        self.link_lower_names(upper, node)?;
        Ok(cut)
    }

    /// Copies `node` up, whose parents are in the upper layer; true if the copy is the cut file. Does nothing
    /// when it has got a name meanwhile whose parent is not.
    fn copy_up_one(&self, upper: &Upper, node: &Arc<Node>, wanted: Wanted) -> Result<bool> {
        let _only_one = node.copy_up.lock();
        let (place, name) = {
            let state = node.state.lock();
            let Place::Lower(place) = &state.place else { return Ok(false) };
            (place.clone(), state.names.first().cloned())
        };
        if name.as_ref().is_some_and(|name| !name.parent.is_upper()) {
            return Ok(false);
        }
        // Without a name, the data of a metacopy file could not be found again.
        let wanted = match wanted {
            Wanted::Attributes if name.is_none() => Wanted::Data,
            wanted => wanted,
        };
        // Attributes and data of one object, also if somebody else changes the layer meanwhile.
        let held = self.lowers.hold(&place)?;
        let copy = self.stage_copy(upper, node, held, wanted)?;
        let cut = copy.cut;
        fault::point("copy-up.staged");
        let published = match name {
            None => self.adopt_orphan(upper, node, &copy).map(|()| true),
            Some(name) => self.publish_copy(upper, node, copy, &name),
        }?;
        Ok(published && cut)
    }

    /// Gives the upper inode those of its known names that only lower layers have, so that whoever reads
    /// the upper layer alone sees the change under each of them.
    fn link_lower_names(&self, upper: &Upper, node: &Arc<Node>) -> Result<()> {
        let names: Vec<NameRef> = {
            let state = node.state.lock();
            state.names.iter().filter(|name| !name.in_upper).cloned().collect()
        };
        for name in names {
            self.copy_up(&name.parent, Wanted::Attributes)?;
            let mut contents = self.contents_mut(&name.parent)?;
            let known = contents.names.visible(&name.name);
            let Some(entry) = known.filter(|_| node.has_name(&name.parent, &name.name)) else {
                continue;
            };
            if !entry.layer.is_upper() {
                self.link_lower_name(upper, node, &mut contents, &name)?;
            }
        }
        Ok(())
    }

    fn link_lower_name(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        contents: &mut Contents,
        name: &NameRef,
    ) -> Result<()> {
        let object = Object::Own(self.at(node, |at| at.upper()?.pin())?);
        let ino = object.stat()?.ino;
        let dir = self.upper_dir(&name.parent)?;
        self.unnoticed(&Object::Own(dir.clone()), || {
            self.mark_impure(upper, contents, &dir)?;
            self.free_mark_name(upper, contents, &dir, &name.name)?;
            upper.prepare_name(&object, node.kind, &name.name)?;
            link(&object, dir.as_fd(), &name.name)?;
            // The upper inode now counts a name that the union has counted all the time.
            self.count_lower_name(node).inspect_err(|_| {
                node.state.lock().link_bias += 1;
                undo(rustix::fs::unlinkat(&dir, &*name.name, AtFlags::empty()));
            })
        })?;
        contents.names.lift(&name.name, ino);
        node.add_name(NameRef { in_upper: true, ..name.clone() });
        Ok(())
    }

    /// Prepares a copy of the lower object at `place` in the workdir.
    fn stage_copy<'u>(
        &self,
        upper: &'u Upper,
        node: &Node,
        place: LowerPlace,
        wanted: Wanted,
    ) -> Result<Copy<'u>> {
        let stat = self.lowers.stat(&place)?;
        self.check_identity(node, &stat)?;
        if stat.kind() != node.kind {
            return Err(Errno::IO);
        }
        let cut = match wanted {
            Wanted::Cut(cut) => Some(cut).filter(|cut| cut.size < stat.size),
            _ => None,
        };
        let cut = cut.filter(|_| node.kind == FileKind::Regular);
        let staged = match (node.kind, upper.overriding) {
            (FileKind::Directory, Some(_)) => upper.work.stage_dir(0o700)?,
            (FileKind::Directory, None) => {
                upper.work.stage_dir(first_permissions(stat.permissions(), 0o700))?
            }
            (FileKind::Symlink, _) => upper.work.stage_symlink(&self.lowers.read_link(&place)?)?,
            (_, Some(_)) => upper.work.stage_file(0o600)?,
            (FileKind::Regular, None) => {
                upper.work.stage_file(first_permissions(stat.permissions(), 0o600))?
            }
            (kind, None) => upper.work.stage_node(kind, 0o600, stat.rdev)?,
        };
        let object = staged.object();
        let made = object.stat()?;
        let listed = self.lower_xattr_names(node, &place);
        let mut data_source = None;
        if let (FileKind::Regular, Some(target)) = (node.kind, staged.file()) {
            let source = self.listed_data_place(node, &place, || listed.clone())?;
            match wanted {
                Wanted::Attributes if self.stage_metacopy(upper, &stat, target)? => {
                    data_source = Some(source.released());
                }
                _ => {
                    let known = matches!(source, LowerPlace::Held(..)).then_some(&stat);
                    self.copy_data(upper, (&source, known), target, cut)?;
                }
            }
        }
        let original = Original { place: &place, stat: &stat, xattrs: &listed? };
        self.copy_attributes(upper, &original, (&object, &made), cut)?;
        self.copy_protection(upper, node, &object)?;
        if let (Some(cut), Some(file)) = (cut, staged.file()) {
            // Whether this process may keep set-id bits (root of a user namespace may not) is known to the filesystem.
            rustix::fs::ftruncate(file, cut.size)?;
        }
        upper.numbers.write(&object, node.ino)?;
        if let Some(file) = staged.file() {
            upper.settle(file.as_fd())?;
            fault::point("copy-up.settled");
        }
        let lower_links = stat.nlink.cast_signed();
        let size = cut.map_or(stat.size, |cut| cut.size);
        Ok(Copy { staged, made, place, size, lower_links, data_source, cut: cut.is_some() })
    }

    fn copy_data(
        &self,
        upper: &Upper,
        (place, known): (&LowerPlace, Option<&Stat>),
        target: &OwnedFd,
        cut: Option<Cut>,
    ) -> Result<()> {
        let keep = cut.map_or(u64::MAX, |cut| cut.size);
        let source = self.lowers.open_source(place, known)?;
        let small = source.size().min(keep) <= SMALL;
        (self.delayed)(if small { Delay::Short } else { Delay::Long });
        data::copy(&source, target.as_fd(), keep, upper.writing(), &upper.unshared)
            .inspect_err(|error| self.report_copy(place, *error))
    }

    /// Logs that a file cannot be copied up because of its data, not for want of room for it.
    fn report_copy(&self, place: &LowerPlace, error: Errno) {
        if !matches!(error, Errno::NOSPC | Errno::DQUOT | Errno::FBIG) {
            self.lowers.report(place, "cannot copy up", error);
        }
    }

    /// Makes the staged copy visible under `name`; false if the node has lost that name meanwhile.
    fn publish_copy(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        copy: Copy<'_>,
        name: &NameRef,
    ) -> Result<bool> {
        let mut contents = self.contents_mut(&name.parent)?;
        if !node.has_name(&name.parent, &name.name) {
            return Ok(false);
        }
        let dir = self.upper_dir(&name.parent)?;
        let object = copy.staged.object();
        let file = copy.staged.file().cloned();
        let identity = self.lower_link_identity(node, &copy.place)?;
        let Copy { made, size, lower_links, .. } = copy;
        let data_source = copy.data_source.clone();
        let indexed = self.unnoticed(&Object::Own(dir.clone()), || {
            self.mark_impure(upper, &mut contents, &dir)?;
            self.free_mark_name(upper, &mut contents, &dir, &name.name)?;
            upper.prepare_name(&object, node.kind, &name.name)?;
            let indexed = match &identity {
                Some(identity) => {
                    Some(self.publish_indexed(upper, node, copy, identity, &dir, &name.name)?)
                }
                None => {
                    copy.staged.publish_new(dir.as_fd(), &name.name)?;
                    None
                }
            };
            fault::point(match node.kind.is_dir() {
                true => "copy-up.directory-published",
                false => "copy-up.published",
            });
            Ok(indexed)
        })?;
        let has_data = node.kind == FileKind::Regular && data_source.is_none();
        let published = Published { made, size, lower_links, indexed, data_source };
        self.promote(node, &mut contents, name, published);
        if let Some(file) = file.filter(|_| has_data) {
            self.keep_data(node, file);
        }
        Ok(true)
    }

    /// Publishes a copy of a file with several names through the index.
    fn publish_indexed(
        &self,
        upper: &Upper,
        node: &Node,
        Copy { staged, lower_links, .. }: Copy<'_>,
        identity: &Identity,
        dir: &OwnedFd,
        name: &OsStr,
    ) -> Result<Place> {
        let before = node.state.lock().link_bias;
        let bias = lower_links + before - 2;
        let object = staged.object();
        // Right while the index entry is its only name, and too high after: never too low, or the file would be
        // given up while it still has a name.
        upper.index.set_bias_of(&object, bias + 1)?;
        let entry = upper
            .index
            .add(identity, &object, |index, entry| staged.link_to(index.as_fd(), entry))?;
        fault::point("copy-up.indexed");
        let published = staged.publish_new(dir.as_fd(), name).and_then(|()| {
            upper.index.set_bias(&entry, bias).inspect_err(|_| {
                undo(rustix::fs::unlinkat(dir, name, AtFlags::empty()));
            })
        });
        published.inspect_err(|_| undo(upper.index.remove(&entry)))?;
        node.state.lock().link_bias = bias;
        Ok(Place::Indexed(entry))
    }

    /// Notes everywhere in memory that `node` is in the upper layer now.
    fn promote(
        &self,
        node: &Arc<Node>,
        contents: &mut Contents,
        name: &NameRef,
        published: Published,
    ) {
        let Published { made, size, lower_links, indexed, data_source } = published;
        let bytes = if node.kind == FileKind::Regular { size } else { 0 };
        self.done.copied_up(data_source.is_none().then_some(bytes));
        contents.names.lift(&name.name, made.ino);
        let linked = {
            let mut state = node.state.lock();
            if indexed.is_none() && !state.keys.is_empty() {
                state.link_bias += lower_links - 1;
            }
            state.place = indexed.unwrap_or(Place::Upper);
            state.complete = data_source.is_none();
            state.data_source = data_source;
            for known in &mut state.names {
                known.in_upper |= known.is(&name.parent, &name.name);
            }
            !state.keys.is_empty()
        };
        if linked {
            self.nodes.register(node, super::hard_link::upper_key(&made));
        }
        self.descriptors.remove(DescriptorKey::Data(node.id.0));
    }

    /// A file that is still open but has lost all names that are known gets a copy without a name; in
    /// the index, where other names that nobody has looked up yet will find it.
    fn adopt_orphan(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        Copy { staged, made, place, size, lower_links, .. }: &Copy<'_>,
    ) -> Result<()> {
        let object = staged.object();
        let links = lower_links + node.state.lock().link_bias;
        let identity = if links > 0 { self.lower_link_identity(node, place)? } else { None };
        let adopted =
            match identity {
                Some(identity) => {
                    upper.index.set_bias_of(&object, links - 1)?;
                    Place::Indexed(upper.index.add(&identity, &object, |index, entry| {
                        staged.link_to(index.as_fd(), entry)
                    })?)
                }
                None => Place::Upper,
            };
        let indexed = matches!(adopted, Place::Indexed(_));
        if !indexed {
            self.pin(node, &object)?;
        }
        let bytes = if node.kind == FileKind::Regular { *size } else { 0 };
        self.done.copied_up(Some(bytes));
        {
            let mut state = node.state.lock();
            let named = matches!(state.pinned, Some(Pinned::Named(_)));
            state.link_bias = links - i32::from(indexed) - i32::from(named);
            state.place = adopted;
            state.complete = true;
        }
        self.descriptors.remove(DescriptorKey::Data(node.id.0));
        if indexed {
            self.nodes.register(node, super::hard_link::upper_key(made));
        }
        Ok(())
    }

    /// Changes the upper directory `dir` in a way that no caller can see: so its times must not tell of it,
    /// nor may its permissions keep it from being done, which bind the daemon of an ordinary user too.
    pub(super) fn unnoticed<T>(
        &self,
        dir: &Object,
        change: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let before = dir.stat()?;
        let result = match self.own.uid {
            0 => change(),
            _ => owner_rights::lend(&[dir], owner_rights::WRITE_AND_SEARCH, change),
        };
        // Whether the change is made is settled by now, and a time is nothing to undo it for.
        let times = (NewTime::At(before.atime), NewTime::At(before.mtime));
        if let Err(error) = dir.set_times(Some(times.0), Some(times.1)) {
            log::warn!("the times of a directory could not be set back: {error}");
        }
        result
    }

    /// Marks a directory of the upper layer as holding children with numbers of their own.
    pub(super) fn mark_impure(
        &self,
        upper: &Upper,
        contents: &mut Contents,
        dir: &Arc<OwnedFd>,
    ) -> Result<()> {
        if contents.impure {
            return Ok(());
        }
        match upper.namespaces.set_impure(&Object::Own(dir.clone())) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
        contents.impure = true;
        Ok(())
    }
}

/// The highest of `node` and its ancestors that is not in the upper layer yet.
fn highest_lower(node: &Arc<Node>) -> Option<Arc<Node>> {
    let mut highest = None;
    let mut at = node.clone();
    while !at.is_upper() {
        let parent = at.parent();
        highest = Some(at);
        match parent {
            Some(parent) => at = parent,
            None => break,
        }
    }
    highest
}
