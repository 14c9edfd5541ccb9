//! From a name to a node.

use std::ffi::OsStr;
use std::sync::Arc;

use super::directory::{Contents, Directory};
use super::hard_link::upper_key;
use super::name_table::NameEntry;
use super::node::{NameRef, Node, NodeId};
use super::node_state::{Place, Plain};
use super::node_table::Key;
use super::{Entry, Overlay};
use crate::layer::{LowerDir, LowerPlace, Protection};
use crate::sys::{Errno, Object, Result, Stat};

/// What there is to know about an object before it has a node.
pub(super) struct Found {
    pub stat: Stat,
    pub place: Place,
    pub ino: u64,
    pub link_bias: i32,
    /// The inodes that it can be known by, of anything but a directory.
    pub keys: Vec<Key>,
    /// Whether it has other names, so that it must be found by its inode.
    pub linked: bool,
    /// What chattr(1) forbids to change, as far as that is known.
    pub protection: Option<Protection>,
}

impl Overlay {
    /// Looks `name` up in the directory `parent`. A node that is found has one more reference.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENAMETOOLONG`; whatever keeps a layer from being read. Absence is no error.
    pub fn lookup(&self, parent: NodeId, name: &OsStr) -> Result<Option<Entry>> {
        if name.len() > 255 {
            return Err(Errno::NAMETOOLONG);
        }
        let parent = self.node(parent)?;
        self.refresh(&parent)?;
        let contents = self.contents(&parent)?;
        let Some(entry) = contents.names.visible(name) else { return Ok(None) };
        match self.enter(&parent, &contents, entry) {
            Ok((node, attr)) => Ok(Some(Entry { node: node.id, attr })),
            Err(error) => Err(error),
        }
    }

    /// The node for a name in `parent`, with one more reference, and its attributes.
    pub(super) fn enter(
        &self,
        parent: &Arc<Node>,
        contents: &Contents,
        entry: &NameEntry,
    ) -> Result<(Arc<Node>, super::Attr)> {
        let (node, stat) = self.enter_node(parent, contents, entry)?;
        let attr = match stat {
            Some(stat) => Ok(self.shown(&node, stat)),
            None => self.node_attr(&node),
        };
        let attr = attr.inspect_err(|_| self.forget(node.id, 1))?;
        Ok((node, attr))
    }

    /// The node for a name in `parent`, with one more reference, and its attributes if it was not known: for those
    /// who need none.
    pub(super) fn enter_node(
        &self,
        parent: &Arc<Node>,
        contents: &Contents,
        entry: &NameEntry,
    ) -> Result<(Arc<Node>, Option<Stat>)> {
        let name = NameRef {
            parent: parent.clone(),
            name: entry.name.clone(),
            in_upper: entry.layer.is_upper(),
            leaving: false,
        };
        if let Some(node) = self.nodes.acquire(&entry.node, &name) {
            self.lead_to(&node, contents, entry);
            return Ok((node, None));
        }
        let found = self.find(parent, contents, entry)?;
        let (stat, linked) = (found.stat, found.linked);
        let directory = match stat.kind().is_dir() {
            true => {
                let parts = contents.lower_dirs_of(entry);
                let listed = self.lowers.listed(&parts)?;
                Some(Directory::unread(parts, contents.stack.clone()).listing(listed))
            }
            false => None,
        };
        let keys = found.keys.clone();
        let number = (found.ino, linked && matches!(found.place, Place::Lower(_)));
        let node = self.nodes.intern(&entry.node, name, &keys, linked, number, |id, name| {
            new_node(id, name, found, directory)
        });
        self.note_data_source(&node, &stat, &contents.stack)
            .inspect_err(|_| self.forget(node.id, 1))?;
        // A node that was known by its inode may be somewhere else by now than what was just found.
        Ok((node, (!linked).then_some(stat)))
    }

    fn find(&self, parent: &Node, contents: &Contents, entry: &NameEntry) -> Result<Found> {
        if entry.layer.is_upper() {
            let object = Object::Child(self.upper_dir(parent)?, entry.name.clone());
            return self.find_upper(object, Place::Upper, contents.impure);
        }
        let dir = contents.lower_dir(entry.layer).ok_or(Errno::IO)?;
        let place = match entry.kind.is_dir() {
            true => LowerPlace::Dir(match self.described_below(contents, entry)? {
                Some(part) => part,
                None => dir.child(entry.name.clone()),
            }),
            false => LowerPlace::Child(dir.clone(), entry.name.clone()),
        };
        self.find_lower(place)
    }

    /// The part of a lower directory that has its attributes, and its inode number, if that is not the topmost.
    pub(super) fn described_below(
        &self,
        contents: &Contents,
        entry: &NameEntry,
    ) -> Result<Option<Arc<LowerDir>>> {
        if !self.lowers.is_packed(entry.layer) || contents.names.merged(&entry.name).is_empty() {
            return Ok(None);
        }
        let dir = contents.lower_dir(entry.layer).ok_or(Errno::IO)?;
        if !self.lowers.is_implied(&dir.child(entry.name.clone()))? {
            return Ok(None);
        }
        let parts = contents.lower_dirs_of(entry);
        Ok(self.lowers.described(&parts)?.cloned())
    }

    /// An object of the upper layer; `impure` is whether it may carry a number of its own.
    pub(super) fn find_upper(&self, object: Object, place: Place, impure: bool) -> Result<Found> {
        let stat = self.upper_stat(&object)?;
        let linked = !stat.kind().is_dir() && stat.nlink > 1;
        let number = match impure || linked {
            true => self.writable()?.numbers.read(&object)?,
            false => None,
        };
        let (mut place, mut link_bias) = (place, 0);
        if linked {
            link_bias = self.upper_link_bias(&object)?;
            if let Some(entry) = self.writable()?.index.entry_of(&object)? {
                place = Place::Indexed(entry);
            }
        }
        Ok(Found {
            ino: number.unwrap_or_else(|| self.numbers.number(stat.dev, stat.ino)),
            place,
            link_bias,
            // The last of several names is still one of a node that may be known by another.
            keys: (!stat.kind().is_dir()).then(|| upper_key(&stat)).into_iter().collect(),
            linked,
            protection: None,
            stat,
        })
    }

    fn find_lower(&self, place: LowerPlace) -> Result<Found> {
        let (stat, protection) = self.lowers.look(&place)?;
        let mut found = Found {
            ino: self.numbers.number(stat.dev, stat.ino),
            place: Place::Lower(place.clone()),
            link_bias: 0,
            keys: Vec::new(),
            linked: false,
            protection: (!self.lowers_may_change()).then_some(protection),
            stat,
        };
        if !stat.kind().is_dir() && stat.nlink > 1 {
            let key = Key { layer: place.layer(), dev: stat.dev, ino: stat.ino };
            self.resolve_lower_links(&place, &mut found)?;
            found.keys.push(key);
            found.linked = true;
            found.protection = found.protection.filter(|_| matches!(found.place, Place::Lower(_)));
        }
        Ok(found)
    }
}

/// The node of what was found under `name`.
fn new_node(id: NodeId, name: NameRef, found: Found, directory: Option<Directory>) -> Node {
    let kind = found.stat.kind();
    if !found.linked && directory.is_none() {
        let NameRef { parent, name, .. } = name;
        let lower = match found.place {
            Place::Lower(LowerPlace::Child(dir, _)) => Some(dir),
            _ => None,
        };
        let node = Node::plain(id, kind, found.ino, Plain { parent, name, lower });
        return node.knowing(found.protection);
    }
    let node = Node::new(id, kind, found.ino, found.place, directory).knowing(found.protection);
    node.state.lock().link_bias = found.link_bias;
    node.add_name(name);
    node
}
