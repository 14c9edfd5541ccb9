//! The read-only layers, and places in them.
//!
//! A lower layer never changes while it is mounted, so a place in one is a fact for ever: a [`LowerDir`]
//! is a chain of names from its layer's root, and its descriptor can be opened again at any time.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::OFlags;

use super::descriptors::{Descriptors, Key};
use super::index::Identity;
use super::listing::Listing;
use super::packed::PackedLayer;
use super::stat_override::{self, Keeper, StatOverride};
use super::{DirMarks, LayerIndex, Name, Opaque, Protection};
use crate::sys::data::Source;
use crate::sys::stat::stat_fd;
use crate::sys::{Errno, FileKind, Object, Result, Stat, open};

/// One read-only layer. What differs between the kinds is decided in this file and nowhere else.
pub enum Layer {
    /// A directory of the host.
    Dir(DirLayer),
    /// A layer of a store.
    Packed(Box<PackedLayer>),
}

/// A layer that is a directory of the host.
pub struct DirLayer {
    /// Its root, opened before anything was mounted.
    pub root: Arc<OwnedFd>,
    /// Whether `root` is a private view without the mounts that lie below it.
    pub private: bool,
    /// Where the mountpoint lies in this layer, if it does and `root` is not private.
    pub covered: Option<Covered>,
    /// Its filesystem, and that filesystem's UUID where it tells one.
    pub filesystem: (u64, Option<[u8; 16]>),
    /// How its attributes are overridden, if they are.
    pub overriding: Option<StatOverride>,
    /// Who keeps it for root, if somebody does.
    pub keeper: Option<Keeper>,
    /// The path that the user gave, for messages.
    pub path: PathBuf,
}

/// The directory of a layer that the mount covers. Reached by its names it would be the mount itself, which
/// cannot answer while it asks itself.
pub struct Covered {
    /// The names that lead there from the layer's root.
    pub names: Vec<Name>,
    /// The directory, opened before anything was mounted on it.
    pub dir: Arc<OwnedFd>,
}

/// A directory in a lower layer.
pub struct LowerDir {
    /// The layer.
    pub layer: LayerIndex,
    serial: u64,
    parent: Option<(Arc<LowerDir>, Name)>,
    /// Its inode in a packed layer, as soon as that is known.
    inode: OnceLock<u32>,
    /// Where its descriptor is kept, if it is.
    descriptors: Arc<Descriptors>,
}

/// An object in a lower layer.
#[derive(Clone)]
pub enum LowerPlace {
    /// A directory.
    Dir(Arc<LowerDir>),
    /// Anything else: the entry of that name.
    Child(Arc<LowerDir>, Name),
    /// What was the entry of that name when it was held: the same object, whatever has the name now.
    Held(Arc<LowerDir>, Name, Arc<OwnedFd>),
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl LowerDir {
    fn root(layer: LayerIndex, descriptors: Arc<Descriptors>) -> Arc<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { layer, serial, parent: None, inode: OnceLock::new(), descriptors })
    }

    /// The directory `name` in this one, which must be known to exist.
    pub fn child(self: &Arc<Self>, name: Name) -> Arc<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let parent = Some((self.clone(), name));
        let (layer, descriptors) = (self.layer, self.descriptors.clone());
        Arc::new(Self { layer, serial, parent, inode: OnceLock::new(), descriptors })
    }

    /// Whether both are found under the same name in the same directory.
    pub fn is_called_like(&self, other: &Self) -> bool {
        match (&self.parent, &other.parent) {
            (Some((dir, name)), Some((other, called))) => Arc::ptr_eq(dir, other) && name == called,
            _ => false,
        }
    }

    /// The names that lead here from the layer's root.
    pub fn names(&self) -> Vec<Name> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some((parent, name)) = &at.parent {
            names.push(name.clone());
            at = parent;
        }
        names.reverse();
        names
    }
}

impl Drop for LowerDir {
    /// Closes its descriptor, which nobody could ask for any more. Takes a long chain apart step by step: a
    /// recursion would be as deep as the tree.
    fn drop(&mut self) {
        self.descriptors.remove(Key::LowerDir(self.serial));
        let mut parent = self.parent.take();
        while let Some((dir, _)) = parent {
            parent = Arc::into_inner(dir).and_then(|mut dir| dir.parent.take());
        }
    }
}

impl LowerPlace {
    /// The layer.
    pub fn layer(&self) -> LayerIndex {
        match self {
            Self::Dir(dir) | Self::Child(dir, _) | Self::Held(dir, ..) => dir.layer,
        }
    }

    /// Its name in its directory, of anything but a directory.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Dir(_) => None,
            Self::Child(_, name) | Self::Held(_, name, _) => Some(name),
        }
    }

    /// The same place without a descriptor.
    pub fn released(self) -> Self {
        match self {
            Self::Held(dir, name, _) => Self::Child(dir, name),
            place => place,
        }
    }
}

/// All lower layers, top first, followed by those that only hold data for metacopy files.
pub struct Lowers {
    layers: Vec<Layer>,
    roots: Vec<Arc<LowerDir>>,
    merged: usize,
    descriptors: Arc<Descriptors>,
}

impl Lowers {
    /// The stack of `layers`, of which the first `merged` take part in the union and the others only
    /// hold data.
    pub fn new(layers: Vec<Layer>, merged: usize, descriptors: Arc<Descriptors>) -> Self {
        let roots = (1..=layers.len())
            .map(|n| LowerDir::root(LayerIndex(n as u16), descriptors.clone()))
            .collect();
        Self { layers, roots, merged, descriptors }
    }

    /// A directory on the filesystem of each layer.
    pub fn root_fds(&self) -> impl Iterator<Item = &OwnedFd> {
        self.layers.iter().map(|layer| match layer {
            Layer::Dir(layer) => &*layer.root,
            Layer::Packed(layer) => layer.objects(),
        })
    }

    /// The roots of the layers that are merged, top first.
    pub fn roots(&self) -> &[Arc<LowerDir>] {
        &self.roots[..self.merged]
    }

    /// The roots of the data-only layers, top first.
    pub fn data_roots(&self) -> &[Arc<LowerDir>] {
        &self.roots[self.merged..]
    }

    /// Whether a layer only holds data: it has no marks.
    pub fn is_data_only(&self, index: LayerIndex) -> bool {
        usize::from(index.0) > self.merged
    }

    fn layer(&self, index: LayerIndex) -> &Layer {
        &self.layers[usize::from(index.0) - 1]
    }

    fn dir_fd(&self, layer: &DirLayer, dir: &LowerDir) -> Result<Arc<OwnedFd>> {
        if dir.parent.is_none() {
            return Ok(layer.root.clone());
        }
        if let Some(covered) = &layer.covered
            && let names = dir.names()
            && let Some(below) = names.strip_prefix(covered.names.as_slice())
        {
            if below.is_empty() {
                return Ok(covered.dir.clone());
            }
            let below = below.iter().map(|name| &**name);
            return open::descend(covered.dir.as_fd(), below, false).map(Arc::new);
        }
        if let Some(cached) = self.descriptors.get(Key::LowerDir(dir.serial)) {
            return Ok(cached.fd);
        }
        let fd = self.descriptors.with_room(|| self.open_dir(layer, dir, false))?;
        Ok(self.descriptors.put(Key::LowerDir(dir.serial), fd, false))
    }

    /// A descriptor for reading what is in `dir`, which nobody else reads from.
    fn reader(&self, layer: &DirLayer, dir: &LowerDir) -> Result<Arc<OwnedFd>> {
        let key = Key::LowerDir(dir.serial);
        if dir.parent.is_none() || layer.covered.is_some() || self.descriptors.has(key) {
            return open::reopen_directory(self.dir_fd(layer, dir)?.as_fd()).map(Arc::new);
        }
        // Kept too: what is in the directory is asked for next. Others only find names from it.
        let fd = self.descriptors.with_room(|| self.open_dir(layer, dir, true))?;
        Ok(self.descriptors.put(key, fd, false))
    }

    /// Opens a directory below the root, from the nearest directory above that is open.
    fn open_dir(&self, layer: &DirLayer, dir: &LowerDir, for_reading: bool) -> Result<OwnedFd> {
        let mut names = Vec::new();
        let mut base = layer.root.clone();
        let mut at = dir;
        while let Some((parent, name)) = &at.parent {
            names.push(name);
            if let Some(cached) = self.descriptors.get(Key::LowerDir(parent.serial)) {
                base = cached.fd;
                break;
            }
            at = parent;
        }
        let names = names.iter().rev().map(|name| &***name);
        match for_reading {
            true => open::descend_for_reading(base.as_fd(), names, layer.private),
            false => open::descend(base.as_fd(), names, layer.private),
        }
    }

    /// What is at `place`.
    fn find(&self, place: &LowerPlace) -> Result<Found<'_>> {
        Ok(match self.layer(place.layer()) {
            Layer::Dir(layer) => Found::Object(layer, self.object(layer, place)?),
            Layer::Packed(layer) => Found::Inode(layer, inode_at(layer, place)?),
        })
    }

    fn object(&self, layer: &DirLayer, place: &LowerPlace) -> Result<Object> {
        Ok(match place {
            LowerPlace::Dir(dir) => Object::Own(self.dir_fd(layer, dir)?),
            LowerPlace::Child(dir, name) => Object::Child(self.dir_fd(layer, dir)?, name.clone()),
            LowerPlace::Held(_, _, fd) => Object::Own(fd.clone()),
        })
    }

    /// The object, a directory too by its name where that needs no descriptor: most are only looked at. Where
    /// other filesystems may be mounted in the layer, a name does not say on which side of a mount an object is.
    fn object_by_name(&self, layer: &DirLayer, place: &LowerPlace) -> Result<Object> {
        match place {
            LowerPlace::Dir(dir) if layer.private && layer.covered.is_none() => match &dir.parent {
                Some((parent, name)) => {
                    Ok(Object::Child(self.dir_fd(layer, parent)?, name.clone()))
                }
                None => self.object(layer, place),
            },
            _ => self.object(layer, place),
        }
    }

    /// The place of the very object that is at `place` now.
    pub fn hold(&self, place: &LowerPlace) -> Result<LowerPlace> {
        let (LowerPlace::Child(dir, name), Layer::Dir(layer)) = (place, self.layer(place.layer()))
        else {
            return Ok(place.clone());
        };
        let held = self.descriptors.with_room(|| self.object(layer, place)?.pin());
        let held = held.inspect_err(|error| self.report(place, "cannot open", *error))?;
        Ok(LowerPlace::Held(dir.clone(), name.clone(), held))
    }

    /// The attributes of an object.
    pub fn stat(&self, place: &LowerPlace) -> Result<Stat> {
        self.stat_by(place, |object| Ok((object.stat()?, ()))).map(|(stat, ())| stat)
    }

    /// The attributes of an object, and what chattr(1) forbids to change; inodes of packed layers have no such flags.
    pub fn look(&self, place: &LowerPlace) -> Result<(Stat, Protection)> {
        self.stat_by(place, |object| {
            let (stat, flags) = object.look()?;
            Ok((stat, flags.into()))
        })
    }

    fn stat_by<T: Default>(
        &self,
        place: &LowerPlace,
        ask: impl Fn(&Object) -> Result<(Stat, T)>,
    ) -> Result<(Stat, T)> {
        let read = || match self.layer(place.layer()) {
            Layer::Packed(layer) => Ok((layer.stat(inode_at(layer, place)?)?, T::default())),
            Layer::Dir(layer) => {
                let object = self.object_by_name(layer, place)?;
                let (stat, more) = ask(&object)?;
                if matches!(place, LowerPlace::Dir(_)) && !stat.kind().is_dir() {
                    return Err(Errno::NOTDIR);
                }
                let stat = match layer.overriding {
                    Some(form) => form.apply(layer.keeper, &object, stat)?,
                    None => stat,
                };
                Ok((stat, more))
            }
        };
        read().inspect_err(|error| self.report(place, "cannot read attributes of", *error))
    }

    /// Whether a layer is one of a store.
    pub fn is_packed(&self, index: LayerIndex) -> bool {
        matches!(self.layer(index), Layer::Packed(_))
    }

    /// Whether the layer has a directory for what is in it alone: its attributes are those of its next part.
    pub fn is_implied(&self, dir: &LowerDir) -> Result<bool> {
        match self.layer(dir.layer) {
            Layer::Dir(_) => Ok(false),
            Layer::Packed(layer) => layer.is_implied(inode(layer, dir)?),
        }
    }

    /// How many names the parts of a directory list, as far as that is known without reading them: in packed layers.
    pub fn listed(&self, parts: &[Arc<LowerDir>]) -> Result<u32> {
        parts.iter().try_fold(0u32, |listed, part| match self.layer(part.layer) {
            Layer::Dir(_) => Ok(listed),
            Layer::Packed(layer) => Ok(listed.saturating_add(layer.listed(inode(layer, part)?)?)),
        })
    }

    /// Of one directory's parts, top first, the one whose attributes it has.
    pub fn described<'d>(&self, parts: &'d [Arc<LowerDir>]) -> Result<Option<&'d Arc<LowerDir>>> {
        for part in parts {
            if !self.is_implied(part)? {
                return Ok(Some(part));
            }
        }
        Ok(parts.first())
    }

    /// How the directory itself is that is kept open for `dir`, whatever has its name now.
    pub fn stat_open(&self, dir: &LowerDir) -> Result<Stat> {
        match self.layer(dir.layer) {
            Layer::Dir(layer) => Object::Own(self.dir_fd(layer, dir)?).stat(),
            Layer::Packed(layer) => layer.stat(inode(layer, dir)?),
        }
    }

    /// Space and limits of the filesystem of the top layer.
    pub fn stat_fs(&self) -> Result<rustix::fs::StatVfs> {
        match self.layers.first().ok_or(Errno::NOENT)? {
            Layer::Dir(layer) => rustix::fs::fstatvfs(&layer.root),
            Layer::Packed(layer) => layer.stat_fs(),
        }
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, place: &LowerPlace) -> Result<std::ffi::OsString> {
        let target = self.find(place).and_then(|found| match found {
            Found::Inode(layer, inode) => layer.read_link(inode),
            Found::Object(layer, object) => stat_override::read_link(layer.overriding, &object),
        });
        target.inspect_err(|error| self.report(place, "cannot read link", *error))
    }

    /// Opens a regular file's data for being copied. `known` are the attributes of a place that is held.
    pub fn open_source(&self, place: &LowerPlace, known: Option<&Stat>) -> Result<Source> {
        match (place, known, self.layer(place.layer())) {
            (LowerPlace::Held(_, _, file), Some(stat), Layer::Dir(layer))
                if stat.kind() == FileKind::Regular && layer.overriding.is_none() =>
            {
                let fd = open::reopen(file.as_fd());
                let fd = fd.inspect_err(|error| self.report(place, "cannot open", *error))?;
                Ok(Source::new(fd, stat))
            }
            _ => {
                let (fd, _) = self.open_sized(place)?;
                let stat = stat_fd(fd.as_fd())?;
                Ok(Source::new(fd, &stat))
            }
        }
    }

    /// Opens a regular file's data for reading, and tells its size in bytes.
    pub fn open_sized(&self, place: &LowerPlace) -> Result<(OwnedFd, u64)> {
        let file = self.find(place).and_then(|found| match found {
            Found::Inode(layer, inode) => layer.open_content(inode),
            Found::Object(_, object) => object.open_sized(OFlags::RDONLY),
        });
        file.inspect_err(|error| self.report(place, "cannot open", *error))
    }

    /// Opens a regular file or directory for asking about its inode; `None` in a packed layer, where there are none of a
    /// filesystem.
    pub fn open_inode(&self, place: &LowerPlace) -> Result<Option<OwnedFd>> {
        match self.layer(place.layer()) {
            Layer::Dir(_) => Ok(Some(self.open_sized(place)?.0)),
            Layer::Packed(_) => Ok(None),
        }
    }

    /// The value of an extended attribute; private marks are not filtered.
    pub fn xattr(&self, place: &LowerPlace, name: &OsStr) -> Result<Option<Vec<u8>>> {
        let value = self.find(place).and_then(|found| match found {
            Found::Inode(layer, inode) => layer.xattr(inode, name),
            Found::Object(_, object) => object.xattr(name),
        });
        value
            .inspect_err(|error| self.report(place, "cannot read an extended attribute of", *error))
    }

    /// The names of all extended attributes; private marks are not filtered.
    pub fn xattr_names(&self, place: &LowerPlace) -> Result<Vec<Box<OsStr>>> {
        let names = self.find(place).and_then(|found| match found {
            Found::Inode(layer, inode) => layer.xattr_names(inode),
            Found::Object(_, object) => object.xattr_names(),
        });
        names.inspect_err(|error| {
            self.report(place, "cannot list the extended attributes of", *error)
        })
    }

    /// Logs that a layer has failed, if `error` says so, with its path and the path in it.
    pub fn report(&self, place: &LowerPlace, what: &str, error: Errno) {
        if is_failure(error) {
            self.log(place, what, error);
        }
    }

    fn log(&self, place: &LowerPlace, what: &str, error: Errno) {
        let layer = match self.layer(place.layer()) {
            Layer::Dir(layer) => layer.path.display(),
            Layer::Packed(layer) => layer.path().display(),
        };
        let (LowerPlace::Dir(dir) | LowerPlace::Child(dir, _) | LowerPlace::Held(dir, ..)) = place;
        let inside: PathBuf = dir.names().iter().chain(place.name()).map(|name| &**name).collect();
        log::error!("lower layer {layer}: {what} /{}: {error}", inside.display());
    }

    /// What identifies an object over mounts, for the index of hard links.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where nothing does: no file handles, or several filesystems that cannot be told apart
    /// because they have no UUID or the same.
    pub fn identity(&self, place: &LowerPlace) -> Result<Identity> {
        let (layer, object) = match self.find(place)? {
            Found::Inode(layer, inode) => return layer.identity(inode),
            Found::Object(layer, object) => (layer, object),
        };
        let (dev, uuid) = layer.filesystem;
        let ambiguous = self.layers.iter().any(|other| match other {
            Layer::Dir(other) => other.filesystem.0 != dev && other.filesystem.1 == uuid,
            Layer::Packed(_) => false,
        });
        if ambiguous {
            return Err(Errno::OPNOTSUPP);
        }
        Identity::of(&object, &Object::Own(layer.root.clone()), uuid)
    }

    /// The marks of a directory, and what it lists.
    ///
    /// # Errors
    /// Whatever keeps it from being read completely: a layer that cannot be read must not silently lose
    /// its files. The error is logged with the layer and path.
    pub fn list(&self, dir: &Arc<LowerDir>) -> Result<(DirMarks, Listing)> {
        let read = || {
            let layer = match self.layer(dir.layer) {
                Layer::Packed(layer) => return layer.list(inode(layer, dir)?),
                Layer::Dir(layer) => layer,
            };
            let reader = self.reader(layer, dir)?;
            let marks = DirMarks::read_open(&reader)?;
            let by_xattr = marks.opaque == Opaque::XattrWhiteouts;
            let listing = Listing::read_from(&reader, by_xattr, layer.overriding)?;
            Ok((marks, listing))
        };
        read().inspect_err(|error| {
            self.log(&LowerPlace::Dir(dir.clone()), "cannot read directory", *error);
        })
    }
}

/// An object in its layer.
enum Found<'l> {
    Object(&'l DirLayer, Object),
    Inode(&'l PackedLayer, u32),
}

/// The inode at `place` in its packed layer.
fn inode_at(layer: &PackedLayer, place: &LowerPlace) -> Result<u32> {
    match place {
        LowerPlace::Dir(dir) => inode(layer, dir),
        LowerPlace::Child(dir, name) | LowerPlace::Held(dir, name, _) => {
            layer.child(inode(layer, dir)?, name)
        }
    }
}

/// The inode of a directory in its packed layer.
fn inode(layer: &PackedLayer, dir: &LowerDir) -> Result<u32> {
    let mut unknown = Vec::new();
    let mut at = dir;
    let mut inode = loop {
        match (at.inode.get(), &at.parent) {
            (Some(inode), _) => break *inode,
            (None, None) => break layer.root(),
            (None, Some((parent, name))) => {
                unknown.push((at, name));
                at = parent;
            }
        }
    };
    for (dir, name) in unknown.into_iter().rev() {
        let found = layer.child(inode, name)?;
        inode = *dir.inode.get_or_init(|| found);
    }
    Ok(inode)
}

/// Whether an error says that a layer cannot be read, and not only that something is absent, not allowed or
/// more than this process may have open.
fn is_failure(error: Errno) -> bool {
    !matches!(
        error,
        Errno::NOENT
            | Errno::NODATA
            | Errno::OPNOTSUPP
            | Errno::ACCESS
            | Errno::PERM
            | Errno::TOOBIG
            | Errno::INTR
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_any_length_can_be_dropped() {
        let mut dir = LowerDir::root(LayerIndex(1), Arc::new(Descriptors::new(8)));
        for _ in 0..1_000_000 {
            dir = dir.child(Name::from(OsStr::new("d")));
        }
        drop(dir);
    }
}
