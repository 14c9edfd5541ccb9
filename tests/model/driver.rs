//! Carries operations out on the model and on a subject, and compares each answer. Keeps node
//! references as the kernel does: from the first lookup until forgotten.

use std::collections::{BTreeSet, HashMap};

use rustix::io::Errno;

use crate::case::Redirect;
use crate::layer::Leaf;
use crate::model::{Ino, Kind, Outcome, ROOT, Stamp, Tree};
use crate::op::{Change, Op, Target, Whence};
use crate::subject::{Answer, Attr, Changes, DirEntry, Entry, Node, Subject};
use crate::text::Text;

/// A difference between the model and the subject, in words.
pub type Check = Result<(), String>;

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

/// A directory being read while it changes.
struct PartialRead {
    dir: Ino,
    cookie: u64,
    seen: Vec<Text>,
    /// Entries there from the beginning until now, and all that were there at any time.
    always: BTreeSet<(Text, Ino)>,
    ever: BTreeSet<Text>,
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

    /// The nodes that `op` names, looked up as the kernel would.
    fn request(&mut self, op: &Op) -> Result<Request, String> {
        let mut request = Request::default();
        let (targets, places): (Vec<&Target>, Vec<&Text>) = match op {
            Op::Lookup(path) | Op::Unlink(path) | Op::RemoveDir(path) => (vec![], vec![path]),
            Op::Create(path, _) | Op::MakeDir(path, _) => (vec![], vec![path]),
            Op::MakeNode(path, ..) | Op::MakeSymlink(path, ..) => (vec![], vec![path]),
            Op::Hold(path, _) => (vec![], vec![path]),
            Op::Link(target, path) => (vec![target], vec![path]),
            Op::Rename(from, to, _) => (vec![], vec![from, to]),
            Op::CopyRange(from, _, to, ..) => (vec![from, to], vec![]),
            Op::Write(target, ..) | Op::Read(target, ..) | Op::SetAttr(target, _) => {
                (vec![target], vec![])
            }
            Op::Allocate(target, ..) | Op::Seek(target, ..) | Op::Sync(target) => {
                (vec![target], vec![])
            }
            Op::Stat(target) | Op::ReadLink(target) | Op::ListXattr(target) => {
                (vec![target], vec![])
            }
            Op::SetXattr(target, ..) | Op::GetXattr(target, _) | Op::RemoveXattr(target, _) => {
                (vec![target], vec![])
            }
            Op::ReadDir(_)
            | Op::ReadSome(..)
            | Op::ReadRest
            | Op::Release(_)
            | Op::Forget(_)
            | Op::Remount
            | Op::RemountTo(_) => (vec![], vec![]),
        };
        for target in targets {
            request.targets.push(self.node(target)?);
        }
        for path in places {
            // The root has no parent: only `Hold` can name it.
            if let Some((parent, name)) = path.split_last() {
                request.places.push((self.walk(&parent)?, name));
            }
        }
        Ok(request)
    }

    fn call(&self, op: &Op, request: &Request) -> Answer<Reply> {
        let subject = &self.subject;
        let target = |at: usize| request.targets[at];
        let place = |at: usize| (request.places[at].0, request.places[at].1.as_os());
        let entry = |made: Answer<Entry>| made.map(|entry| Reply::Object(Some(entry)));
        let done = |result: Answer<()>| result.map(|()| Reply::Plain(Outcome::Done));
        let count = |result: Answer<usize>| result.map(|n| Reply::Plain(Outcome::Count(n)));
        let bytes =
            |result: Answer<Vec<u8>>| result.map(|it| Reply::Plain(Outcome::Bytes(Text(it))));
        match op {
            Op::Hold(path, _) if path.0.is_empty() => subject.attr(subject.root()).map(Reply::Attr),
            Op::Lookup(_) | Op::Hold(..) => {
                subject.lookup(place(0).0, place(0).1).map(Reply::Object)
            }
            Op::Create(_, new) => entry(subject.create(place(0).0, place(0).1, *new)),
            Op::MakeDir(_, new) => entry(subject.make_dir(place(0).0, place(0).1, *new)),
            Op::MakeNode(_, leaf, new) => {
                let (kind, rdev) = node_type(leaf);
                let new = crate::op::New { mode: kind | new.mode, ..*new };
                entry(subject.make_node(place(0).0, place(0).1, new, rdev))
            }
            Op::MakeSymlink(_, to, new) => {
                entry(subject.symlink(place(0).0, place(0).1, &to.0, *new))
            }
            Op::Link(..) => entry(subject.link(target(0), place(0).0, place(0).1)),
            Op::Unlink(_) => done(subject.unlink(place(0).0, place(0).1)),
            Op::RemoveDir(_) => done(subject.remove_dir(place(0).0, place(0).1)),
            Op::Rename(_, _, how) => done(subject.rename(place(0), place(1), *how)),
            Op::Write(_, at, data, kill) => {
                count(subject.write(target(0), *at, &data.bytes(), *kill))
            }
            Op::Read(_, at, len) => bytes(subject.read(target(0), *at, *len)),
            Op::SetAttr(_, change) => {
                subject.set_attr(target(0), &changes(change)).map(Reply::Attr)
            }
            Op::Allocate(_, how, at, len) => done(subject.allocate(target(0), *how, *at, *len)),
            Op::CopyRange(_, from_at, _, to_at, len) => {
                count(subject.copy_range((target(0), *from_at), (target(1), *to_at), *len))
            }
            Op::Sync(_) => done(subject.sync(target(0))),
            Op::Stat(_) => subject.attr(target(0)).map(Reply::Attr),
            Op::ReadLink(_) => bytes(subject.read_link(target(0))),
            Op::SetXattr(_, name, value, set) => {
                done(subject.set_xattr(target(0), name.as_os(), &value.0, *set))
            }
            Op::GetXattr(_, name) => bytes(subject.get_xattr(target(0), name.as_os())),
            Op::ListXattr(_) => subject
                .list_xattr(target(0))
                .map(|names| Reply::Plain(Outcome::Names(names.into_iter().map(Text).collect()))),
            Op::RemoveXattr(_, name) => done(subject.remove_xattr(target(0), name.as_os())),
            Op::Release(_) => Ok(Reply::Plain(Outcome::Done)),
            Op::Seek(..)
            | Op::ReadDir(_)
            | Op::ReadSome(..)
            | Op::ReadRest
            | Op::Forget(_)
            | Op::Remount
            | Op::RemountTo(_) => unreachable!("has its own check"),
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

    fn read_dir_from_every_cookie(&mut self, path: &Text) -> Check {
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

    fn read_some(&mut self, path: &Text, count: usize) -> Check {
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

    fn watch_partial_read(&mut self) {
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
    fn read_rest(&mut self) -> Check {
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

#[derive(Default)]
struct Request {
    targets: Vec<Node>,
    places: Vec<(Node, Text)>,
}

#[derive(Debug)]
enum Reply {
    Plain(Outcome),
    Object(Option<Entry>),
    Attr(Attr),
}

fn changes(change: &Change) -> Changes {
    let caller = rustix::process::geteuid().as_raw();
    let none = Changes { caller, ..Changes::default() };
    match change {
        Change::Permissions(mode) => Changes { mode: Some(mode.0), ..none },
        Change::Owner(uid, gid) => Changes { uid: *uid, gid: *gid, ..none },
        Change::Times(atime, mtime) => Changes { atime: *atime, mtime: *mtime, ..none },
        Change::Size(size, caller) => Changes { size: Some(*size), caller: *caller, ..none },
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

/// Type bits and device number for `mknod`.
fn node_type(leaf: &Leaf) -> (u32, (u32, u32)) {
    match leaf {
        Leaf::Fifo => (0o010_000, (0, 0)),
        Leaf::Socket => (0o140_000, (0, 0)),
        Leaf::Char(major, minor) => (0o020_000, (*major, *minor)),
        Leaf::Block(major, minor) => (0o060_000, (*major, *minor)),
        Leaf::File(_) | Leaf::Metacopy(..) | Leaf::Symlink(_) => unreachable!("admitted"),
    }
}

fn now() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64
}
