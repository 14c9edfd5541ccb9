//! Random operations that mostly hit something: each is chosen with the model's state in view.

use super::rand::Pick;
use super::*;
use crate::cases::acl::{ACCESS, DEFAULT};
use crate::cases::initial::initial_tree;
use crate::cases::layer::Mode;
use crate::cases::model::{CAPABILITY, Inode, Kind, Tree};
use crate::cases::op::Redirect;
use crate::cases::op::{Allocate, Change, How, New, Op, Set, Target, Whence, new};

const SLOTS: usize = 3;
const OFFSETS: [u64; 6] = [0, 1, 100, 4096, 5000, 20_000];
const SIZES: [u64; 6] = [0, 1, 100, 4096, 10_000, 30_000];

impl Generator<'_> {
    pub(super) fn ops(&mut self, specs: &[LayerSpec]) -> Vec<Op> {
        let mut model = initial_tree(specs);
        model.rules = self.profile.rules;
        let mut ops = Vec::new();
        let sealed = match self.profile.ops {
            Ops::None => return ops,
            Ops::Requests => 0,
            Ops::SystemCalls(most) => self.rng.below(most + 1),
        };
        for _ in 0..sealed {
            let with_links = self.profile.lower_links;
            self.some_ops(20, &mut model, &mut ops, |op| with_links || !matches!(op, Op::Link(..)));
            model.apply(&Op::Seal).ok();
            ops.push(Op::Seal);
        }
        self.some_ops(60, &mut model, &mut ops, |_| true);
        ops
    }

    fn some_ops(
        &mut self,
        most: usize,
        model: &mut Tree,
        ops: &mut Vec<Op>,
        wanted: impl Fn(&Op) -> bool,
    ) {
        let count = ops.len() + 1 + self.rng.below(most);
        while ops.len() < count {
            let op = self.op(model);
            if wanted(&op) && model.admits(&op) {
                // Errors are part of the case; the model's answer does not matter yet.
                model.apply(&op).ok();
                ops.push(op);
            }
        }
    }

    fn system_calls(&self) -> bool {
        matches!(self.profile.ops, Ops::SystemCalls(_))
    }

    fn op(&mut self, model: &Tree) -> Op {
        match self.rng.weighted(&[22, 16, 20, 14, 14, 12, 16, 8]) {
            0 => self.make_op(model),
            1 => self.remove_op(model),
            2 => self.rename_op(model),
            3 => self.change_op(model),
            4 => self.data_op(model),
            5 => self.read_op(model),
            6 => self.xattr_op(model),
            _ => self.session_op(model),
        }
    }

    fn make_op(&mut self, model: &Tree) -> Op {
        let path = self.place(model);
        if self.system_calls() && self.rng.one_in(15) {
            let mode = self.file_mode() & 0o777;
            return Op::MakeUnnamed(path, self.fresh(mode), self.data());
        }
        match self.rng.weighted(&[5, 6, 2, 2, 5]) {
            0 => {
                let mode = self.file_mode() & !0o2000;
                Op::Create(path, self.fresh(mode))
            }
            1 => {
                let mode = self.dir_mode() & 0o1777;
                Op::MakeDir(path, self.fresh(mode))
            }
            2 => {
                let (mode, leaf) = self.leaf();
                Op::MakeNode(path, leaf, self.fresh(mode & 0o777))
            }
            3 => {
                let to = t(self.rng.pick(&["to", "/", "{y*400}"]));
                Op::MakeSymlink(path, to, self.fresh(0o777))
            }
            _ => Op::Link(self.target(model, |inode| !inode.is_dir()), path),
        }
    }

    fn remove_op(&mut self, model: &Tree) -> Op {
        if self.rng.one_in(8) {
            let path = self.place(model);
            return if self.rng.one_in(2) { Op::Unlink(path) } else { Op::RemoveDir(path) };
        }
        let path = self.existing(model, |_| true);
        let is_dir = model.resolve(&path).is_some_and(|ino| model.inodes[ino].is_dir());
        if is_dir != self.rng.one_in(10) { Op::RemoveDir(path) } else { Op::Unlink(path) }
    }

    fn rename_op(&mut self, model: &Tree) -> Op {
        let dirs_only = self.rng.one_in(2);
        let from = self.existing(model, |inode| !dirs_only || inode.is_dir());
        let to = match self.rng.below(3) {
            0 => self.existing(model, |inode| !dirs_only || inode.is_dir()),
            _ => self.place(model),
        };
        let how = self.rng.pick(&[How::Replace, How::Replace, How::NoReplace, How::Exchange]);
        Op::Rename(from, to, how)
    }

    fn change_op(&mut self, model: &Tree) -> Op {
        let target = self.target(model, |_| true);
        let is_dir = model.target(&target).is_some_and(|ino| model.inodes[ino].is_dir());
        Op::SetAttr(
            target,
            match self.rng.weighted(&[4, 3, 3, 5]) {
                0 => Change::Permissions(Mode(if is_dir {
                    self.dir_mode()
                } else {
                    self.file_mode()
                })),
                1 => {
                    let (uid, gid) = self.ids();
                    let which = self.rng.below(3);
                    Change::Owner((which != 0).then_some(uid), (which != 1).then_some(gid))
                }
                2 => {
                    let which = self.rng.below(3);
                    let (atime, mtime) = (self.time(), self.time());
                    Change::Times((which != 0).then_some(atime), (which != 1).then_some(mtime))
                }
                _ => {
                    let target = self.target(model, is_file);
                    let (uid, _) = self.ids();
                    return Op::SetAttr(target, Change::Size(self.rng.pick(&SIZES), uid));
                }
            },
        )
    }

    fn data_op(&mut self, model: &Tree) -> Op {
        let target = self.target(model, is_file);
        let at = self.rng.pick(&OFFSETS);
        if self.system_calls() && self.rng.one_in(10) {
            let fill = self.rng.below(256) as u8;
            return Op::MapWrite(target, at, fill, self.rng.pick(&SIZES) as usize);
        }
        match self.rng.weighted(&[7, 2, 2]) {
            0 => {
                let kill = !self.profile.privileged || self.rng.one_in(2);
                Op::Write(target, at, Data { sparse: false, ..self.data() }, kill)
            }
            1 => {
                let all = [
                    Allocate::Extend,
                    Allocate::KeepSize,
                    Allocate::PunchHole,
                    Allocate::ZeroRange,
                ];
                // Filesystems in memory cannot zero a range.
                let how = self.rng.pick(if self.system_calls() { &all } else { &all[..3] });
                Op::Allocate(target, how, at, self.rng.pick(&SIZES))
            }
            _ => {
                let to = self.target(model, is_file);
                let to_at = self.rng.pick(&OFFSETS);
                Op::CopyRange(target, at, to, to_at, self.rng.pick(&SIZES) as usize)
            }
        }
    }

    fn read_op(&mut self, model: &Tree) -> Op {
        match self.rng.below(8) {
            0 => Op::Read(
                self.target(model, is_file),
                self.rng.pick(&OFFSETS),
                self.rng.pick(&SIZES) as usize,
            ),
            1 => {
                let whence = self.rng.pick(&[Whence::Data, Whence::Hole]);
                Op::Seek(self.target(model, is_file), self.rng.pick(&OFFSETS), whence)
            }
            2 => Op::Stat(self.target(model, |_| true)),
            3 => Op::ReadLink(self.target(model, |inode| matches!(inode.kind, Kind::Symlink(_)))),
            4 => Op::Lookup(self.place(model)),
            5 => Op::ReadDir(self.existing(model, Inode::is_dir)),
            6 => {
                let count = 1 + self.rng.below(4);
                Op::ReadSome(self.existing(model, Inode::is_dir), count)
            }
            _ => Op::ReadRest,
        }
    }

    fn xattr_op(&mut self, model: &Tree) -> Op {
        let target = self.target(model, |_| true);
        if self.profile.acls && self.rng.one_in(3) {
            return self.acl_op(target);
        }
        let is_file = model.target(&target).is_some_and(|ino| is_file(&model.inodes[ino]));
        if self.profile.privileged && is_file && self.rng.one_in(6) {
            return Op::SetXattr(target, t(CAPABILITY), capability(), Set::Always);
        }
        let mut name = self.xattr_name();
        let inode = model.target(&target).map(|ino| &model.inodes[ino]);
        let present = inode.into_iter().flat_map(|inode| inode.xattrs.keys());
        let present: Vec<&Text> = present.filter(|name| !name.0.starts_with(b"s")).collect();
        if !present.is_empty() && self.rng.one_in(2) {
            name = self.rng.pick(&present).clone();
        }
        match self.rng.weighted(&[6, 2, 2, 4]) {
            0 => {
                let value = t(self.rng.pick(&["", "w", "{z*100}"]));
                let set = self.rng.pick(&[Set::Always, Set::Always, Set::IfAbsent, Set::IfPresent]);
                Op::SetXattr(target, name, value, set)
            }
            1 => Op::GetXattr(target, name),
            2 => Op::ListXattr(target),
            _ => Op::RemoveXattr(target, name),
        }
    }

    fn acl_op(&mut self, target: Target) -> Op {
        let name = t(self.rng.pick(&[ACCESS, DEFAULT]));
        match self.rng.below(4) {
            0 => Op::GetXattr(target, name),
            1 => Op::RemoveXattr(target, name),
            _ => Op::SetXattr(target, name, self.acl(), Set::Always),
        }
    }

    fn session_op(&mut self, model: &Tree) -> Op {
        let slot = self.rng.below(SLOTS) as u8;
        let may_switch = self.profile.may_switch && model.rules.redirect.is_some();
        match self.rng.weighted(&[10, 2, 4, 2, 1]) {
            0 => Op::Hold(self.existing(model, |_| true), slot),
            1 => Op::Release(slot),
            2 => Op::Forget(self.existing(model, |_| true)),
            3 if may_switch && self.rng.one_in(2) => {
                Op::RemountTo(self.rng.pick(&[Redirect::Copy, Redirect::Mark, Redirect::Refuse]))
            }
            3 => Op::Remount,
            _ => Op::Sync(self.target(model, |_| true)),
        }
    }

    /// A path of something the model has; any path if it has nothing such.
    fn existing(&mut self, model: &Tree, wanted: impl Fn(&Inode) -> bool) -> Text {
        let paths = model.paths();
        let fitting: Vec<&Text> = paths[1..]
            .iter()
            .filter(|(_, ino)| wanted(&model.inodes[*ino]))
            .map(|(path, _)| path)
            .collect();
        if fitting.is_empty() { self.path() } else { self.rng.pick(&fitting).clone() }
    }

    fn target(&mut self, model: &Tree, wanted: impl Fn(&Inode) -> bool) -> Target {
        let held: Vec<u8> = model
            .held
            .iter()
            .filter(|(_, ino)| wanted(&model.inodes[**ino]))
            .map(|(slot, _)| *slot)
            .collect();
        if !held.is_empty() && self.rng.one_in(3) {
            return Target::Held(self.rng.pick(&held));
        }
        Target::At(self.existing(model, wanted))
    }

    /// A name in a directory that exists; mostly a free one.
    fn place(&mut self, model: &Tree) -> Text {
        let root = self.rng.one_in(4);
        let dir = if root { Text::default() } else { self.existing(model, Inode::is_dir) };
        if self.rng.one_in(60) {
            return dir.join(&t("{l*256}"));
        }
        let free: Vec<&Text> =
            self.names.iter().filter(|name| model.resolve(&dir.join(name)).is_none()).collect();
        if free.is_empty() || self.rng.one_in(6) {
            return dir.join(&self.name());
        }
        dir.join(self.rng.pick(&free))
    }

    fn fresh(&mut self, mode: u32) -> New {
        let (uid, gid) = self.ids();
        new(mode).umask(self.rng.pick(&[0, 0o022, 0o077])).by(uid, gid)
    }
}

fn is_file(inode: &Inode) -> bool {
    matches!(inode.kind, Kind::File(_))
}
