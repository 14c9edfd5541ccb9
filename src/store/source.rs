//! Where an image is loaded from: an archive, or a directory. Members are named by their paths in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::blobs::read_at_most;
use super::stage::Stage;
use super::{Error, Result};
use crate::archive::entry::Extent;
use crate::archive::{
    Compression, Decompressed, EntryPath, Kind, Limits, Reader, Refusal, Shown, foreign,
};
use crate::sys::{Errno, open};

/// An archive or a directory.
pub enum Source {
    /// A directory.
    Directory(std::os::fd::OwnedFd),
    /// An archive.
    Archive(Archive),
}

/// An archive, of which the places of all members are known.
pub struct Archive {
    file: File,
    members: BTreeMap<EntryPath, Member>,
}

enum Member {
    /// Where it begins, and its bytes.
    File(u64, u64),
    Link(EntryPath),
}

/// A file in the source, to be read once.
pub type Content = Take<ReadAt>;

/// Members of an archive that holds images; each is a layer, or less.
const MOST_MEMBERS: u64 = 100_000;

/// The bytes of their names and links, which are kept in memory.
const MOST_NAMES: usize = 16 << 20;

/// How often a link may lead to a link.
const MOST_LINKS: usize = 16;

impl Source {
    /// Opens what lies at `path`, which is a directory or an archive.
    pub fn open(path: &Path, stage: &Stage) -> Result<Self> {
        let failed = |error: io::Error| {
            let at = path.display();
            match error.kind() {
                io::ErrorKind::NotFound => Error::not_found(format!("{at}: {error}")),
                _ => Error::failure(format!("{at}: {error}")),
            }
        };
        if path.is_dir() {
            return Ok(Self::Directory(open::directory(path).map_err(|e| failed(e.into()))?));
        }
        Self::read(File::open(path).map_err(failed)?, stage)
    }

    /// Takes an archive, compressed or not, from a file or a pipe. What cannot be read twice is copied to `stage`.
    pub fn read(mut file: File, stage: &Stage) -> Result<Self> {
        let refused = |refusal: Refusal| Error::failure(format!("the archive: {refusal}"));
        let mut seek = || -> io::Result<bool> {
            if file.stream_position().is_err() || !file.metadata()?.is_file() {
                return Ok(false);
            }
            let start = read_at_most((&mut file).take(10), 10)?;
            file.seek(SeekFrom::Start(0))?;
            Ok(Compression::of(&start) == Compression::None && foreign(&start).is_none())
        };
        let file = if seek().map_err(|error| refused(error.into()))? {
            file
        } else {
            spool(file, stage).map_err(|error| refused(error.into()))?
        };
        Archive::new(file).map(Self::Archive).map_err(refused)
    }

    /// Opens a member; `None` if there is none of this name. Gives its bytes, too.
    pub fn member(&self, name: &str) -> Result<Option<(Content, u64)>> {
        let refused = |refusal: Refusal| {
            Error::failure(format!("member {}: {refusal}", Shown(name.as_bytes())))
        };
        let path = EntryPath::parse(name.as_bytes()).map_err(refused)?;
        match self {
            Self::Archive(archive) => archive.member(&path).map_err(refused),
            Self::Directory(dir) => in_directory(dir, &path).map_err(|e| refused(e.into())),
        }
    }

    /// Reads a member of at most `most` bytes.
    pub fn text(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let Some((content, _)) = self.member(name)? else { return Ok(None) };
        let read = read_at_most(content, most);
        let shown = Shown(name.as_bytes());
        read.map(Some).map_err(|error| Error::failure(format!("member {shown}: {error}")))
    }
}

/// Copies an archive to a file of the stage, and decompresses it.
fn spool(source: File, stage: &Stage) -> io::Result<File> {
    // Several layers, each of which is bounded when it is read.
    let limits = Limits { bytes: 1 << 40, ..Limits::default() };
    let path = stage.path("archive");
    let mut options = File::options();
    let mut file = options.read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    io::copy(&mut Decompressed::new(source, limits)?, &mut file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn in_directory(
    dir: &std::os::fd::OwnedFd,
    path: &EntryPath,
) -> io::Result<Option<(Content, u64)>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file: File = match rustix::fs::openat2(dir, path.as_bytes(), flags, Mode::empty(), beneath)
    {
        Ok(file) => file.into(),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let size = metadata.len();
    Ok(Some((ReadAt { file, at: 0 }.take(size), size)))
}

impl Archive {
    fn new(file: File) -> std::result::Result<Self, Refusal> {
        let length = file.metadata()?.len();
        let limits = Limits { entries: MOST_MEMBERS, bytes: u64::MAX >> 2, ..Limits::default() };
        let mut members = BTreeMap::new();
        let mut names = 0;
        let mut reader = Reader::new(file, limits);
        while let Some(entry) = reader.next_entry()? {
            reader.take_framing();
            let member = match entry.kind {
                Kind::Regular(Extent { size, data: None }) => {
                    let start = reader.rest().stream_position()?;
                    if start.checked_add(size).is_none_or(|end| end > length) {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                    reader.skip_content()?;
                    Member::File(start, size)
                }
                Kind::HardLink(target) => Member::Link(target),
                Kind::Symlink(target) => match linked(&entry.path, &target) {
                    Some(target) => Member::Link(target),
                    None => return Err(Refusal::new("it leads out").of(entry.path.as_bytes())),
                },
                _ => continue,
            };
            names += entry.path.as_bytes().len();
            if let Member::Link(target) = &member {
                names += target.as_bytes().len();
            }
            if names > MOST_NAMES {
                let problem = format!("the names in it are longer than {MOST_NAMES} bytes");
                return Err(Refusal::new(problem));
            }
            members.insert(entry.path, member);
        }
        Ok(Self { file: reader.into_inner(), members })
    }

    fn member(&self, path: &EntryPath) -> std::result::Result<Option<(Content, u64)>, Refusal> {
        let mut path = path;
        for _ in 0..MOST_LINKS {
            match self.members.get(path) {
                None => return Ok(None),
                Some(Member::Link(target)) => path = target,
                Some(Member::File(at, size)) => {
                    let file = self.file.try_clone()?;
                    return Ok(Some((ReadAt { file, at: *at }.take(*size), *size)));
                }
            }
        }
        Err(Refusal::new("its links lead in a circle"))
    }
}

/// Where the symbolic link at `path` leads inside the archive; `None` if it leads out of it.
fn linked(path: &EntryPath, target: &[u8]) -> Option<EntryPath> {
    let (parent, _) = path.split_last()?;
    let mut names: Vec<&[u8]> = parent.names().collect();
    if target.starts_with(b"/") {
        return None;
    }
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    EntryPath::parse(&names.join(&b'/')).ok()
}

/// Reads a file from a place of its own.
pub struct ReadAt {
    file: File,
    at: u64,
}

impl Read for ReadAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_nowhere_but_into_the_archive() {
        let path = EntryPath::parse(b"a/b/layer.tar").unwrap();
        let leads = |target: &str| linked(&path, target.as_bytes()).map(|path| path.to_string());
        assert_eq!(leads("../c/layer.tar").as_deref(), Some("a/c/layer.tar"));
        assert_eq!(leads("../../x").as_deref(), Some("x"));
        assert_eq!(leads("./x").as_deref(), Some("a/b/x"));
        for out in ["/etc/passwd", "../../../x", "../../.."] {
            assert_eq!(leads(out), None, "{out}");
        }
    }
}
