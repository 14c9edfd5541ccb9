//! Contents of files, each once, called by its BLAKE3 hash.
//!
//! An object in `objects/` is complete and on disk: new ones are made in a stage, and get their names when all of the
//! import has been synced. They are never changed afterwards.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use super::stage::Stage;
use crate::archive::entry::Extent;
use crate::layer::packed::layer::content_place as place;
use crate::sys::{Errno, dir, open};

/// The name of a content.
pub type ContentId = blake3::Hash;

/// The folder of all objects.
pub struct Objects {
    dir: OwnedFd,
}

impl Objects {
    /// Opens the folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { dir: open::directory(path)? })
    }

    /// Whether there is an object of that name.
    pub fn has(&self, id: &ContentId) -> io::Result<bool> {
        match rustix::fs::statat(&self.dir, place(id), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The size of an object in bytes; `None` if there is none of that name.
    pub fn size(&self, id: &ContentId) -> io::Result<Option<u64>> {
        match rustix::fs::statat(&self.dir, place(id), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(u64::try_from(stat.st_size).ok()),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an object that is not what its name says.
    pub(super) fn remove(&self, id: &ContentId) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.dir, place(id), AtFlags::empty())?)
    }

    /// Opens an object for reading.
    pub fn get(&self, id: &ContentId) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(rustix::fs::openat(&self.dir, place(id), flags, Mode::empty())?.into())
    }
}

/// The name of the object at `path`.
pub(super) fn id_of(path: &Path) -> Option<ContentId> {
    let mut parts = path.components().rev().map(|part| part.as_os_str().to_str());
    let (rest, first) = (parts.next()??, parts.next()??);
    blake3::Hash::from_hex(format!("{first}{rest}")).ok()
}

/// Contents that are no objects yet.
pub struct NewObjects<'s> {
    objects: &'s Objects,
    /// Where they are until they are published, under their names.
    folder: OwnedFd,
    buffer: Vec<u8>,
    /// The number of those that are new, and their bytes.
    pub made: (u64, u64),
}

/// What has no name yet.
const NEW: &str = "new";

/// Contents up to this size are hashed before a file is made of them, since many are there already.
const SMALL: u64 = 1 << 20;

impl<'s> NewObjects<'s> {
    /// None so far, in `stage`.
    pub fn new(objects: &'s Objects, stage: &Stage) -> io::Result<Self> {
        let path = stage.path("objects");
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let folder = open::directory(&path)?;
        Ok(Self { objects, folder, buffer: Vec::new(), made: (0, 0) })
    }

    /// Takes a content of which `data` gives the parts that are no holes; returns its name, `None` for an empty one.
    pub fn add(&mut self, extent: &Extent, data: &mut impl Read) -> io::Result<Option<ContentId>> {
        if extent.size == 0 {
            return Ok(None);
        }
        if extent.data.is_none() && extent.size <= SMALL {
            self.buffer.resize(extent.size as usize, 0);
            data.read_exact(&mut self.buffer)?;
            let id = blake3::hash(&self.buffer);
            if !self.objects.has(&id)?
                && let Some(mut file) = self.create(id.to_hex().as_str())?
            {
                file.write_all(&self.buffer)?;
                self.made(extent.size);
            }
            return Ok(Some(id));
        }
        let mut file = self.create(NEW)?.ok_or(io::ErrorKind::AlreadyExists)?;
        let id = write(&mut file, extent, data)?;
        if !self.objects.has(&id)? && self.rename_new(&id)? {
            self.made(extent.stored());
        } else {
            rustix::fs::unlinkat(&self.folder, NEW, AtFlags::empty())?;
        }
        Ok(Some(id))
    }

    /// Makes objects of all, which must have been synced.
    pub fn publish(&self) -> io::Result<()> {
        Ok(dir::for_each(self.folder.as_fd(), |entry| {
            let id = entry.name.to_str().and_then(|name| blake3::Hash::from_hex(name).ok());
            id.map_or(Ok(()), |id| self.publish_one(&id))
        })?)
    }

    fn publish_one(&self, id: &ContentId) -> Result<(), Errno> {
        let place = place(id);
        let name = id.to_hex();
        let rename = || {
            let flags = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(&self.folder, name.as_str(), &self.objects.dir, &place, flags)
        };
        let renamed = match rename() {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&self.objects.dir, &name[..2], 0o700.into()) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                rename()
            }
            result => result,
        };
        match renamed {
            // The same content, by somebody who was faster.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the file [`NEW`] its name; false if there is one of that name.
    fn rename_new(&self, id: &ContentId) -> io::Result<bool> {
        let (folder, name) = (&self.folder, id.to_hex());
        match rustix::fs::renameat_with(folder, NEW, folder, name.as_str(), RenameFlags::NOREPLACE)
        {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a file; `None` if there is one of that name.
    fn create(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.folder, name, flags, Mode::from(0o444)) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::EXIST) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn made(&mut self, bytes: u64) {
        self.made.0 += 1;
        self.made.1 += bytes;
    }
}

/// Writes a content with its holes; returns the hash of all of it, holes read as zeros.
fn write(file: &mut File, extent: &Extent, data: &mut impl Read) -> io::Result<ContentId> {
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    let parts = match &extent.data {
        Some(parts) => parts.iter().map(|part| (part.offset, part.length)).collect(),
        None => vec![(0, extent.size)],
    };
    let mut buffer = vec![0; 256 << 10];
    for (offset, length) in parts {
        zeros(&mut hasher, offset - at);
        file.seek(SeekFrom::Start(offset))?;
        let mut left = length;
        while left > 0 {
            let piece = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            data.read_exact(&mut buffer[..piece])?;
            hasher.update(&buffer[..piece]);
            file.write_all(&buffer[..piece])?;
            left -= piece as u64;
        }
        at = offset + length;
    }
    zeros(&mut hasher, extent.size - at);
    rustix::fs::ftruncate(file.as_fd(), extent.size)?;
    Ok(hasher.finalize())
}

fn zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while count > 0 {
        let piece = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..piece as usize]);
        count -= piece;
    }
}
