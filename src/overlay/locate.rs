//! Where the object of a node can be reached on disk.
//!
//! A name is good for that only as long as it stays the node's: whoever is about to take it away says so first
//! ([`Node::leave`]), and whoever has come by it asks afterwards whether it stayed. So nobody takes the file that
//! has just got the name for the one that had it, and no lock is held while a file is opened or read.

use std::ffi::OsStr;

use super::node::{NameRef, Node};
use super::node_state::{NodeState, Place};
use super::pins::Pinned;
use super::{Overlay, Result};
use crate::layer::{LowerPlace, Name};
use crate::sys::{Errno, Object};

/// Where an object can be reached now.
pub(super) enum Located {
    Upper(Object),
    Lower(LowerPlace),
}

/// By what it is reached there.
enum By {
    /// By what stays as long as the node.
    Itself,
    Name(NameRef),
    Index(Name),
}

impl Overlay {
    /// Does something with the object of `node`, wherever that is; once more when it was reached by a name that
    /// went meanwhile. Not to be called by those who take names away.
    ///
    /// # Errors
    /// `ENOENT` when the object has vanished from the layer.
    pub(super) fn at<T>(&self, node: &Node, act: impl Fn(Located) -> Result<T>) -> Result<T> {
        loop {
            let (located, by) = self.find_place(node)?;
            let result = act(located);
            if node.is_reached(&by) {
                return result;
            }
            // The step on disk that takes the name is under way.
            std::thread::yield_now();
        }
    }

    /// Where `node` is, for those who keep its names from going.
    ///
    /// # Errors
    /// `ENOENT` when it has vanished from the layer.
    pub(super) fn locate(&self, node: &Node) -> Result<Located> {
        Ok(self.find_place(node)?.0)
    }

    /// The object of `node`, which must be in the upper layer, for those who keep its names from going: by a
    /// directory's lock, or because the kernel, which holds the inode's lock for every change of attributes, link,
    /// unlink and rename, sends no two of them at once.
    pub(super) fn upper_object(&self, node: &Node) -> Result<Object> {
        self.locate(node)?.upper()
    }

    fn find_place(&self, node: &Node) -> Result<(Located, By)> {
        let (place, pinned, name) = node.state.look(
            |plain| (plain.place(), None, Some(plain.name())),
            |state| (state.place.clone(), state.pinned.clone(), state.best_name().cloned()),
        );
        Ok(match (place, pinned, name) {
            (Place::Lower(place), ..) => (Located::Lower(place), By::Itself),
            (_, Some(Pinned::Open(fd)), _) => (Located::Upper(Object::Own(fd)), By::Itself),
            (_, Some(Pinned::Named(name)), _) => {
                (Located::Upper(self.writable()?.work.kept(&name)), By::Itself)
            }
            (Place::Indexed(name), ..) => {
                (Located::Upper(self.writable()?.index.object(&name)?), By::Index(name))
            }
            (Place::Upper, ..) if node.kind.is_dir() => {
                (Located::Upper(Object::Own(self.upper_dir(node)?)), By::Itself)
            }
            (Place::Upper, _, Some(name)) => {
                let object = Object::Child(self.upper_dir(&name.parent)?, name.name.clone());
                (Located::Upper(object), By::Name(name))
            }
            (Place::Upper, _, None) => return Err(Errno::NOENT),
        })
    }
}

impl Located {
    /// The object, which must be in the upper layer.
    pub fn upper(self) -> Result<Object> {
        match self {
            Self::Upper(object) => Ok(object),
            Self::Lower(_) => Err(Errno::IO),
        }
    }
}

impl NodeState {
    /// An upper name, one that stays if there is one.
    fn best_name(&self) -> Option<&NameRef> {
        let mut upper = self.names.iter().filter(|name| name.in_upper);
        upper.clone().find(|name| !name.leaving).or_else(|| upper.next())
    }
}

impl Node {
    /// Notes that an upper name is about to go, and returns whether the upper object has others that are known
    /// and stay.
    pub fn leave(&self, parent: &Node, name: &OsStr) -> bool {
        let mut state = self.state.lock();
        for known in state.names.iter_mut().filter(|known| known.is(parent, name)) {
            known.leaving = true;
        }
        state.names.iter().any(|known| known.in_upper && !known.leaving)
    }

    /// Notes that a name stays after all.
    pub fn stay(&self, parent: &Node, name: &OsStr) {
        for known in &mut self.state.lock().names {
            known.leaving &= !known.is(parent, name);
        }
    }

    fn is_reached(&self, by: &By) -> bool {
        self.state.look(
            |plain| match by {
                By::Itself => true,
                By::Name(used) => plain.is(&used.parent, &used.name) && plain.lower.is_none(),
                By::Index(_) => false,
            },
            |state| match by {
                By::Itself => true,
                By::Name(used) => state.names.iter().any(|known| {
                    known.is(&used.parent, &used.name) && known.in_upper && !known.leaving
                }),
                By::Index(used) => matches!(&state.place, Place::Indexed(name) if name == used),
            },
        )
    }
}
