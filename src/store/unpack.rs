//! From images to directory trees: the whole image as one, or each layer as one that a union can have for a lower layer.
//!
//! Nothing outside the target is touched: every name of an index is one component, and is made in a directory that was
//! made here and is open.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, XattrFlags};

use super::image::Image;
use super::merged::{Found, Layers, Part};
use super::{Error, Result, Store};
use crate::archive::Shown;
use crate::layer::packed::PackedLayer;
use crate::layer::packed::layer::ObjectFolders;
use crate::layer::stat_override::{Overridden, StatOverride};
use crate::layer::{Name, dir_marks::Namespaces, workdir};
use crate::sys::data::{self, Source, Unshared, Writing};
use crate::sys::object::NewTime;
use crate::sys::stat::stat_fd;
use crate::sys::{Errno, FileKind, Object, Stat, open};

/// What becomes of owners, permissions and devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// They are set, which takes root.
    Set,
    /// They are kept in attributes, as a mount with `xattr_permissions=2` does.
    Stored,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The trees, lowest layer first; of a whole image one.
    pub trees: Vec<PathBuf>,
    /// How many extended attributes could not be set.
    pub left_out: u64,
    /// The first of them: its name, and the path that should have it.
    pub first_left_out: Option<(OsString, PathBuf)>,
}

impl Store {
    /// Writes the files of an image into the directory `target`, which is made or must be empty; every content is compared
    /// with its hash. With `by_layer` each layer gets a directory in it, named by its position, with the marks of
    /// kernel overlayfs.
    ///
    /// # Errors
    /// What was made before stays.
    pub fn unpack(
        &self,
        image: &Image,
        target: &Path,
        by_layer: bool,
        owners: Owners,
    ) -> Result<Unpacked> {
        let is_root = rustix::process::geteuid().is_root();
        if owners == Owners::Set && !is_root {
            return Err(Error::failure(
                "only root can give files to their owners and make devices: use --owners stored, which keeps \
                 both in attributes for a mount",
            ));
        }
        let layers = self.open_layers(image)?;
        let root = empty_directory(target)
            .map_err(|error| Error::failure(format!("{}: {error}", target.display())))?;
        let mut unpacked = Unpacked::default();
        let first_layers = if by_layer { (0..layers.0.len()).rev().collect() } else { vec![0] };
        for (position, first) in first_layers.into_iter().enumerate() {
            let (root, path) = match by_layer {
                true => {
                    let name = OsString::from(position.to_string());
                    let made = make_dir(&root, &name);
                    (made.map_err(|error| failed(Path::new(&name), error))?, target.join(&name))
                }
                false => (root.clone(), target.to_owned()),
            };
            let mut tree = Tree {
                layers: &layers,
                only: by_layer.then_some(first),
                owners,
                marks: Namespaces { trusted: is_root, user: true },
                root: root.clone(),
                links: HashMap::new(),
                unshared: Unshared::default(),
                unpacked: &mut unpacked,
            };
            tree.write(first)?;
            unpacked.trees.push(path);
        }
        Ok(unpacked)
    }

    /// The layers of an image, top first, which verify what is read of them.
    fn open_layers(&self, image: &Image) -> Result<Layers> {
        let mut folders = ObjectFolders::default();
        let open = |(position, layer): (usize, &super::DiffId)| {
            let path = self.layer_path(layer).join("index");
            PackedLayer::open(&path, position, true, &mut folders).map_err(|error| match error {
                Errno::INVAL | Errno::IO | Errno::NOENT => {
                    Error::damaged(format!("layer {}: its index is damaged", layer.0))
                }
                error => Error::failure(format!("layer {}: its index: {error}", layer.0)),
            })
        };
        let layers: Result<Vec<_>> = image.layers.iter().rev().enumerate().map(open).collect();
        layers.map(Layers)
    }
}

/// The directory at `path`, made if it is not there.
fn empty_directory(path: &Path) -> io::Result<Arc<OwnedFd>> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let dir = open::directory(path)?;
    if !crate::sys::dir::is_empty(dir.as_fd())? {
        return Err(io::Error::other("is not empty; give a new or empty directory"));
    }
    Ok(Arc::new(dir))
}

fn make_dir(dir: &OwnedFd, name: &OsStr) -> Result<Arc<OwnedFd>, Errno> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    open::child(dir.as_fd(), name, flags).map(Arc::new)
}

fn failed(path: &Path, error: Errno) -> Error {
    Error::failure(format!("cannot make {}: {error}", Shown(path.as_os_str().as_bytes())))
}

/// One tree in the making.
struct Tree<'u> {
    layers: &'u Layers,
    /// The layer whose tree it is, with its marks; `None` for that of the whole image.
    only: Option<usize>,
    owners: Owners,
    marks: Namespaces,
    root: Arc<OwnedFd>,
    /// The first name of what has several.
    links: HashMap<Part, Vec<Name>>,
    unshared: Unshared,
    unpacked: &'u mut Unpacked,
}

/// What is still to be done. Children come between the beginning and the end of their directory, which then gets its
/// attributes: its time would not last.
enum Step {
    Begin { dir: Arc<OwnedFd>, path: Vec<Name>, found: Found },
    End { dir: Arc<OwnedFd>, path: Vec<Name>, found: Found },
}

impl Tree<'_> {
    fn write(&mut self, first: usize) -> Result<()> {
        let found = self.layers.root(first).map_err(|error| failed(Path::new("/"), error))?;
        let children = self.names(&self.root.clone(), &[], &found.parts)?;
        let mut steps = vec![Step::End { dir: self.root.clone(), path: Vec::new(), found }];
        steps.extend(children);
        while let Some(step) = steps.pop() {
            match step {
                Step::Begin { dir, path, found } => {
                    let name = path.last().ok_or_else(|| failed(Path::new("/"), Errno::IO))?;
                    let dir = make_dir(&dir, name).map_err(|error| failed(&shown(&path), error))?;
                    let children = self.names(&dir, &path, &found.parts)?;
                    steps.push(Step::End { dir, path, found });
                    steps.extend(children);
                }
                Step::End { dir, path, found } => {
                    self.end(&dir, &path, &found).map_err(|error| failed(&shown(&path), error))?;
                }
            }
        }
        Ok(())
    }

    /// Makes what is in a directory but for directories, which are returned to be made.
    fn names(&mut self, dir: &Arc<OwnedFd>, path: &[Name], parts: &[Part]) -> Result<Vec<Step>> {
        let layers = self.layers;
        let children = layers.children(parts).map_err(|error| failed(&shown(path), error))?;
        let mut dirs = Vec::new();
        for (name, found) in children {
            let mut path = path.to_vec();
            path.push(Name::from(name));
            let own =
                found.parts.first().filter(|part| self.only.is_none_or(|only| only == part.layer));
            let done = match own {
                Some(part) if self.record(*part)?.kind().is_dir() => {
                    dirs.push(Step::Begin { dir: dir.clone(), path, found });
                    continue;
                }
                Some(part) => self.object(dir, &path, *part),
                None if found.deleted_by.is_some() && found.deleted_by == self.only => {
                    workdir::make_node(dir.as_fd(), name, FileKind::CharDevice, 0, 0)
                }
                None => Ok(()),
            };
            done.map_err(|error| failed(&shown(&path), error))?;
        }
        Ok(dirs)
    }

    fn record(&self, part: Part) -> Result<Stat> {
        let stat = self.layers.0[part.layer].stat(part.inode);
        stat.map_err(|error| Error::failure(format!("the image cannot be read: {error}")))
    }

    /// Makes anything but a directory.
    fn object(&mut self, dir: &Arc<OwnedFd>, path: &[Name], part: Part) -> Result<(), Errno> {
        let name = path.last().ok_or(Errno::IO)?;
        let layer = &self.layers.0[part.layer];
        let stat = layer.stat(part.inode)?;
        if stat.nlink > 1 {
            if let Some(first) = self.links.get(&part) {
                return self.link(first, dir, name);
            }
            self.links.insert(part, path.to_vec());
        }
        match stat.kind() {
            FileKind::Regular => {
                let (content, size) = layer.open_content(part.inode)?;
                let file = File::from(open::create(dir.as_fd(), name, 0o600)?);
                let stored = stat_fd(content.as_fd())?;
                let content = Source::new(content, &stored);
                data::copy(&content, file.as_fd(), size, Writing::Any, &self.unshared)?;
            }
            FileKind::Symlink => {
                rustix::fs::symlinkat(layer.read_link(part.inode)?, dir, &**name)?;
            }
            _ if self.owners == Owners::Stored => {
                open::create(dir.as_fd(), name, 0o600)?;
            }
            kind => workdir::make_node(dir.as_fd(), name, kind, 0o600, stat.rdev)?,
        }
        self.describe(&Object::Child(dir.clone(), name.clone()), path, part, &stat)
    }

    /// Gives what was made as `first` one more name.
    fn link(&self, first: &[Name], dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let (old, folders) = first.split_last().ok_or(Errno::IO)?;
        let folder = open::descend(self.root.as_fd(), folders.iter().map(|name| &**name), false)?;
        workdir::link(&Object::Child(Arc::new(folder), old.clone()), dir.as_fd(), name)
    }

    /// Gives a directory its marks and attributes when all is in it.
    fn end(&mut self, dir: &Arc<OwnedFd>, path: &[Name], found: &Found) -> Result<(), Errno> {
        let object = Object::Own(dir.clone());
        if let (Some(only), Some(top)) = (self.only, found.parts.first())
            && top.layer == only
            && self.layers.0[only].index().inode(top.inode)?.opaque
        {
            self.marks.set_opaque(&object)?;
        }
        let part = found.described().ok_or(Errno::IO)?;
        let stat = self.layers.0[part.layer].stat(part.inode)?;
        self.describe(&object, path, part, &stat)
    }

    /// Gives an object its owner, permissions, extended attributes and time.
    fn describe(
        &mut self,
        object: &Object,
        path: &[Name],
        part: Part,
        stat: &Stat,
    ) -> Result<(), Errno> {
        let is_link = stat.kind() == FileKind::Symlink;
        let permissions = match self.owners {
            Owners::Set => {
                object.set_owner(Some(stat.uid), Some(stat.gid))?;
                stat.permissions()
            }
            Owners::Stored => {
                let stored = Overridden {
                    uid: stat.uid,
                    gid: stat.gid,
                    permissions: stat.permissions(),
                    kind: Some(stat.kind()),
                    rdev: stat.rdev,
                };
                StatOverride::Containers.store(object, &stored)?;
                0o755
            }
        };
        for (name, value) in self.attributes(part)? {
            match object.set_xattr(&name, &value, XattrFlags::empty()) {
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) => {
                    self.unpacked.left_out += 1;
                    let first = || (name, shown(path));
                    self.unpacked.first_left_out.get_or_insert_with(first);
                }
                result => result?,
            }
        }
        if !is_link {
            // After the owner, whose change takes set-id bits away.
            object.set_permissions(permissions)?;
        }
        object.set_times(Some(NewTime::At(stat.mtime)), Some(NewTime::At(stat.mtime)))
    }

    /// The extended attributes of an object: in a layer of a union as that has them, else as they are.
    fn attributes(&self, part: Part) -> Result<Vec<(OsString, Vec<u8>)>, Errno> {
        let layer = &self.layers.0[part.layer];
        if self.only.is_none() && self.owners == Owners::Set {
            let inode = layer.index().inode(part.inode)?;
            let attributes = layer.index().xattrs(&inode)?.into_iter();
            return Ok(attributes.map(|(name, value)| (name.to_owned(), value.to_vec())).collect());
        }
        let mut attributes = Vec::new();
        for name in layer.xattr_names(part.inode)? {
            let value = layer.xattr(part.inode, &name)?.ok_or(Errno::IO)?;
            attributes.push((name.into(), value));
        }
        Ok(attributes)
    }
}

/// A path in the tree, for messages.
fn shown(path: &[Name]) -> PathBuf {
    std::iter::once(OsStr::new("/")).chain(path.iter().map(|name| &**name)).collect()
}
