//! Carries operations out on the model and on a subject, and compares each answer. Keeps node
//! references as the kernel does: from the first lookup until forgotten.

use std::collections::{BTreeSet, HashMap};

use rustix::io::Errno;

use crate::cases::case::Check;
use crate::cases::model::{Ino, Kind, Outcome, ROOT, Stamp, Tree};
use crate::cases::op::Redirect;
use crate::cases::op::{Change, Op, Target, Whence};
use crate::cases::text::Text;
use crate::subject::{Attr, Entry, Node, Subject};

mod read_dir;
mod request;

use read_dir::PartialRead;
use request::Reply;

pub struct Driver<S> {
    pub subject: S,
    pub model: Tree,
    /// Referenced nodes of model inodes, with the number of references.
    pub nodes: HashMap<Ino, (Node, u64)>,
    /// The inode number each model inode was first seen with.
    pub numbers: HashMap<Ino, u64>,
    /// Directories that an open object in a slot keeps referenced, as dentries do.
    pins: HashMap<u8, Vec<Ino>>,
    partial: Option<PartialRead>,
    /// Seconds since 1970 at the start.
    started: i64,
}

impl<S: Subject> Driver<S> {
    pub fn new(subject: S, model: Tree) -> Driver<S> {
        let nodes = HashMap::from([(ROOT, (subject.root(), 1))]);
        Driver {
            subject,
            model,
            nodes,
            numbers: HashMap::new(),
            pins: HashMap::new(),
            partial: None,
            started: now(),
        }
    }

    /// Carries `op` out on both sides; nothing if the kernel would never pass it on.
    pub fn step(&mut self, op: &Op) -> Check {
        if !self.model.admits(op) {
            return Ok(());
        }
        match op {
            Op::Seek(target, at, whence) => self.seek(target, *at, *whence),
            Op::ReadDir(path) => self.read_dir_from_every_cookie(path),
            Op::ReadSome(path, count) => self.read_some(path, *count),
            Op::ReadRest => self.read_rest(),
            Op::Forget(path) => {
                self.forget_below(path);
                Ok(())
            }
            Op::Remount => self.remount(None),
            Op::RemountTo(redirect) => self.remount(Some(*redirect)),
            _ => self.answer(op),
        }?;
        self.after(op);
        Ok(())
    }

    fn answer(&mut self, op: &Op) -> Check {
        let request = self.request(op)?;
        let expected = self.model.apply(op);
        let actual = self.call(op, &request);
        match (expected, actual) {
            (Ok(Outcome::Object(Some(ino))), Ok(Reply::Object(Some(entry)))) => {
                self.meet(ino, &entry, true)?;
                self.check_attr(ino, &entry.attr)
            }
            (Ok(Outcome::Object(Some(ino))), Ok(Reply::Attr(attr))) => {
                self.check_number(ino, attr.ino)?;
                self.check_attr(ino, &attr)?;
                self.check_atime(op, &attr)
            }
            (Ok(Outcome::Object(None)), Ok(Reply::Object(None))) => Ok(()),
            (Ok(expected), Ok(Reply::Plain(actual))) if expected == actual => Ok(()),
            (Err(expected), Err(actual)) if expected == actual => Ok(()),
            (expected, actual) => Err(format!("expected {expected:?}, got {actual:?}")),
        }
    }

    /// What the kernel does after an operation: forget what lost its last name and is not open.
    fn after(&mut self, op: &Op) {
        if let Op::Hold(_, slot) = op {
            self.pins.insert(*slot, Vec::new());
        }
        self.pins.retain(|slot, _| self.model.held.contains_key(slot));
        let paths = self.model.paths();
        for (slot, pins) in &mut self.pins {
            let ino = self.model.held[slot];
            if let Some((path, _)) = paths.iter().find(|(_, it)| *it == ino) {
                *pins = self.model.ancestors(path);
            }
        }
        let live: BTreeSet<Ino> = paths.iter().map(|(_, ino)| *ino).collect();
        self.forget_unpinned(|ino| !live.contains(&ino));
        self.watch_partial_read();
    }

    fn forget_unpinned(&mut self, mut chosen: impl FnMut(Ino) -> bool) {
        let kept: BTreeSet<Ino> =
            self.model.held.values().chain(self.pins.values().flatten()).copied().collect();
        let subject = &self.subject;
        let numbers = &mut self.numbers;
        self.nodes.retain(|&ino, &mut (node, count)| {
            let keep = ino == ROOT || kept.contains(&ino) || !chosen(ino);
            if !keep {
                subject.forget(node, count);
            }
            keep
        });
        // A number may be used again once its inode is gone for good.
        let live: BTreeSet<Ino> = self.model.paths().iter().map(|(_, ino)| *ino).collect();
        numbers.retain(|ino, _| live.contains(ino) || self.nodes.contains_key(ino));
    }

    fn forget_below(&mut self, path: &Text) {
        let paths = self.model.paths();
        let below = paths.into_iter().filter(|(it, _)| it.is_within(path));
        let below: BTreeSet<Ino> = below.map(|(_, ino)| ino).collect();
        self.forget_unpinned(|ino| below.contains(&ino));
    }

    /// Gives every reference back: nothing but the root may stay in memory.
    pub fn forget_everything(&mut self) -> Check {
        self.model.held.clear();
        self.pins.clear();
        self.partial = None;
        self.forget_unpinned(|_| true);
        match self.subject.node_count() {
            1 => Ok(()),
            left => Err(format!("{left} nodes are left after all were forgotten")),
        }
    }

    fn remount(&mut self, redirect: Option<Redirect>) -> Check {
        self.partial = None;
        self.pins.clear();
        self.model.held.clear();
        self.model.rules.redirect = redirect.or(self.model.rules.redirect);
        self.nodes.clear();
        self.subject.reopen(redirect)?;
        self.nodes.insert(ROOT, (self.subject.root(), 1));
        let live: BTreeSet<Ino> = self.model.paths().iter().map(|(_, ino)| *ino).collect();
        self.numbers.retain(|ino, _| live.contains(ino));
        Ok(())
    }

    /// The node of the object at `path`, from the nearest known directory on.
    pub fn walk(&mut self, path: &Text) -> Result<Node, String> {
        let mut node = self.subject.root();
        let mut so_far = Text::default();
        for name in path.components() {
            so_far = so_far.join(&name);
            let ino = self.model.resolve(&so_far).unwrap();
            node = match self.nodes.get(&ino) {
                Some((known, _)) => *known,
                None => match self.subject.lookup(node, name.as_os()) {
                    Ok(Some(entry)) => {
                        self.meet(ino, &entry, true)?;
                        entry.node
                    }
                    other => return Err(format!("lookup of {so_far:?} on the way: {other:?}")),
                },
            };
        }
        Ok(node)
    }

    fn node(&mut self, target: &Target) -> Result<Node, String> {
        match target {
            Target::At(path) => self.walk(path),
            Target::Held(slot) => Ok(self.nodes[&self.model.held[slot]].0),
        }
    }

    /// Takes note of an entry handed out for `ino`: always the same node while it is referenced,
    /// always the same inode number. Keeps the reference if told so, else gives it back.
    pub fn meet(&mut self, ino: Ino, entry: &Entry, keep: bool) -> Check {
        let known = self.nodes.get(&ino).map(|(node, _)| *node);
        if known.is_some_and(|node| node != entry.node) {
            return Err(format!("node {} while {known:?} is referenced", entry.node));
        }
        let other = self.nodes.iter().find(|(it, (node, _))| **it != ino && *node == entry.node);
        if let Some((other, _)) = other {
            return Err(format!("one node {} for two inodes, {ino} and {other}", entry.node));
        }
        if keep {
            self.nodes.entry(ino).or_insert((entry.node, 0)).1 += 1;
        } else {
            self.subject.forget(entry.node, 1);
        }
        self.check_number(ino, entry.attr.ino)
    }

    /// The inode number is unique and never changes.
    pub fn check_number(&mut self, ino: Ino, number: u64) -> Check {
        if let Some((other, _)) =
            self.numbers.iter().find(|(it, known)| **it != ino && **known == number)
        {
            return Err(format!("st_ino {number} belongs to two inodes, {ino} and {other}"));
        }
        match *self.numbers.entry(ino).or_insert(number) {
            known if known == number => Ok(()),
            known => Err(format!("st_ino was {known}, is {number}")),
        }
    }

    pub fn check_attr(&self, ino: Ino, attr: &Attr) -> Check {
        let inode = &self.model.inodes[ino];
        let (kind, size, rdev) = match &inode.kind {
            Kind::File(data) => (0o100_000, data.len(), (0, 0)),
            Kind::Dir(_) => (0o040_000, attr.size as usize, (0, 0)),
            Kind::Symlink(to) => (0o120_000, to.0.len(), (0, 0)),
            Kind::Fifo => (0o010_000, 0, (0, 0)),
            Kind::Socket => (0o140_000, 0, (0, 0)),
            Kind::Char(major, minor) => (0o020_000, 0, (*major, *minor)),
            Kind::Block(major, minor) => (0o060_000, 0, (*major, *minor)),
        };
        let links =
            if inode.is_dir() { attr.nlink } else { self.model.names_of(ino) + inode.hidden_links };
        let mtime_right = match inode.mtime {
            Stamp::Exact(sec, nsec) => attr.mtime == (sec, nsec),
            Stamp::Recent => (self.started - 1..=now() + 1).contains(&attr.mtime.0),
            Stamp::Any => true,
        };
        let expected = Attr {
            mode: kind | inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size: size as u64,
            nlink: links,
            rdev,
            ..*attr
        };
        if *attr != expected {
            return Err(expected.differences(attr));
        }
        if mtime_right {
            Ok(())
        } else {
            Err(format!("expected modification time {:?}, got {:?}", inode.mtime, attr.mtime))
        }
    }

    /// An access time just set is shown; later reads may change it.
    fn check_atime(&self, op: &Op, attr: &Attr) -> Check {
        match op {
            Op::SetAttr(_, Change::Times(Some(atime), _)) if attr.atime != *atime => {
                Err(format!("expected access time {atime:?}, got {:?}", attr.atime))
            }
            _ => Ok(()),
        }
    }

    /// Holes are the filesystem's choice: what it calls a hole must read as NULs.
    fn seek(&mut self, target: &Target, at: u64, whence: Whence) -> Check {
        let node = self.node(target)?;
        let ino = self.model.target(target).unwrap();
        let Kind::File(data) = &self.model.inodes[ino].kind else { unreachable!("admitted") };
        let size = data.len() as u64;
        let right = match (self.subject.seek(node, at, whence), whence) {
            (Err(Errno::NXIO), _) if at >= size => true,
            (Err(Errno::NXIO), Whence::Data) => data[at as usize..].iter().all(|&b| b == 0),
            (Ok(found), Whence::Data) if at <= found && found < size => {
                data[at as usize..found as usize].iter().all(|&b| b == 0)
            }
            (Ok(found), Whence::Hole) => {
                at <= found
                    && at < size
                    && found <= size
                    && data[found as usize..].first().is_none_or(|&b| b == 0)
            }
            _ => false,
        };
        let answer = self.subject.seek(node, at, whence);
        if right { Ok(()) } else { Err(format!("impossible answer {answer:?} for size {size}")) }
    }
}

/// The type bits of `st_mode`.
pub fn type_bits(kind: &Kind) -> u32 {
    match kind {
        Kind::File(_) => 0o100_000,
        Kind::Dir(_) => 0o040_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Fifo => 0o010_000,
        Kind::Socket => 0o140_000,
        Kind::Char(..) => 0o020_000,
        Kind::Block(..) => 0o060_000,
    }
}

fn now() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64
}
