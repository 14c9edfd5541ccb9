//! The names in one directory of the union, with all layers and marks already resolved.
//!
//! A lookup costs one hash; an absent name costs no system call, however many layers there are. Every
//! name has a cookie that it keeps as long as it exists, and cookies only grow, so that reading the
//! directory piece by piece is stable while it changes: no name comes twice, and none that stays is
//! missed. A name that is made again soon gets its old cookie back: else a reader who has been past it
//! could come upon it once more. A reader who makes a name for each that he reads comes to an end all the same: names that are
//! younger than the latest beginning of a reading are left for the next one.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::node::NodeId;
use crate::layer::listing::Listing;
use crate::layer::whiteout::Form;
use crate::layer::{LayerIndex, Name};
use crate::sys::FileKind;
use crate::sys::name::Names;

/// The cookie of the first name; smaller ones are for `.` and `..`.
pub(super) const FIRST_COOKIE: u64 = 3;

/// One name. There is one for each file of every directory that was looked into, so its size counts.
pub(super) struct NameEntry {
    pub name: Name,
    /// The inode number in `layer`.
    pub ino: u64,
    /// The id of the node that was last known by this name; 0 for none.
    pub node: AtomicU64,
    /// The topmost layer that has the object.
    pub layer: LayerIndex,
    pub kind: FileKind,
    /// Whether the name exists in the union.
    pub visible: bool,
    /// Whether it would exist without the upper layer, so that deleting it needs a whiteout.
    pub below: bool,
    /// The whiteout that the upper layer has of that name.
    pub whiteout: Option<Form>,
    /// Whether the layers below those seen so far have no say any more; used while building.
    closed: bool,
    /// Whether this is an empty place, which no search leads to.
    erased: bool,
}

#[derive(Default)]
pub(super) struct NameTable {
    /// In the order of their cookies.
    slots: Vec<NameEntry>,
    cookies: Cookies,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Of directories that lie in several layers, by their cookies: the lower layers below `layer` that merge
    /// with it, top first.
    merged: HashMap<u64, Vec<LayerIndex>>,
    /// The first cookie that was free when somebody last began to read; 0 if nobody has.
    read_end: AtomicU64,
    visible: usize,
    /// How many slots hold a name that is gone, only for its cookie.
    gone: usize,
}

/// The cookies of the slots.
#[derive(Default)]
struct Cookies {
    /// `None` as long as they follow from the slots' positions.
    listed: Option<Vec<u64>>,
    /// How many there have been.
    given: u64,
}

impl Cookies {
    fn of(&self, at: usize) -> u64 {
        match &self.listed {
            Some(listed) => listed[at],
            None => FIRST_COOKIE + at as u64,
        }
    }

    fn next(&self) -> u64 {
        FIRST_COOKIE + self.given
    }

    fn give(&mut self) {
        let next = self.next();
        self.given += 1;
        if let Some(listed) = &mut self.listed {
            listed.push(next);
        }
    }

    /// The position of the first slot behind `cookie`, of so many.
    fn behind(&self, cookie: u64, slots: usize) -> usize {
        match &self.listed {
            Some(listed) => listed.partition_point(|known| *known <= cookie),
            None => {
                let behind = (cookie + 1).saturating_sub(FIRST_COOKIE);
                usize::try_from(behind).map_or(slots, |behind| behind.min(slots))
            }
        }
    }
}

impl NameTable {
    pub fn get(&self, name: &OsStr) -> Option<&NameEntry> {
        let at = self.position(name)?;
        Some(&self.slots[at]).filter(|entry| !entry.is_gone())
    }

    /// The entry of a name that exists in the union.
    pub fn visible(&self, name: &OsStr) -> Option<&NameEntry> {
        self.get(name).filter(|entry| entry.visible)
    }

    /// Of a directory's name: the lower layers below that of its entry that merge with it, top first.
    pub fn merged(&self, name: &OsStr) -> &[LayerIndex] {
        let cookie = self.position(name).map(|at| self.cookies.of(at));
        cookie.and_then(|cookie| self.merged.get(&cookie)).map_or(&[], Vec::as_slice)
    }

    /// How many names are remembered, deleted ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no name exists.
    pub fn is_empty(&self) -> bool {
        self.visible == 0
    }

    /// The entries that exist and come after `cookie`, in order, each with its cookie.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &NameEntry)> {
        let start = self.cookies.behind(cookie, self.slots.len());
        (start..self.slots.len())
            .map(|at| (self.cookies.of(at), &self.slots[at]))
            .filter(|(_, entry)| entry.visible)
    }

    /// What a reader of the directory gets from behind `cookie`, 0 at the beginning. All readers share one
    /// end, which moves on when one of them begins: there is no message from which a single one could be known.
    pub fn read(&self, cookie: u64) -> impl Iterator<Item = (u64, &NameEntry)> {
        if cookie == 0 {
            self.read_end.store(self.cookies.next(), Ordering::Relaxed);
        }
        let end = match self.read_end.load(Ordering::Relaxed) {
            0 => u64::MAX,
            end => end,
        };
        self.after(cookie).take_while(move |(cookie, _)| *cookie < end)
    }

    /// The names of which the upper layer has a whiteout.
    pub fn whiteouts(&self) -> impl Iterator<Item = (&OsStr, Form)> {
        self.slots.iter().filter_map(|entry| entry.whiteout.map(|form| (&*entry.name, form)))
    }

    /// Notes that the upper layer now has an object of that name, which exists from now on.
    pub fn insert_upper(&mut self, name: Name, kind: FileKind, ino: u64) -> &NameEntry {
        let known = self.position(&name);
        self.gone -= usize::from(known.is_some_and(|at| self.slots[at].is_gone()));
        let at = known.unwrap_or_else(|| self.push(name));
        self.merged.remove(&self.cookies.of(at));
        let entry = &mut self.slots[at];
        self.visible += usize::from(!entry.visible);
        entry.visible = true;
        entry.whiteout = None;
        entry.layer = LayerIndex::UPPER;
        entry.kind = kind;
        entry.ino = ino;
        *entry.node.get_mut() = 0;
        entry
    }

    /// Notes that the object with this name has got the inode `ino` in the upper layer, by a copy-up or a link.
    pub fn lift(&mut self, name: &OsStr, ino: u64) {
        let Some(at) = self.position(name) else { return };
        let cookie = self.cookies.of(at);
        let entry = &mut self.slots[at];
        if entry.kind.is_dir() && !entry.layer.is_upper() {
            self.merged.entry(cookie).or_default().insert(0, entry.layer);
        }
        entry.layer = LayerIndex::UPPER;
        entry.ino = ino;
    }

    /// Notes that the name does not exist any more; where lower layers have it, the upper layer has a
    /// whiteout of the form `whiteout`.
    pub fn remove(&mut self, name: &OsStr, whiteout: Form) {
        let Some(at) = self.position(name) else { return };
        self.merged.remove(&self.cookies.of(at));
        let entry = &mut self.slots[at];
        self.visible -= usize::from(entry.visible);
        self.gone += usize::from(!entry.below && !entry.is_gone());
        entry.visible = false;
        entry.whiteout = entry.below.then_some(whiteout);
        *entry.node.get_mut() = 0;
    }

    /// Notes that the upper layer has no whiteout of the name any more, in a directory that is opaque.
    pub fn remove_whiteout(&mut self, name: &OsStr) {
        let Some(at) = self.position(name) else { return };
        self.slots[at].whiteout = None;
        if !self.slots[at].visible {
            self.erase(at);
        }
    }

    /// Notes that the directory is opaque now: nothing in it covers anything below.
    pub fn detach_from_lower(&mut self) {
        self.merged.clear();
        for entry in &mut self.slots {
            self.gone += usize::from(!entry.visible && !entry.is_gone());
            entry.below = false;
            entry.whiteout = None;
        }
    }

    /// Adds what the next lower layer says; layers come top first.
    pub fn merge_lower(&mut self, layer: LayerIndex, listing: Listing) {
        for name in listing.whiteouts.into_keys() {
            let at = self.find_or_push(name);
            self.slots[at].closed = true;
        }
        let (before, listed) = (self.slots.len(), listing.entries.len());
        for found in listing.entries {
            let at = self.find_or_push(found.name);
            let entry = &mut self.slots[at];
            if entry.closed {
                continue;
            }
            if !entry.visible {
                entry.visible = true;
                entry.below = true;
                entry.layer = layer;
                entry.kind = found.kind;
                entry.ino = found.ino;
                self.visible += 1;
            } else if found.kind.is_dir() {
                self.merged.entry(self.cookies.of(at)).or_default().push(layer);
            }
            entry.closed |= !found.kind.is_dir();
        }
        if 2 * (self.slots.len() - before) < listed {
            self.own_names(before);
        }
    }

    /// Puts what the upper layer says over what the lower layers said.
    pub fn merge_upper(&mut self, listing: Listing) {
        for (name, form) in listing.whiteouts {
            let at = self.find_or_push(name);
            let entry = &mut self.slots[at];
            self.visible -= usize::from(entry.visible);
            entry.visible = false;
            entry.whiteout = Some(form);
        }
        for found in listing.entries {
            let at = self.find_or_push(found.name);
            let cookie = self.cookies.of(at);
            let entry = &mut self.slots[at];
            self.visible += usize::from(!entry.visible);
            if entry.visible && entry.kind.is_dir() && found.kind.is_dir() {
                self.merged.entry(cookie).or_default().insert(0, entry.layer);
            } else {
                self.merged.remove(&cookie);
            }
            entry.visible = true;
            entry.layer = LayerIndex::UPPER;
            entry.kind = found.kind;
            entry.ino = found.ino;
        }
    }

    /// Takes what `new` says, which was read later. Cookies stay, and so do the nodes of names that lead to the same
    /// object; returns the names that do not, with the nodes that they led to.
    pub fn update(&mut self, mut new: Self) -> Vec<(Name, NodeId)> {
        let mut lost = Vec::new();
        for entry in self.slots.iter_mut().filter(|entry| !entry.erased) {
            let same = new.visible(&entry.name).is_some_and(|found| entry.is_same_as(found));
            let node = entry.node.get_mut();
            if !same && *node != 0 {
                lost.push((entry.name.clone(), NodeId(std::mem::take(node))));
            }
            let was_gone = usize::from(entry.is_gone());
            if new.get(&entry.name).is_some() {
                self.gone -= was_gone;
                continue;
            }
            self.gone += 1 - was_gone;
            entry.visible = false;
            entry.below = false;
            entry.whiteout = None;
        }
        self.visible = new.visible;
        self.merged.clear();
        let found = std::mem::take(&mut new.slots).into_iter().enumerate();
        for (place, found) in found.filter(|(_, entry)| !entry.is_gone()) {
            let at = self.find_or_push(found.name.clone());
            if let Some(layers) = new.merged.remove(&new.cookies.of(place)) {
                self.merged.insert(self.cookies.of(at), layers);
            }
            let entry = &mut self.slots[at];
            let node = AtomicU64::new(*entry.node.get_mut());
            *entry = NameEntry { node, name: entry.name.clone(), ..found };
        }
        lost
    }

    /// The nodes of the directories in it.
    pub fn known_dirs(&self) -> impl Iterator<Item = NodeId> {
        let dirs = self.slots.iter().filter(|entry| entry.kind.is_dir());
        dirs.map(|entry| NodeId(entry.node.load(Ordering::Relaxed))).filter(|id| id.0 != 0)
    }

    /// Ends the building: forgets names that are only remembered as deleted in lower layers.
    pub fn finish(&mut self) {
        for at in 0..self.slots.len() {
            if self.slots[at].is_gone() {
                self.erase(at);
            }
        }
        self.slots.shrink_to_fit();
    }

    /// Gives the names from the slot `first` on memory of their own: few of those that they were read with stay.
    fn own_names(&mut self, first: usize) {
        let mut names = Names::default();
        for entry in &self.slots[first..] {
            names.push(&entry.name);
        }
        for (entry, name) in self.slots[first..].iter_mut().zip(names.share()) {
            entry.name = name;
        }
    }

    fn hash(&self, name: &OsStr) -> u64 {
        self.hasher.hash_one(name)
    }

    fn position(&self, name: &OsStr) -> Option<usize> {
        let same = |at: &u32| *self.slots[*at as usize].name == *name;
        self.index.find(self.hash(name), same).map(|at| *at as usize)
    }

    fn find_or_push(&mut self, name: Name) -> usize {
        self.position(&name).unwrap_or_else(|| self.push(name))
    }

    fn push(&mut self, name: Name) -> usize {
        self.compact();
        let hash = self.hash(&name);
        let at = self.slots.len();
        self.cookies.give();
        self.slots.push(NameEntry::new(name));
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, at as u32, |at| hash_of(slots, hasher, *at));
        at
    }

    fn erase(&mut self, at: usize) {
        let hash = self.hash(&self.slots[at].name);
        if let Ok(found) = self.index.find_entry(hash, |other| *other as usize == at) {
            found.remove();
        }
        self.merged.remove(&self.cookies.of(at));
        self.slots[at].erased = true;
    }

    /// Closes up when of most slots the name is gone. Cookies stay, and with them every reader's place.
    fn compact(&mut self) {
        if self.slots.len() < 64 || self.slots.len() < 2 * (self.index.len() - self.gone) {
            return;
        }
        let kept =
            |(at, entry): (usize, &NameEntry)| (!entry.is_gone()).then(|| self.cookies.of(at));
        self.cookies.listed = Some(self.slots.iter().enumerate().filter_map(kept).collect());
        self.slots.retain(|entry| !entry.is_gone());
        self.gone = 0;
        self.index.clear();
        let (slots, hasher) = (&self.slots, &self.hasher);
        for at in 0..slots.len() as u32 {
            let hash = hash_of(slots, hasher, at);
            self.index.insert_unique(hash, at, |at| hash_of(slots, hasher, *at));
        }
    }
}

fn hash_of(slots: &[NameEntry], hasher: &DefaultHashBuilder, at: u32) -> u64 {
    hasher.hash_one(&*slots[at as usize].name)
}

impl NameEntry {
    fn new(name: Name) -> Self {
        Self {
            name,
            ino: 0,
            node: AtomicU64::new(0),
            layer: LayerIndex::UPPER,
            kind: FileKind::Regular,
            visible: false,
            below: false,
            whiteout: None,
            closed: false,
            erased: false,
        }
    }

    /// Whether both lead to the same object.
    fn is_same_as(&self, other: &Self) -> bool {
        let of_upper = self.layer.is_upper() || self.ino == other.ino;
        of_upper && (self.layer, self.kind) == (other.layer, other.kind)
    }

    /// Whether it is not there in any layer, nor as a whiteout.
    fn is_gone(&self) -> bool {
        self.erased || (!self.visible && !self.below && self.whiteout.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::listing::Listed;

    fn name(text: &str) -> Name {
        Name::from(OsStr::new(text))
    }

    fn listing(entries: &[(&str, FileKind)], whiteouts: &[&str]) -> Listing {
        let entries = entries
            .iter()
            .map(|(text, kind)| Listed { name: name(text), kind: *kind, ino: 7 })
            .collect();
        Listing {
            entries,
            whiteouts: whiteouts.iter().map(|w| (name(w), Form::CharDevice)).collect(),
            opaque: false,
        }
    }

    use FileKind::{Directory, Regular};

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<NameEntry>(), 40);
    }

    #[test]
    fn layers_merge_top_down() {
        let mut table = NameTable::default();
        table.merge_lower(LayerIndex(1), listing(&[("d", Directory), ("f", Regular)], &["w"]));
        table.merge_lower(LayerIndex(2), listing(&[("d", Directory), ("w", Regular)], &["x"]));
        table.merge_lower(LayerIndex(3), listing(&[("d", Regular), ("x", Regular)], &[]));
        table.merge_lower(LayerIndex(4), listing(&[("d", Directory), ("y", Regular)], &[]));
        table.merge_upper(listing(&[("d", Directory), ("f", Regular)], &["y", "z"]));
        table.finish();
        let d = table.visible(OsStr::new("d")).unwrap();
        assert_eq!((d.layer, d.below), (LayerIndex::UPPER, true));
        assert_eq!(table.merged(OsStr::new("d")), [LayerIndex(1), LayerIndex(2)]);
        assert!(table.visible(OsStr::new("f")).unwrap().below);
        for absent in ["w", "x", "y", "z"] {
            assert!(table.visible(OsStr::new(absent)).is_none(), "{absent}");
        }
        assert!(table.get(OsStr::new("w")).is_none());
        let mut whiteouts: Vec<_> = table.whiteouts().map(|(name, _)| name).collect();
        whiteouts.sort();
        assert_eq!(whiteouts, ["y", "z"]);
    }

    #[test]
    fn a_name_made_again_does_not_come_twice_to_one_who_has_read_it() {
        let mut table = NameTable::default();
        for text in ["a", "b"] {
            table.insert_upper(name(text), Regular, 1);
        }
        let (read, _) = table.read(0).last().unwrap();
        table.remove(OsStr::new("a"), Form::CharDevice);
        table.remove(OsStr::new("a"), Form::CharDevice);
        assert!(table.get(OsStr::new("a")).is_none());
        assert_eq!(table.read(0).count(), 1);
        table.insert_upper(name("a"), Directory, 2);
        // Somebody else begins to read.
        assert_eq!(table.read(0).count(), 2);
        assert_eq!(table.read(read).count(), 0);
    }

    #[test]
    fn names_that_are_gone_are_forgotten_when_they_are_most() {
        let mut table = NameTable::default();
        for round in 0..10 {
            for n in 0..1000 {
                table.insert_upper(name(&format!("{round}-{n}")), Regular, n);
                table.remove(OsStr::new(&format!("{round}-{n}")), Form::CharDevice);
            }
            assert!(table.is_empty() && table.slots.len() <= 64, "{}", table.slots.len());
        }
    }

    #[test]
    fn reading_from_any_cookie_is_stable_while_names_go_and_come() {
        let mut table = NameTable::default();
        for n in 0..1000 {
            table.insert_upper(name(&n.to_string()), Regular, n);
        }
        let half: Vec<_> = table.after(0).take(500).map(|(c, e)| (e.name.clone(), c)).collect();
        for (name, _) in &half {
            table.remove(name, Form::CharDevice);
        }
        for n in 1000..3000 {
            table.insert_upper(name(&n.to_string()), Regular, n);
        }
        let rest: Vec<_> = table.after(half[499].1).map(|(_, e)| e.name.clone()).collect();
        assert_eq!(rest.len(), 2500);
        assert_eq!(&*rest[0], "500");
        for cookie in [0, half[3].1, half[499].1] {
            assert_eq!(table.after(cookie).count(), 2500);
        }
        for n in 0..3000 {
            let n = n.to_string();
            assert_eq!(table.visible(OsStr::new(&n)).is_some(), n.parse::<u64>().unwrap() >= 500);
        }
    }
}
