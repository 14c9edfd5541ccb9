//! What is in a directory of the union: the layers in which it exists, and the names in them.
//!
//! Resolved when the directory is first looked into, by reading it once in each layer; kept as long as
//! its node, since lower layers do not change and every change of the upper goes through here.

use std::cell::Cell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::{
    MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use super::Overlay;
use super::changing::Seen;
use super::create::Inherited;
use super::name_table::NameTable;
use super::node::Node;
use super::pins::Pinned;
use crate::layer::descriptors::Key;
use crate::layer::listing::Listing;
use crate::layer::{DirMarks, LayerIndex, LowerDir, Name, Opaque, Redirect, owner_rights};
use crate::sys::{Errno, Object, Result, open};

/// Redirects that lead through redirects: no honest tree has more.
const DEEPEST_REDIRECT: usize = 16;

/// Lower directories that are looked into along redirects, to find one: no honest tree needs more. Hostile
/// redirects, each through a path of redirects, lead through each other in more ways than anybody could
/// wait for.
const LONGEST_SEARCH: usize = 20_000;

/// The search for the lower parts of one directory.
#[derive(Clone, Copy)]
pub(super) struct Search<'s> {
    /// Redirects that lead here, one through the other.
    depth: usize,
    /// Directories that may still be looked into.
    left: &'s Cell<usize>,
}

impl<'s> Search<'s> {
    /// What a new search may cost.
    pub fn budget() -> Cell<usize> {
        Cell::new(LONGEST_SEARCH)
    }

    /// A search that has not followed a redirect yet.
    pub fn new(left: &'s Cell<usize>) -> Self {
        Self { depth: 0, left }
    }

    /// The search behind one more redirect.
    pub fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    /// To be called for each directory that is looked into.
    fn step(self) -> Result<()> {
        if self.depth == 0 {
            return Ok(());
        }
        let Some(left) = self.left.get().checked_sub(1) else {
            log::error!("redirects lead through more than {LONGEST_SEARCH} directories");
            return Err(Errno::IO);
        };
        self.left.set(left);
        Ok(())
    }
}

/// A directory: where its lower parts may lie, and once it has been looked into, what is in it.
pub(super) struct Directory {
    /// The lower directories of its name, top first, before marks are looked at.
    candidates: Vec<Arc<LowerDir>>,
    /// The lower stack of the directory that this one was found in: a redirect can lead to a sibling.
    siblings: Arc<[Arc<LowerDir>]>,
    contents: Option<Contents>,
    /// How many names the candidates list, as far as that can be known without reading them.
    pub listed: u32,
}

/// What is in a directory.
pub(super) struct Contents {
    /// The lower directories that are merged, top first.
    pub stack: Arc<[Arc<LowerDir>]>,
    /// The names.
    pub names: NameTable,
    /// Whether the upper directory has a redirect, wherever that leads.
    pub redirected: bool,
    /// Whether upper children may carry a number of their own.
    pub impure: bool,
    /// What children made here get from this directory; `None` until asked for, and after a change.
    pub inherited: Option<Inherited>,
    /// Whether the directory has been deleted.
    pub gone: bool,
}

impl Directory {
    /// A directory that is yet to be looked into.
    pub fn unread(candidates: Vec<Arc<LowerDir>>, siblings: Arc<[Arc<LowerDir>]>) -> Self {
        Self { candidates, siblings, contents: None, listed: 0 }
    }

    /// The same, of which the candidates are known to list so many names.
    pub fn listing(self, listed: u32) -> Self {
        Self { listed, ..self }
    }

    /// A directory that was just made.
    pub fn empty() -> Self {
        let contents = Some(Contents::empty());
        Self { candidates: Vec::new(), siblings: Arc::new([]), contents, listed: 0 }
    }

    /// The number of lower directories that may be merged.
    pub fn candidates(&self) -> usize {
        self.contents.as_ref().map_or(self.candidates.len(), |contents| contents.stack.len())
    }

    /// Whether the directory has been looked into.
    pub fn is_read(&self) -> bool {
        self.contents.is_some()
    }

    /// How many names are remembered.
    pub fn len(&self) -> usize {
        self.contents.as_ref().map_or(0, |contents| contents.names.len())
    }

    /// What has been read, if anything.
    pub fn contents(&mut self) -> Option<&mut Contents> {
        self.contents.as_mut()
    }

    /// What has been read, if anything.
    pub fn as_read(&self) -> Option<&Contents> {
        self.contents.as_ref()
    }

    /// What has been read; of an unread one that nothing is in it.
    pub fn make_read(&mut self) -> &mut Contents {
        self.contents.get_or_insert_with(Contents::empty)
    }

    /// The lower directory in one layer that may be merged.
    pub fn candidate(&self, layer: LayerIndex) -> Option<&Arc<LowerDir>> {
        self.candidates.iter().find(|dir| dir.layer == layer)
    }

    /// The lower directories that may be merged, top first.
    pub fn parts(&self) -> &[Arc<LowerDir>] {
        &self.candidates
    }

    /// Takes the lower parts of `other` for its own, to be read from now on.
    pub fn lead_to(&mut self, other: Self) {
        self.candidates = other.candidates;
        self.siblings = other.siblings;
    }

    /// Notes that the directory is opaque now.
    pub fn detach_from_lower(&mut self) {
        self.candidates = Vec::new();
        if let Some(contents) = &mut self.contents {
            contents.stack = Arc::new([]);
            contents.names.detach_from_lower();
        }
    }
}

impl Overlay {
    /// What is in the directory `node`, shared with other readers.
    ///
    /// # Errors
    /// `ENOTDIR`; whatever keeps a layer from being read.
    pub(super) fn contents<'n>(
        &self,
        node: &'n Node,
    ) -> Result<MappedRwLockReadGuard<'n, Contents>> {
        let dir = directory(node)?;
        loop {
            let guard = dir.read();
            match RwLockReadGuard::try_map(guard, |dir| dir.contents.as_ref()) {
                Ok(contents) => return Ok(contents),
                Err(guard) => drop(guard),
            }
            drop(self.contents_mut(node)?);
        }
    }

    /// What is in the directory `node`, for changing it.
    pub(super) fn contents_mut<'n>(
        &self,
        node: &'n Node,
    ) -> Result<MappedRwLockWriteGuard<'n, Contents>> {
        let dir = directory(node)?;
        self.read_in(node, dir)?;
        RwLockWriteGuard::try_map(dir.write(), |dir| dir.contents.as_mut()).map_err(|_| Errno::IO)
    }

    /// Makes sure that the directory has been looked into. Meanwhile only those wait who must know what is in
    /// it: a layer can be slow.
    fn read_in(&self, node: &Node, dir: &RwLock<Directory>) -> Result<()> {
        if dir.read().is_read() {
            return Ok(());
        }
        let _only_one = node.reading.lock();
        let unread = {
            let dir = dir.read();
            if dir.is_read() {
                return Ok(());
            }
            Directory::unread(dir.candidates.clone(), dir.siblings.clone())
        };
        let (contents, seen) = self.read_contents(node, &unread)?;
        let mut dir = dir.write();
        dir.contents = Some(contents);
        if let Some(changing) = &self.changing {
            changing.note_read(node.id, seen);
        }
        Ok(())
    }

    /// What is in a directory, and how its lower parts were just before they were read.
    pub(super) fn read_contents(
        &self,
        node: &Node,
        dir: &Directory,
    ) -> Result<(Contents, Vec<Seen>)> {
        let upper = match node.is_upper() {
            true => Some(self.read_upper(node)?),
            false => None,
        };
        let mut names = NameTable::default();
        let marks = upper.as_ref().map(|(marks, _)| marks);
        let budget = Search::budget();
        let mut all_seen = Vec::new();
        let stack = self.walk(marks, dir, Search::new(&budget), |lower, seen, listing| {
            names.merge_lower(lower.layer, listing);
            all_seen.extend(seen);
        })?;
        let impure = marks.is_some_and(|marks| marks.impure);
        let redirected = marks.is_some_and(|marks| marks.redirect.is_some());
        if let Some((_, listing)) = upper {
            names.merge_upper(listing);
        }
        names.finish();
        let stack = stack.into();
        let contents = Contents { stack, names, redirected, impure, inherited: None, gone: false };
        Ok((contents, all_seen))
    }

    fn read_upper(&self, node: &Node) -> Result<(DirMarks, Listing)> {
        let upper = self.writable()?;
        let read = || {
            let fd = self.upper_dir(node)?;
            let list = || {
                let mut marks = DirMarks::read(&Object::Own(fd.clone()))?;
                let by_xattr = marks.opaque == Opaque::XattrWhiteouts;
                let listing = Listing::read(&fd, by_xattr, upper.overriding)?;
                if listing.opaque {
                    marks.opaque = Opaque::Yes;
                }
                Ok((marks, listing))
            };
            match list() {
                // Whoever may look a name up need not have the right to list them all, nor the other way round.
                Err(Errno::ACCESS) if self.own.uid != 0 => {
                    let dir = Object::Own(fd.clone());
                    owner_rights::lend(&[&dir], owner_rights::READ_AND_SEARCH, list)
                }
                result => result,
            }
        };
        read().inspect_err(|error| {
            log::error!("upper layer: cannot read directory {}: {error}", node.path().display());
        })
    }

    /// Goes down the lower layers of a directory: from its candidates, past those that are cut off by an
    /// opaque mark, along redirects. Returns the stack; `visit` gets what each of its directories lists, and how it was before.
    fn walk(
        &self,
        upper: Option<&DirMarks>,
        dir: &Directory,
        search: Search<'_>,
        mut visit: impl FnMut(&Arc<LowerDir>, Option<Seen>, Listing),
    ) -> Result<Vec<Arc<LowerDir>>> {
        let mut stack = Vec::new();
        let mut pending: VecDeque<Arc<LowerDir>> = dir.candidates.iter().cloned().collect();
        let mut siblings = dir.siblings.clone();
        let mut follow = |redirect: &Redirect, below| -> Result<VecDeque<Arc<LowerDir>>> {
            // A relative redirect further down is relative to where this one leads.
            siblings = self.siblings_of(redirect, below, &siblings, search)?;
            self.find_dirs(&siblings, redirect.name(), search).map(VecDeque::from)
        };
        if let Some(marks) = upper {
            if marks.opaque == Opaque::Yes {
                return Ok(stack);
            }
            if let Some(redirect) = &marks.redirect {
                pending = follow(redirect, LayerIndex::UPPER)?;
            }
        }
        while let Some(lower) = pending.pop_front() {
            search.step()?;
            let seen = self.seen(&lower)?;
            let (marks, listing) = self.lowers.list(&lower)?;
            let last = marks.opaque == Opaque::Yes || listing.opaque;
            visit(&lower, seen, listing);
            if let (false, Some(redirect)) = (last, &marks.redirect) {
                pending = follow(redirect, lower.layer)?;
            }
            stack.push(lower);
            if last {
                break;
            }
        }
        Ok(stack)
    }

    /// The stack of the directory that a redirect leads into, all in layers further down than `below`.
    fn siblings_of(
        &self,
        redirect: &Redirect,
        below: LayerIndex,
        siblings: &[Arc<LowerDir>],
        search: Search<'_>,
    ) -> Result<Arc<[Arc<LowerDir>]>> {
        if self.refuse_redirects {
            log::error!("redirect_dir=nofollow: layer {} has a redirect", below.0);
            return Err(Errno::PERM);
        }
        if search.depth >= DEEPEST_REDIRECT {
            log::error!(
                "a redirect in layer {} leads through more than {DEEPEST_REDIRECT} others",
                below.0
            );
            return Err(Errno::IO);
        }
        match redirect {
            Redirect::Sibling(_) => {
                Ok(siblings.iter().filter(|dir| dir.layer > below).cloned().collect())
            }
            Redirect::Absolute(dirs, _) => {
                self.lower_stack_at(dirs, below, search.deeper()).map(Arc::from)
            }
        }
    }

    /// The lower stack of the directory at the path `names` from the root, of the layers further down
    /// than `below`.
    pub(super) fn lower_stack_at(
        &self,
        names: &[Name],
        below: LayerIndex,
        search: Search<'_>,
    ) -> Result<Vec<Arc<LowerDir>>> {
        let roots = self.lowers.roots().iter().filter(|dir| dir.layer > below).cloned();
        let root = Directory::unread(roots.collect(), Arc::from([]));
        let mut stack = self.walk(None, &root, search, |_, _, _| {})?;
        for name in names {
            let found = self.find_dirs(&stack, name, search)?;
            let dir = Directory::unread(found, stack.into());
            stack = self.walk(None, &dir, search, |_, _, _| {})?;
        }
        Ok(stack)
    }

    /// The directories called `name` in the stack `parents`, down to where something else ends them.
    fn find_dirs(
        &self,
        parents: &[Arc<LowerDir>],
        name: &Name,
        search: Search<'_>,
    ) -> Result<Vec<Arc<LowerDir>>> {
        let mut found = Vec::new();
        for parent in parents {
            search.step()?;
            let (_, listing) = self.lowers.list(parent)?;
            if listing.whiteouts.contains_key(name) {
                break;
            }
            match listing.entries.iter().find(|entry| entry.name == *name) {
                Some(entry) if entry.kind.is_dir() => found.push(parent.child(name.clone())),
                Some(_) => break,
                None => {}
            }
        }
        Ok(found)
    }

    /// A reference to the upper directory of `node`.
    ///
    /// # Errors
    /// `ENOENT` when it is not in the upper layer.
    pub(super) fn upper_dir(&self, node: &Node) -> Result<Arc<OwnedFd>> {
        let upper = self.writable()?;
        if node.is_root() {
            return Ok(upper.root.clone());
        }
        let key = Key::UpperDir(node.id.0);
        if let Some(cached) = self.descriptors.get(key) {
            return Ok(cached.fd);
        }
        // Names cannot change under the walk; what is open afterwards stays the same directory.
        let _names = self.rename_lock.read();
        let (mut at, first) = {
            let state = node.state.lock();
            if let Some(Pinned::Open(pinned)) = &state.pinned {
                return Ok(pinned.clone());
            }
            let name = state.names.first().ok_or(Errno::NOENT)?;
            (name.parent.clone(), name.name.clone())
        };
        let mut names = vec![first];
        let base = loop {
            if at.is_root() {
                break upper.root.clone();
            }
            if let Some(cached) = self.descriptors.get(Key::UpperDir(at.id.0)) {
                break cached.fd;
            }
            let next = at.first_name().ok_or(Errno::NOENT)?;
            names.push(next.name);
            at = next.parent;
        };
        let fd = self.descriptors.with_room(|| {
            open::descend(base.as_fd(), names.iter().rev().map(|name| &**name), true)
        })?;
        Ok(self.descriptors.put(key, fd, false))
    }
}

pub(super) fn directory(node: &Node) -> Result<&RwLock<Directory>> {
    node.dir.as_ref().map(|dir| &dir.contents).ok_or(Errno::NOTDIR)
}

impl Contents {
    fn empty() -> Self {
        Self {
            stack: Arc::new([]),
            names: NameTable::default(),
            redirected: false,
            impure: false,
            inherited: None,
            gone: false,
        }
    }

    /// The lower directories in which the name whose entry this is exists as a directory, top first.
    pub fn lower_dirs_of(&self, entry: &super::name_table::NameEntry) -> Vec<Arc<LowerDir>> {
        let own = (!entry.layer.is_upper()).then_some(entry.layer);
        let layers = own.into_iter().chain(self.names.merged(&entry.name).iter().copied());
        layers
            .filter_map(|layer| self.lower_dir(layer))
            .map(|dir| dir.child(entry.name.clone()))
            .collect()
    }

    /// The directory in one layer of the stack.
    pub fn lower_dir(&self, layer: LayerIndex) -> Option<&Arc<LowerDir>> {
        let at = self.stack.binary_search_by_key(&layer, |dir| dir.layer).ok()?;
        self.stack.get(at)
    }

    /// Notes that the directory has been deleted.
    pub fn delete(&mut self) {
        self.gone = true;
        self.names = NameTable::default();
        self.stack = Arc::new([]);
    }
}
