//! What a layer on disk contains, as plain data: the input of both the materialiser and the
//! function that computes the initial tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;

use crate::cases::text::{Text, t};

/// Permission bits; prints in octal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mode({:#o})", self.0)
    }
}

/// Everything about an object but its type and content. `Debug` prints the builder calls.
#[derive(Clone, PartialEq, Eq)]
pub struct Meta {
    pub mode: Mode,
    pub owner: (u32, u32),
    /// Seconds and nanoseconds since 1970, of the modification time.
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<Text, Text>,
}

/// Starts a [`Meta`] with the permissions `mode`, owned by the user who runs the test.
pub fn meta(mode: u32) -> Meta {
    Meta { mode: Mode(mode), owner: own_ids(), mtime: (1_000_000_000, 0), xattrs: BTreeMap::new() }
}

/// Whether the test may make devices, change owners and set trusted attributes: it is root, and not
/// only of a user namespace.
pub fn is_privileged() -> bool {
    let everybody = || fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295");
    own_ids().0 == 0 && everybody()
}

/// User and group of the test process.
pub fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

impl Meta {
    pub fn owner(mut self, uid: u32, gid: u32) -> Meta {
        self.owner = (uid, gid);
        self
    }

    pub fn mtime(mut self, sec: i64, nsec: u32) -> Meta {
        self.mtime = (sec, nsec);
        self
    }

    pub fn xattr(mut self, name: Text, value: Text) -> Meta {
        self.xattrs.insert(name, value);
        self
    }
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = meta(self.mode.0);
        write!(f, "meta({:#o})", self.mode.0)?;
        if self.owner != plain.owner {
            write!(f, ".owner({}, {})", self.owner.0, self.owner.1)?;
        }
        if self.mtime != plain.mtime {
            write!(f, ".mtime({}, {})", self.mtime.0, self.mtime.1)?;
        }
        self.xattrs.iter().try_for_each(|(name, value)| write!(f, ".xattr({name:?}, {value:?})"))
    }
}

/// File content by rule, so that a case prints in one line: `len` bytes that depend on `fill`,
/// with the first half a hole if `sparse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    pub len: usize,
    pub fill: u8,
    pub sparse: bool,
}

impl Data {
    pub fn hole(self) -> usize {
        if self.sparse { self.len / 2 } else { 0 }
    }

    pub fn bytes(self) -> Vec<u8> {
        (0..self.len).map(|at| if at < self.hole() { 0 } else { pattern(self.fill, at) }).collect()
    }
}

/// The byte at offset `at` of a pattern: never NUL, and different from its shifted self.
pub fn pattern(fill: u8, at: usize) -> u8 {
    (fill.wrapping_add((at % 251) as u8)) | 1
}

/// Objects other than directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    File(Data),
    /// A file with its own metadata and the data of the next file below: of the same name, or at
    /// the path of a redirect. Gets its size when the stack is complete; without data below it is
    /// an empty file.
    Metacopy(Prefix, Option<Text>, usize),
    Symlink(Text),
    Fifo,
    Socket,
    Char(u32, u32),
    Block(u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prefix {
    Trusted,
    User,
}

impl Prefix {
    /// The full name of an overlay attribute in this namespace.
    pub fn overlay(self, suffix: &str) -> String {
        match self {
            Prefix::Trusted => format!("trusted.overlay.{suffix}"),
            Prefix::User => format!("user.overlay.{suffix}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `{trusted,user}.overlay.opaque` = `y`.
    Opaque(Prefix),
    /// `user.fuseoverlayfs.opaque` = `y`.
    FuseOpaque,
    /// A file `.wh..wh..opq`.
    OpaqueFile,
    /// `{trusted,user}.overlay.redirect`: absolute from the union root, or a name in the same parent.
    Redirect(Prefix, Text),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteout {
    /// A character device 0:0 of its own.
    Device,
    /// A hard link to the layer's one character device 0:0.
    SharedDevice,
    /// A file `.wh.NAME`; NAME may exist beside it and is hidden too.
    DotWh,
    /// An empty file with `{trusted,user}.overlay.whiteout` in a directory marked `opaque=x`.
    Xattr(Prefix),
}

/// One thing to put into a layer, at a path relative to the layer's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Dir(Text, Meta, Vec<Mark>),
    Leaf(Text, Meta, Leaf),
    /// A further name (first) for an object already in this layer (second).
    HardLink(Text, Text),
    Whiteout(Text, Whiteout),
}

/// A layer as a list of independent steps, so that any of them can be left out when a failure is
/// minimised: steps that cannot be carried out are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Whether the layer only holds data for metacopies of the others; such layers come last.
    pub data_only: bool,
    pub root: Meta,
    pub marks: Vec<Mark>,
    pub items: Vec<Item>,
}

/// An empty layer.
pub fn layer(items: Vec<Item>) -> Layer {
    Layer { data_only: false, root: meta(0o755), marks: Vec::new(), items }
}

impl Layer {
    pub fn root(self, root: Meta) -> Layer {
        Layer { root, ..self }
    }

    pub fn marks(self, marks: Vec<Mark>) -> Layer {
        Layer { marks, ..self }
    }

    pub fn data_only(self) -> Layer {
        Layer { data_only: true, ..self }
    }

    /// The builder calls for what is not an item.
    pub fn extra_code(&self) -> String {
        let mut code = String::new();
        if self.data_only {
            code += ".data_only()";
        }
        if self.root != meta(0o755) {
            code += &format!(".root({:?})", self.root);
        }
        if !self.marks.is_empty() {
            code += &format!(".marks(vec!{:?})", self.marks);
        }
        code
    }
}

/// A directory of a layer as it will be on disk.
#[derive(Clone, Debug)]
pub struct DirSpec {
    pub meta: Meta,
    pub marks: Vec<Mark>,
    pub entries: BTreeMap<Text, EntrySpec>,
    /// Names hidden by a `.wh.NAME` file here.
    pub hidden: BTreeSet<Text>,
}

#[derive(Clone, Debug)]
pub enum EntrySpec {
    Dir(DirSpec),
    /// Index into [`LayerSpec::leaves`]; the same index twice is a hard link.
    /// A file of which a name begins with `.wh.` is marked as meant literally, as plyfs does.
    Leaf(usize),
    Whiteout(Whiteout),
}

/// A whole layer as it will be on disk.
#[derive(Clone, Debug)]
pub struct LayerSpec {
    pub data_only: bool,
    pub root: DirSpec,
    pub leaves: Vec<(Meta, Leaf)>,
}

impl DirSpec {
    fn new(meta: &Meta, marks: &[Mark]) -> DirSpec {
        DirSpec {
            meta: meta.clone(),
            marks: marks.to_vec(),
            entries: BTreeMap::new(),
            hidden: BTreeSet::new(),
        }
    }

    pub fn is_opaque(&self) -> bool {
        self.marks.iter().any(|mark| !matches!(mark, Mark::Redirect(..)))
    }

    pub fn redirect(&self) -> Option<&Text> {
        self.marks.iter().find_map(|mark| match mark {
            Mark::Redirect(_, to) => Some(to),
            _ => None,
        })
    }

    /// The namespaces in which this directory must be marked `opaque=x`.
    pub fn xattr_whiteouts(&self) -> BTreeSet<Prefix> {
        let whiteouts = self.entries.values().filter_map(|entry| match entry {
            EntrySpec::Whiteout(Whiteout::Xattr(prefix)) => Some(*prefix),
            _ => None,
        });
        whiteouts.collect()
    }

    fn count_names(&self, names: &mut [usize]) {
        for entry in self.entries.values() {
            match entry {
                EntrySpec::Leaf(leaf) => names[*leaf] += 1,
                EntrySpec::Dir(dir) => dir.count_names(names),
                EntrySpec::Whiteout(_) => {}
            }
        }
    }

    /// Removes what is a link to something else from where a `.wh.` file of its own layer hides it:
    /// when that place is cleared, the count of the other names changes.
    fn unlink_hidden(&mut self, names: &[usize], within_hidden: bool) {
        let hidden = &self.hidden;
        self.entries.retain(|name, entry| {
            let is_hidden = within_hidden || hidden.contains(name);
            match entry {
                EntrySpec::Dir(dir) => dir.unlink_hidden(names, is_hidden),
                EntrySpec::Leaf(leaf) if is_hidden => return names[*leaf] == 1,
                _ => {}
            }
            true
        });
    }

    /// The directory at `path`, made with its parents if absent; `None` if something is in the way.
    fn dir_at(&mut self, path: &Text) -> Option<&mut DirSpec> {
        path.components().try_fold(self, |dir, name| {
            if !dir.entries.contains_key(&name) && !dir.has_room(&name) {
                return None;
            }
            let fresh = || EntrySpec::Dir(DirSpec::new(&meta(0o755), &[]));
            match dir.entries.entry(name).or_insert_with(fresh) {
                EntrySpec::Dir(child) => Some(child),
                _ => None,
            }
        })
    }

    /// The directory in which the absent name `path` can be made.
    fn place_for(&mut self, path: &Text) -> Option<(&mut DirSpec, Text)> {
        let (parent, name) = path.split_last()?;
        let dir = self.dir_at(&parent)?;
        dir.has_room(&name).then_some((dir, name))
    }

    /// Whether an object called `name` can be made here and is no mark.
    fn has_room(&self, name: &Text) -> bool {
        let marked = self.hidden.iter().any(|it| dot_wh(it) == *name)
            || *name == t(OPAQUE_FILE) && self.marks.contains(&Mark::OpaqueFile);
        !marked && !self.entries.contains_key(name)
    }
}

/// The name of the file that makes a directory opaque.
pub const OPAQUE_FILE: &str = ".wh..wh..opq";

/// The file name that hides `name` of the layers below.
pub fn dot_wh(name: &Text) -> Text {
    Text([b".wh.", name.0.as_slice()].concat())
}

impl LayerSpec {
    pub fn build(layer: &Layer) -> LayerSpec {
        let mut spec = LayerSpec {
            data_only: layer.data_only,
            root: DirSpec::new(&layer.root, &layer.marks),
            leaves: Vec::new(),
        };
        layer.items.iter().for_each(|item| spec.add(item));
        let mut names = vec![0; spec.leaves.len()];
        spec.root.count_names(&mut names);
        spec.root.unlink_hidden(&names, false);
        spec
    }

    fn add(&mut self, item: &Item) {
        match item {
            Item::Dir(path, meta, marks) => {
                if let Some((dir, name)) = self.root.place_for(path) {
                    dir.entries.insert(name, EntrySpec::Dir(DirSpec::new(meta, marks)));
                }
            }
            Item::Leaf(path, meta, leaf) => {
                let index = self.leaves.len();
                if self.name_leaf(path, index) {
                    self.leaves.push((meta.clone(), leaf.clone()));
                }
            }
            Item::HardLink(path, to) => {
                if let Some(index) = self.leaf_at(to) {
                    let leaf = &self.leaves[index].1;
                    // What a metacopy means depends on its path. On a copied-up special file, an
                    // ordinary user cannot note what it is linked to.
                    let linkable = match leaf {
                        Leaf::Metacopy(..) => false,
                        Leaf::File(_) => true,
                        _ => is_privileged(),
                    };
                    if linkable {
                        self.name_leaf(path, index);
                    }
                }
            }
            Item::Whiteout(path, form) => self.add_whiteout(path, *form),
        }
    }

    /// Gives a leaf a name; false if that is impossible.
    fn name_leaf(&mut self, path: &Text, index: usize) -> bool {
        let Some((dir, name)) = self.root.place_for(path) else { return false };
        dir.entries.insert(name, EntrySpec::Leaf(index));
        true
    }

    fn add_whiteout(&mut self, path: &Text, form: Whiteout) {
        if form == Whiteout::DotWh {
            let Some((parent, name)) = path.split_last() else { return };
            let mark = dot_wh(&name);
            if let Some(dir) = self.root.dir_at(&parent).filter(|_| mark.0.len() <= 255)
                && !dir.entries.contains_key(&mark)
            {
                dir.hidden.insert(name);
            }
        } else if let Some((dir, name)) = self.root.place_for(path) {
            // One attribute cannot be both `y` and `x`, nor one file two kinds of mark.
            let clash = dir.is_opaque() || name.0.starts_with(b".wh.");
            let form = match form {
                Whiteout::Xattr(_) if clash => Whiteout::Device,
                form => form,
            };
            dir.entries.insert(name, EntrySpec::Whiteout(form));
        }
    }

    /// The leaf at a path.
    pub fn leaf_at(&self, path: &Text) -> Option<usize> {
        let (parent, name) = path.split_last()?;
        let dir =
            parent.components().try_fold(&self.root, |dir, part| match dir.entries.get(&part) {
                Some(EntrySpec::Dir(child)) => Some(child),
                _ => None,
            })?;
        match dir.entries.get(&name) {
            Some(EntrySpec::Leaf(leaf)) => Some(*leaf),
            _ => None,
        }
    }
}
