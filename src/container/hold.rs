//! Who has a name: the lock on `mounts/NAME.json`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

use super::name;
use super::record::MountRecord;
use crate::archive::Shown;
use crate::layer::claim;
use crate::mount;
use crate::store::{Error, Result, Store};
use crate::sys::Errno;
use crate::sys::mountinfo::{self, MountLine};

/// A name that nobody else mounts or removes as long as this, or a copy in a child process, exists.
pub struct Hold {
    /// The folder `mounts`, for a daemon that has gone to another directory.
    folder: OwnedFd,
    file: OwnedFd,
    file_name: String,
}

impl Hold {
    /// Takes a name. Waits a moment for a mount that is just ending.
    ///
    /// # Errors
    /// If it is mounted.
    pub fn take(store: &Store, name: &str) -> Result<Self> {
        let file_name = format!("{name}.json");
        let folder = store.root().join("mounts");
        let take = || -> std::result::Result<Self, Errno> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::open(&folder, flags, Mode::empty())?;
            loop {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let file = rustix::fs::openat(&folder, &file_name, flags, Mode::from(0o600))?;
                lock(store, name, &file)?;
                let hold = Self {
                    folder: folder.try_clone().map_err(io_errno)?,
                    file,
                    file_name: file_name.clone(),
                };
                // Whoever had it before has removed it.
                if hold.is_current()? {
                    return Ok(hold);
                }
            }
        };
        take().map_err(|error| match error {
            Errno::BUSY => in_use(name, &folder.join(format!("{name}.json"))),
            error => Error::failure(format!("{}: {error}", folder.join(name).display())),
        })
    }

    /// Writes what is mounted under the name.
    pub fn write(&self, record: &MountRecord) -> io::Result<()> {
        let text = serde_json::to_vec(record)?;
        rustix::fs::ftruncate(&self.file, 0)?;
        let mut written = 0;
        while written < text.len() {
            written += rustix::io::pwrite(&self.file, &text[written..], written as u64)?;
        }
        Ok(())
    }

    /// Removes the record, if that has not been done; nothing is mounted under the name any more.
    pub fn remove(&self) -> io::Result<()> {
        if self.is_current()? {
            rustix::fs::unlinkat(&self.folder, &self.file_name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Whether the name leads to the file that is locked. Only who has the lock takes the name away.
    fn is_current(&self) -> std::result::Result<bool, Errno> {
        let ours = rustix::fs::fstat(&self.file)?;
        match rustix::fs::statat(&self.folder, &self.file_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Locks the file of a name. Who has it gets a moment to end, unless it is seen to be mounted; a daemon whose mount
/// nobody can reach any more is asked to go.
fn lock(store: &Store, name: &str, file: &OwnedFd) -> std::result::Result<(), Errno> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {}
        result => return result,
    }
    let root = store.root();
    if is_in_sight(&root.join("mounts").join(format!("{name}.json"))) {
        return Err(Errno::BUSY);
    }
    let upper = root.join("containers").join(name).join("upper");
    if upper.exists()
        && let Err(error) = mount::ask_abandoned(&upper)
    {
        log::debug!("{}: {error}", upper.display());
    }
    claim::lock(file)
}

/// Whether the mount that the file at `path` is about is mounted for this process.
fn is_in_sight(path: &Path) -> bool {
    let record = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let Some(MountRecord { mountpoint, .. }) = record else { return false };
    let is_it =
        |mount: &MountLine| mount.mountpoint == mountpoint && mount.fs_type.starts_with("fuse.");
    mountinfo::read().is_ok_and(|mounts| mounts.iter().any(is_it))
}

fn io_errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn in_use(name: &str, path: &Path) -> Error {
    let record = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    Error::failure(match record {
        Some(MountRecord { mountpoint, .. }) => {
            format!("container {name} is mounted on {}; unmount it first", mountpoint.display())
        }
        None => format!("container {name} is being mounted or removed by another process"),
    })
}

/// The mounts of images that live in the store at `root`, by name. One that has just begun may not be among them yet.
pub fn live_mounts(root: &Path) -> Result<Vec<(String, MountRecord)>> {
    let folder = root.join("mounts");
    let read = || -> io::Result<Vec<(String, MountRecord)>> {
        let mut live = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json"));
            if let Some(name) = name
                && let Some(record) = live_record(&path)?
            {
                live.push((name.to_owned(), record));
            }
        }
        live.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(live)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(|error| Error::failure(format!("{}: {error}", folder.display()))),
    }
}

/// The live mount that `text` names in the store at `root`: its name, or the beginning of no other's.
///
/// # Errors
/// [`Kind::NotFound`](crate::store::Kind::NotFound) if nothing is called so; if it is a container that is not mounted, or
/// another image is mounted over it.
pub fn find_mount(root: &Path, text: &str) -> Result<(String, MountRecord)> {
    let live = live_mounts(root)?;
    let exact = live.iter().filter(|(name, _)| name == text);
    let begins = live.iter().filter(|(name, _)| !text.is_empty() && name.starts_with(text));
    let found: Vec<_> =
        if exact.clone().next().is_some() { exact.collect() } else { begins.collect() };
    let (name, mount) = match found[..] {
        [one] => one,
        [] if name::check(text).is_ok() && root.join("containers").join(text).exists() => {
            return Err(Error::failure(format!("container {text} is not mounted")));
        }
        [] => {
            let shown = Shown(text.as_bytes());
            return Err(Error::not_found(format!("no mount and no container `{shown}`")));
        }
        [..] => return Err(Error::failure(format!("several mounts begin with `{text}`"))),
    };
    let here = live.iter().filter(|(_, other)| other.mountpoint == mount.mountpoint);
    if here.count() > 1 {
        let path = mount.mountpoint.display();
        let line =
            format!("several images are mounted on {path}, one over the other: name the path");
        return Err(Error::failure(line));
    }
    Ok((name.clone(), mount.clone()))
}

/// Waits a moment for the mount `name` of the store at `root` to end; false if it lives on.
pub fn wait_for_end(root: &Path, name: &str) -> bool {
    match File::open(root.join("mounts").join(format!("{name}.json"))) {
        Ok(file) => claim::lock(&file.into()).is_ok(),
        // Removed by the one who ended.
        Err(_) => true,
    }
}

/// What the file at `path` says, if somebody has the lock on it.
fn live_record(path: &Path) -> io::Result<Option<MountRecord>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockShared) {
        Ok(()) => return Ok(None),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error.into()),
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    // What cannot be read is just being written.
    Ok(serde_json::from_slice(&text).ok())
}
