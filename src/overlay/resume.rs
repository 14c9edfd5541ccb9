//! Taking a union over from a process that died, with nodes that the kernel goes on to use.
//!
//! The id of a node is its inode number, which a second process finds again. Not so where two objects have the same
//! number: one of them got another id, and nobody knows any more which. And a number that is free now may be that of a
//! deleted file which somebody still has open: what is made later must not get it as its id. So each process that takes
//! over finds out first what there is, and keeps the ids of that; whatever comes later has an id with the place of the
//! process in the row, and the number. Of lower files with several names it keeps only those of which two are seen: the
//! others may be files of their own in other layers.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;

use super::node::NodeId;
use super::node_table::{KnownIds, SHARED, number};
use super::{Flow, Overlay};
use crate::sys::{FileKind, Result};

/// Where everything is in a union, at one time.
#[derive(Default)]
pub struct Census {
    spots: HashMap<u64, Spot>,
    /// Numbers of lower files that were met by two names.
    shared: HashSet<u64>,
    directories: Vec<u64>,
}

/// One name of an object.
struct Spot {
    /// The number of the directory; `None` for the root.
    parent: Option<u64>,
    name: Box<OsStr>,
}

impl Census {
    /// The numbers of all directories but the root.
    pub fn directories(&self) -> &[u64] {
        &self.directories
    }

    /// The numbers of all that can be found again, each with whether it is that of a lower file with several names.
    fn numbers(&self) -> impl Iterator<Item = (u64, bool)> {
        self.spots.keys().map(|number| (*number, self.shared.contains(number)))
    }

    fn path(&self, number: u64, known: impl Fn(u64) -> bool) -> Option<(Option<u64>, Vec<&OsStr>)> {
        let (mut at, mut names) = (number, Vec::new());
        // No directory is deeper than there are names.
        while names.len() <= self.spots.len() {
            let spot = self.spots.get(&at)?;
            names.push(&*spot.name);
            match spot.parent {
                Some(parent) if !known(parent) => at = parent,
                start => return Some((start, names)),
            }
        }
        None
    }
}

impl Overlay {
    /// Has `told` called when two objects are found to have the same number, after which no other process can take the
    /// union over.
    pub fn tell_clashes(&mut self, told: impl Fn() + Send + Sync + 'static) {
        self.nodes.tell_clashes(Box::new(told));
    }

    /// Begins as the `generation`-th process that takes this union over, from 1 on: finds out where everything is.
    /// `known` are the ids of objects that were there when the last one took over, by their numbers, and `last` which it
    /// was, 0 for the first process of all. Returns the same for this one too.
    ///
    /// # Errors
    /// Those of reading the root.
    pub fn take_over(
        &self,
        generation: u16,
        (known, last): (HashMap<u64, u64>, u16),
    ) -> Result<(Census, HashMap<u64, u64>)> {
        let before = KnownIds { ids: known, generation: last };
        let census = self.census()?;
        let ids = census.numbers().filter_map(|(number, shared)| {
            let id = before.id(number, shared)?;
            Some((if shared { number | SHARED } else { number }, id.0))
        });
        let ids: HashMap<u64, u64> = ids.collect();
        self.nodes.take_over(KnownIds { ids: ids.clone(), generation });
        Ok((census, ids))
    }

    /// Has the node `id` known again, if it was to the process before and its object is still where it was; with one more
    /// reference.
    pub fn revive(&self, census: &Census, id: NodeId) {
        if let Some(found) = self.find_by_number(census, number(id))
            && found != id
        {
            self.leave(found);
        }
    }

    /// The node with an inode number, with one more reference.
    fn find_by_number(&self, census: &Census, number: u64) -> Option<NodeId> {
        let known = |number| self.nodes.known(number).unwrap_or(NodeId(number));
        if self.nodes.refer(known(number)) {
            return Some(known(number));
        }
        let (start, names) =
            census.path(number, |number| self.nodes.get(known(number)).is_some())?;
        let mut at = match start {
            Some(number) if self.nodes.refer(known(number)) => known(number),
            Some(_) => return None,
            None => NodeId::ROOT,
        };
        let mut found = None;
        for name in names.into_iter().rev() {
            let entry = self.lookup(at, name).ok().flatten();
            self.leave(at);
            let entry = entry?;
            at = entry.node;
            found = Some(entry.attr.ino);
        }
        if found == Some(number) {
            return Some(at);
        }
        self.leave(at);
        None
    }

    /// Gives back all references on a node that the kernel has forgotten, of which `count` are known of.
    ///
    /// The kernel counts what was answered by processes before, and a message that it has forgotten a node may be older
    /// than an answer that tells it of the node again. So what was there when this process took over stays known for as
    /// long as it has a name: nobody could say how many references are left.
    pub fn forget_taken_over(&self, id: NodeId, count: u64) {
        let was_there = self.nodes.known(number(id)) == Some(id);
        let has_name = self.nodes.get(id).is_some_and(|node| node.first_name().is_some());
        match (was_there, has_name) {
            (true, true) => {}
            (true, false) => self.forget(id, u64::MAX),
            (false, _) => self.forget(id, count),
        }
    }

    /// How many references there are on a node; `None` if it is not known.
    pub fn references(&self, id: NodeId) -> Option<u32> {
        self.nodes.get(id).map(|node| node.lookups.count())
    }

    fn leave(&self, id: NodeId) {
        if id != NodeId::ROOT {
            self.forget(id, 1);
        }
    }

    fn census(&self) -> Result<Census> {
        let mut census = Census::default();
        let mut again = Vec::new();
        let mut directories = vec![(NodeId::ROOT, None)];
        let mut first = true;
        while let Some((id, parent)) = directories.pop() {
            let listed = self.count(id, parent, &mut census, &mut again, &mut directories);
            self.leave(id);
            match listed {
                Err(error) if first => return Err(error),
                Err(error) => log::debug!("node {}: not read: {error}", id.0),
                Ok(()) => {}
            }
            first = false;
        }
        for (number, spot) in again {
            if let Some(below) = self.is_same(&census, number, spot) {
                census.shared.extend(below.then_some(number));
            } else {
                census.spots.remove(&number);
            }
        }
        Ok(census)
    }

    fn count(
        &self,
        id: NodeId,
        parent: Option<u64>,
        census: &mut Census,
        again: &mut Vec<(u64, Spot)>,
        directories: &mut Vec<(NodeId, Option<u64>)>,
    ) -> Result<()> {
        let mut inside = Vec::new();
        self.read_dir(id, 2, |entry| {
            inside.push((Box::<OsStr>::from(entry.name), entry.ino, entry.kind));
            Flow::Continue
        })?;
        for (name, number, kind) in inside {
            if kind == FileKind::Directory
                && let Ok(Some(entry)) = self.lookup(id, &name)
            {
                directories.push((entry.node, Some(number)));
                census.directories.push(number);
            }
            let spot = Spot { parent, name };
            match census.spots.entry(number) {
                Place::Vacant(place) => {
                    place.insert(spot);
                }
                Place::Occupied(_) => again.push((number, spot)),
            }
        }
        Ok(())
    }

    /// If a number that has been met twice is that of one object: whether that is in a lower layer.
    fn is_same(&self, census: &Census, number: u64, other: Spot) -> Option<bool> {
        let one = self.find_by_number(census, number)?;
        let parent = match other.parent {
            Some(parent) => self.find_by_number(census, parent),
            None => Some(NodeId::ROOT),
        };
        let second = parent.and_then(|parent| {
            let entry = self.lookup(parent, &other.name).ok().flatten();
            self.leave(parent);
            entry
        });
        let same = second.is_some_and(|entry| {
            self.leave(entry.node);
            entry.node == one
        });
        let below = self.nodes.get(one).filter(|_| same).map(|node| !node.is_upper());
        self.leave(one);
        below
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::overlay::Config;

    #[test]
    fn what_was_there_stays_known_however_often_the_kernel_forgets_it() {
        let lower = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let config = Config { lower: vec![lower], ..Config::default() };
        let find = |overlay: &Overlay| {
            overlay.lookup(NodeId::ROOT, OsStr::new("overlay")).unwrap().unwrap().node
        };
        let first = Overlay::open(&config).unwrap();
        let node = find(&first);
        let next = Overlay::open(&config).unwrap();
        let (census, _) = next.take_over(1, (HashMap::new(), 0)).unwrap();
        next.revive(&census, node);
        assert_eq!((next.references(node), find(&next)), (Some(1), node));
        next.forget_taken_over(node, 100);
        assert!(next.references(node).is_some());
        // The first process of a mount has counted all of them.
        first.forget_taken_over(node, 1);
        assert_eq!(first.references(node), None);
    }
}
