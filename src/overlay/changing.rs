//! Lower layers that others change while they are mounted (`timeout=`).
//!
//! Before a directory is used it is looked at again: each of its lower directories is asked for its inode and its
//! times, and if one is not as it was when it was read, all of it is read again. Names keep their cookies, and
//! those that lead to the same object keep their nodes. A node whose name leads elsewhere now loses that name and
//! lives on for those who have it open: an open file is held by a descriptor, so that it stays the same file.
//!
//! Whoever finds another inode behind a place than that of its node gets `ESTALE`, upon which the kernel looks the
//! name up again: no file is ever taken for another.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::Overlay;
use super::directory::{Contents, Directory, directory};
use super::name_table::NameEntry;
use super::node::{Node, NodeId};
use super::node_state::Place;
use crate::layer::{LowerDir, LowerPlace};
use crate::sys::{Errno, Result, Stat, Time};

/// Times of files advance in steps. What was changed so short a time before it was looked at may have been changed
/// once more since, and show the same time.
const STEP: Duration = Duration::from_millis(20);

/// What is known about lower layers that change.
#[derive(Default)]
pub(super) struct Changing {
    read: Mutex<Read>,
    /// How many have the data of each node open, of those whose object lies in a lower layer.
    open: Mutex<HashMap<NodeId, u32>>,
}

#[derive(Default)]
struct Read {
    /// The lower directories of each directory that was read, as they were just before.
    seen: HashMap<NodeId, Box<[Seen]>>,
    /// Directories whose lower parts may be others now, since the directory that they are in has changed.
    doubtful: HashSet<NodeId>,
}

/// A lower directory at one moment.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    dev: u64,
    ino: u64,
    modified: Time,
    changed: Time,
    /// Whether any later change shows in its times.
    settled: bool,
}

impl Seen {
    fn now(stat: &Stat) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = u64::try_from(stat.ctime.sec).unwrap_or(0);
        let changed = Duration::new(changed, stat.ctime.nsec.min(999_999_999));
        Self {
            dev: stat.dev,
            ino: stat.ino,
            modified: stat.mtime,
            changed: stat.ctime,
            settled: changed + STEP < now,
        }
    }

    /// Whether what was read after `self` is what would be read after `now`.
    fn is_still(&self, now: &Self) -> bool {
        self.settled
            && (self.dev, self.ino) == (now.dev, now.ino)
            && (self.modified, self.changed) == (now.modified, now.changed)
    }
}

impl Changing {
    /// Notes how the lower directories of `node` were just before they were read.
    pub fn note_read(&self, node: NodeId, seen: Vec<Seen>) {
        self.read.lock().seen.insert(node, seen.into());
    }

    /// Forgets a node that is gone.
    pub fn forget(&self, node: NodeId) {
        let mut read = self.read.lock();
        read.seen.remove(&node);
        read.doubtful.remove(&node);
        drop(read);
        self.open.lock().remove(&node);
    }

    fn doubt(&self, nodes: impl Iterator<Item = NodeId>) {
        self.read.lock().doubtful.extend(nodes);
    }

    /// Whether the directory was doubtful; it is not any more.
    fn trust(&self, node: NodeId) -> bool {
        self.read.lock().doubtful.remove(&node)
    }
}

impl Overlay {
    /// How a lower directory is now; `None` where layers do not change.
    pub(super) fn seen(&self, dir: &Arc<LowerDir>) -> Result<Option<Seen>> {
        self.changing.as_ref().map(|_| Ok(Seen::now(&self.lowers.stat_open(dir)?))).transpose()
    }

    /// Reads a directory again if a lower layer has changed it. To be called, without any lock, before the directory
    /// is used. Does nothing where layers do not change.
    ///
    /// # Errors
    /// `ENOTDIR`; whatever keeps a layer from being read.
    pub(super) fn refresh(&self, node: &Arc<Node>) -> Result<()> {
        let Some(changing) = &self.changing else { return Ok(()) };
        if self.is_as_read(changing, node.id, &directory(node)?.read()) {
            return Ok(());
        }
        // From now on: who finds the parent changed after this doubts again.
        let doubtful = changing.trust(node.id);
        let again = || {
            let found = if doubtful { self.find_again(node)? } else { None };
            let mut dir = directory(node)?.write();
            if let Some(unread) = found {
                self.move_dir(node, &unread)?;
                dir.lead_to(unread);
            } else if self.is_as_read(changing, node.id, &dir) {
                return Ok(());
            }
            self.replace_contents(changing, node, &mut dir)
        };
        again().inspect_err(|_| changing.doubt([node.id].into_iter()))
    }

    /// The same for what may be a directory.
    pub(super) fn refresh_dir(&self, node: &Arc<Node>) -> Result<()> {
        if node.kind.is_dir() { self.refresh(node) } else { Ok(()) }
    }

    fn is_as_read(&self, changing: &Changing, id: NodeId, dir: &Directory) -> bool {
        let seen = {
            let read = changing.read.lock();
            if read.doubtful.contains(&id) {
                return false;
            }
            read.seen.get(&id).cloned().unwrap_or_default()
        };
        let Some(contents) = dir.as_read().filter(|contents| !contents.gone) else { return true };
        let same = |(dir, seen): (&Arc<LowerDir>, &Seen)| matches!(self.seen(dir), Ok(Some(now)) if seen.is_still(&now));
        contents.stack.len() == seen.len() && contents.stack.iter().zip(&seen).all(same)
    }

    /// Where the lower parts of a directory are now. Those that are where they were are the same ones.
    fn find_again(&self, node: &Node) -> Result<Option<Directory>> {
        let Some(name) = node.first_name() else { return Ok(None) };
        let (dirs, siblings) = {
            let contents = self.contents(&name.parent)?;
            let Some(entry) = contents.names.visible(&name.name) else { return Ok(None) };
            (contents.lower_dirs_of(entry), contents.stack.clone())
        };
        let dir = directory(node)?.read();
        let mut found = Vec::new();
        for new in dirs {
            let old = dir.candidate(new.layer).filter(|old| old.is_called_like(&new));
            let id = |dir: &Arc<LowerDir>| {
                let stat = self.lowers.stat_open(dir)?;
                Ok::<_, Errno>((stat.dev, stat.ino))
            };
            let is_same = |old: &&Arc<LowerDir>| id(old).ok() == id(&new).ok();
            found.push(old.filter(is_same).cloned().unwrap_or(new));
        }
        Ok(Some(Directory::unread(found, siblings)))
    }

    /// Has a node of a lower directory lead to the part of `dir` that has its attributes.
    fn move_dir(&self, node: &Node, dir: &Directory) -> Result<()> {
        let described = self.lowers.described(dir.parts())?;
        let mut state = node.state.lock();
        if let (Place::Lower(place), Some(part)) = (&mut state.place, described) {
            *place = LowerPlace::Dir(part.clone());
        }
        Ok(())
    }

    fn replace_contents(
        &self,
        changing: &Changing,
        node: &Arc<Node>,
        dir: &mut Directory,
    ) -> Result<()> {
        if !dir.is_read() {
            return Ok(());
        }
        let (new, seen) = self.read_contents(node, dir)?;
        let Some(old) = dir.contents() else { return Ok(()) };
        let lost = old.names.update(new.names);
        old.stack = new.stack;
        old.redirected = new.redirected;
        old.impure = new.impure;
        old.inherited = None;
        changing.note_read(node.id, seen);
        changing.doubt(old.names.known_dirs());
        for (name, id) in lost {
            if let Some(lost) = self.nodes.part(id, node, &name) {
                self.orphan(&lost);
            }
        }
        Ok(())
    }

    /// Sees to a node that has lost a name because the name leads to something else.
    fn orphan(&self, node: &Arc<Node>) {
        if node.first_name().is_some() {
            return;
        }
        // To those who are in it, it is like a deleted one.
        if let Ok(dir) = directory(node) {
            dir.write().make_read().delete();
        }
        node.close(&self.descriptors);
    }

    /// Has the node of a lower file lead to where `entry` says, one of its names, which may not be the one that it
    /// was found by first.
    pub(super) fn lead_to(&self, node: &Node, contents: &Contents, entry: &NameEntry) {
        let (Some(_), Some(dir)) = (&self.changing, contents.lower_dir(entry.layer)) else {
            return;
        };
        let is_there = node.state.look(
            |plain| plain.lower.as_ref().is_some_and(|lower| Arc::ptr_eq(lower, dir)),
            |_| false,
        );
        if is_there {
            return;
        }
        let mut state = node.state.lock();
        if let Place::Lower(place @ LowerPlace::Child(..)) = &mut state.place {
            *place = LowerPlace::Child(dir.clone(), entry.name.clone());
        }
    }

    /// Makes sure that `stat`, of the object at the lower place of `node`, is that of its node.
    ///
    /// # Errors
    /// `ESTALE` if another object has come there.
    pub(super) fn check_identity(&self, node: &Node, stat: &Stat) -> Result<()> {
        let same = || self.numbers.number(stat.dev, stat.ino) == node.ino;
        if self.changing.is_none() || node.is_root() || (stat.kind() == node.kind && same()) {
            return Ok(());
        }
        Err(Errno::STALE)
    }

    /// Notes that the data of a file is open: from now on it is that very file, whatever gets its name. Each call
    /// needs one of [`note_close`](Self::note_close). Does nothing where layers do not change.
    ///
    /// # Errors
    /// `ESTALE` if another file has come to its place; whatever keeps it from being opened.
    pub fn note_open(&self, id: NodeId) -> Result<()> {
        let Some(changing) = &self.changing else { return Ok(()) };
        let node = self.node(id)?;
        *changing.open.lock().entry(id).or_default() += 1;
        self.hold(&node).inspect_err(|_| self.note_close(id))
    }

    /// Has the node of a lower file lead to the very file that is at its place now.
    fn hold(&self, node: &Node) -> Result<()> {
        let place = match &node.state.lock().place {
            Place::Lower(place @ LowerPlace::Child(..)) => place.clone(),
            _ => return Ok(()),
        };
        let held = self.lowers.hold(&place)?;
        self.check_identity(node, &self.lowers.stat(&held)?)?;
        let mut state = node.state.lock();
        if matches!(&state.place, Place::Lower(LowerPlace::Child(..))) {
            state.place = Place::Lower(held);
        }
        Ok(())
    }

    /// Notes that somebody who has opened a file does not use it any more.
    pub fn note_close(&self, id: NodeId) {
        let Some(changing) = &self.changing else { return };
        {
            let mut open = changing.open.lock();
            let Some(count) = open.get_mut(&id) else { return };
            *count = count.saturating_sub(1);
            if *count > 0 {
                return;
            }
            open.remove(&id);
        }
        let Some(node) = self.nodes.get(id) else { return };
        let mut state = node.state.lock();
        // Without a name, nobody could find it again.
        if let (false, Place::Lower(place)) = (state.names.is_empty(), &mut state.place) {
            *place = place.clone().released();
        }
    }
}
