//! Hard links of lower files that stay links after copy-up: the index.
//!
//! A lower file with several names is copied up once, into `workdir/index` under a name made of its
//! identity, and linked from there to the name that was changed; every other name finds the copy by the
//! lower file's identity. Names and contents of the directory are the kernel's with `index=on`, so that
//! either reads what the other wrote. How far the upper inode's link count is from the union's is kept in
//! `overlay.nlink` as `U+n` or `L+n` (relative to the upper or the lower inode's).
//!
//! A name of a lower file that is deleted without a copy-up is counted in `workdir/plyfs/nlink`, a
//! symbolic link from the same identity to the (negative) difference.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode};

use super::dir_marks::{Namespaces, PREFIXES};
use super::undo::undo;
use super::{Name, origin, owner_rights};
use crate::sys::file_handle::{self, FileHandle};
use crate::sys::{Errno, Object, Result, dir, open};

const NLINK: &str = "nlink";
const ORIGIN: &str = "origin";
/// The type of a handle that no filesystem gives (Linux, include/linux/exportfs.h).
const PACKED_HANDLE: u8 = 0xf8;
/// The root of the layer that a copy was made from, in the form of an origin, and what else tells its
/// original from others; our own mark.
const LAYER: &str = "plyfs.layer";

/// What identifies a lower inode over mounts: its filesystem and file handle, as the kernel has it, and
/// the layer that it was found in, because two layers may be links to the same files of the host.
#[derive(PartialEq, Eq)]
pub struct Identity {
    blob: Vec<u8>,
    layer: Vec<u8>,
}

impl Identity {
    /// The identity of `object` in the layer with this root, on a filesystem with this UUID. Without one,
    /// size and time of the object have to tell it from that of another image in the same place.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where its filesystem has no file handles.
    pub fn of(object: &Object, root: &Object, uuid: Option<[u8; 16]>) -> Result<Self> {
        let blob = |object| {
            let handle = file_handle::of(object)?;
            origin::encode(&handle, uuid.unwrap_or_default()).ok_or(Errno::OPNOTSUPP)
        };
        let mut layer = blob(root)?;
        if uuid.is_none() {
            let stat = object.stat()?;
            for number in [stat.size, stat.mtime.sec.cast_unsigned(), stat.mtime.nsec.into()] {
                layer.extend_from_slice(&number.to_le_bytes());
            }
        }
        Ok(Self { blob: blob(object)?, layer })
    }

    /// The identity of an inode of the packed layer that is called `layer`: the form is that of a file handle.
    ///
    /// # Errors
    /// None that is known: a number fits into a handle.
    pub fn of_packed(layer: &OsStr, inode: u32) -> Result<Self> {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&blake3::hash(layer.as_bytes()).as_bytes()[..16]);
        let handle = FileHandle { kind: PACKED_HANDLE, bytes: inode.to_le_bytes().into() };
        let blob = origin::encode(&handle, uuid).ok_or(Errno::OPNOTSUPP)?;
        Ok(Self { blob, layer: layer.as_bytes().to_vec() })
    }

    fn name(&self) -> Name {
        Name::from(OsString::from(origin::index_name(&self.blob)))
    }

    /// Whether this is what `copy` is a copy of.
    pub fn is_original_of(&self, copy: &CopyMarks) -> bool {
        // Without a layer it is the kernel's, which does not tell layers apart.
        self.blob == copy.blob && copy.layer.as_ref().is_none_or(|layer| *layer == self.layer)
    }
}

/// What an object of an upper layer says it is a copy of.
#[derive(Clone)]
pub struct CopyMarks {
    blob: Vec<u8>,
    layer: Option<Vec<u8>>,
}

impl CopyMarks {
    /// The marks of `object`; `None` if it says nothing.
    pub fn read(object: &Object) -> Result<Option<Self>> {
        let Some(blob) = mark(object, ORIGIN)? else { return Ok(None) };
        Ok(Some(Self { blob, layer: mark(object, LAYER)? }))
    }
}

/// How the union's link count differs from that of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkCount {
    /// Relative to the upper inode's.
    Upper(i32),
    /// Relative to the lower inode's.
    Lower(i32),
}

impl LinkCount {
    /// Understands the value of `overlay.nlink`.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let number = parse_difference(std::str::from_utf8(value.get(1..)?).ok()?)?;
        match value[0] {
            b'U' => Some(Self::Upper(number)),
            b'L' => Some(Self::Lower(number)),
            _ => None,
        }
    }
}

/// The difference of two link counts; `None` for what is none, or larger than any.
pub fn parse_difference(text: &str) -> Option<i32> {
    const LARGEST: i32 = 1 << 30;
    text.parse().ok().filter(|number| (-LARGEST..=LARGEST).contains(number))
}

/// The index of one upper layer.
pub struct Index {
    work: Arc<OwnedFd>,
    own: Arc<OwnedFd>,
    namespaces: Namespaces,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    dir: Option<Arc<OwnedFd>>,
    copies: HashSet<Name>,
    dropped: HashMap<Name, i32>,
}

impl Index {
    /// Reads the index kept in the workdir `work`; `own` is our directory in it.
    pub fn open(work: Arc<OwnedFd>, own: Arc<OwnedFd>, namespaces: Namespaces) -> Result<Self> {
        let mut known = Known::default();
        if let Some(dir) = open_existing(&work, "index")? {
            let dir = Arc::new(dir);
            read_names(&dir, |name| {
                known.copies.insert(name);
                Ok(())
            })?;
            remove_orphans(&dir, &mut known.copies)?;
            known.dir = Some(dir);
        }
        if let Some(dir) = open_existing(&own, "nlink")? {
            let dir = Arc::new(dir);
            read_names(&dir, |name| {
                match Object::Child(dir.clone(), name.clone()).read_link() {
                    Ok(count) => match count.to_str().and_then(parse_difference) {
                        Some(count) => drop(known.dropped.insert(name, count)),
                        None => log::warn!("workdir: plyfs/nlink/{}: no number", name.display()),
                    },
                    Err(Errno::INVAL) => {
                        log::warn!("workdir: plyfs/nlink/{}: no symbolic link", name.display());
                    }
                    Err(error) => return Err(error),
                }
                Ok(())
            })?;
        }
        Ok(Self { work, own, namespaces, known: Mutex::new(known) })
    }

    /// Whether nothing is indexed, so that identities need not be asked for.
    pub fn is_empty(&self) -> bool {
        let known = self.known.lock();
        known.copies.is_empty() && known.dropped.is_empty()
    }

    /// The copy of the lower inode `identity`, by its name in the index.
    pub fn copy_of(&self, identity: &Identity) -> Result<Option<Name>> {
        let name = identity.name();
        if !self.known.lock().copies.contains(&name) {
            return Ok(None);
        }
        let layer = mark(&self.object(&name)?, LAYER)?;
        // Without the mark it is the kernel's, which does not tell layers apart.
        Ok(layer.is_none_or(|layer| layer == identity.layer).then_some(name))
    }

    /// The index entry of an upper inode, if it has one.
    pub fn entry_of(&self, object: &Object) -> Result<Option<Name>> {
        let Some(blob) = mark(object, ORIGIN)? else { return Ok(None) };
        let name = Name::from(OsString::from(origin::index_name(&blob)));
        if !self.known.lock().copies.contains(&name) {
            return Ok(None);
        }
        let same = self.object(&name)?.stat()?.ino == object.stat()?.ino;
        Ok(same.then_some(name))
    }

    /// Whether a copy of `identity` could be entered: no copy of another layer's link to the same inode
    /// is there.
    pub fn has_room(&self, identity: &Identity) -> bool {
        !self.known.lock().copies.contains(&identity.name())
    }

    /// The difference of the link count of a lower inode that is not copied up (0 or negative).
    pub fn dropped(&self, identity: &Identity) -> i32 {
        self.known.lock().dropped.get(&identity.name()).copied().unwrap_or(0)
    }

    /// The object of an index entry.
    pub fn object(&self, name: &Name) -> Result<Object> {
        let dir = self.known.lock().dir.clone().ok_or(Errno::NOENT)?;
        Ok(Object::Child(dir, name.clone()))
    }

    /// Enters a staged copy, by way of `link`, which links it to a name in a directory. There is
    /// [room](Self::has_room) for it.
    pub fn add(
        &self,
        identity: &Identity,
        copy: &Object,
        link: impl Fn(&OwnedFd, &OsStr) -> Result<()>,
    ) -> Result<Name> {
        self.namespaces.set(copy, ORIGIN, &identity.blob)?;
        self.namespaces.set(copy, LAYER, &identity.layer)?;
        let dir = self.dir()?;
        let name = identity.name();
        match link(&dir, &name) {
            // What nobody knows of was entered by a copy-up that failed and could not be undone.
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&dir, &*name, AtFlags::empty())?;
                link(&dir, &name)?;
            }
            result => result?,
        }
        self.known.lock().copies.insert(name.clone());
        Ok(name)
    }

    /// Takes an entry out when no name of its inode is left in the union.
    pub fn remove(&self, name: &Name) -> Result<()> {
        let dir = {
            let mut known = self.known.lock();
            known.copies.remove(name);
            known.dir.clone().ok_or(Errno::NOENT)?
        };
        rustix::fs::unlinkat(dir, &**name, AtFlags::empty())
    }

    /// Makes the entries survive a crash of the machine.
    pub fn sync(&self) -> Result<()> {
        let Some(dir) = self.known.lock().dir.clone() else { return Ok(()) };
        rustix::fs::fsync(open::reopen_directory(dir.as_fd())?)
    }

    /// Stores how far the union's link count is above that of the indexed upper inode.
    pub fn set_bias(&self, name: &Name, bias: i32) -> Result<()> {
        self.set_bias_of(&self.object(name)?, bias)
    }

    /// The same for a copy that is not entered yet.
    pub fn set_bias_of(&self, copy: &Object, bias: i32) -> Result<()> {
        self.namespaces.set(copy, NLINK, format!("U{bias:+}").as_bytes())
    }

    /// Stores the difference of the link count of a lower inode that is not copied up.
    pub fn set_dropped(&self, identity: &Identity, count: i32) -> Result<()> {
        match rustix::fs::mkdirat(&self.own, "nlink", Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let dir = open::child(self.own.as_fd(), OsStr::new("nlink"), rustix::fs::OFlags::PATH)?;
        let name = identity.name();
        let mut fresh = name.to_os_string();
        fresh.push(".new");
        match rustix::fs::unlinkat(&dir, &*fresh, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        rustix::fs::symlinkat(count.to_string(), &dir, &*fresh)?;
        rustix::fs::renameat(&dir, &*fresh, &dir, &*name)
            .inspect_err(|_| undo(rustix::fs::unlinkat(&dir, &*fresh, AtFlags::empty())))?;
        self.known.lock().dropped.insert(name, count);
        Ok(())
    }

    fn dir(&self) -> Result<Arc<OwnedFd>> {
        let mut known = self.known.lock();
        if let Some(dir) = &known.dir {
            return Ok(dir.clone());
        }
        match rustix::fs::mkdirat(&self.work, "index", Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let dir = open_existing(&self.work, "index")?.ok_or(Errno::NOENT)?;
        Ok(known.dir.insert(Arc::new(dir)).clone())
    }
}

/// Removes the entries whose inodes have no name in the union any more: a crash came between the deletion
/// of the last one and that of the entry.
fn remove_orphans(dir: &Arc<OwnedFd>, copies: &mut HashSet<Name>) -> Result<()> {
    let mut orphans = Vec::new();
    for name in copies.iter() {
        let object = Object::Child(dir.clone(), name.clone());
        if let Some(LinkCount::Upper(bias)) = link_count(&object)?
            && object.stat()?.nlink.saturating_add_signed(bias) == 0
        {
            orphans.push(name.clone());
        }
    }
    for name in orphans {
        rustix::fs::unlinkat(dir, &*name, AtFlags::empty())?;
        copies.remove(&name);
    }
    Ok(())
}

/// The stored link count of an upper inode, if it is an indexed one. What cannot be understood counts as
/// absent: the count is then guessed, as by the kernel.
pub fn link_count(object: &Object) -> Result<Option<LinkCount>> {
    let Some(value) = mark(object, NLINK)? else { return Ok(None) };
    let count = LinkCount::parse(&value);
    if count.is_none() {
        log::warn!("upper layer: a stored link count is no number: {}", value.escape_ascii());
    }
    Ok(count)
}

fn mark(object: &Object, mark: &str) -> Result<Option<Vec<u8>>> {
    for prefix in PREFIXES {
        if let Some(value) = owner_rights::xattr(object, OsStr::new(&format!("{prefix}{mark}")))? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn open_existing(parent: &OwnedFd, name: &str) -> Result<Option<OwnedFd>> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    match open::child(parent.as_fd(), OsStr::new(name), flags) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Calls `each` with every entry whose name is an identity that this machine understands.
fn read_names(dir: &OwnedFd, mut each: impl FnMut(Name) -> Result<()>) -> Result<()> {
    dir::for_each(dir.as_fd(), |entry| match is_entry_name(entry.name) {
        true => each(Name::from(entry.name)),
        false => Ok(()),
    })
}

/// Whether an entry of the index called so is one that this machine understands.
pub fn is_entry_name(name: &OsStr) -> bool {
    let blob = name.to_str().and_then(origin::from_index_name);
    blob.as_deref().is_some_and(origin::is_origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_counts_are_read_in_both_forms() {
        assert_eq!(LinkCount::parse(b"U+2"), Some(LinkCount::Upper(2)));
        assert_eq!(LinkCount::parse(b"L-1"), Some(LinkCount::Lower(-1)));
        for bad in [&b""[..], b"U", b"X+1", b"U+x", b"U+99999999999", b"L-2147483648"] {
            assert_eq!(LinkCount::parse(bad), None);
        }
    }
}
