//! Reading directories, piece by piece.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::Ordering;

use super::directory::Contents;
use super::name_table::NameEntry;
use super::node::{Node, NodeId};
use super::{Entry, Overlay};
use crate::layer::{LayerIndex, LowerPlace};
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
    /// the time comes exactly once, and what is made or renamed meanwhile does not keep the end away.
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
        self.refresh(&node)?;
        let contents = self.contents(&node)?;
        let mut filesystems = HashMap::new();
        for (cookie, entry) in contents.names.read(after) {
            let ino = self.number_of(&node, &contents, entry, &mut filesystems)?;
            if emit(DirEntry { name: &entry.name, ino, kind: entry.kind, cookie }) == Flow::Stop {
                break;
            }
        }
        Ok(())
    }

    /// The same with the attributes of every entry but `.`, `..` and what cannot be reached; each that is
    /// taken with its attributes holds one more reference on its node.
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
        self.refresh(&node)?;
        let contents = self.contents(&node)?;
        for (cookie, entry) in contents.names.read(after) {
            let (child, attr) = match self.enter(&node, &contents, entry) {
                Ok(entered) => entered,
                Err(error) => {
                    // Whoever asks for this very object gets the error; the others are listed.
                    log::debug!("{}: {error}", node.path().join(&*entry.name).display());
                    let listed =
                        DirEntry { name: &entry.name, ino: entry.ino, kind: entry.kind, cookie };
                    match emit(listed, None) {
                        Flow::Continue => continue,
                        Flow::Stop => break,
                    }
                }
            };
            let listed = DirEntry { name: &entry.name, ino: attr.ino, kind: entry.kind, cookie };
            if emit(listed, Some(&Entry { node: child.id, attr })) == Flow::Stop {
                self.forget(child.id, 1);
                break;
            }
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

    /// The inode number of an entry, without making a node for it. `filesystems` keeps those of the layers
    /// that this directory is in.
    fn number_of(
        &self,
        dir: &Node,
        contents: &Contents,
        entry: &NameEntry,
        filesystems: &mut HashMap<LayerIndex, u64>,
    ) -> Result<u64> {
        let known = entry.node.load(Ordering::Relaxed);
        if known != 0
            && let Some(node) = self.nodes.get(NodeId(known))
            && node.has_name(dir, &entry.name)
        {
            return Ok(node.ino);
        }
        if entry.layer.is_upper() && contents.impure {
            let object = Object::Child(self.upper_dir(dir)?, entry.name.clone());
            if let Some(ino) = self.writable()?.numbers.read(&object)? {
                return Ok(ino);
            }
        }
        if entry.kind.is_dir()
            && !entry.layer.is_upper()
            && let Some(part) = self.described_below(contents, entry)?
        {
            let stat = self.lowers.stat(&LowerPlace::Dir(part))?;
            return Ok(self.numbers.number(stat.dev, stat.ino));
        }
        let dev = match filesystems.get(&entry.layer) {
            Some(dev) => *dev,
            None => {
                let dev = match contents.lower_dir(entry.layer) {
                    Some(lower) => self.lowers.stat(&LowerPlace::Dir(lower.clone()))?.dev,
                    None => Object::Own(self.upper_dir(dir)?).stat()?.dev,
                };
                filesystems.insert(entry.layer, dev);
                dev
            }
        };
        Ok(self.numbers.number(dev, entry.ino))
    }
}
