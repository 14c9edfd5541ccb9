//! Reading directories: from every cookie, and while they change.

use std::collections::BTreeSet;

use super::{Driver, type_bits};
use crate::cases::case::Check;
use crate::cases::model::Ino;
use crate::cases::text::Text;
use crate::subject::{DirEntry, Subject};

/// A directory being read while it changes.
pub(super) struct PartialRead {
    dir: Ino,
    cookie: u64,
    seen: Vec<Text>,
    /// Entries there from the beginning until now, and all that were there at any time.
    always: BTreeSet<(Text, Ino)>,
    ever: BTreeSet<Text>,
}

impl<S: Subject> Driver<S> {
    pub(super) fn read_dir_from_every_cookie(&mut self, path: &Text) -> Check {
        let node = self.walk(path)?;
        let read = |after| self.subject.read_dir(node, after, usize::MAX);
        let all = read(0).map_err(|errno| format!("{errno:?}"))?;
        for (at, entry) in all.iter().enumerate() {
            let rest = read(entry.cookie);
            if rest.as_deref() != Ok(&all[at + 1..]) {
                return Err(format!("all {all:?}, but after {entry:?}: {rest:?}"));
            }
        }
        let ino = self.model.resolve(path).unwrap();
        self.check_entries(ino, &all)
    }

    /// The names, types and inode numbers of one directory.
    pub fn check_entries(&mut self, dir: Ino, actual: &[DirEntry]) -> Check {
        let names: Vec<Text> = actual.iter().map(|entry| Text(entry.name.clone())).collect();
        let mut sorted = names.clone();
        sorted.sort();
        let expected: Vec<Text> = self.model.entries(dir).keys().cloned().collect();
        if sorted != expected {
            return Err(format!("expected entries {expected:?}, got {sorted:?}"));
        }
        for (entry, name) in actual.iter().zip(&names) {
            let ino = self.model.entries(dir)[name];
            let kind = type_bits(&self.model.inodes[ino].kind);
            if entry.kind != kind {
                return Err(format!("{name:?}: expected d_type {kind:#o}, got {:#o}", entry.kind));
            }
            self.check_number(ino, entry.ino).map_err(|why| format!("d_ino of {name:?}: {why}"))?;
        }
        Ok(())
    }

    pub(super) fn read_some(&mut self, path: &Text, count: usize) -> Check {
        let node = self.walk(path)?;
        let dir = self.model.resolve(path).unwrap();
        let some = self.subject.read_dir(node, 0, count).map_err(|errno| format!("{errno:?}"))?;
        let entries = self.model.entries(dir);
        self.partial = some.last().map(|last| PartialRead {
            dir,
            cookie: last.cookie,
            seen: some.iter().map(|entry| Text(entry.name.clone())).collect(),
            always: entries.iter().map(|(name, ino)| (name.clone(), *ino)).collect(),
            ever: entries.keys().cloned().collect(),
        });
        Ok(())
    }

    pub(super) fn watch_partial_read(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        if self.model.is_dead(partial.dir) || !self.nodes.contains_key(&partial.dir) {
            self.partial = None;
            return;
        }
        let entries = self.model.entries(partial.dir);
        partial.always.retain(|(name, ino)| entries.get(name) == Some(ino));
        partial.ever.extend(entries.keys().cloned());
    }

    /// What stayed in the directory all the time was listed exactly once.
    pub(super) fn read_rest(&mut self) -> Check {
        let Some(mut partial) = self.partial.take() else { return Ok(()) };
        let node = self.nodes[&partial.dir].0;
        let rest = self
            .subject
            .read_dir(node, partial.cookie, usize::MAX)
            .map_err(|errno| format!("{errno:?}"))?;
        partial.seen.extend(rest.into_iter().map(|entry| Text(entry.name)));
        let seen = &partial.seen;
        let times = |name: &Text| seen.iter().filter(|it| *it == name).count();
        if let Some((name, _)) = partial.always.iter().find(|(name, _)| times(name) != 1) {
            return Err(format!("{name:?} was listed {} times: {seen:?}", times(name)));
        }
        match seen.iter().find(|name| !partial.ever.contains(name)) {
            Some(name) => Err(format!("{name:?} was listed but never there: {seen:?}")),
            None => Ok(()),
        }
    }
}
