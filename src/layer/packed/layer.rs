//! A packed layer as one of the read-only layers of a union.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, Mode, OFlags};

use super::format::ROOT;
use super::reader::Index;
use crate::layer::index::Identity;
use crate::layer::listing::{Listed, Listing};
use crate::layer::whiteout::Form;
use crate::layer::{DirMarks, Name, Opaque, xattr_names};
use crate::sys::name::Names;
use crate::sys::{Errno, FileKind, Result, Stat, open, stat::stat_fd};

/// A layer of a store.
pub struct PackedLayer {
    index: Index,
    objects: Arc<OwnedFd>,
    /// What takes the place of a filesystem's number: no filesystem has it, and no other layer of the union.
    dev: u64,
    /// What its inodes are known by over mounts: the name of its folder, which is that of the layer.
    id: Box<OsStr>,
    /// The inodes whose contents have been found to be what their hashes say; `None` if nobody asks.
    verified: Option<Mutex<HashSet<u32>>>,
    /// The path that the user gave, for messages.
    path: PathBuf,
}

/// Where in a store's folder `objects` the content with this hash lies (`docs/format.md`).
pub fn content_place(content: &blake3::Hash) -> PathBuf {
    let hex = content.to_hex();
    Path::new(&hex[..2]).join(&hex[2..])
}

/// A content as long as nothing.
fn empty_file() -> Result<OwnedFd> {
    rustix::fs::memfd_create("empty", MemfdFlags::CLOEXEC)
}

/// The folders with the contents of files, by their stores: each is opened once, however many layers have it.
#[derive(Debug, Default)]
pub struct ObjectFolders(HashMap<PathBuf, Arc<OwnedFd>>);

impl ObjectFolders {
    fn of(&mut self, store: &Path) -> Result<Arc<OwnedFd>> {
        if let Some(known) = self.0.get(store) {
            return Ok(known.clone());
        }
        let folder = Arc::new(open::directory(&store.join("objects"))?);
        self.0.insert(store.to_owned(), folder.clone());
        Ok(folder)
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl PackedLayer {
    /// Opens the layer whose index is at `path`, `STORE/layers/LAYER/index`, as the `position`th of a union, with a
    /// descriptor in `folders` alone. `verify` is whether the index is compared with its checksum, and each content with
    /// its hash when it is first opened.
    ///
    /// # Errors
    /// `EINVAL` if the file is no index; `EIO` if it is to be verified and not as it was written.
    pub fn open(
        path: &Path,
        position: usize,
        verify: bool,
        folders: &mut ObjectFolders,
    ) -> Result<Self> {
        let file = File::open(path).map_err(|error| errno(&error))?;
        let index = if verify { Index::read(file)? } else { Index::open(&file)? };
        let folder = path.canonicalize().ok().and_then(|path| Some(path.parent()?.to_owned()));
        let folder = folder.ok_or(Errno::INVAL)?;
        let id = folder.file_name().ok_or(Errno::INVAL)?.into();
        let store = folder.parent().and_then(Path::parent).ok_or(Errno::INVAL)?;
        let objects = folders.of(store)?;
        let dev = u64::MAX - position as u64;
        let verified = verify.then(Mutex::default);
        Ok(Self { index, objects, dev, id, verified, path: path.to_owned() })
    }

    /// The path that the user gave.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that the contents of files are in.
    pub fn objects(&self) -> &OwnedFd {
        &self.objects
    }

    /// What the layer's index says.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The root directory.
    pub fn root(&self) -> u32 {
        ROOT
    }

    /// What `name` in the directory `dir` is.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn child(&self, dir: u32, name: &OsStr) -> Result<u32> {
        self.index.find(dir, name)?.and_then(|entry| entry.inode).ok_or(Errno::NOENT)
    }

    /// The attributes of an inode.
    pub fn stat(&self, number: u32) -> Result<Stat> {
        let inode = self.index.inode(number)?;
        Ok(Stat {
            dev: self.dev,
            // 0 is no inode number.
            ino: u64::from(number) + 1,
            mode: inode.mode,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            rdev: rustix::fs::makedev(inode.major, inode.minor),
            size: inode.size,
            blocks: if inode.kind() == FileKind::Regular { inode.size.div_ceil(512) } else { 0 },
            blksize: 4096,
            atime: inode.mtime,
            mtime: inode.mtime,
            ctime: inode.mtime,
        })
    }

    /// Whether the directory `dir` is there for what is in it alone. Its attributes are then those of the same directory
    /// in a layer below.
    pub fn is_implied(&self, dir: u32) -> Result<bool> {
        Ok(self.index.inode(dir)?.implied)
    }

    /// The number of names in the directory `dir`.
    pub fn listed(&self, dir: u32) -> Result<u32> {
        Ok(self.index.inode(dir)?.count)
    }

    /// What the directory `dir` says.
    pub fn list(&self, dir: u32) -> Result<(DirMarks, Listing)> {
        let mut listing = Listing::default();
        let (mut names, mut found) = (Names::default(), Vec::new());
        for entry in self.index.entries(dir)? {
            let entry = entry?;
            match entry.inode {
                Some(number) => {
                    names.push(entry.name);
                    found.push((self.index.inode(number)?.kind(), u64::from(number) + 1));
                }
                None => {
                    listing.whiteouts.insert(Name::from(entry.name), Form::CharDevice);
                }
            }
        }
        let entries = names.share().into_iter().zip(found);
        listing.entries = entries.map(|(name, (kind, ino))| Listed { name, kind, ino }).collect();
        let opaque = if self.index.inode(dir)?.opaque { Opaque::Yes } else { Opaque::No };
        Ok((DirMarks { opaque, ..DirMarks::default() }, listing))
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, number: u32) -> Result<OsString> {
        Ok(self.index.link_target(&self.index.inode(number)?)?.to_owned())
    }

    /// Opens the content of a file for reading, and tells its size in bytes.
    ///
    /// # Errors
    /// `EIO` if the store does not have it as it should be.
    pub fn open_content(&self, number: u32) -> Result<(OwnedFd, u64)> {
        let inode = self.index.inode(number)?;
        let Some(content) = self.index.content(&inode)? else { return Ok((empty_file()?, 0)) };
        let place = content_place(&content);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::openat(&self.objects, &place, flags, Mode::empty()) {
            Err(Errno::NOENT) => Err(Errno::IO),
            opened => opened,
        }?;
        if stat_fd(file.as_fd())?.size != inode.size {
            return Err(Errno::IO);
        }
        Ok((self.verify(number, file, content)?, inode.size))
    }

    /// Reads a content that nobody has read yet, if it is to be verified.
    fn verify(&self, number: u32, file: OwnedFd, content: blake3::Hash) -> Result<OwnedFd> {
        let Some(verified) = &self.verified else { return Ok(file) };
        if verified.lock().contains(&number) {
            return Ok(file);
        }
        let mut file = File::from(file);
        let mut hasher = blake3::Hasher::new();
        let read = hasher.update_reader(&mut file).map(|hasher| hasher.finalize());
        if read.map_err(|error| errno(&error))? != content {
            log::error!("store: object {content} is damaged; see plyfs store verify --repair");
            return Err(Errno::IO);
        }
        verified.lock().insert(number);
        Ok(file.into())
    }

    /// The value of the extended attribute that a directory of the host would have under the name `stored`. What an
    /// archive calls like a mark of a union is a caller's attribute.
    pub fn xattr(&self, number: u32, stored: &OsStr) -> Result<Option<Vec<u8>>> {
        let Some(name) = xattr_names::shown(stored) else { return Ok(None) };
        let inode = self.index.inode(number)?;
        let mut attributes = self.index.xattrs(&inode)?.into_iter();
        Ok(attributes.find(|(known, _)| **known == *name).map(|(_, value)| value.to_vec()))
    }

    /// The names of all extended attributes, as a directory of the host would have them.
    pub fn xattr_names(&self, number: u32) -> Result<Vec<Box<OsStr>>> {
        let inode = self.index.inode(number)?;
        let attributes = self.index.xattrs(&inode)?.into_iter();
        Ok(attributes.filter_map(|(name, _)| Some((*xattr_names::stored(name)?).into())).collect())
    }

    /// What identifies an inode over mounts.
    pub fn identity(&self, number: u32) -> Result<Identity> {
        Identity::of_packed(&self.id, number)
    }

    /// Space and limits of the store's filesystem.
    pub fn stat_fs(&self) -> Result<rustix::fs::StatVfs> {
        rustix::fs::fstatvfs(&self.objects)
    }
}
