//! What keeps deleted objects alive, and the space that they hold.
//!
//! A descriptor, as long as there are plenty; else one more name, in the stage of the workdir.
//!
//! With zero-message opens the daemon learns that nobody uses a deleted file only when the kernel forgets
//! its node, a moment after unlink(2) has returned. Who needs space in that moment waits for it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::node::Node;
use super::{Overlay, Result};
use crate::layer::Name;
use crate::layer::descriptors::Key;
use crate::sys::{Errno, FileKind, Object};

/// How long a full filesystem is given to get room by what has just been deleted.
const PATIENCE: Duration = Duration::from_millis(500);

/// What keeps an object alive and reachable.
#[derive(Clone)]
pub(super) enum Pinned {
    Open(Arc<OwnedFd>),
    /// A name in the stage.
    Named(Name),
}

/// How many objects are kept alive, and how many have been let go.
#[derive(Default)]
pub(super) struct Pins {
    kept: Mutex<u64>,
    /// Changed under the lock on `kept` only.
    released: AtomicU64,
    /// Something has been let go.
    let_go: Condvar,
}

impl Pins {
    fn keep_one(&self) {
        *self.kept.lock() += 1;
    }

    fn let_one_go(&self) {
        {
            let mut kept = self.kept.lock();
            *kept -= 1;
            self.released.fetch_add(1, Ordering::Relaxed);
        }
        self.let_go.notify_all();
    }

    /// Does something that needs space, once more if deleted objects have given some back meanwhile.
    pub fn with_space<T>(&self, change: impl Fn() -> Result<T>) -> Result<T> {
        let before = self.released.load(Ordering::Relaxed);
        match change() {
            Err(Errno::NOSPC | Errno::DQUOT) if self.wait_for_release(before) => change(),
            result => result,
        }
    }

    /// Waits until something has been let go since there were `before`.
    fn wait_for_release(&self, before: u64) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut kept = self.kept.lock();
        let mut late = false;
        while self.released.load(Ordering::Relaxed) == before {
            if late || *kept == 0 {
                return false;
            }
            late = self.let_go.wait_until(&mut kept, deadline).timed_out();
        }
        true
    }
}

impl Overlay {
    /// Makes sure that a node that is about to lose its last known upper name stays reachable.
    pub(super) fn pin(&self, node: &Node, object: &Object) -> Result<()> {
        if node.state.lock().pinned.is_some() {
            return Ok(());
        }
        let pinned = match self.descriptors.set_one_apart() {
            true => self.pin_open(node, object),
            false => match self.pin_by_name(node, object) {
                Some(name) => Ok(Pinned::Named(name)),
                None => {
                    self.descriptors.set_apart();
                    self.pin_open(node, object)
                }
            },
        }?;
        {
            let mut state = node.state.lock();
            // The object has one name more than the union knows of.
            state.link_bias -= i32::from(matches!(pinned, Pinned::Named(_)));
            state.pinned = Some(pinned);
        }
        self.pins.keep_one();
        Ok(())
    }

    fn pin_open(&self, node: &Node, object: &Object) -> Result<Pinned> {
        let open = match node.kind {
            FileKind::Regular => self.descriptors.get(Key::Data(node.id.0)),
            _ => None,
        };
        // What was opened for reading only may be the lower file, that the node had before its copy-up.
        let open = open.filter(|data| {
            data.writable || same_inode(&Object::Own(data.fd.clone()), object) == Ok(true)
        });
        match open.map(|data| data.fd) {
            Some(fd) => Ok(Pinned::Open(fd)),
            None => self
                .descriptors
                .with_room(|| object.pin())
                .map(Pinned::Open)
                .inspect_err(|_| self.descriptors.give_back()),
        }
    }

    /// A directory cannot have another name, and other things not everywhere.
    fn pin_by_name(&self, node: &Node, object: &Object) -> Option<Name> {
        if node.kind.is_dir() {
            return None;
        }
        self.upper.as_ref()?.work.keep(object).ok()
    }

    /// Takes back a [`pin`](Self::pin) for a change that failed, unless the node was pinned before it.
    pub(super) fn unpin_unless(&self, was_pinned: bool, node: &Node) {
        if was_pinned {
            return;
        }
        {
            let mut state = node.state.lock();
            state.link_bias += i32::from(matches!(state.pinned, Some(Pinned::Named(_))));
        }
        self.unpin(node);
    }

    /// Lets the object of a node go that nobody refers to any more, or that has a name.
    pub(super) fn unpin(&self, node: &Node) {
        let Some(pinned) = node.state.lock().pinned.take() else { return };
        match (pinned, &self.upper) {
            (Pinned::Named(name), Some(upper)) => upper.work.drop_kept(&name),
            (pinned, _) => {
                drop(pinned);
                self.descriptors.give_back();
            }
        }
        self.pins.let_one_go();
    }
}

fn same_inode(one: &Object, other: &Object) -> Result<bool> {
    let (one, other) = (one.stat()?, other.stat()?);
    Ok((one.dev, one.ino) == (other.dev, other.ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Tries a change that finds room at the second try; `at_first` happens during the first. Returns the number of
    /// tries.
    fn tries(pins: &Pins, at_first: impl Fn()) -> u32 {
        let tries = Cell::new(0);
        let done = pins.with_space(|| {
            tries.set(tries.get() + 1);
            if tries.get() > 1 {
                return Ok(());
            }
            at_first();
            Err(Errno::NOSPC)
        });
        assert_eq!(done.is_ok(), tries.get() == 2);
        tries.get()
    }

    #[test]
    fn what_found_no_room_is_tried_again_when_something_has_been_let_go() {
        let pins = Pins::default();
        pins.keep_one();
        // The last one: nothing is left then that could give room back.
        assert_eq!(tries(&pins, || pins.let_one_go()), 2);
        assert_eq!(tries(&pins, || {}), 1);
        pins.keep_one();
        assert_eq!(tries(&pins, || {}), 1);
    }
}
