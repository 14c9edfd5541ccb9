//! The changes as the archive of a layer (OCI image specification, "Image Layer Filesystem Changeset").

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::held::{Data, Held};
use super::walk::{Deletion, LONGEST_DELETED, Sink, Union, walk};
use super::{Error, Kind, Layers, Result};
use crate::archive::entry::{self, Device, Extent};
use crate::archive::oci_whiteout::{self, Meaning};
use crate::archive::writer::Writer;
use crate::archive::{Entry, EntryPath, Xattr};
use crate::layer::whiteout;
use crate::sys::{Errno, FileKind, Time};

/// Writes the changes of an upper layer as an archive; nothing at all, not even an end mark, if there are none. The same
/// layers give the same bytes.
pub fn write_archive(layers: &Layers, out: impl Write) -> Result<()> {
    let union = Union::open(layers)?;
    let out = BufWriter::with_capacity(BUFFER, out);
    let mut archive = Archive { out: Writer::new(out), links: HashMap::new(), begun: false };
    walk(&union, &mut archive)?;
    if !archive.begun {
        return Ok(());
    }
    archive.out.finish().and_then(|mut out| out.flush()).map_err(Error::output)
}

const BUFFER: usize = 128 << 10;

struct Archive<W: Write> {
    out: Writer<BufWriter<W>>,
    /// The first name of each file that has several, by its inode number.
    links: HashMap<u64, EntryPath>,
    begun: bool,
}

impl<W: Write> Sink for Archive<W> {
    const WANTS_COVERED: bool = false;

    fn deleted(&mut self, path: &Path, _: Deletion) -> Result<()> {
        let Some(name) = path.file_name() else { return Ok(()) };
        refuse_mark(path)?;
        self.mark(&path.with_file_name(whiteout::dot_file(name)))
    }

    fn opaque(&mut self, path: &Path) -> Result<()> {
        self.mark(&path.join(whiteout::OPAQUE_FILE))
    }

    fn object(&mut self, path: &Path, object: &Held<'_>, change: Option<Kind>) -> Result<()> {
        refuse_mark(path)?;
        if object.attr.kind() == FileKind::Socket {
            // Nobody listens any more, and archives have no such type.
            log::warn!("/{}: a socket: left out", path.display());
            // What it has replaced does not come back for that. Where a mark has no room, the directory is opaque.
            let has_mark = path.file_name().is_some_and(|name| name.len() <= LONGEST_DELETED);
            return match change {
                Some(Kind::Changed) if has_mark => self.deleted(path, Deletion::Single),
                _ => Ok(()),
            };
        }
        let own = entry_path(path)?;
        if !object.is_dir() && object.attr.nlink > 1 {
            if let Some(first) = self.links.get(&object.attr.ino) {
                let link = entry::Kind::HardLink(first.clone());
                return self.write(&entry(own, link, object, Vec::new()), object);
            }
            self.links.insert(object.attr.ino, own.clone());
        }
        let at = |error: Errno| Error::at(path, error);
        let kind = kind(object).map_err(at)?;
        let xattrs = object.xattrs().map_err(at)?;
        let entry = entry(own, kind, object, xattrs);
        self.write(&entry, object)
    }

    fn changed_within(&mut self, _: &Path) -> Result<()> {
        Ok(())
    }
}

impl<W: Write> Archive<W> {
    /// Writes a mark: an empty file.
    fn mark(&mut self, path: &Path) -> Result<()> {
        self.begun = true;
        let mark = Entry {
            path: entry_path(path)?,
            kind: entry::Kind::Regular(Extent::whole(0)),
            permissions: 0,
            uid: 0,
            gid: 0,
            mtime: Time { sec: 0, nsec: 0 },
            xattrs: Vec::new(),
        };
        self.out.entry(&mark, &mut io::empty()).map_err(Error::output)
    }

    fn write(&mut self, entry: &Entry, object: &Held<'_>) -> Result<()> {
        self.begun = true;
        let written = match &entry.kind {
            entry::Kind::Regular(_) => self.out.entry(entry, &mut Data::of(object)),
            _ => self.out.entry(entry, &mut io::empty()),
        };
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Error::output(error),
            io::ErrorKind::UnexpectedEof => {
                Error::at(Path::new(&*entry.path.to_string()), Errno::STALE)
            }
            _ => Error::at(Path::new(&*entry.path.to_string()), error),
        })
    }
}

/// In an archive a name may mean a deletion: a file that is called so cannot be in one.
fn refuse_mark(path: &Path) -> Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    match oci_whiteout::meaning(name.as_bytes()) {
        Ok(Meaning::Object) => Ok(()),
        _ => {
            let why = "in a layer such a name means a deletion; rename it, or remove it";
            Err(Error::at(path, io::Error::other(why)))
        }
    }
}

fn entry_path(path: &Path) -> Result<EntryPath> {
    if path == Path::new("") {
        return Ok(EntryPath::default());
    }
    let parsed = EntryPath::parse(path.as_os_str().as_bytes());
    parsed.map_err(|refusal| Error::at(path, io::Error::other(refusal.to_string())))
}

fn kind(object: &Held<'_>) -> crate::sys::Result<entry::Kind> {
    let rdev = object.attr.rdev;
    let device = || Device { major: rustix::fs::major(rdev), minor: rustix::fs::minor(rdev) };
    Ok(match object.attr.kind() {
        FileKind::Regular => entry::Kind::Regular(Extent::whole(object.attr.size)),
        FileKind::Directory => entry::Kind::Directory,
        FileKind::Symlink => {
            let target = object.union.read_link(object.node)?;
            entry::Kind::Symlink(target.as_bytes().into())
        }
        FileKind::CharDevice => entry::Kind::CharDevice(device()),
        FileKind::BlockDevice => entry::Kind::BlockDevice(device()),
        FileKind::Fifo | FileKind::Socket => entry::Kind::Fifo,
    })
}

fn entry(
    path: EntryPath,
    kind: entry::Kind,
    object: &Held<'_>,
    xattrs: Vec<(Box<std::ffi::OsStr>, Vec<u8>)>,
) -> Entry {
    let attr = &object.attr;
    let xattr = |(name, value): (Box<std::ffi::OsStr>, Vec<u8>)| Xattr {
        name: name.as_bytes().into(),
        value: value.into(),
    };
    Entry {
        path,
        kind,
        permissions: attr.mode & 0o7777,
        uid: attr.uid,
        gid: attr.gid,
        mtime: attr.mtime,
        xattrs: xattrs.into_iter().map(xattr).collect(),
    }
}
