//! Random archives, against a tree in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use proptest::prelude::*;

use crate::support::{Tar, TestStore};

type Path = Vec<&'static str>;

#[derive(Clone, Debug)]
enum Op {
    File(Path),
    Dir(Path),
    Symlink(Path),
    Link(Path, Path),
    Whiteout(Path),
    Opaque(Path),
}

#[derive(Clone, Debug, PartialEq)]
enum Object {
    File(usize),
    Symlink(usize),
    Dir { implied: bool },
}

/// What a layer holds.
#[derive(Clone, Default)]
struct Model {
    objects: BTreeMap<Path, Object>,
    whiteouts: BTreeSet<Path>,
    opaque: BTreeSet<Path>,
}

impl Model {
    /// `None` if the archive is to be refused.
    fn apply(&mut self, op: &Op, serial: usize) -> Option<()> {
        match op {
            Op::File(path) => self.put(path, Object::File(serial)),
            Op::Dir(path) => self.put(path, Object::Dir { implied: false }),
            Op::Symlink(path) => self.put(path, Object::Symlink(serial)),
            Op::Link(path, target) => {
                let object = self.objects.get(target)?.clone();
                match object {
                    Object::Dir { .. } => None,
                    _ => self.put(path, object),
                }
            }
            Op::Whiteout(path) => {
                self.parents(path)?;
                self.whiteouts.insert(path.clone());
                Some(())
            }
            Op::Opaque(path) => {
                self.parents(&[path.as_slice(), &["x"]].concat())?;
                self.opaque.insert(path.clone());
                Some(())
            }
        }
    }

    fn parents(&mut self, path: &[&'static str]) -> Option<()> {
        for length in 1..path.len() {
            let implied = Object::Dir { implied: true };
            let parent = self.objects.entry(path[..length].to_vec()).or_insert(implied);
            matches!(parent, Object::Dir { .. }).then_some(())?;
        }
        Some(())
    }

    fn put(&mut self, path: &Path, object: Object) -> Option<()> {
        self.parents(path)?;
        let old = self.objects.get(path);
        if old == Some(&object) {
            return Some(());
        }
        let is_dir = |object: &Object| matches!(object, Object::Dir { .. });
        if !(is_dir(&object) && old.is_some_and(is_dir)) {
            let below = |other: &Path| other.len() > path.len() && other.starts_with(path);
            self.objects.retain(|other, _| !below(other));
            self.whiteouts.retain(|other| !below(other));
            self.opaque.retain(|other| !below(other) && other != path);
        }
        self.objects.insert(path.clone(), object);
        Some(())
    }

    fn text(&self) -> String {
        let paths: BTreeSet<&Path> = self.objects.keys().chain(&self.whiteouts).collect();
        let mut text = String::new();
        for path in paths {
            let name = path.join("/");
            let nlink = |object: &Object| match self
                .objects
                .values()
                .filter(|other| *other == object)
                .count()
            {
                1 => String::new(),
                count => format!(" nlink={count}"),
            };
            match self.objects.get(path) {
                None => writeln!(text, "w {name}"),
                Some(object @ Object::File(serial)) => {
                    writeln!(text, "f {name} {serial}{}", nlink(object))
                }
                Some(object @ Object::Symlink(serial)) => {
                    writeln!(text, "l {name} t{serial}{}", nlink(object))
                }
                Some(Object::Dir { implied }) => {
                    let is_opaque = self.opaque.contains(path) || self.whiteouts.contains(path);
                    let opaque = if is_opaque { " opaque" } else { "" };
                    // What is deleted below has nothing of what lies there.
                    let is_implied = *implied && !self.whiteouts.contains(path);
                    let implied = if is_implied { " implied" } else { "" };
                    writeln!(text, "d {name}{opaque}{implied}")
                }
            }
            .unwrap();
        }
        text
    }
}

fn entry(tar: Tar, op: &Op, serial: usize) -> Tar {
    match op {
        Op::File(path) => tar.file(&path.join("/"), &serial.to_string()),
        Op::Dir(path) => tar.dir(&path.join("/")),
        Op::Symlink(path) => tar.symlink(&path.join("/"), &format!("t{serial}")),
        Op::Link(path, target) => tar.link(&path.join("/"), &target.join("/")),
        Op::Whiteout(path) => {
            let (name, dir) = path.split_last().unwrap();
            let wh = format!(".wh.{name}");
            tar.file(&[dir, &[wh.as_str()]].concat().join("/"), "")
        }
        Op::Opaque(path) => tar.file(&format!("{}/.wh..wh..opq", path.join("/")), ""),
    }
}

fn op() -> impl Strategy<Value = Op> {
    let path = || prop::collection::vec(prop::sample::select(vec!["a", "b", "ab"]), 1..4);
    prop_oneof![
        4 => path().prop_map(Op::File),
        3 => path().prop_map(Op::Dir),
        1 => path().prop_map(Op::Symlink),
        3 => (path(), path()).prop_map(|(path, target)| Op::Link(path, target)),
        2 => path().prop_map(Op::Whiteout),
        1 => path().prop_map(Op::Opaque),
    ]
}

#[test]
fn a_layer_holds_what_its_archive_says() {
    let store = TestStore::new();
    let config =
        ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(ops in prop::collection::vec(op(), 0..24))| {
        let mut model = Model::default();
        let mut tar = Tar::new();
        for (serial, op) in ops.iter().enumerate() {
            let mut next = model.clone();
            let with = entry(tar.clone(), op, serial);
            match next.apply(op, serial) {
                Some(()) => (model, tar) = (next, with),
                None => {
                    prop_assert!(store.import(&with.end()).is_err(), "taken: {op:?}");
                }
            }
        }
        prop_assert_eq!(store.holds(&tar.end()), model.text());
    });
}

/// The cases that have an order, one entry after the other.
fn cases() -> Vec<Vec<Op>> {
    let (keep, a, new) = (|| vec!["keep"], || vec!["a"], || vec!["a", "new"]);
    vec![
        vec![Op::Whiteout(keep()), Op::File(keep())],
        vec![Op::Whiteout(a()), Op::Dir(a()), Op::File(new())],
        vec![Op::Opaque(a()), Op::File(new()), Op::Dir(a()), Op::Whiteout(vec!["a", "x"])],
        vec![Op::Whiteout(a()), Op::Opaque(a()), Op::Whiteout(new()), Op::File(new())],
        vec![Op::File(keep()), Op::Link(vec!["b"], keep()), Op::Link(a(), vec!["b"])],
        vec![Op::File(keep()), Op::Link(keep(), keep()), Op::Whiteout(keep())],
        vec![Op::Symlink(keep()), Op::Link(a(), keep()), Op::File(a())],
        vec![Op::Dir(a()), Op::Link(keep(), a()), Op::File(new())],
        vec![Op::Dir(a()), Op::File(new()), Op::File(a()), Op::Whiteout(a())],
        vec![Op::File(keep()), Op::Dir(keep()), Op::File(vec!["keep", "y"])],
        vec![Op::File(keep()), Op::File(vec!["keep", "y"]), Op::Whiteout(vec!["keep", "z"])],
        vec![Op::File(a()), Op::File(a()), Op::Dir(a()), Op::Dir(a())],
        vec![Op::File(vec!["a", "b", "c"]), Op::Dir(a()), Op::Dir(vec!["a", "b"])],
        vec![Op::Symlink(a()), Op::File(new()), Op::Dir(a())],
        vec![Op::Symlink(a()), Op::Whiteout(new()), Op::Opaque(a())],
        vec![Op::File(new()), Op::Link(keep(), new()), Op::File(a()), Op::Whiteout(keep())],
    ]
}

fn orders(ops: &[Op]) -> Vec<Vec<Op>> {
    if ops.is_empty() {
        return vec![Vec::new()];
    }
    let first = |at: usize| {
        let mut rest = ops.to_vec();
        let op = rest.remove(at);
        orders(&rest).into_iter().map(move |rest| [vec![op.clone()], rest].concat())
    };
    (0..ops.len()).flat_map(first).collect()
}

/// Taken or refused, as the model says, and with what it says.
#[test]
fn every_case_in_every_order() {
    let store = TestStore::new();
    for case in cases() {
        for order in orders(&case) {
            let mut model = Model::default();
            let mut tar = Tar::new();
            let mut taken = Some(());
            for (serial, op) in order.iter().enumerate() {
                taken = taken.and_then(|()| model.apply(op, serial));
                tar = entry(tar, op, serial);
            }
            match taken {
                Some(()) => assert_eq!(store.holds(&tar.end()), model.text(), "{order:?}"),
                None => assert!(store.import(&tar.end()).is_err(), "taken: {order:?}"),
            }
        }
    }
}
