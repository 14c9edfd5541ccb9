//! A directory that is read while it changes: what stays in it is listed once, and nothing that was
//! never there.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, fstat, open};

use crate::cases::case::Check;
use crate::support::snapshot::printable;

/// The first entries were read; the rest is still to come.
pub struct Reading {
    plain: OwnedFd,
    plyfs: OwnedFd,
    position: i64,
    seen: Vec<String>,
    /// Entries of the plain directory that were there all the time, and those that ever were.
    always: BTreeSet<(String, u64)>,
    ever: BTreeSet<String>,
}

impl Reading {
    /// Reads `count` entries; `None` if there is no such directory.
    pub fn start(plain: &Path, plyfs: &Path, count: usize) -> Option<Reading> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let plain = open(plain, flags, Mode::empty()).ok()?;
        let plyfs = open(plyfs, flags, Mode::empty()).ok()?;
        let (seen, position) = read(&plyfs, 0, count);
        let always = entries(&plain);
        let ever = always.iter().map(|(name, _)| name.clone()).collect();
        Some(Reading { plain, plyfs, position, seen, always, ever })
    }

    /// Takes note of what an operation changed.
    pub fn watch(&mut self) {
        let now = entries(&self.plain);
        self.always.retain(|entry| now.contains(entry));
        self.ever.extend(now.into_iter().map(|(name, _)| name));
    }

    pub fn finish(mut self) -> Check {
        if fstat(&self.plain).unwrap().st_nlink == 0 {
            return Ok(());
        }
        self.seen.extend(read(&self.plyfs, self.position, usize::MAX).0);
        let seen = &self.seen;
        let times = |name: &String| seen.iter().filter(|it| *it == name).count();
        if let Some((name, _)) = self.always.iter().find(|(name, _)| times(name) != 1) {
            return Err(format!("{name} was listed {} times: {seen:?}", times(name)));
        }
        match seen.iter().find(|name| !self.ever.contains(*name)) {
            Some(name) => Err(format!("{name} was listed but never there: {seen:?}")),
            None => Ok(()),
        }
    }
}

/// At most `count` names from a position on, and the position after them.
fn read(dir: &OwnedFd, mut position: i64, count: usize) -> (Vec<String>, i64) {
    let mut names = Vec::new();
    let mut reader = Dir::read_from(dir).unwrap();
    reader.seek(position).unwrap();
    for entry in reader.map(Result::unwrap) {
        let name = entry.file_name().to_bytes();
        if names.len() == count {
            break;
        }
        position = entry.offset();
        if name != b"." && name != b".." {
            names.push(printable(name));
        }
    }
    (names, position)
}

fn entries(dir: &OwnedFd) -> BTreeSet<(String, u64)> {
    let entries = Dir::read_from(dir).unwrap().map(Result::unwrap);
    let named = entries.map(|entry| (printable(entry.file_name().to_bytes()), entry.ino()));
    named.filter(|(name, _)| name != "." && name != "..").collect()
}
