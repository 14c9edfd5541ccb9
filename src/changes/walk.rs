//! The walk through the upper layer.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compare::{self, Difference};
use super::held::Held;
use super::links::{self, Links};
use super::unnamed::Unnamed;
use super::{Error, Kind, Layers, Result};
use crate::layer::listing::Listing;
use crate::layer::mark::Mark;
use crate::layer::stat_override::StatOverride;
use crate::layer::{DirMarks, Name, Opaque, Redirect};
use crate::overlay::{Config, Flow, Overlay};
use crate::sys::{self, Errno, FileKind, Object, open};

/// What becomes of the changes. Paths are from the root of the layers, without a `/` before them; the root's is empty. A
/// directory comes before what is in it, and what is deleted in it before what is there.
pub trait Sink {
    /// Whether it wants to know of the deletions that follow from an opaque directory.
    const WANTS_COVERED: bool;

    /// A name of the lower layers is there no more.
    fn deleted(&mut self, path: &Path, deletion: Deletion) -> Result<()>;
    /// Nothing that the lower layers have in this directory, which came just before, shines through.
    fn opaque(&mut self, path: &Path) -> Result<()>;
    /// An object. Without a kind it is what it was, in a directory that is opaque.
    fn object(&mut self, path: &Path, object: &Held<'_>, kind: Option<Kind>) -> Result<()>;
    /// Something has changed in a directory that came without a kind.
    fn changed_within(&mut self, path: &Path) -> Result<()>;
}

/// How a name is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// By itself.
    Single,
    /// With all that an opaque directory covers.
    Covered,
}

/// What the layers are read through.
pub struct Union {
    pub(super) root: Arc<OwnedFd>,
    overriding: Option<StatOverride>,
    pub(super) whole: Overlay,
    pub(super) below: Below,
    /// Changed files of which the upper layer has no name.
    pub(super) unnamed: Option<Unnamed>,
}

pub(super) enum Below {
    Unknown,
    Nothing,
    Layers(Box<Overlay>),
}

impl Union {
    /// Opens the layers, none of them for writing.
    pub fn open(layers: &Layers) -> Result<Self> {
        let open = |lower: Vec<PathBuf>| Overlay::open(&Config { lower, ..Config::default() });
        let lower = layers.lower.as_deref();
        let upper = layers.upper.clone();
        let whole = open([upper].into_iter().chain(lower.unwrap_or_default().to_vec()).collect())?;
        let below = match lower {
            None => Below::Unknown,
            Some([]) => Below::Nothing,
            Some(lower) => Below::Layers(Box::new(open(lower.to_vec())?)),
        };
        let unnamed = match (&below, &layers.work) {
            (Below::Layers(_), Some(work)) => Unnamed::find(work, &layers.upper)?,
            _ => None,
        };
        let at_root = |error: Errno| Error::at(Path::new(""), error);
        let root = Arc::new(open::directory(&layers.upper).map_err(at_root)?);
        let overriding = StatOverride::detect(&Object::Own(root.clone())).map_err(at_root)?;
        Ok(Self { root, overriding, whole, below, unnamed })
    }
}

/// A directory on the way of the walk.
struct Frame<'u> {
    object: Held<'u>,
    /// The directory that it was.
    was: Option<Held<'u>>,
    kind: Kind,
    told: Told,
    /// Whether nothing of what it was shines through.
    hides: bool,
    /// Whether what is in it comes from elsewhere in the lower layers.
    moved: bool,
    /// What has not been visited, last name first.
    pending: Vec<Pending>,
}

/// What the sink knows of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// That it is there, as it was.
    Same,
    All,
}

struct Pending {
    name: Name,
    /// Whether marks of its own say that it was copied up; known only where the lower layers are not.
    copied: bool,
}

/// What the upper layer says about one of its directories.
struct Found {
    opaque: bool,
    moved: bool,
    deleted: BTreeSet<Name>,
    entries: Vec<Pending>,
}

pub(super) struct Walk<'u, S> {
    pub union: &'u Union,
    pub sink: &'u mut S,
    /// Where the walk is.
    path: PathBuf,
    frames: Vec<Frame<'u>>,
    /// What the sink knows of the directories that have been left.
    pub told: HashMap<PathBuf, Told>,
    pub links: Links,
}

/// Tells `sink` what the upper layer changes.
pub fn walk<S: Sink>(union: &Union, sink: &mut S) -> Result<()> {
    let mut walk = Walk {
        union,
        sink,
        path: PathBuf::new(),
        frames: Vec::new(),
        told: HashMap::new(),
        links: Links::default(),
    };
    walk.begin()?;
    while let Some(frame) = walk.frames.last_mut() {
        match frame.pending.pop() {
            Some(pending) => {
                walk.path.push(&*pending.name);
                if !walk.visit(&pending)? {
                    walk.path.pop();
                }
            }
            None => {
                walk.frames.pop();
                walk.path.pop();
            }
        }
    }
    walk.tell_other_names()
}

impl<'u, S: Sink> Walk<'u, S> {
    fn begin(&mut self) -> Result<()> {
        let at_root = |error: Errno| Error::at(Path::new(""), error);
        let object = Held::root(&self.union.whole).map_err(at_root)?;
        let was = match &self.union.below {
            Below::Layers(union) => Some(Held::root(union).map_err(at_root)?),
            Below::Unknown | Below::Nothing => None,
        };
        // Its time changes with every name in it, and when a layer is made: that alone is no change.
        let (changed, told) = match &was {
            None if matches!(self.union.below, Below::Unknown) => (false, Told::All),
            None => (false, Told::Nothing),
            Some(was) => match compare::attributes(&object, was).map_err(at_root)? {
                Difference::Nothing => (false, Told::All),
                Difference::Time => (false, Told::Nothing),
                Difference::More => (true, Told::Nothing),
            },
        };
        self.enter(object, was, Kind::Changed, changed, told)
    }

    /// Visits what is called like the end of the path; true for a directory, in which the walk goes on.
    fn visit(&mut self, pending: &Pending) -> Result<bool> {
        let at = |error: Errno| Error::at(&self.path, error);
        let Some(frame) = self.frames.last() else { return Ok(false) };
        let object = frame.object.child(&pending.name).map_err(at)?;
        let object = object.ok_or_else(|| at(Errno::NOENT))?;
        let was = match &frame.was {
            Some(dir) => dir.child(&pending.name).map_err(at)?,
            None => None,
        };
        let known = match self.union.below {
            Below::Unknown => pending.copied,
            _ => was.is_some(),
        };
        let kind = if known { Kind::Changed } else { Kind::Added };
        if object.is_dir() {
            let same = match &was {
                Some(was) => compare::attributes(&object, was).map_err(at)? == Difference::Nothing,
                None => false,
            };
            let mut told = Told::Nothing;
            if same && frame.hides {
                self.sink.object(&self.path, &object, None)?;
                told = Told::Same;
                self.told.insert(self.path.clone(), told);
            }
            self.enter(object, was.filter(Held::is_dir), kind, !same, told)?;
            return Ok(true);
        }
        if object.attr.nlink > 1 && matches!(self.union.below, Below::Layers(_)) {
            if frame.moved && !links::is_upper(self.union, &self.path, &object).map_err(at)? {
                self.links.doubtful.insert(self.path.clone(), object.attr);
                return Ok(false);
            }
            self.links.count(self.union, &self.path, &object).map_err(at)?;
        }
        let same = match &was {
            Some(was) => compare::is_same(&object, was).map_err(at)?,
            None => false,
        };
        if same && !frame.hides {
            return Ok(false);
        }
        if !same {
            self.tell_directories()?;
        }
        self.sink.object(&self.path, &object, (!same).then_some(kind))?;
        Ok(false)
    }

    /// Goes into the directory at the end of the path.
    fn enter(
        &mut self,
        object: Held<'u>,
        was: Option<Held<'u>>,
        kind: Kind,
        changed: bool,
        told: Told,
    ) -> Result<()> {
        let at = |error: Errno| Error::at(&self.path, error);
        let outer = self.frames.last();
        let (hidden, moved) = outer.map_or((false, false), |outer| (outer.hides, outer.moved));
        let mut found = match moved {
            true => Found {
                opaque: false,
                moved,
                deleted: BTreeSet::new(),
                entries: listed(&object).map_err(at)?,
            },
            false => self.look(&object).map_err(at)?,
        };
        if let Some(was) = &was
            && deletes_long_name(&found, &object, was).map_err(at)?
        {
            let entries = listed(&object).map_err(at)?;
            found = Found { opaque: true, moved: true, deleted: BTreeSet::new(), entries };
        }
        let hides = hidden || found.opaque || found.moved;
        let mut pending = found.entries;
        pending.sort_unstable_by(|one, other| other.name.as_bytes().cmp(one.name.as_bytes()));
        let moved = found.moved;
        self.frames.push(Frame { object, was, kind, told, hides, moved, pending });
        if changed {
            self.tell_directories()?;
        }
        self.tell_deletions(hidden, found.deleted)
    }

    /// Reads the directory at the end of the path in the upper layer.
    fn look(&self, object: &Held<'_>) -> sys::Result<Found> {
        let root = self.union.root.as_fd();
        let dir = Arc::new(open::descend_for_reading(root, self.path.iter(), false)?);
        let marks = DirMarks::read(&Object::Own(dir.clone()))?;
        let by_attribute = marks.opaque == Opaque::XattrWhiteouts;
        let listing = Listing::read_from(&dir, by_attribute, self.union.overriding)?;
        let opaque = marks.opaque == Opaque::Yes || listing.opaque;
        let moved = !opaque && marks.redirect.is_some_and(|to| self.leads_elsewhere(&to));
        if moved {
            let entries = listed(object)?;
            return Ok(Found { opaque, moved, deleted: BTreeSet::new(), entries });
        }
        let pending = |name: Name| {
            let unknown = matches!(self.union.below, Below::Unknown);
            let copied = unknown && is_copied(&Object::Child(dir.clone(), name.clone()))?;
            Ok(Pending { name, copied })
        };
        let entries = listing.entries.into_iter().map(|entry| pending(entry.name));
        Ok(Found {
            opaque,
            moved,
            entries: entries.collect::<sys::Result<_>>()?,
            deleted: listing.whiteouts.into_keys().collect(),
        })
    }

    /// Whether a redirect of the directory at the end of the path leads to another path.
    fn leads_elsewhere(&self, redirect: &Redirect) -> bool {
        match redirect {
            Redirect::Sibling(name) => self.path.file_name() != Some(name),
            Redirect::Absolute(dirs, name) => {
                !dirs.iter().chain([name]).map(|name| &**name).eq(self.path.iter())
            }
        }
    }

    /// Tells what is deleted in the directory that was entered last; `hidden` is whether that is so because of one above.
    fn tell_deletions(&mut self, hidden: bool, mut deleted: BTreeSet<Name>) -> Result<()> {
        let at = |error: Errno| Error::at(&self.path, error);
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let mut deletion = Deletion::Single;
        let newly_opaque = frame.hides && !hidden && frame.was.is_some();
        if frame.hides {
            deletion = Deletion::Covered;
            deleted = match &frame.was {
                Some(was) if S::WANTS_COVERED => names(was).map_err(at)?,
                _ => BTreeSet::new(),
            };
            if !deleted.is_empty() {
                let left = names(&frame.object).map_err(at)?;
                deleted.retain(|name| !left.contains(name));
            }
        } else if let Some(was) = &frame.was {
            let mut there = BTreeSet::new();
            for name in deleted {
                if was.child(&name).map_err(at)?.is_some() {
                    there.insert(name);
                }
            }
            deleted = there;
        } else if !matches!(self.union.below, Below::Unknown) {
            deleted.clear();
        }
        if newly_opaque || !deleted.is_empty() {
            self.tell_directories()?;
        }
        if newly_opaque {
            self.sink.opaque(&self.path)?;
        }
        for name in deleted {
            self.path.push(&*name);
            self.sink.deleted(&self.path, deletion)?;
            self.path.pop();
        }
        Ok(())
    }

    /// Tells of the directories on the way, which have changed because something in them has.
    fn tell_directories(&mut self) -> Result<()> {
        let untold = self.frames.iter().position(|frame| frame.told != Told::All);
        for depth in untold.unwrap_or(self.frames.len())..self.frames.len() {
            let path: PathBuf = self.path.iter().take(depth).collect();
            let frame = &mut self.frames[depth];
            match std::mem::replace(&mut frame.told, Told::All) {
                Told::Nothing => self.sink.object(&path, &frame.object, Some(frame.kind))?,
                Told::Same => self.sink.changed_within(&path)?,
                Told::All => {}
            }
            self.told.insert(path, Told::All);
        }
        Ok(())
    }
}

/// Whether a name is deleted that is too long for a mark in an archive, or is now that of a socket, which is in no
/// archive. A directory that is opaque, and has all that is left of it, says the same.
fn deletes_long_name(found: &Found, object: &Held<'_>, was: &Held<'_>) -> sys::Result<bool> {
    if found.opaque {
        return Ok(false);
    }
    for name in found.deleted.iter().filter(|name| name.len() > LONGEST_DELETED) {
        if was.child(name)?.is_some() {
            return Ok(true);
        }
    }
    let left = found.entries.iter().map(|entry| &entry.name);
    for name in left.filter(|name| name.len() > LONGEST_DELETED) {
        let is_socket = |now: Held<'_>| now.attr.kind() == FileKind::Socket;
        if object.child(name)?.is_some_and(is_socket) && was.child(name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is left of a name's 255 bytes behind `.wh.`.
pub(super) const LONGEST_DELETED: usize = 251;

/// Whether the marks of an object of an upper layer say that it was copied up from below.
fn is_copied(object: &Object) -> sys::Result<bool> {
    Ok(object.xattr_names()?.iter().any(|name| {
        **name == *PEER_ORIGIN
            || Mark::of(name).is_some_and(|(_, mark)| {
                matches!(mark, Mark::Origin | Mark::InodeNumber | Mark::Metacopy | Mark::Redirect)
            })
    }))
}

/// What fuse-overlayfs calls it.
const PEER_ORIGIN: &str = "user.fuseoverlayfs.origin";

pub(super) fn names(dir: &Held<'_>) -> sys::Result<BTreeSet<Name>> {
    let mut names = BTreeSet::new();
    dir.union.read_dir(dir.node, 0, |entry| {
        if entry.name != OsStr::new(".") && entry.name != OsStr::new("..") {
            names.insert(Name::from(entry.name));
        }
        Flow::Continue
    })?;
    Ok(names)
}

fn listed(dir: &Held<'_>) -> sys::Result<Vec<Pending>> {
    let names = names(dir)?;
    Ok(names.into_iter().map(|name| Pending { name, copied: false }).collect())
}
