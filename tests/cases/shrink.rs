//! Minimises a failing case: proptest drives, this proposes the next smaller case.

use std::collections::BTreeSet;

use proptest::strategy::ValueTree;

use crate::cases::case::Case;
use crate::cases::initial::drop_aliases;
use crate::cases::layer::{Data, Item, Leaf, Meta, Whiteout, meta};
use crate::cases::op::{Op, Target, new};
use crate::cases::text::Text;

/// The smallest failing case so far, and the smaller one on trial.
pub struct CaseTree {
    best: Case,
    trial: Option<Case>,
    /// Position in the list of reductions of `best`, and how many were tried since it changed.
    at: usize,
    tried: usize,
    fewest_layers: usize,
}

impl CaseTree {
    /// Of the layers that hold more than data, at least `fewest_layers` stay.
    pub fn new(case: Case, fewest_layers: usize) -> CaseTree {
        CaseTree { best: case, trial: None, at: 0, tried: 0, fewest_layers }
    }

    /// Puts the next reduction on trial; false when none of them fails any more.
    fn propose(&mut self) -> bool {
        let mut all = reductions(&self.best, self.fewest_layers);
        self.trial = None;
        if self.tried < all.len() {
            self.at %= all.len();
            self.trial = Some(all.swap_remove(self.at));
            self.at += 1;
            self.tried += 1;
        }
        self.trial.is_some()
    }
}

impl ValueTree for CaseTree {
    type Value = Case;

    fn current(&self) -> Case {
        self.trial.as_ref().unwrap_or(&self.best).clone()
    }

    /// The current case failed: it is the best one now.
    fn simplify(&mut self) -> bool {
        if let Some(case) = self.trial.take() {
            self.best = case;
            self.at = self.at.saturating_sub(1);
            self.tried = 0;
        }
        self.propose()
    }

    /// The current case passed: back to the best one.
    fn complicate(&mut self) -> bool {
        self.propose()
    }
}

/// Smaller cases to try, in the order of how much they may save.
fn reductions(case: &Case, fewest_layers: usize) -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(without_parts(&case.ops).map(|ops| Case { ops, ..case.clone() }));
    all.extend((0..case.layers.len()).map(|at| {
        let mut less = case.clone();
        less.layers.remove(at);
        less
    }));
    let merged = |case: &Case| case.layers.iter().filter(|layer| !layer.data_only).count();
    all.retain(|less| merged(less) >= fewest_layers);
    for (at, layer) in case.layers.iter().enumerate() {
        let mut change = |change: &dyn Fn(&mut Case)| {
            let mut less = case.clone();
            change(&mut less);
            all.push(less);
        };
        for items in without_parts(&layer.items) {
            change(&|less| less.layers[at].items = items.clone());
        }
        for (index, item) in layer.items.iter().enumerate() {
            for simple in simpler_items(item) {
                change(&|less| less.layers[at].items[index] = simple.clone());
            }
        }
        change(&|less| less.layers[at].root = meta(0o755));
        change(&|less| less.layers[at].marks.clear());
    }
    for (index, op) in case.ops.iter().enumerate() {
        for simple in simpler_ops(op) {
            let mut less = case.clone();
            less.ops[index] = simple;
            all.push(less);
        }
    }
    all.extend(with_simpler_names(case));
    all.push(Case { compare_every: 1, ..case.clone() });
    all.iter_mut().for_each(|case| drop_aliases(&mut case.layers));
    all.retain(|less| less != case);
    all
}

/// The list without each of its halves, quarters and so on down to single elements.
fn without_parts<T: Clone>(list: &[T]) -> impl Iterator<Item = Vec<T>> {
    let sizes = std::iter::successors(Some(list.len()), |size| Some(size / 2));
    let sizes: Vec<usize> = sizes.take_while(|size| *size > 0).collect();
    sizes.into_iter().flat_map(move |size| {
        (0..list.len()).step_by(size).rev().map(move |start| {
            let end = list.len().min(start + size);
            [&list[..start], &list[end..]].concat()
        })
    })
}

fn simpler_items(item: &Item) -> Vec<Item> {
    let file = Leaf::File(Data { len: 1, fill: 0, sparse: false });
    match item {
        Item::Dir(path, old, marks) => {
            let mut all: Vec<Item> = simpler_meta(old, 0o755)
                .into_iter()
                .map(|it| Item::Dir(path.clone(), it, marks.clone()))
                .collect();
            all.extend(
                without_parts(marks).map(|marks| Item::Dir(path.clone(), old.clone(), marks)),
            );
            all
        }
        Item::Leaf(path, old, leaf) => {
            let mut all: Vec<Item> = simpler_meta(old, 0o644)
                .into_iter()
                .map(|it| Item::Leaf(path.clone(), it, leaf.clone()))
                .collect();
            if *leaf != file {
                all.push(Item::Leaf(path.clone(), old.clone(), file));
            }
            all
        }
        Item::Whiteout(path, _) => vec![Item::Whiteout(path.clone(), Whiteout::Device)],
        Item::HardLink(..) => vec![],
    }
}

fn simpler_meta(old: &Meta, mode: u32) -> Vec<Meta> {
    let plain = meta(mode);
    vec![
        plain.clone(),
        Meta { mode: plain.mode, ..old.clone() },
        Meta { owner: plain.owner, ..old.clone() },
        Meta { mtime: plain.mtime, ..old.clone() },
        Meta { xattrs: plain.xattrs, ..old.clone() },
    ]
}

fn simpler_ops(op: &Op) -> Vec<Op> {
    let small = Data { len: 1, fill: 0, sparse: false };
    match op.clone() {
        Op::Create(path, _) => vec![Op::Create(path, new(0o644))],
        Op::MakeDir(path, _) => vec![Op::MakeDir(path, new(0o755))],
        Op::MakeNode(path, leaf, _) => {
            vec![
                Op::Create(path.clone(), new(0o644)),
                Op::MakeNode(path.clone(), Leaf::Fifo, new(0o644)),
                Op::MakeNode(path, leaf, new(0o644)),
            ]
        }
        Op::MakeSymlink(path, to, _) => vec![
            Op::Create(path.clone(), new(0o644)),
            Op::MakeSymlink(path.clone(), Text(b"to".to_vec()), new(0o777)),
            Op::MakeSymlink(path, to, new(0o777)),
        ],
        Op::MakeUnnamed(path, new, _) => {
            vec![Op::Create(path.clone(), new), Op::MakeUnnamed(path, new, small)]
        }
        Op::Write(target, at, _, kill) => vec![
            Op::Write(target.clone(), 0, small, kill),
            Op::Write(target.clone(), at, small, kill),
            Op::Write(target, at, small, false),
        ],
        Op::Rename(from, to, _) => vec![Op::Rename(from, to, crate::cases::op::How::Replace)],
        Op::Hold(path, _) => vec![Op::Lookup(path)],
        Op::RemountTo(_) => vec![Op::Remount],
        Op::ReadSome(path, count) => vec![Op::ReadSome(path, count / 2)],
        _ => vec![],
    }
}

/// The case with one of its odd names replaced by a plain one everywhere.
fn with_simpler_names(case: &Case) -> Vec<Case> {
    let mut names = BTreeSet::new();
    rename_all(&mut case.clone(), &mut |path| names.extend(path.components()));
    let plain = |name: &Text| name.0.len() == 1 && name.0[0].is_ascii_lowercase();
    let free = (b'a'..=b'z').map(|c| Text(vec![c])).find(|name| !names.contains(name));
    let Some(free) = free else { return vec![] };
    let odd = names.iter().filter(|name| !plain(name));
    odd.map(|odd| {
        let mut less = case.clone();
        rename_all(&mut less, &mut |path| {
            let slash = if path.0.starts_with(b"/") { "/" } else { "" };
            let parts =
                path.components().map(|part| if part == *odd { free.clone() } else { part });
            let joined = parts.fold(Text::default(), |path, part| path.join(&part));
            path.0 = [slash.as_bytes(), &joined.0].concat();
        });
        less
    })
    .collect()
}

fn rename_all(case: &mut Case, rename: &mut dyn FnMut(&mut Text)) {
    for item in case.layers.iter_mut().flat_map(|layer| &mut layer.items) {
        match item {
            Item::Dir(path, _, marks) => {
                rename(path);
                for mark in marks {
                    if let crate::cases::layer::Mark::Redirect(_, to) = mark {
                        rename(to);
                    }
                }
            }
            Item::HardLink(path, to) => {
                rename(path);
                rename(to);
            }
            Item::Leaf(path, ..) | Item::Whiteout(path, _) => rename(path),
        }
    }
    case.ops.iter_mut().flat_map(paths_of).for_each(rename);
}

fn paths_of(op: &mut Op) -> Vec<&mut Text> {
    use Op::*;
    match op {
        Lookup(path) | Create(path, _) | MakeDir(path, _) | MakeNode(path, ..) => vec![path],
        MakeUnnamed(path, ..) => vec![path],
        MakeSymlink(path, ..) | Unlink(path) | RemoveDir(path) | ReadDir(path) => vec![path],
        ReadSome(path, _) | Hold(path, _) | Forget(path) => vec![path],
        Rename(from, to, _) => vec![from, to],
        Link(target, path) => path_of(target).into_iter().chain([path]).collect(),
        CopyRange(from, _, to, ..) => path_of(from).into_iter().chain(path_of(to)).collect(),
        Write(target, ..)
        | MapWrite(target, ..)
        | Read(target, ..)
        | SetAttr(target, _)
        | Allocate(target, ..)
        | Seek(target, ..)
        | Sync(target)
        | Stat(target)
        | ReadLink(target)
        | SetXattr(target, ..)
        | GetXattr(target, _)
        | ListXattr(target)
        | RemoveXattr(target, _) => path_of(target).into_iter().collect(),
        ReadRest | Release(_) | Remount | RemountTo(_) | Seal => vec![],
    }
}

fn path_of(target: &mut Target) -> Option<&mut Text> {
    match target {
        Target::At(path) => Some(path),
        Target::Held(_) => None,
    }
}
