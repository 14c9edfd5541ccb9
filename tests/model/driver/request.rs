//! Operations as the subject understands them: nodes instead of paths.

use super::Driver;
use crate::cases::layer::Leaf;
use crate::cases::model::Outcome;
use crate::cases::op::{Change, Op, Target};
use crate::cases::text::Text;
use crate::subject::{Answer, Attr, Changes, Entry, Node, Subject};

#[derive(Default)]
pub(super) struct Request {
    pub targets: Vec<Node>,
    pub places: Vec<(Node, Text)>,
}

#[derive(Debug)]
pub(super) enum Reply {
    Plain(Outcome),
    Object(Option<Entry>),
    Attr(Attr),
}

impl<S: Subject> Driver<S> {
    /// The nodes that `op` names, looked up as the kernel would.
    pub(super) fn request(&mut self, op: &Op) -> Result<Request, String> {
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
            Op::MakeUnnamed(..) | Op::MapWrite(..) | Op::Seal => unreachable!("not a request"),
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

    pub(super) fn call(&self, op: &Op, request: &Request) -> Answer<Reply> {
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
                let new = crate::cases::op::New { mode: kind | new.mode, ..*new };
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
            Op::MakeUnnamed(..) | Op::MapWrite(..) | Op::Seal => unreachable!("not a request"),
        }
    }
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
