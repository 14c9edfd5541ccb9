//! The work directory: where every change is prepared before one link or rename makes it visible.
//!
//! ```text
//! workdir/plyfs/stage/      things being prepared or taken away; emptied at each mount
//! workdir/plyfs/whiteout    the device 0:0 that whiteouts are links to
//! workdir/plyfs/reserve     one more link to it, for a deletion on a full filesystem
//! workdir/plyfs/features    see `features`
//! workdir/plyfs/nlink/      see `index`
//! workdir/plyfs/ino/        see `inode_mark`
//! workdir/index/            see `index`; the kernel's format
//! workdir/work/             the kernel's and fuse-overlayfs's; see `volatile_mark`
//! ```

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};

use super::{Name, owner_rights, whiteout};
use crate::sys::{Errno, FileKind, Object, Result, dir, open};

/// Our directory in the workdir.
const OWN: &str = "plyfs";
const STAGE: &str = "stage";
const WHITEOUT: &str = "whiteout";
const RESERVE: &str = "reserve";
const FEATURES: &str = "features";

/// The work directory of one mount.
pub struct Workdir {
    /// `workdir/plyfs`.
    own: Arc<OwnedFd>,
    stage: Arc<OwnedFd>,
    next: AtomicU64,
    /// Whether there is a whiteout in reserve.
    reserve: AtomicBool,
    /// How many names are kept in the stage.
    kept: AtomicU64,
}

/// Something in the stage. Dropping it removes whatever then lies under its staged name: the thing
/// itself if it was never published, or what it was exchanged for.
pub struct Staged<'w> {
    work: &'w Workdir,
    file: Option<Arc<OwnedFd>>,
    name: Option<Name>,
}

impl Workdir {
    /// Opens the work directory `root` and removes what a crash left in the stage.
    pub fn open(root: &OwnedFd) -> Result<Self> {
        let (own, _) = make_dir(root.as_fd(), OWN)?;
        let (stage, is_new) = make_dir(own.as_fd(), STAGE)?;
        if !is_new {
            clear(stage.as_fd())?;
        }
        let stage = Arc::new(stage);
        strip_acls(&Object::Own(stage.clone()))?;
        let (next, reserve) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { own: Arc::new(own), stage, next, reserve, kept: AtomicU64::new(0) })
    }

    /// `workdir/plyfs`.
    pub fn own(&self) -> &Arc<OwnedFd> {
        &self.own
    }

    /// The directory in which changes are prepared.
    pub fn stage(&self) -> Object {
        Object::Own(self.stage.clone())
    }

    fn fresh_name(&self) -> Name {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Name::from(OsString::from(format!("{number}")))
    }

    fn named(&self, name: Name, file: Option<OwnedFd>) -> Staged<'_> {
        Staged { work: self, file: file.map(Arc::new), name: Some(name) }
    }

    /// An empty regular file, without a name where the filesystem can do that.
    pub fn stage_file(&self, mode: u32) -> Result<Staged<'_>> {
        match open::unnamed(self.stage.as_fd(), mode) {
            Ok(file) => Ok(Staged { work: self, file: Some(Arc::new(file)), name: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => self.stage_named_file(mode),
            Err(error) => Err(error),
        }
    }

    /// An empty regular file that can replace another by a rename.
    pub fn stage_named_file(&self, mode: u32) -> Result<Staged<'_>> {
        let name = self.fresh_name();
        let file = open::create(self.stage.as_fd(), &name, mode)?;
        Ok(self.named(name, Some(file)))
    }

    /// An empty directory.
    pub fn stage_dir(&self, mode: u32) -> Result<Staged<'_>> {
        let name = self.fresh_name();
        rustix::fs::mkdirat(&self.stage, &*name, Mode::from_raw_mode(mode))?;
        Ok(self.named(name, None))
    }

    /// A symbolic link.
    pub fn stage_symlink(&self, target: &OsStr) -> Result<Staged<'_>> {
        let name = self.fresh_name();
        rustix::fs::symlinkat(target, &self.stage, &*name)?;
        Ok(self.named(name, None))
    }

    /// A FIFO, socket or device.
    pub fn stage_node(&self, kind: FileKind, mode: u32, rdev: u64) -> Result<Staged<'_>> {
        let name = self.fresh_name();
        make_node(self.stage.as_fd(), &name, kind, mode, rdev)?;
        Ok(self.named(name, None))
    }

    /// Another name for `object`.
    pub fn stage_link(&self, object: &Object) -> Result<Staged<'_>> {
        let name = self.fresh_name();
        link(object, self.stage.as_fd(), &name)?;
        Ok(self.named(name, None))
    }

    /// Gives `object` a name in the stage, by which it can be reached when all others are gone.
    pub fn keep(&self, object: &Object) -> Result<Name> {
        let name = self.fresh_name();
        link(object, self.stage.as_fd(), &name)?;
        self.kept.fetch_add(1, Ordering::Relaxed);
        Ok(name)
    }

    /// The object that is kept under this name.
    pub fn kept(&self, name: &Name) -> Object {
        Object::Child(self.stage.clone(), name.clone())
    }

    /// Removes a name that was kept.
    pub fn drop_kept(&self, name: &Name) {
        self.kept.fetch_sub(1, Ordering::Relaxed);
        drop(self.named(name.clone(), None));
    }

    /// A whiteout that can replace something by a rename. Where there is no room for a name (or on tmpfs,
    /// where links count as inodes, for an inode), it is the one in reserve: what it replaces gives back
    /// the room for the next.
    pub fn stage_whiteout(&self) -> Result<Staged<'_>> {
        let name = self.fresh_name();
        match self.link_whiteout(self.stage.as_fd(), &name) {
            Ok(()) => {
                let staged = self.named(name, None);
                self.keep_reserve()?;
                Ok(staged)
            }
            Err(Errno::NOSPC | Errno::DQUOT) if self.reserve.swap(false, Ordering::Relaxed) => {
                rustix::fs::renameat(&self.own, RESERVE, &self.stage, &*name)?;
                Ok(self.named(name, None))
            }
            Err(error) => Err(error),
        }
    }

    /// Lays a whiteout in reserve, if there is none and room for one.
    fn keep_reserve(&self) -> Result<()> {
        if self.reserve.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        match self.link_whiteout(self.own.as_fd(), OsStr::new(RESERVE)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => {
                self.reserve.store(false, Ordering::Relaxed);
                match error {
                    Errno::NOSPC | Errno::DQUOT => Ok(()),
                    error => Err(error),
                }
            }
        }
    }

    /// Moves `name` out of `dir` into the stage, where it is removed when the result is dropped.
    pub fn take_away(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Staged<'_>> {
        let staged = self.fresh_name();
        move_dir((dir, name), (self.stage.as_fd(), &staged), || {
            rustix::fs::renameat(dir, name, &self.stage, &*staged)
        })?;
        Ok(self.named(staged, None))
    }

    /// Makes `name` in `dir` a whiteout: a link to the one that all share, so that a deletion costs no
    /// inode; a new one is made when that has as many links as its filesystem allows.
    pub fn link_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let mut renewed = false;
        loop {
            match rustix::fs::linkat(&self.own, WHITEOUT, dir, name, AtFlags::empty()) {
                Err(Errno::NOENT | Errno::MLINK) if !renewed => {
                    self.renew_whiteout()?;
                    renewed = true;
                }
                // Some filesystems (and some security modules) allow no links to devices.
                Err(Errno::PERM | Errno::OPNOTSUPP) => {
                    return make_node(dir, name, FileKind::CharDevice, 0, 0);
                }
                result => return result,
            }
        }
    }

    fn renew_whiteout(&self) -> Result<()> {
        let staged = self.stage_node(FileKind::CharDevice, 0, 0)?;
        staged.publish_over(self.own.as_fd(), OsStr::new(WHITEOUT))
    }

    /// Whether whiteouts can be made here: made, found by listing, and read back as such. (A filesystem
    /// that is itself an overlay accepts the device and then hides it.)
    pub fn can_make_whiteouts(&self) -> Result<bool> {
        if !self.has_whiteout()? && !self.make_first_whiteout()? {
            return Ok(false);
        }
        self.keep_reserve()?;
        Ok(true)
    }

    /// Whether an earlier mount has left a whiteout that others can be linked to.
    fn has_whiteout(&self) -> Result<bool> {
        is_whiteout(&Object::Child(self.own.clone(), Name::from(OsStr::new(WHITEOUT))))
    }

    /// Makes the whiteout that others are linked to, if that is possible.
    fn make_first_whiteout(&self) -> Result<bool> {
        let probe = match self.stage_node(FileKind::CharDevice, 0, 0) {
            Ok(probe) => probe,
            Err(
                Errno::PERM
                | Errno::ACCESS
                | Errno::OPNOTSUPP
                | Errno::NOSYS
                | Errno::INVAL
                | Errno::EXIST,
            ) => return Ok(false),
            Err(error) => return Err(error),
        };
        let listed = {
            let mut listed = false;
            dir::for_each(self.stage.as_fd(), |entry| {
                listed |= probe.name.as_deref() == Some(entry.name);
                Ok(())
            })?;
            listed
        };
        let possible = listed && is_whiteout(&probe.object())?;
        if possible {
            // It stays: a deletion then needs no inode, which a full filesystem could not give.
            match remove(self.own.as_fd(), OsStr::new(WHITEOUT), self.stage.as_fd()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            probe.publish_over(self.own.as_fd(), OsStr::new(WHITEOUT))?;
        }
        Ok(possible)
    }

    /// What an earlier mount has noted about the filesystem (see `features`).
    pub fn noted_features(&self) -> Option<String> {
        let link = Object::Child(self.own.clone(), Name::from(OsStr::new(FEATURES)));
        link.read_link().ok()?.into_string().ok()
    }

    /// Notes something about the filesystem, instead of what was noted before.
    pub fn note_features(&self, text: &str) -> Result<()> {
        let staged = self.stage_symlink(OsStr::new(text))?;
        staged.publish_over(self.own.as_fd(), OsStr::new(FEATURES))
    }

    /// Whether two names can be exchanged here (RENAME_EXCHANGE).
    pub fn can_exchange(&self) -> Result<bool> {
        // No directory, although these are what is exchanged: one takes a block, and freeing it time.
        let one = self.stage_named_file(0o600)?;
        let other = self.stage_symlink(OsStr::new("other"))?;
        let (Some(from), Some(to)) = (&one.name, &other.name) else { return Ok(false) };
        let flags = RenameFlags::EXCHANGE;
        is_possible(rustix::fs::renameat_with(&self.stage, &**from, &self.stage, &**to, flags))
    }

    /// Whether a rename can leave a whiteout behind (RENAME_WHITEOUT).
    pub fn can_rename_with_whiteout(&self) -> Result<bool> {
        let from = self.stage_named_file(0o600)?;
        let Some(name) = &from.name else { return Ok(false) };
        let to = self.named(self.fresh_name(), None);
        let Some(target) = &to.name else { return Ok(false) };
        let flags = RenameFlags::WHITEOUT;
        let renamed =
            rustix::fs::renameat_with(&self.stage, &**name, &self.stage, &**target, flags);
        let left = Object::Child(self.stage.clone(), name.clone());
        Ok(is_possible(renamed)? && is_whiteout(&left)?)
    }
}

/// Whether something that was tried out can be done here. Any other error is no answer: a filesystem that fails
/// once must not be taken for one that cannot.
fn is_possible(tried: Result<()>) -> Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether `object` is there and a whiteout.
fn is_whiteout(object: &Object) -> Result<bool> {
    match object.stat() {
        Ok(stat) => Ok(whiteout::is_char_whiteout(&stat)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for Workdir {
    /// Removes what was kept for those who had it open until the end.
    fn drop(&mut self) {
        if self.kept.load(Ordering::Relaxed) > 0
            && let Err(error) = clear(self.stage.as_fd())
        {
            log::warn!("cannot remove the leftovers in the workdir: {error}");
        }
    }
}

impl Staged<'_> {
    /// The staged object.
    pub fn object(&self) -> Object {
        match (&self.name, &self.file) {
            (_, Some(file)) => Object::Own(file.clone()),
            (Some(name), None) => Object::Child(self.work.stage.clone(), name.clone()),
            // A staged thing has a descriptor or a name; this one has lost both by being published.
            (None, None) => Object::Own(self.work.stage.clone()),
        }
    }

    /// The open file, of a staged regular file.
    pub fn file(&self) -> Option<&Arc<OwnedFd>> {
        self.file.as_ref()
    }

    /// Gives the staged object the additional name `name` in `dir`, which must not exist.
    pub fn link_to(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        link(&self.object(), dir, name)
    }

    /// Makes the staged object visible as `name` in `dir`, which must not exist (else `EEXIST`).
    pub fn publish_new(mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        match &self.name {
            None => self.link_to(dir, name),
            Some(staged) => {
                let stage = self.work.stage.as_fd();
                move_dir((stage, staged), (dir, name), || rename_new(stage, staged, dir, name))?;
                self.name = None;
                Ok(())
            }
        }
    }

    /// Makes the staged object, which has a staged name, visible as `name` in `dir` instead of the
    /// non-directory that is there.
    pub fn publish_over(mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let staged = self.name.as_ref().ok_or(Errno::INVAL)?;
        rustix::fs::renameat(&self.work.stage, &**staged, dir, name)?;
        self.name = None;
        Ok(())
    }

    /// Exchanges the staged object, which has a staged name, with `name` in `dir`; what was there is
    /// removed when this is dropped.
    pub fn exchange(self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Self> {
        let staged = self.name.as_ref().ok_or(Errno::INVAL)?;
        let flags = RenameFlags::EXCHANGE;
        move_dir((self.work.stage.as_fd(), staged), (dir, name), || {
            rustix::fs::renameat_with(&self.work.stage, &**staged, dir, name, flags)
        })?;
        Ok(Self { work: self.work, file: None, name: self.into_name() })
    }

    fn into_name(mut self) -> Option<Name> {
        self.name.take()
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        let stage = self.work.stage.as_fd();
        match remove(stage, name, stage) {
            Ok(()) | Err(Errno::NOENT) => {}
            // It stays until the next mount removes it; nothing depends on it.
            Err(error) => log::warn!("cannot remove a leftover in the workdir: {error}"),
        }
    }
}

/// Renames, refusing to replace anything, also where RENAME_NOREPLACE does not exist.
pub fn rename_new(
    from: BorrowedFd<'_>,
    name: &OsStr,
    to: BorrowedFd<'_>,
    new_name: &OsStr,
) -> Result<()> {
    match rustix::fs::renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            match crate::sys::stat::stat_at(to, new_name) {
                Ok(_) => return Err(Errno::EXIST),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            rustix::fs::renameat(from, name, to, new_name)
        }
        result => result,
    }
}

/// Does a rename between two places. A directory that moves to another parent has its `..` written to, which
/// its permissions can keep its owner, which an ordinary user's daemon is, from doing.
pub fn move_dir(
    from: (BorrowedFd<'_>, &OsStr),
    to: (BorrowedFd<'_>, &OsStr),
    rename: impl Fn() -> Result<()>,
) -> Result<()> {
    match rename() {
        Err(Errno::ACCESS) => {}
        result => return result,
    }
    let mut dirs = Vec::new();
    for (dir, name) in [from, to] {
        match open::child(dir, name, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => dirs.push(Object::Own(Arc::new(fd))),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(error),
        }
    }
    let dirs: Vec<&Object> = dirs.iter().collect();
    owner_rights::lend(&dirs, owner_rights::WRITE, rename)
}

/// Makes a FIFO, socket or device.
pub fn make_node(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileKind,
    mode: u32,
    rdev: u64,
) -> Result<()> {
    let kind = FileType::from_raw_mode(kind.mode_bits());
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), rdev)
}

/// Gives `object` another name.
pub fn link(object: &Object, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    match object {
        Object::Child(from, old) => rustix::fs::linkat(from, &**old, dir, name, AtFlags::empty()),
        Object::Own(fd) => {
            let path = open::proc_path(fd.as_fd());
            rustix::fs::linkat(CWD, path.as_str(), dir, name, AtFlags::SYMLINK_FOLLOW)
        }
    }
}

/// The directory `name`, and whether it was not there before.
fn make_dir(parent: BorrowedFd<'_>, name: &str) -> Result<(OwnedFd, bool)> {
    let is_new = match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    let dir = open::child(parent, OsStr::new(name), OFlags::PATH | OFlags::DIRECTORY)?;
    Ok((dir, is_new))
}

/// Takes the ACLs from the stage, which a default ACL of the workdir would give to all that is made in it.
fn strip_acls(stage: &Object) -> Result<()> {
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        match stage.remove_xattr(OsStr::new(name)) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes everything in the stage.
fn clear(stage: BorrowedFd<'_>) -> Result<()> {
    names_in(stage)?.iter().try_for_each(|name| remove(stage, name, stage))
}

fn names_in(dir: BorrowedFd<'_>) -> Result<Vec<Name>> {
    let mut names: Vec<Name> = Vec::new();
    dir::for_each(dir, |entry| {
        names.push(entry.name.into());
        Ok(())
    })?;
    Ok(names)
}

/// Removes `name`, a directory with all that is in it. Directories in directories are moved up into the stage
/// one after the other: a tree that somebody has prepared can be of any depth.
pub fn remove(parent: BorrowedFd<'_>, name: &OsStr, stage: BorrowedFd<'_>) -> Result<()> {
    let mut moved_up = Vec::new();
    empty_and_remove(parent, name, stage, &mut moved_up)?;
    while let Some(name) = moved_up.pop() {
        empty_and_remove(stage, &name, stage, &mut moved_up)?;
    }
    Ok(())
}

fn empty_and_remove(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    stage: BorrowedFd<'_>,
    moved_up: &mut Vec<Name>,
) -> Result<()> {
    if remove_plain(parent, name)? {
        return Ok(());
    }
    let dir = open::child(parent, name, OFlags::PATH | OFlags::DIRECTORY)?;
    for child in names_in(dir.as_fd())? {
        if !remove_plain(dir.as_fd(), &child)? {
            moved_up.push(move_up((dir.as_fd(), &child), stage)?);
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes anything but a directory that is not empty; whether it could.
fn remove_plain(parent: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result.map(|()| true),
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        result => result.map(|()| true),
    }
}

/// Moves a directory into the stage, under a name that is free there.
fn move_up(from: (BorrowedFd<'_>, &OsStr), stage: BorrowedFd<'_>) -> Result<Name> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = Name::from(OsString::from(format!("up-{number}")));
        match move_dir(from, (stage, &name), || rename_new(from.0, from.1, stage, &name)) {
            Err(Errno::EXIST) => {}
            result => return result.map(|()| name),
        }
    }
}
