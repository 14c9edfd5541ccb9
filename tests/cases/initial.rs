//! The tree that a stack of layers shows, computed in the simplest way that follows the rules for
//! reading layers. This is the definition the overlay is tested against: no caches, no indices.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::cases::layer::{Data, DirSpec, EntrySpec, Item, Layer, LayerSpec, Leaf, Mark, Meta};
use crate::cases::model::{Inode, Kind, Tree};
use crate::cases::text::Text;

/// The directories that make up one directory of the union, top first, with their layers.
type Merged<'a> = Vec<(usize, &'a DirSpec)>;

enum Found<'a> {
    /// Layer and index of the leaf in it.
    Leaf(usize, usize),
    Dir(Merged<'a>),
}

/// Looks `name` up in a merged directory.
fn find<'a>(stack: &'a [LayerSpec], within: &Merged<'a>, name: &Text) -> Option<Found<'a>> {
    let mut merged = Merged::new();
    for (depth, &(layer, dir)) in within.iter().enumerate() {
        if dir.hidden.contains(name) {
            break;
        }
        match dir.entries.get(name) {
            None => {}
            Some(EntrySpec::Whiteout(_)) => break,
            Some(&EntrySpec::Leaf(leaf)) if merged.is_empty() => {
                return Some(Found::Leaf(layer, leaf));
            }
            Some(EntrySpec::Leaf(_)) => break,
            Some(EntrySpec::Dir(child)) => {
                merged.push((layer, child));
                if child.is_opaque() {
                    break;
                }
                if let Some(to) = child.redirect() {
                    let below = within[depth + 1..].to_vec();
                    merged.extend(redirected(stack, layer + 1, below, to));
                    break;
                }
            }
        }
    }
    (!merged.is_empty()).then_some(Found::Dir(merged))
}

/// The data of a metacopy called `name` in layer `layer`; `within` is the directory below it.
fn data_below(
    stack: &[LayerSpec],
    layer: usize,
    within: &Merged<'_>,
    name: &Text,
    redirect: Option<&Text>,
) -> Option<Data> {
    let (within, name) = match redirect {
        None => (within.clone(), name.clone()),
        Some(to) => {
            let (parent, name) = to.split_last()?;
            let absolute = to.0.starts_with(b"/");
            let within = if absolute { root(stack, layer + 1) } else { within.clone() };
            (descend(stack, within, &parent), name)
        }
    };
    let Some(Found::Leaf(layer, leaf)) = find(stack, &within, &name) else {
        return redirect.filter(|to| to.0.starts_with(b"/")).and_then(|to| data_layer(stack, to));
    };
    match &stack[layer].leaves[leaf].1 {
        Leaf::File(data) => Some(*data),
        Leaf::Metacopy(_, redirect, _) => {
            let below = within.into_iter().filter(|(at, _)| *at > layer).collect();
            data_below(stack, layer, &below, &name, redirect.as_ref())
        }
        _ => None,
    }
}

/// The file at `path` in the first data-only layer that has one; marks mean nothing there.
fn data_layer(stack: &[LayerSpec], path: &Text) -> Option<Data> {
    stack.iter().filter(|layer| layer.data_only).find_map(|layer| {
        match &layer.leaves[layer.leaf_at(path)?].1 {
            Leaf::File(data) => Some(*data),
            _ => None,
        }
    })
}

/// Builds the layers, with the size that each visible metacopy must have.
pub fn build(layers: &[Layer]) -> Vec<LayerSpec> {
    let mut stack: Vec<LayerSpec> = layers.iter().map(LayerSpec::build).collect();
    let sizes = metacopies(&stack);
    for (at, spec) in stack.iter_mut().enumerate() {
        for (index, (_, leaf)) in spec.leaves.iter_mut().enumerate() {
            match (&leaf, sizes.get(&(at, index))) {
                (Leaf::Metacopy(..), Some(None)) => {
                    *leaf = Leaf::File(Data { len: 0, fill: 0, sparse: false });
                }
                (Leaf::Metacopy(prefix, redirect, _), Some(Some(data))) => {
                    *leaf = Leaf::Metacopy(*prefix, redirect.clone(), data.len);
                }
                _ => {}
            }
        }
    }
    stack
}

/// The visible metacopies by layer and index, with their data.
fn metacopies(stack: &[LayerSpec]) -> HashMap<(usize, usize), Option<Data>> {
    let mut all = HashMap::new();
    let mut queue = vec![root(stack, 0)];
    while let Some(merged) = queue.pop() {
        for name in names(&merged) {
            match find(stack, &merged, &name) {
                Some(Found::Dir(child)) => queue.push(child),
                Some(Found::Leaf(layer, leaf)) => {
                    if let Leaf::Metacopy(_, redirect, _) = &stack[layer].leaves[leaf].1 {
                        let below = merged.iter().filter(|(at, _)| *at > layer).copied().collect();
                        let data = data_below(stack, layer, &below, &name, redirect.as_ref());
                        all.insert((layer, leaf), data);
                    }
                }
                None => {}
            }
        }
    }
    all
}

/// What a redirect found above layer `from` leads to: an absolute one is looked up in the union of
/// the layers from there on, a relative one in what lies below in the same parent.
fn redirected<'a>(stack: &'a [LayerSpec], from: usize, below: Merged<'a>, to: &Text) -> Merged<'a> {
    let absolute = to.0.starts_with(b"/");
    descend(stack, if absolute { root(stack, from) } else { below }, to)
}

fn descend<'a>(stack: &'a [LayerSpec], from: Merged<'a>, path: &Text) -> Merged<'a> {
    path.components().fold(from, |dir, name| match find(stack, &dir, &name) {
        Some(Found::Dir(merged)) => merged,
        _ => Merged::new(),
    })
}

/// The merged root of the layers from `from` on.
fn root(stack: &[LayerSpec], from: usize) -> Merged<'_> {
    let merging = stack.iter().enumerate().skip(from).filter(|(_, layer)| !layer.data_only);
    let roots = merging.map(|(at, layer)| (at, &layer.root));
    let mut merged = Merged::new();
    for (layer, dir) in roots {
        merged.push((layer, dir));
        if dir.is_opaque() {
            break;
        }
    }
    merged
}

fn names(within: &Merged<'_>) -> BTreeSet<Text> {
    within.iter().flat_map(|(_, dir)| dir.entries.keys().cloned()).collect()
}

/// The tree that `stack` (top first) shows.
pub fn initial_tree(stack: &[LayerSpec]) -> Tree {
    let metacopies = metacopies(stack);
    let mut builder = Builder { stack, tree: Tree::new(), leaves: HashMap::new(), metacopies };
    builder.fill(0, &root(stack, 0));
    for (&(layer, leaf), &ino) in &builder.leaves {
        let names = count_names(&stack[layer].root, leaf);
        builder.tree.inodes[ino].hidden_links = names - builder.tree.names_of(ino);
    }
    builder.tree
}

struct Builder<'a> {
    stack: &'a [LayerSpec],
    tree: Tree,
    leaves: HashMap<(usize, usize), usize>,
    metacopies: HashMap<(usize, usize), Option<Data>>,
}

impl<'a> Builder<'a> {
    /// Gives the directory `ino` the metadata of the topmost directory and all visible entries.
    fn fill(&mut self, ino: usize, merged: &Merged<'a>) {
        let node = &mut self.tree.inodes[ino];
        node.set_meta(&merged[0].1.meta);
        node.has_lower = merged.iter().any(|(layer, _)| *layer > 0);
        for name in names(merged) {
            match find(self.stack, merged, &name) {
                None => {}
                Some(Found::Leaf(layer, leaf)) => {
                    let child = self.leaf(layer, leaf);
                    self.tree.entries_mut(ino).insert(name, child);
                }
                Some(Found::Dir(merged)) => {
                    let child = self.tree.add(Inode::new(Kind::Dir(Default::default())));
                    self.tree.entries_mut(ino).insert(name, child);
                    self.fill(child, &merged);
                }
            }
        }
    }

    fn leaf(&mut self, layer: usize, leaf: usize) -> usize {
        if let Some(&known) = self.leaves.get(&(layer, leaf)) {
            return known;
        }
        let (meta, leaf_spec) = &self.stack[layer].leaves[leaf];
        let ino = self.tree.add(match self.metacopies.get(&(layer, leaf)) {
            Some(Some(data)) => inode(meta, &Leaf::File(*data)),
            _ => inode(meta, leaf_spec),
        });
        self.leaves.insert((layer, leaf), ino);
        ino
    }
}

fn inode(meta: &Meta, leaf: &Leaf) -> Inode {
    let mut inode = Inode::new(kind(leaf));
    inode.set_meta(meta);
    inode
}

/// What a leaf of a layer is in the tree.
pub fn kind(leaf: &Leaf) -> Kind {
    match leaf {
        Leaf::File(data) => Kind::File(data.bytes()),
        Leaf::Metacopy(..) => Kind::File(Vec::new()),
        Leaf::Symlink(target) => Kind::Symlink(target.clone()),
        Leaf::Fifo => Kind::Fifo,
        Leaf::Socket => Kind::Socket,
        Leaf::Char(major, minor) => Kind::Char(*major, *minor),
        Leaf::Block(major, minor) => Kind::Block(*major, *minor),
    }
}

/// How many names a leaf has in its own layer, visible or not.
fn count_names(dir: &DirSpec, leaf: usize) -> u32 {
    let count = |entry: &EntrySpec| match entry {
        EntrySpec::Leaf(it) => u32::from(*it == leaf),
        EntrySpec::Dir(child) => count_names(child, leaf),
        EntrySpec::Whiteout(_) => 0,
    };
    dir.entries.values().map(count).sum()
}

/// Removes redirects until no directory of a layer shows at two places of the union: no writer
/// makes such layers, and what they mean is not defined.
pub fn drop_aliases(layers: &mut [Layer]) {
    while has_alias(&build(layers)) {
        let marks = layers.iter_mut().flat_map(|layer| layer.items.iter_mut());
        let redirected = marks.filter_map(|item| match item {
            Item::Dir(_, _, marks) => Some(marks),
            _ => None,
        });
        let is_redirect = |mark: &Mark| matches!(mark, Mark::Redirect(..));
        match redirected.filter(|marks| marks.iter().any(is_redirect)).last() {
            Some(marks) => marks.retain(|mark| !is_redirect(mark)),
            None => unreachable!("a directory shows twice without any redirect"),
        }
    }
}

fn has_alias(stack: &[LayerSpec]) -> bool {
    let mut seen = HashSet::new();
    let mut queue = vec![root(stack, 0)];
    while let Some(merged) = queue.pop() {
        if merged.iter().any(|&(_, dir)| !seen.insert(std::ptr::from_ref(dir))) {
            return true;
        }
        for name in names(&merged) {
            if let Some(Found::Dir(child)) = find(stack, &merged, &name) {
                queue.push(child);
            }
        }
    }
    false
}
