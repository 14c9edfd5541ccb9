//! Random stacks of layers with every form of mark.

use super::rand::Pick;
use super::*;
use crate::cases::initial::kind;
use crate::cases::layer::{Item, Leaf, Mark, Prefix, Whiteout};

/// The paths of the layers generated so far.
#[derive(Default)]
struct Known {
    all: Vec<Text>,
    dirs: Vec<Text>,
    /// Non-directories of the layer being made.
    leaves: Vec<Text>,
}

impl Generator<'_> {
    /// Top first, generated from the bottom up so that marks find something to hide.
    pub(super) fn layers(&mut self) -> Vec<Layer> {
        let (fewest, most) = self.profile.layers;
        let ordinary = fewest + self.rng.below(most - fewest + 1);
        // Which redirects lead the kernel into a data-only layer depends on what is in the others.
        let may_be_data = self.profile.marks == Marks::All;
        let data_only = if may_be_data && self.rng.one_in(4) { 1 + self.rng.below(2) } else { 0 };
        let count = ordinary + data_only;
        let mut known = Known::default();
        let writable = self.profile.rules.redirect.is_some();
        let is_upper = |at| at + 1 == count && writable;
        let mut layers: Vec<Layer> =
            (0..count).map(|at| self.layer(&mut known, is_upper(at))).collect();
        layers[..data_only].iter_mut().for_each(|layer| layer.data_only = true);
        layers.reverse();
        layers
    }

    fn layer(&mut self, known: &mut Known, is_upper: bool) -> Layer {
        known.leaves.clear();
        let mut items = Vec::new();
        for _ in 0..self.rng.below(14) {
            self.item(known, is_upper, &mut items);
        }
        let mode = if self.profile.privileged { self.dir_mode() } else { 0o755 };
        let layer = layer(items).root(self.meta(mode, &Kind::Dir(Default::default())));
        let root_may_be = self.profile.marks == Marks::All;
        let opaque_root = root_may_be && self.rng.one_in(40);
        if opaque_root { layer.marks(self.opaque_marks()) } else { layer }
    }

    fn item(&mut self, known: &mut Known, is_upper: bool, items: &mut Vec<Item>) {
        let path = self.known_or_new(known);
        match self.rng.weighted(&[30, 40, 12, 18, 5]) {
            0 => {
                let mode = self.dir_mode();
                let meta = self.meta(mode, &Kind::Dir(Default::default()));
                let marks = self.dir_marks(known, &path, items);
                known.dirs.push(path.clone());
                items.push(Item::Dir(path.clone(), meta, marks));
            }
            1 => {
                let (mode, leaf) = self.leaf();
                let meta = self.meta(mode, &kind(&leaf));
                known.leaves.push(path.clone());
                items.push(Item::Leaf(path.clone(), meta, leaf));
            }
            2 if self.profile.lower_links && !known.leaves.is_empty() => {
                let to = self.rng.pick(&known.leaves);
                items.push(Item::HardLink(path.clone(), to));
            }
            3 if self.profile.has_marks() => {
                let form = self.whiteout(is_upper);
                items.push(Item::Whiteout(path, form));
                return;
            }
            4 if self.profile.has_marks() => {
                let mode = self.file_mode();
                let meta = self.meta(mode, &Kind::File(vec![]));
                let redirect = self.rng.one_in(3).then(|| self.known_or_new(known));
                let redirect = redirect.map(|to| Text([b"/", to.0.as_slice()].concat()));
                let leaf = Leaf::Metacopy(self.prefix(), redirect, 0);
                items.push(Item::Leaf(path.clone(), meta, leaf));
            }
            _ => return,
        }
        known.all.push(path);
    }

    /// Mostly a path that a layer below has, or one in a directory that it has.
    fn known_or_new(&mut self, known: &Known) -> Text {
        match self.rng.weighted(&[50, 25, 25]) {
            0 if !known.all.is_empty() => self.rng.pick(&known.all),
            1 if !known.dirs.is_empty() => {
                let dir = self.rng.pick(&known.dirs);
                dir.join(&self.name())
            }
            _ => self.path(),
        }
    }

    pub(super) fn leaf(&mut self) -> (u32, Leaf) {
        let mode = self.file_mode();
        let leaf = match self.rng.weighted(&[70, 15, 5, 5, 5]) {
            0 => Leaf::File(self.data()),
            1 => Leaf::Symlink(t(self.rng.pick(&["a", "/b", "nowhere", "{x*300}", "%FF"]))),
            2 => Leaf::Fifo,
            3 => Leaf::Socket,
            _ if !self.profile.privileged => Leaf::Fifo,
            _ => {
                let (major, minor) = self.device();
                if self.rng.one_in(2) {
                    Leaf::Char(major, minor)
                } else {
                    Leaf::Block(major, minor)
                }
            }
        };
        (mode, leaf)
    }

    fn prefix(&mut self) -> Prefix {
        if let Some(prefix) = self.profile.kernel_prefix() {
            return prefix;
        }
        if self.profile.privileged && self.rng.one_in(2) { Prefix::Trusted } else { Prefix::User }
    }

    /// Nobody writes attribute whiteouts into an upper layer.
    fn whiteout(&mut self, is_upper: bool) -> Whiteout {
        match self.rng.below(4) {
            0 => Whiteout::Device,
            1 => Whiteout::SharedDevice,
            2 if self.profile.marks == Marks::All => Whiteout::DotWh,
            _ if is_upper => Whiteout::Device,
            _ => Whiteout::Xattr(self.prefix()),
        }
    }

    fn opaque_marks(&mut self) -> Vec<Mark> {
        match self.rng.below(4) {
            _ if self.profile.marks != Marks::All => vec![Mark::Opaque(self.prefix())],
            0 => vec![Mark::Opaque(self.prefix())],
            1 if self.profile.privileged => {
                vec![Mark::Opaque(Prefix::Trusted), Mark::Opaque(Prefix::User)]
            }
            2 => vec![Mark::FuseOpaque],
            _ => vec![Mark::OpaqueFile],
        }
    }

    /// A redirect moves: whoever writes one leaves a whiteout behind.
    fn dir_marks(&mut self, known: &Known, path: &Text, items: &mut Vec<Item>) -> Vec<Mark> {
        if !self.profile.has_marks() {
            return vec![];
        }
        match self.rng.below(10) {
            0 | 1 => self.opaque_marks(),
            2 | 3 if !known.dirs.is_empty() => {
                let (parent, _) = path.split_last().unwrap();
                let origin = if self.rng.one_in(3) {
                    parent.join(&self.name())
                } else {
                    self.rng.pick(&known.dirs)
                };
                let sibling = origin.split_last().filter(|(it, _)| *it == parent);
                let to = match sibling {
                    Some((_, name)) if self.rng.one_in(2) => name,
                    _ => Text([b"/", origin.0.as_slice()].concat()),
                };
                if origin != *path {
                    let form = self.whiteout(true);
                    items.push(Item::Whiteout(origin, form));
                }
                vec![Mark::Redirect(self.prefix(), to)]
            }
            _ => vec![],
        }
    }
}
