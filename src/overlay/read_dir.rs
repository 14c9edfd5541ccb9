//! Reading directories, piece by piece.

use std::ffi::OsStr;
use std::sync::atomic::Ordering;

use super::directory::Contents;
use super::name_table::NameEntry;
use super::node::{Node, NodeId};
use super::{Entry, Overlay};
use crate::layer::LowerPlace;
use crate::sys::{FileKind, Object, Result};

/// One entry.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Its name.
    pub name: &'a OsStr,
    /// Its inode number, the same as stat(2) gives.
    pub ino: u64,
    /// Its type.
    pub kind: FileKind,
    /// Reading on after this entry starts from here.
    pub cookie: u64,
}

/// Whether reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The entry was taken.
    Continue,
    /// There was no room for the entry; it comes again.
    Stop,
}

impl Overlay {
    /// Reads the directory `id` from behind the entry with the cookie `after` (0 for the beginning).
    ///
    /// `.` and `..` come first. Cookies stay valid while the directory changes: an entry that exists all
    /// the time comes exactly once.
    pub fn read_dir(
        &self,
        id: NodeId,
        after: u64,
        mut emit: impl FnMut(DirEntry<'_>) -> Flow,
    ) -> Result<()> {
        let node = self.node(id)?;
        if self.read_dots(&node, after, &mut emit) == Flow::Stop {
            return Ok(());
        }
        let contents = self.contents(&node)?;
        for (cookie, entry) in contents.names.after(after) {
            let ino = self.number_of(&node, &contents, entry)?;
            if emit(DirEntry { name: &entry.name, ino, kind: entry.kind, cookie }) == Flow::Stop {
                break;
            }
        }
        Ok(())
    }

    /// The same with the attributes of every entry but `.` and `..`; each that is taken holds one more
    /// reference on its node.
    pub fn read_dir_plus(
        &self,
        id: NodeId,
        after: u64,
        mut emit: impl FnMut(DirEntry<'_>, Option<&Entry>) -> Flow,
    ) -> Result<()> {
        let node = self.node(id)?;
        if self.read_dots(&node, after, &mut |entry| emit(entry, None)) == Flow::Stop {
            return Ok(());
        }
        let contents = self.contents(&node)?;
        let mut emitted = false;
        for (cookie, entry) in contents.names.after(after) {
            let (child, attr) = match self.enter(&node, &contents, entry) {
                Ok(entered) => entered,
                // What was listed already must not be lost with the error.
                Err(_) if emitted => break,
                Err(error) => return Err(error),
            };
            let listed = DirEntry { name: &entry.name, ino: attr.ino, kind: entry.kind, cookie };
            if emit(listed, Some(&Entry { node: child.id, attr })) == Flow::Stop {
                self.forget(child.id, 1);
                break;
            }
            emitted = true;
        }
        Ok(())
    }

    fn read_dots(
        &self,
        node: &std::sync::Arc<Node>,
        after: u64,
        emit: &mut impl FnMut(DirEntry<'_>) -> Flow,
    ) -> Flow {
        let parent = node.parent();
        let dots = [(1, ".", node.ino), (2, "..", parent.map_or(node.ino, |parent| parent.ino))];
        for (cookie, name, ino) in dots {
            let entry = DirEntry { name: OsStr::new(name), ino, kind: FileKind::Directory, cookie };
            if cookie > after && emit(entry) == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::Continue
    }

    /// The inode number of an entry, without making a node for it.
    fn number_of(&self, dir: &Node, contents: &Contents, entry: &NameEntry) -> Result<u64> {
        let known = entry.node.load(Ordering::Relaxed);
        if known != 0
            && let Some(node) = self.nodes.get(NodeId(known))
            && node.has_name(dir, &entry.name)
        {
            return Ok(node.ino);
        }
        if entry.layer.is_upper() {
            let upper_dir = self.upper_dir(dir)?;
            if contents.impure {
                let object = Object::Child(upper_dir.clone(), entry.name.clone());
                if let Some(ino) = self.writable()?.numbers.read(&object)? {
                    return Ok(ino);
                }
            }
            let dev = Object::Own(upper_dir).stat()?.dev;
            return Ok(self.numbers.number(dev, entry.ino));
        }
        let Some(lower) = contents.lower_dir(entry.layer) else { return Ok(entry.ino) };
        let dev = self.lowers.stat(&LowerPlace::Dir(lower.clone()))?.dev;
        Ok(self.numbers.number(dev, entry.ino))
    }
}
