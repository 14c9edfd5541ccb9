//! Names that changed with a file without being in the upper layer.
//!
//! A lower file with several names is copied up once. A mount finds the copy under all of them by the index in the workdir;
//! the upper layer has those that were looked up. How many there are stands in the marks of the copy (`layer::index`), and
//! of what it is a copy: with that the others are found in the lower layers. So they are where the upper layer has none, and
//! the index alone has the copy (`unnamed`). That costs a walk through all of them, when such names are missing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::held::Held;
use super::unnamed::Unnamed;
use super::walk::{Below, Sink, Told, Union, Walk, names};
use super::{Error, Kind, Result};
use crate::layer::Name;
use crate::layer::index::{CopyMarks, LinkCount, link_count};
use crate::overlay::Attr;
use crate::sys::{self, Errno, Object, open};

/// What the walk has seen of files with several names.
#[derive(Default)]
pub struct Links {
    /// Files of the upper layer, by their inode numbers.
    copies: HashMap<u64, Copy>,
    /// What has several names and is lower in a directory that comes with all that is in it: perhaps a name of a copy,
    /// perhaps a file with names elsewhere.
    pub doubtful: BTreeMap<PathBuf, Attr>,
}

/// Where what is to be told of is found.
#[derive(Clone)]
enum Place {
    /// At this path of the union.
    At(PathBuf),
    /// In the index, under this name.
    Indexed(Name),
}

struct Copy {
    /// Its first name.
    path: PathBuf,
    seen: u64,
    /// How many names it has in the union.
    names: u64,
}

impl Links {
    /// Counts the name `path` of `object`, which is in the upper layer.
    pub fn count(&mut self, union: &Union, path: &Path, object: &Held<'_>) -> sys::Result<()> {
        if let Some(copy) = self.copies.get_mut(&object.attr.ino) {
            copy.seen += 1;
            return Ok(());
        }
        let links = object.attr.nlink;
        let names = match link_count(&raw(union, path)?)? {
            Some(LinkCount::Upper(more)) => links.saturating_add_signed(more).into(),
            // It counts from the lower file's, which is not at hand.
            Some(LinkCount::Lower(_)) => u64::MAX,
            None => 0,
        };
        self.copies.insert(object.attr.ino, Copy { path: path.to_owned(), seen: 1, names });
        Ok(())
    }

    /// The files of which there are more names, and what they are copies of.
    fn incomplete(&self, union: &Union) -> Result<Vec<(CopyMarks, Place)>> {
        let mut found = Vec::new();
        for copy in self.copies.values().filter(|copy| copy.seen < copy.names) {
            let marks = raw(union, &copy.path).and_then(|object| CopyMarks::read(&object));
            let marks = marks.map_err(|error| Error::at(&copy.path, error))?;
            found.extend(marks.map(|marks| (marks, Place::At(copy.path.clone()))));
        }
        let unnamed = union.unnamed.iter().flat_map(Unnamed::copies);
        found.extend(unnamed.map(|(marks, name)| (marks.clone(), Place::Indexed(name.clone()))));
        Ok(found)
    }
}

impl<'u, S: Sink> Walk<'u, S> {
    /// Tells of the names that the upper layer does not have.
    pub fn tell_other_names(&mut self) -> Result<()> {
        let copies = self.links.incomplete(self.union)?;
        let doubtful = std::mem::take(&mut self.links.doubtful);
        let mut told: BTreeMap<PathBuf, Place> =
            doubtful.keys().map(|path| (path.clone(), Place::At(path.clone()))).collect();
        let divided = divided(&doubtful);
        if !copies.is_empty() || !divided.is_empty() {
            told.extend(find_names(self.union, &copies, &divided)?);
        }
        for (path, place) in told {
            self.tell_as(&path, &place)?;
        }
        Ok(())
    }

    /// Tells that at `path` is what is found at `place`.
    fn tell_as(&mut self, path: &Path, place: &Place) -> Result<()> {
        let at = |error: Errno| Error::at(path, error);
        let object = match place {
            Place::At(path) => self.now(path),
            Place::Indexed(name) => {
                self.union.unnamed.as_ref().map(|unnamed| unnamed.file(name)).transpose()
            }
        };
        let object = object.map_err(at)?.ok_or_else(|| at(Errno::NOENT))?;
        let was = self.before(path).map_err(at)?;
        let kind = match &was {
            None => Some(Kind::Added),
            Some(was) if is_same_inode(&object, was).map_err(at)? => None,
            Some(_) => Some(Kind::Changed),
        };
        self.tell_parents(path, kind.is_some())?;
        self.sink.object(path, &object, kind)
    }

    fn tell_parents(&mut self, path: &Path, changed: bool) -> Result<()> {
        let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
        // The root has been told of, if it is to be, with what is in the upper layer.
        parents.pop();
        for parent in parents.into_iter().rev() {
            let at = |error: Errno| Error::at(parent, error);
            let told = if changed { Told::All } else { Told::Same };
            match self.told.get(parent) {
                Some(Told::All) => continue,
                Some(Told::Same) if changed => self.sink.changed_within(parent)?,
                Some(Told::Same) => continue,
                Some(Told::Nothing) | None => {
                    let object = self.now(parent).map_err(at)?.ok_or_else(|| at(Errno::NOENT))?;
                    self.sink.object(parent, &object, changed.then_some(Kind::Changed))?;
                }
            }
            self.told.insert(parent.to_owned(), told);
        }
        Ok(())
    }

    /// What the union has at `path`.
    fn now(&self, path: &Path) -> sys::Result<Option<Held<'u>>> {
        Held::root(&self.union.whole)?.at(path)
    }

    /// What the lower layers have at `path`.
    fn before(&self, path: &Path) -> sys::Result<Option<Held<'u>>> {
        match &self.union.below {
            Below::Layers(union) => Held::root(union)?.at(path),
            Below::Unknown | Below::Nothing => Ok(None),
        }
    }
}

fn is_same_inode(object: &Held<'_>, was: &Held<'_>) -> sys::Result<bool> {
    let identity = object.union.lower_identity(object.node)?;
    Ok(identity.is_some() && identity == was.union.lower_identity(was.node)?)
}

/// Whether `object`, which the union has at `path`, is in the upper layer.
pub fn is_upper(union: &Union, path: &Path, object: &Held<'_>) -> sys::Result<bool> {
    match raw(union, path).and_then(|raw| raw.stat()) {
        // The numbers of the topmost layer's filesystem are shown as they are.
        Ok(stat) => Ok(stat.ino == object.attr.ino),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error),
    }
}

/// An object of the upper layer itself.
fn raw(union: &Union, path: &Path) -> sys::Result<Object> {
    let parent = path.parent().into_iter().flatten();
    let dir = open::descend(union.root.as_fd(), parent, false)?;
    let name = path.file_name().ok_or(Errno::INVAL)?;
    Ok(Object::Child(Arc::new(dir), Name::from(name)))
}

/// The inodes of files that have names elsewhere too.
fn divided(doubtful: &BTreeMap<PathBuf, Attr>) -> HashSet<u64> {
    let mut missing: HashMap<u64, u32> = HashMap::new();
    for attr in doubtful.values() {
        *missing.entry(attr.ino).or_insert(attr.nlink) -= 1;
    }
    missing.into_iter().filter(|(_, names)| *names > 0).map(|(ino, _)| ino).collect()
}

/// All names that lower layers give to what `copies` are copies of, each with the place of the copy; and those of the files
/// in `divided`, each with itself.
fn find_names(
    union: &Union,
    copies: &[(CopyMarks, Place)],
    divided: &HashSet<u64>,
) -> Result<Vec<(PathBuf, Place)>> {
    let mut found = Vec::new();
    let root = Held::root(&union.whole).map_err(|error| Error::at(Path::new(""), error))?;
    let mut pending = vec![(PathBuf::new(), root)];
    while let Some((path, dir)) = pending.pop() {
        let at = |error: Errno| Error::at(&path, error);
        for name in names(&dir).map_err(at)? {
            let Some(child) = dir.child(&name).map_err(at)? else { continue };
            let path = path.join(&*name);
            if child.is_dir() {
                pending.push((path, child));
                continue;
            }
            if child.attr.nlink == 1 {
                continue;
            }
            let Some(identity) = child.union.lower_identity(child.node).map_err(at)? else {
                continue;
            };
            let copy = copies.iter().find(|(marks, _)| identity.is_original_of(marks));
            match copy {
                Some((_, copy)) => found.push((path, copy.clone())),
                None if divided.contains(&child.attr.ino) => {
                    found.push((path.clone(), Place::At(path)));
                }
                None => {}
            }
        }
    }
    Ok(found)
}
