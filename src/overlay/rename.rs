//! Renaming: files, and directories that are upper, lower or merged.
//!
//! Whatever moves is brought completely into the upper layer first, where that does not change what
//! anybody sees; the rename itself is then one step on disk.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MappedRwLockWriteGuard;

use super::copy_up::Wanted;
use super::directory::{Contents, directory};
use super::name_table::NameEntry;
use super::node::{NameRef, Node, NodeId};
use super::protection::Intent;
use super::{Overlay, RedirectPolicy};
use crate::layer::descriptors::Key;
use crate::layer::upper::Spot;
use crate::layer::{DirMarks, Name, Redirect, Upper};
use crate::sys::{Errno, Object, Result, dir, fault};

/// How renameat2(2) is to rename.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameFlags {
    /// Fail when the new name exists.
    pub no_replace: bool,
    /// Exchange the two names, which must both exist.
    pub exchange: bool,
}

/// A name in a directory, as an argument.
#[derive(Clone, Copy)]
struct At<'a> {
    dir: &'a Arc<Node>,
    name: &'a OsStr,
}

/// What moves where.
#[derive(Clone, Copy)]
struct Move<'a> {
    from: At<'a>,
    to: At<'a>,
    /// What has the old name.
    source: &'a Arc<Node>,
    /// What has the new name already.
    target: Option<&'a Arc<Node>>,
}

impl Move<'_> {
    /// Notes that nothing moves after all.
    fn stay(&self) {
        self.source.stay(self.from.dir, self.from.name);
        if let Some(target) = self.target {
            target.stay(self.to.dir, self.to.name);
        }
    }
}

/// The locked contents of the two directories, or of the one.
struct Locked<'n> {
    from: MappedRwLockWriteGuard<'n, Contents>,
    to: Option<MappedRwLockWriteGuard<'n, Contents>>,
}

impl Locked<'_> {
    fn from(&mut self) -> &mut Contents {
        &mut self.from
    }

    fn to(&mut self) -> &mut Contents {
        self.to.as_deref_mut().unwrap_or(&mut self.from)
    }
}

impl Overlay {
    /// Renames `name` in `parent` to `new_name` in `new_parent`.
    ///
    /// # Errors
    /// As renameat2(2); `EXDEV` for a directory with lower parts where `redirect_dir=off` forbids it.
    pub fn rename(
        &self,
        parent: NodeId,
        name: &OsStr,
        new_parent: NodeId,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        self.pins.with_space(|| self.rename_once(parent, name, new_parent, new_name, flags))
    }

    fn rename_once(
        &self,
        parent: NodeId,
        name: &OsStr,
        new_parent: NodeId,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        let upper = self.writable()?;
        let parent = self.node(parent)?;
        let new_parent = self.node(new_parent)?;
        upper.check_name(new_name)?;
        let (from, to) = (At { dir: &parent, name }, At { dir: &new_parent, name: new_name });
        let source = self.enter_at(from)?.ok_or(Errno::NOENT)?;
        let target = match self.enter_at(to) {
            Ok(target) => target,
            Err(error) => {
                self.forget(source.id, 1);
                return Err(error);
            }
        };
        let moving = Move { from, to, source: &source, target: target.as_ref() };
        let renamed = self.rename_entered(upper, moving, flags);
        for node in target.iter().chain([&source]) {
            self.forget(node.id, 1);
        }
        renamed
    }

    /// The node of a name, with one more reference, if it exists.
    fn enter_at(&self, at: At<'_>) -> Result<Option<Arc<Node>>> {
        self.refresh(at.dir)?;
        let entered = {
            let contents = self.contents(at.dir)?;
            match contents.names.visible(at.name) {
                Some(entry) => self.enter_node(at.dir, &contents, entry)?.0,
                None => return Ok(None),
            }
        };
        self.refresh_dir(&entered).inspect_err(|_| self.forget(entered.id, 1))?;
        Ok(Some(entered))
    }

    fn rename_entered(&self, upper: &Upper, moving: Move<'_>, flags: RenameFlags) -> Result<()> {
        let Move { from, to, source, target } = moving;
        if self.is_settled(source, target, flags)? {
            return Ok(());
        }
        self.permit_rename(moving, flags)?;
        self.copy_up(from.dir, Wanted::Attributes)?;
        self.copy_up(to.dir, Wanted::Attributes)?;
        if let Some(target) = target {
            self.remember_data(target)?;
        }
        self.bring_up(source)?;
        if let (true, Some(target)) = (flags.exchange, target) {
            self.bring_up(target)?;
        }
        if target.is_some_and(|target| !target.is_upper()) {
            self.write_out(upper, source);
        }
        fault::point("rename.prepared");
        let mut locked = self.lock_both(from.dir, to.dir)?;
        // The kernel serialises what changes a directory; a name that moved anyway is a lost race.
        let unchanged = source.has_name(from.dir, from.name)
            && target.is_none_or(|target| target.has_name(to.dir, to.name))
            && locked.to().names.visible(to.name).is_some() == target.is_some();
        if !unchanged || locked.to().gone {
            return Err(Errno::NOENT);
        }
        match (flags.exchange, target) {
            (true, Some(target)) => self.exchange(upper, moving, target, &mut locked),
            _ => self.replace(upper, moving, &mut locked),
        }
        .inspect_err(|_| moving.stay())
    }

    /// Refuses what immutable and append-only directories and objects forbid.
    fn permit_rename(&self, moving: Move<'_>, flags: RenameFlags) -> Result<()> {
        let Move { from, to, source, target } = moving;
        let arriving =
            if target.is_some() || flags.exchange { Intent::Change } else { Intent::Add };
        self.permit(from.dir, Intent::Change)?;
        self.permit(source, Intent::Change)?;
        self.permit(to.dir, arriving)?;
        target.map_or(Ok(()), |target| self.permit(target, Intent::Change))
    }

    /// Checks what can be said before anything is touched; true when there is nothing to do.
    fn is_settled(
        &self,
        source: &Arc<Node>,
        target: Option<&Arc<Node>>,
        flags: RenameFlags,
    ) -> Result<bool> {
        let Some(target) = target else {
            return if flags.exchange { Err(Errno::NOENT) } else { Ok(false) };
        };
        if flags.no_replace {
            return Err(Errno::EXIST);
        }
        if Arc::ptr_eq(source, target) {
            // Two names of one file: POSIX wants this to do nothing.
            return Ok(true);
        }
        if flags.exchange {
            return Ok(false);
        }
        match (source.kind.is_dir(), target.kind.is_dir()) {
            (true, false) => Err(Errno::NOTDIR),
            (false, true) => Err(Errno::ISDIR),
            (true, true) if !self.contents(target)?.names.is_empty() => Err(Errno::NOTEMPTY),
            _ => Ok(false),
        }
    }

    /// Brings what is to move into the upper layer, in a form in which it can move.
    fn bring_up(&self, node: &Arc<Node>) -> Result<()> {
        if !node.kind.is_dir() {
            return self.copy_up(node, Wanted::Data);
        }
        let (pure, redirected) = {
            let contents = self.contents(node)?;
            (contents.stack.is_empty(), contents.redirected)
        };
        if pure && redirected {
            // A redirect that leads nowhere here could lead somewhere from the new place.
            return self.writable()?.set_opaque(&self.upper_object(node)?);
        }
        if pure {
            return Ok(());
        }
        match self.redirect {
            RedirectPolicy::Refuse => Err(Errno::XDEV),
            RedirectPolicy::Redirect => self.set_redirect(node),
            RedirectPolicy::Copy => self.copy_up_tree(node),
        }
    }

    /// Writes down where the lower part of a directory is, so that it can be called anything.
    fn set_redirect(&self, node: &Arc<Node>) -> Result<()> {
        self.copy_up(node, Wanted::Attributes)?;
        let redirect = Redirect::to_path(self.lower_path(node)?).ok_or(Errno::XDEV)?;
        let object = self.upper_object(node)?;
        match self.writable()?.namespaces.set_redirect(&object, &redirect) {
            Err(Errno::OPNOTSUPP | Errno::PERM) => Err(Errno::XDEV),
            result => result,
        }
    }

    /// The path under which the union of the lower layers alone would show a directory: its path here,
    /// but for what this upper layer has renamed (the kernel's `ovl_get_redirect`).
    fn lower_path(&self, node: &Arc<Node>) -> Result<Vec<Name>> {
        let mut path = Vec::new();
        let mut at = node.clone();
        while !at.is_root() {
            let name = at.first_name().ok_or(Errno::NOENT)?;
            let redirect = match at.is_upper() {
                true => DirMarks::read(&self.upper_object(&at)?)?.redirect,
                false => None,
            };
            match redirect {
                Some(Redirect::Absolute(dirs, name)) => {
                    path.push(name);
                    path.extend(dirs.into_iter().rev());
                    break;
                }
                Some(Redirect::Sibling(old)) => path.push(old),
                None => path.push(name.name),
            }
            at = name.parent;
        }
        path.reverse();
        Ok(path)
    }

    /// Brings a directory with all that is in it into the upper layer and makes it opaque there. Every
    /// step leaves what anybody sees as it was.
    fn copy_up_tree(&self, top: &Arc<Node>) -> Result<()> {
        let mut entered = Vec::new();
        let copied = self.copy_up_descendants(top, &mut entered);
        // Deepest first: a directory is cut off from below when all that it shows is in the upper.
        let cut = copied.and_then(|()| {
            let dirs = entered.iter().rev().filter(|node| node.kind.is_dir()).chain([top]);
            dirs.into_iter().try_for_each(|dir| self.cut_off(dir))
        });
        for node in entered {
            self.forget(node.id, 1);
        }
        cut
    }

    /// Copies up `top` and everything under it; `entered` gets a reference on each, parents first.
    fn copy_up_descendants(&self, top: &Arc<Node>, entered: &mut Vec<Arc<Node>>) -> Result<()> {
        self.copy_up(top, Wanted::Attributes)?;
        let mut unread = vec![top.clone()];
        while let Some(dir) = unread.pop() {
            let names: Vec<Name> = {
                let contents = self.contents(&dir)?;
                contents.names.after(0).map(|(_, entry)| entry.name.clone()).collect()
            };
            for name in names {
                let Some(child) = self.enter_at(At { dir: &dir, name: &name })? else { continue };
                entered.push(child.clone());
                if child.kind.is_dir() {
                    self.copy_up(&child, Wanted::Attributes)?;
                    unread.push(child);
                } else {
                    self.copy_up(&child, Wanted::Data)?;
                }
            }
        }
        Ok(())
    }

    /// Makes an upper directory opaque whose visible contents are all in the upper layer.
    fn cut_off(&self, node: &Arc<Node>) -> Result<()> {
        let upper = self.writable()?;
        drop(self.contents(node)?);
        let mut guard = directory(node)?.write();
        let object = Object::Own(self.upper_dir(node)?);
        upper.set_opaque(&object)?;
        if let (Some(contents), Object::Own(fd)) = (guard.contents(), &object) {
            let owned = |(name, form): (&OsStr, _)| (Name::from(name), form);
            let whiteouts: Vec<_> = contents.names.whiteouts().map(owned).collect();
            self.unnoticed(&object, || {
                whiteouts.iter().try_for_each(|(name, form)| {
                    upper.remove_whiteout(fd.as_fd(), name, *form)?;
                    contents.names.remove_whiteout(name);
                    Ok(())
                })
            })?;
        }
        guard.detach_from_lower();
        Ok(())
    }

    fn lock_both<'n>(&self, from: &'n Arc<Node>, to: &'n Arc<Node>) -> Result<Locked<'n>> {
        if Arc::ptr_eq(from, to) {
            return Ok(Locked { from: self.contents_mut(from)?, to: None });
        }
        if comes_first(to, from) {
            let to = self.contents_mut(to)?;
            return Ok(Locked { from: self.contents_mut(from)?, to: Some(to) });
        }
        let from = self.contents_mut(from)?;
        Ok(Locked { from, to: Some(self.contents_mut(to)?) })
    }

    fn replace(&self, upper: &Upper, moving: Move<'_>, locked: &mut Locked<'_>) -> Result<()> {
        let Move { from, to, source, target } = moving;
        let from_dir = self.upper_dir(from.dir)?;
        let to_dir = self.upper_dir(to.dir)?;
        self.free_mark_name(upper, locked.to(), &to_dir, to.name)?;
        let leaving = spot(from_dir.as_fd(), from.name, locked.from().names.get(from.name));
        let arriving = spot(to_dir.as_fd(), to.name, locked.to().names.get(to.name));
        // A directory that keeps its name after all is reached by that: it may be another one on disk by then.
        let was_pinned = target
            .is_some_and(|target| !target.kind.is_dir() && target.state.lock().pinned.is_some());
        let unpin = |_: &Errno| {
            target.inspect(|target| self.unpin_unless(was_pinned, target));
        };
        let ino = number_of(locked.from().names.get(from.name));
        if let Some(target) = target {
            self.make_way(upper, to, target, &arriving, locked.to())?;
        }
        self.prepare_arrival(upper, (source, ino), &arriving, locked.to(), &to_dir)
            .inspect_err(unpin)?;
        let mut replaced =
            target.and_then(|target| target.dir.as_ref()).map(|dir| dir.contents.write());
        {
            // No path is resolved between the rename on disk and that in memory.
            let _names = source.kind.is_dir().then(|| self.rename_lock.write());
            source.leave(from.dir, from.name);
            upper.rename(leaving, arriving, source.kind).inspect_err(unpin)?;
            fault::point("rename.published");
            if let Some(target) = target {
                target.remove_name(to.dir, to.name);
            }
            locked.from().names.remove(from.name, upper.form);
            arrive(locked.to(), from, to, source, ino);
        }
        if let Some(contents) = replaced.as_mut().and_then(|dir| dir.contents()) {
            contents.delete();
        }
        if let Some(target) = target.filter(|target| !target.kind.is_dir()) {
            self.lost_name(target, arriving.occupied);
        }
        Ok(())
    }

    /// Empties the place that is to be taken: the node there stays reachable for those who have it open,
    /// and a directory loses its whiteouts.
    fn make_way(
        &self,
        upper: &Upper,
        at: At<'_>,
        target: &Arc<Node>,
        arriving: &Spot<'_>,
        contents: &mut Contents,
    ) -> Result<()> {
        if !arriving.occupied {
            return Ok(());
        }
        if !target.kind.is_dir() {
            let dir = self.upper_dir(at.dir)?;
            return self.pin_if_last(target, at.dir, at.name, &Object::Child(dir, at.name.into()));
        }
        let inside = self.upper_dir(target)?;
        // What is in an empty directory's upper part are marks.
        if !dir::is_empty(inside.as_fd())? {
            self.replace_by_bare_dir(upper, at, target, arriving, contents)?;
            fault::point("rename.target-cleared");
        }
        // Not what may have come into its place: as long as this one is open, no new file gets its number.
        self.pin(target, &Object::Own(inside))
    }

    /// Replaces a directory that shows nothing by an opaque one that also holds nothing, and is the same in
    /// every other way: for the rename behind this step may fail.
    fn replace_by_bare_dir(
        &self,
        upper: &Upper,
        at: At<'_>,
        target: &Arc<Node>,
        arriving: &Spot<'_>,
        contents: &mut Contents,
    ) -> Result<()> {
        let staged = upper.work.stage_dir(0o700)?;
        let bare = staged.object();
        self.copy_upper_attributes(&Object::Own(self.upper_dir(target)?), &bare)?;
        upper.set_opaque(&bare)?;
        upper.numbers.write(&bare, target.ino)?;
        self.mark_impure(upper, contents, &self.upper_dir(at.dir)?)?;
        let mut inner = directory(target)?.write();
        upper.replace_dir(staged, arriving.dir, arriving.name)?;
        self.descriptors.remove(Key::UpperDir(target.id.0));
        self.unpin(target);
        inner.detach_from_lower();
        Ok(())
    }

    /// What has to be true on disk before `source` arrives, which is an inode with this number.
    fn prepare_arrival(
        &self,
        upper: &Upper,
        (source, ino): (&Node, u64),
        arriving: &Spot<'_>,
        contents: &mut Contents,
        dir: &Arc<std::os::fd::OwnedFd>,
    ) -> Result<()> {
        let object = self.upper_object(source)?;
        if source.kind.is_dir() {
            if arriving.covers && self.contents(source)?.stack.is_empty() {
                upper.set_opaque(&object)?;
                fault::point("rename.opaque-set");
            }
        } else {
            upper.prepare_name(&object, source.kind, arriving.name)?;
        }
        if source.ino != self.numbers.on_first(ino) {
            self.mark_impure(upper, contents, dir)?;
        }
        Ok(())
    }

    fn exchange(
        &self,
        upper: &Upper,
        moving: Move<'_>,
        target: &Arc<Node>,
        locked: &mut Locked<'_>,
    ) -> Result<()> {
        let Move { from, to, source, .. } = moving;
        let from_dir = self.upper_dir(from.dir)?;
        let to_dir = self.upper_dir(to.dir)?;
        let one = spot(from_dir.as_fd(), from.name, locked.from().names.get(from.name));
        let other = spot(to_dir.as_fd(), to.name, locked.to().names.get(to.name));
        let source_ino = number_of(locked.from().names.get(from.name));
        let target_ino = number_of(locked.to().names.get(to.name));
        self.prepare_arrival(upper, (source, source_ino), &other, locked.to(), &to_dir)?;
        self.prepare_arrival(upper, (target, target_ino), &one, locked.from(), &from_dir)?;
        let _names = self.rename_lock.write();
        source.leave(from.dir, from.name);
        target.leave(to.dir, to.name);
        upper.exchange(one, other)?;
        fault::point("rename.exchanged");
        arrive(locked.to(), from, to, source, source_ino);
        arrive(locked.from(), to, from, target, target_ino);
        Ok(())
    }
}

/// Enters `node` under its new name, and takes the old one from it.
fn arrive(contents: &mut Contents, from: At<'_>, to: At<'_>, node: &Arc<Node>, ino: u64) {
    let name = Name::from(to.name);
    let entry = contents.names.insert_upper(name.clone(), node.kind, ino);
    entry.node.store(node.id.0, Ordering::Relaxed);
    node.add_name(NameRef { parent: to.dir.clone(), name, in_upper: true, leaving: false });
    node.remove_name(from.dir, from.name);
}

/// Whether `one` is locked before `other`: an ancestor before its descendants, else by id.
fn comes_first(one: &Arc<Node>, other: &Arc<Node>) -> bool {
    is_ancestor(one, other) || (!is_ancestor(other, one) && one.id < other.id)
}

fn is_ancestor(one: &Arc<Node>, other: &Arc<Node>) -> bool {
    let mut at = other.clone();
    loop {
        if Arc::ptr_eq(&at, one) {
            return true;
        }
        if at.is_root() {
            return false;
        }
        match at.parent() {
            Some(parent) => at = parent,
            None => return false,
        }
    }
}

/// The number of the upper inode behind a name; 0 if there is none.
fn number_of(entry: Option<&NameEntry>) -> u64 {
    entry.map_or(0, |entry| entry.ino)
}

fn spot<'a>(
    dir: std::os::fd::BorrowedFd<'a>,
    name: &'a OsStr,
    entry: Option<&NameEntry>,
) -> Spot<'a> {
    Spot {
        dir,
        name,
        covers: entry.is_some_and(|entry| entry.below),
        whiteout: entry.and_then(|entry| entry.whiteout),
        hidden: false,
        occupied: entry.is_some_and(|entry| entry.visible && entry.layer.is_upper()),
    }
}
