//! What may change about a node, behind its lock.
//!
//! Nearly every node is a file that was looked up and nothing else: it has one name, lies where it was found, and
//! nothing more is known about it. Its state is small ([`Plain`]) until somebody wants to see the whole, and whole
//! from then on.

use std::ffi::OsStr;
use std::sync::Arc;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::copy_up::Wanted;
use super::node::{NameRef, Node};
use super::node_table::Key;
use super::pins::Pinned;
use crate::layer::{LowerDir, LowerPlace, Name};

/// The state of a node and its lock.
pub(super) struct StateCell(Mutex<Form>);

enum Form {
    Plain(Plain),
    Whole(Box<NodeState>),
}

/// The state of anything but a directory that was found under its only known name, and that nothing was done with.
pub(super) struct Plain {
    pub parent: Arc<Node>,
    pub name: Name,
    /// The lower directory that it lies in under that name; `None` in the upper layer.
    pub lower: Option<Arc<LowerDir>>,
}

/// What may change about a node.
pub(super) struct NodeState {
    pub place: Place,
    /// The known names; empty for the root and for what has been deleted.
    pub names: Vec<NameRef>,
    /// Keeps an upper object reachable that has no known name.
    pub pinned: Option<Pinned>,
    /// Where the data of an upper metacopy file is, as soon as that is known.
    pub data_source: Option<LowerPlace>,
    /// Whether an upper file is known to hold its data itself, and not only attributes.
    pub complete: bool,
    /// What the next sync has to see to, if the object is in the upper layer. Changed under the `copy_up` lock, or
    /// before anybody else knows the node.
    pub unsynced: Unsynced,
    /// What is added to the link count that the backing inode reports.
    pub link_bias: i32,
    /// Whether the last change was that the capabilities of the file were taken away.
    pub lost_capabilities: bool,
    /// What is known of its set-id bits.
    pub set_id: SetIdBits,
    /// The keys under which the node table finds this node by its backing inode.
    pub keys: Vec<Key>,
}

/// What a sync of a node has to see to besides what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unsynced {
    /// Nothing.
    Nothing,
    /// All attributes, since the object came to be by more than what fdatasync(2) covers.
    Attributes,
    /// Its names in the upper layer too: for all that is known they are from a copy-up, of which whoever syncs
    /// knows nothing.
    Names,
}

/// What is known of the set-id bits of an upper file, so that not every write of a stranger has to look for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SetIdBits {
    /// How often the permissions were changed.
    changes: u32,
    /// Whether there are none.
    none: bool,
}

impl SetIdBits {
    /// Whether there are none for certain.
    pub fn are_absent(self) -> bool {
        self.none
    }

    /// To be called after every change of permissions that can add some.
    pub fn changed(&mut self) {
        self.changes = self.changes.wrapping_add(1);
        self.none = false;
    }

    /// Notes that there were none, for who has seen `before` and looked then: a change in between counts more.
    pub fn were_absent(&mut self, before: Self) {
        self.none |= self.changes == before.changes;
    }
}

/// Where a node's object lies.
#[derive(Clone)]
pub(super) enum Place {
    /// In the upper layer, under the names that are `in_upper`.
    Upper,
    /// In the upper layer, under this name in the index of hard links.
    Indexed(Name),
    /// In a lower layer.
    Lower(LowerPlace),
}

impl StateCell {
    /// The state of an object at `place` that has no name yet.
    pub fn new(place: Place) -> Self {
        Self(Mutex::new(Form::Whole(Box::new(NodeState::new(place)))))
    }

    /// The state of anything but a directory.
    pub fn plain(plain: Plain) -> Self {
        Self(Mutex::new(Form::Plain(plain)))
    }

    /// The whole state. For what is asked about every file there is [`look`](Self::look).
    pub fn lock(&self) -> MappedMutexGuard<'_, NodeState> {
        let mut form = self.0.lock();
        loop {
            match MutexGuard::try_map(form, Form::as_whole) {
                Ok(state) => return state,
                Err(plain) => form = plain,
            }
            form.make_whole();
        }
    }

    /// Looks at the state as it is kept.
    pub fn look<T>(
        &self,
        plain: impl FnOnce(&Plain) -> T,
        whole: impl FnOnce(&NodeState) -> T,
    ) -> T {
        match &*self.0.lock() {
            Form::Plain(state) => plain(state),
            Form::Whole(state) => whole(state),
        }
    }
}

impl Form {
    fn as_whole(&mut self) -> Option<&mut NodeState> {
        match self {
            Self::Plain(_) => None,
            Self::Whole(state) => Some(state),
        }
    }

    fn make_whole(&mut self) {
        if let Self::Plain(plain) = self {
            *self = Self::Whole(Box::new(plain.whole()));
        }
    }
}

impl Plain {
    /// Where the object lies.
    pub fn place(&self) -> Place {
        match &self.lower {
            Some(dir) => Place::Lower(LowerPlace::Child(dir.clone(), self.name.clone())),
            None => Place::Upper,
        }
    }

    /// Whether it is called so.
    pub fn is(&self, parent: &Node, name: &OsStr) -> bool {
        self.parent.id == parent.id && &*self.name == name
    }

    /// Its name.
    pub fn name(&self) -> NameRef {
        NameRef {
            parent: self.parent.clone(),
            name: self.name.clone(),
            in_upper: self.lower.is_none(),
            leaving: false,
        }
    }

    fn whole(&self) -> NodeState {
        NodeState { names: vec![self.name()], ..NodeState::new(self.place()) }
    }
}

impl NodeState {
    fn new(place: Place) -> Self {
        Self {
            place,
            names: Vec::new(),
            pinned: None,
            data_source: None,
            complete: false,
            unsynced: Unsynced::Names,
            link_bias: 0,
            lost_capabilities: false,
            set_id: SetIdBits::default(),
            keys: Vec::new(),
        }
    }

    /// Whether the upper layer has what is wanted, and every name that is known.
    pub fn is_settled(&self, wanted: Wanted) -> bool {
        let here = match wanted {
            Wanted::Attributes => !matches!(self.place, Place::Lower(_)),
            Wanted::Data | Wanted::Cut(_) => self.complete,
        };
        here && self.names.iter().all(|name| name.in_upper)
    }
}
