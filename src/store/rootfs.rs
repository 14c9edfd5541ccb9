//! Base images: a root filesystem becomes an image of one layer.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::process::{getegid, geteuid};
use serde_json::json;

use super::import::Import;
use super::layer_import::{Imported, Keep};
use super::load::Loaded;
use super::manifest::{Descriptor, Platform};
use super::progress::{Progress, Status, Watched};
use super::reference::Reference;
use super::{Error, Result, Store, timestamp};
use crate::archive::entry::{Device, Extent};
use crate::archive::writer::Writer;
use crate::archive::{Entry, EntryPath, Kind, Limits, Xattr, oci_whiteout};
use crate::sys::{FileKind, Object, Stat, dir, open, stat};

impl Store {
    /// Makes an image of the archive of a root filesystem.
    pub fn import_rootfs(
        &self,
        source: impl Read,
        comment: &str,
        name: Option<&Reference>,
    ) -> Result<(Loaded, Imported)> {
        let mut import = self.import()?;
        let imported = import.layer("1", source, Limits::default(), Keep::Compressed)?;
        let loaded = self.base_image(import, &imported, comment, name)?;
        Ok((loaded, imported))
    }

    /// Makes an image of the directory `path`: owners, devices and attributes as they are, but that the caller's files
    /// become root's. What is mounted in it stays out.
    pub fn import_directory(
        &self,
        path: &Path,
        comment: &str,
        name: Option<&Reference>,
        progress: &dyn Progress,
    ) -> Result<(Loaded, Imported)> {
        let failed = |error: io::Error| Error::failure(format!("{}: {error}", path.display()));
        let root = open::directory_for_reading(path).map_err(|error| failed(error.into()))?;
        let (reader, writer) = io::pipe().map_err(failed)?;
        std::thread::scope(|scope| {
            let walk = scope.spawn(move || write_tree(root, writer));
            let mut import = self.import()?;
            let reader = Watched::new(reader, progress, None, Status::Importing, 0);
            let imported = import.layer("1", reader, Limits::default(), Keep::Compressed);
            // An unreadable file is why the archive ends too early.
            match walk.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Ok(Err(error)) => return Err(failed(error)),
                Err(_) => return Err(failed(io::Error::other("cannot be read"))),
            }
            let imported = imported?;
            let loaded = self.base_image(import, &imported, comment, name)?;
            Ok((loaded, imported))
        })
    }

    fn base_image(
        &self,
        import: Import<'_>,
        layer: &Imported,
        comment: &str,
        name: Option<&Reference>,
    ) -> Result<Loaded> {
        let created = timestamp::format(timestamp::of_making());
        let config = json!({
            "created": created,
            "architecture": Platform::here().architecture,
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [layer.diff_id.0.to_string()] },
            "history": [{ "created": created, "comment": comment }],
        });
        let layers = vec![Descriptor::layer(layer.compression, layer.blob)];
        let (id, descriptor) = import.new_image(config.to_string().as_bytes(), layers)?;
        import.publish()?;
        let names: Vec<Reference> = name.into_iter().cloned().collect();
        self.tag_all(&descriptor, &names)?;
        Ok(Loaded { id, manifest: descriptor.digest, names })
    }
}

/// A tree that is being written as an archive.
struct Walk<W: Write> {
    archive: Writer<W>,
    device: u64,
    /// The first name of each file that has several.
    links: BTreeMap<(u64, u64), EntryPath>,
}

fn write_tree(root: OwnedFd, out: impl Write) -> io::Result<()> {
    let root = Arc::new(root);
    let stat = stat::stat_fd(root.as_fd())?;
    let out = io::BufWriter::with_capacity(128 << 10, out);
    let mut walk = Walk { archive: Writer::new(out), device: stat.dev, links: BTreeMap::new() };
    let entry = entry(EntryPath::default(), Kind::Directory, &stat, &Object::Own(root.clone()))?;
    walk.archive.entry(&entry, &mut io::empty())?;
    walk.directory(&root, &mut Vec::new())?;
    walk.archive.finish()?.flush()
}

impl<W: Write> Walk<W> {
    /// Writes what is in `directory`, in the order of names.
    fn directory(&mut self, directory: &Arc<OwnedFd>, path: &mut Vec<u8>) -> io::Result<()> {
        let mut names: Vec<OsString> = Vec::new();
        dir::for_each(directory.as_fd(), |entry| {
            names.push(entry.name.to_owned());
            Ok(())
        })?;
        names.sort_unstable_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
        for name in names {
            let length = path.len();
            path.extend_from_slice(b"/");
            path.extend_from_slice(name.as_bytes());
            self.object(directory, &name, path).map_err(|error| at(path, error))?;
            path.truncate(length);
        }
        Ok(())
    }

    fn object(
        &mut self,
        parent: &Arc<OwnedFd>,
        name: &OsStr,
        path: &mut Vec<u8>,
    ) -> io::Result<()> {
        if oci_whiteout::meaning(name.as_bytes()).ok() != Some(oci_whiteout::Meaning::Object) {
            return Err(io::Error::other("in a layer such a name means a deletion"));
        }
        let object = Object::Child(parent.clone(), name.into());
        let stat = object.stat()?;
        let refused = |refusal: crate::archive::Refusal| io::Error::other(refusal.to_string());
        let own = EntryPath::parse(path).map_err(refused)?;
        if stat.kind() != FileKind::Directory && stat.nlink > 1 {
            if let Some(first) = self.links.get(&(stat.dev, stat.ino)) {
                let kind = Kind::HardLink(first.clone());
                let link = Entry { xattrs: Vec::new(), ..entry(own, kind, &stat, &object)? };
                return self.archive.entry(&link, &mut io::empty());
            }
            self.links.insert((stat.dev, stat.ino), own.clone());
        }
        let device =
            Device { major: rustix::fs::major(stat.rdev), minor: rustix::fs::minor(stat.rdev) };
        let kind = match stat.kind() {
            FileKind::Regular => Kind::Regular(Extent::whole(stat.size)),
            FileKind::Directory => Kind::Directory,
            FileKind::Symlink => Kind::Symlink(object.read_link()?.as_bytes().into()),
            FileKind::CharDevice => Kind::CharDevice(device),
            FileKind::BlockDevice => Kind::BlockDevice(device),
            FileKind::Fifo => Kind::Fifo,
            // Nobody listens any more, and archives have no such type.
            FileKind::Socket => return Ok(()),
        };
        let entry = entry(own, kind, &stat, &object)?;
        match stat.kind() {
            FileKind::Regular => {
                let mut file: File = object.open(OFlags::RDONLY)?.into();
                self.archive.entry(&entry, &mut file).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => io::Error::other("it changes while it is read"),
                    _ => error,
                })
            }
            FileKind::Directory => {
                self.archive.entry(&entry, &mut io::empty())?;
                if stat.dev != self.device {
                    return Ok(());
                }
                let below = object.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
                self.directory(&Arc::new(below), path)
            }
            _ => self.archive.entry(&entry, &mut io::empty()),
        }
    }
}

/// Puts the path before an error, once.
fn at(path: &[u8], error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe || error.to_string().starts_with('/') {
        return error;
    }
    io::Error::other(format!("{}: {error}", crate::archive::Shown(path)))
}

fn entry(path: EntryPath, kind: Kind, stat: &Stat, object: &Object) -> io::Result<Entry> {
    let mut xattrs = Vec::new();
    for name in object.xattr_names()? {
        if let Some(value) = object.xattr(&name)? {
            xattrs.push(Xattr { name: name.as_bytes().into(), value: value.into() });
        }
    }
    xattrs.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(Entry {
        path,
        kind,
        permissions: stat.permissions(),
        uid: owner(stat.uid, geteuid().as_raw()),
        gid: owner(stat.gid, getegid().as_raw()),
        mtime: stat.mtime,
        xattrs,
    })
}

/// The owner in the image: what an ordinary user has made is root's there, as if he had been the root of a namespace.
fn owner(id: u32, own: u32) -> u32 {
    if id == own { 0 } else { id }
}
