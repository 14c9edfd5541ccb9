//! The names in one directory of the union, with all layers and marks already resolved.
//!
//! A lookup costs one hash; an absent name costs no system call, however many layers there are. Every
//! name has a cookie that it keeps as long as it exists, and cookies only grow, so that reading the
//! directory piece by piece is stable while it changes: no name comes twice, and none that stays is
//! missed. A name that is made again soon gets its old cookie back: else a reader who has been past it
//! could come upon it once more. A reader who makes a name for each that he reads comes to an end all the same: names that are
//! younger than the latest beginning of a reading are left for the next one.

use std::ffi::OsStr;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::layer::listing::Listing;
use crate::layer::whiteout::Form;
use crate::layer::{LayerIndex, Name};
use crate::sys::FileKind;

/// The cookie of the first name; smaller ones are for `.` and `..`.
pub(super) const FIRST_COOKIE: u64 = 3;

/// One name.
pub(super) struct NameEntry {
    pub name: Name,
    /// The inode number in `layer`.
    pub ino: u64,
    /// The id of the node that was last known by this name; 0 for none.
    pub node: AtomicU64,
    /// Whether the name exists in the union.
    pub visible: bool,
    /// Whether it would exist without the upper layer, so that deleting it needs a whiteout.
    pub below: bool,
    /// The whiteout that the upper layer has of that name.
    pub whiteout: Option<Form>,
    /// Whether the layers below those seen so far have no say any more; used while building.
    closed: bool,
    /// The topmost layer that has the object.
    pub layer: LayerIndex,
    pub kind: FileKind,
    /// Of a directory: the lower layers below `layer` that merge with it, top first.
    pub merged: Vec<LayerIndex>,
}

/// Where a name is, or was.
struct Slot {
    cookie: u64,
    entry: Option<NameEntry>,
}

#[derive(Default)]
pub(super) struct NameTable {
    /// In the order of their cookies.
    slots: Vec<Slot>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    next_cookie: u64,
    /// The first cookie that was free when somebody last began to read; 0 if nobody has.
    read_end: AtomicU64,
    visible: usize,
    /// How many slots hold a name that is gone, only for its cookie.
    gone: usize,
}

impl NameTable {
    pub fn get(&self, name: &OsStr) -> Option<&NameEntry> {
        let at = self.position(name)?;
        self.slots[at].entry.as_ref().filter(|entry| !entry.is_gone())
    }

    /// The entry of a name that exists in the union.
    pub fn visible(&self, name: &OsStr) -> Option<&NameEntry> {
        self.get(name).filter(|entry| entry.visible)
    }

    pub fn get_mut(&mut self, name: &OsStr) -> Option<&mut NameEntry> {
        let at = self.position(name)?;
        self.slots[at].entry.as_mut().filter(|entry| !entry.is_gone())
    }

    /// Whether no name exists.
    pub fn is_empty(&self) -> bool {
        self.visible == 0
    }

    /// The entries that exist and come after `cookie`, in order, each with its cookie.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &NameEntry)> {
        let start = self.slots.partition_point(|slot| slot.cookie <= cookie);
        self.slots[start..]
            .iter()
            .filter_map(|slot| slot.entry.as_ref().map(|entry| (slot.cookie, entry)))
            .filter(|(_, entry)| entry.visible)
    }

    /// What a reader of the directory gets from behind `cookie`, 0 at the beginning. All readers share one
    /// end, which moves on when one of them begins: there is no message from which a single one could be known.
    pub fn read(&self, cookie: u64) -> impl Iterator<Item = (u64, &NameEntry)> {
        if cookie == 0 {
            self.read_end.store(FIRST_COOKIE + self.next_cookie, Ordering::Relaxed);
        }
        let end = match self.read_end.load(Ordering::Relaxed) {
            0 => u64::MAX,
            end => end,
        };
        self.after(cookie).take_while(move |(cookie, _)| *cookie < end)
    }

    fn entries(&self) -> impl Iterator<Item = &NameEntry> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref())
    }

    /// The names of which the upper layer has a whiteout.
    pub fn whiteouts(&self) -> impl Iterator<Item = (&OsStr, Form)> {
        self.entries().filter_map(|entry| entry.whiteout.map(|form| (&*entry.name, form)))
    }

    /// Notes that the upper layer now has an object of that name, which exists from now on.
    pub fn insert_upper(&mut self, name: Name, kind: FileKind, ino: u64) -> &NameEntry {
        let at = match self.position(&name) {
            Some(at) => {
                self.gone -=
                    usize::from(self.slots[at].entry.as_ref().is_some_and(|e| e.is_gone()));
                at
            }
            None => self.push(name),
        };
        // `push` and `position` only ever lead to an occupied slot.
        let nameless = || NameEntry::new(Name::from(OsStr::new("")));
        let entry = self.slots[at].entry.get_or_insert_with(nameless);
        self.visible += usize::from(!entry.visible);
        entry.visible = true;
        entry.whiteout = None;
        entry.layer = LayerIndex::UPPER;
        entry.kind = kind;
        entry.ino = ino;
        entry.merged = Vec::new();
        *entry.node.get_mut() = 0;
        entry
    }

    /// Notes that the name does not exist any more; where lower layers have it, the upper layer has a
    /// whiteout of the form `whiteout`.
    pub fn remove(&mut self, name: &OsStr, whiteout: Form) {
        let Some(at) = self.position(name) else { return };
        let Some(entry) = &mut self.slots[at].entry else { return };
        self.visible -= usize::from(entry.visible);
        self.gone += usize::from(!entry.below && !entry.is_gone());
        entry.visible = false;
        entry.whiteout = entry.below.then_some(whiteout);
        entry.merged = Vec::new();
        *entry.node.get_mut() = 0;
    }

    /// Notes that the upper layer has no whiteout of the name any more, in a directory that is opaque.
    pub fn remove_whiteout(&mut self, name: &OsStr) {
        let Some(at) = self.position(name) else { return };
        let Some(entry) = &mut self.slots[at].entry else { return };
        entry.whiteout = None;
        if !entry.visible {
            self.erase(at);
        }
    }

    /// Notes that the directory is opaque now: nothing in it covers anything below.
    pub fn detach_from_lower(&mut self) {
        for entry in self.slots.iter_mut().filter_map(|slot| slot.entry.as_mut()) {
            self.gone += usize::from(!entry.visible && !entry.is_gone());
            entry.below = false;
            entry.whiteout = None;
            entry.merged = Vec::new();
        }
    }

    /// Adds what the next lower layer says; layers come top first.
    pub fn merge_lower(&mut self, layer: LayerIndex, listing: Listing) {
        for name in listing.whiteouts.keys() {
            let at = self.position(name).unwrap_or_else(|| self.push(name.clone()));
            if let Some(entry) = &mut self.slots[at].entry {
                entry.closed = true;
            }
        }
        for found in listing.entries {
            let known = self.position(&found.name);
            let at = known.unwrap_or_else(|| self.push(found.name));
            let Some(entry) = &mut self.slots[at].entry else { continue };
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
                entry.merged.push(layer);
            }
            entry.closed |= !found.kind.is_dir();
        }
    }

    /// Puts what the upper layer says over what the lower layers said.
    pub fn merge_upper(&mut self, listing: Listing) {
        for (name, form) in &listing.whiteouts {
            let at = self.position(name).unwrap_or_else(|| self.push(name.clone()));
            if let Some(entry) = &mut self.slots[at].entry {
                self.visible -= usize::from(entry.visible);
                entry.visible = false;
                entry.whiteout = Some(*form);
            }
        }
        for found in listing.entries {
            let at = self.position(&found.name).unwrap_or_else(|| self.push(found.name));
            let Some(entry) = &mut self.slots[at].entry else { continue };
            self.visible += usize::from(!entry.visible);
            if entry.visible && entry.kind.is_dir() && found.kind.is_dir() {
                entry.merged.insert(0, entry.layer);
            } else {
                entry.merged = Vec::new();
            }
            entry.visible = true;
            entry.layer = LayerIndex::UPPER;
            entry.kind = found.kind;
            entry.ino = found.ino;
        }
    }

    /// Ends the building: forgets names that are only remembered as deleted in lower layers.
    pub fn finish(&mut self) {
        for at in 0..self.slots.len() {
            if self.slots[at].entry.as_ref().is_some_and(NameEntry::is_gone) {
                self.erase(at);
            }
        }
        self.slots.shrink_to_fit();
    }

    fn hash(&self, name: &OsStr) -> u64 {
        self.hasher.hash_one(name)
    }

    fn position(&self, name: &OsStr) -> Option<usize> {
        let same = |at: &u32| {
            self.slots[*at as usize].entry.as_ref().is_some_and(|entry| &*entry.name == name)
        };
        self.index.find(self.hash(name), same).map(|at| *at as usize)
    }

    fn push(&mut self, name: Name) -> usize {
        self.compact();
        let hash = self.hash(&name);
        let at = self.slots.len();
        let cookie = FIRST_COOKIE + self.next_cookie;
        self.next_cookie += 1;
        self.slots.push(Slot { cookie, entry: Some(NameEntry::new(name)) });
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, at as u32, |at| hash_of(slots, hasher, *at));
        at
    }

    fn erase(&mut self, at: usize) {
        let Some(entry) = &self.slots[at].entry else { return };
        let hash = self.hash(&entry.name);
        if let Ok(found) = self.index.find_entry(hash, |other| *other as usize == at) {
            found.remove();
        }
        self.slots[at].entry = None;
    }

    /// Closes up when of most slots the name is gone. Cookies stay, and with them every reader's place.
    fn compact(&mut self) {
        if self.slots.len() < 64 || self.slots.len() < 2 * (self.index.len() - self.gone) {
            return;
        }
        self.slots.retain(|slot| slot.entry.as_ref().is_some_and(|entry| !entry.is_gone()));
        self.gone = 0;
        self.index.clear();
        let (slots, hasher) = (&self.slots, &self.hasher);
        for at in 0..slots.len() as u32 {
            let hash = hash_of(slots, hasher, at);
            self.index.insert_unique(hash, at, |at| hash_of(slots, hasher, *at));
        }
    }
}

fn hash_of(slots: &[Slot], hasher: &DefaultHashBuilder, at: u32) -> u64 {
    slots[at as usize].entry.as_ref().map_or(0, |entry| hasher.hash_one(&*entry.name))
}

impl NameEntry {
    fn new(name: Name) -> Self {
        Self {
            name,
            ino: 0,
            node: AtomicU64::new(0),
            visible: false,
            below: false,
            whiteout: None,
            closed: false,
            layer: LayerIndex::UPPER,
            kind: FileKind::Regular,
            merged: Vec::new(),
        }
    }

    /// Whether it is not there in any layer, nor as a whiteout.
    fn is_gone(&self) -> bool {
        !self.visible && !self.below && self.whiteout.is_none()
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
        assert_eq!(d.merged, [LayerIndex(1), LayerIndex(2)]);
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
