//! The writable layer: the only type through which anything is changed on disk.
//!
//! Where the filesystem has whiteout devices, RENAME_EXCHANGE and RENAME_WHITEOUT, each method is one step
//! that a reader of the layer sees either not at all or completely. Otherwise it takes several system
//! calls, ordered so that a crash in between hides rather than reveals what lies in lower layers.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, RenameFlags};

use super::dir_marks::Namespaces;
use super::features::Features;
use super::index::Index;
use super::inode_mark::InodeMarks;
use super::stat_override::{Keeper, StatOverride};
use super::undo::undo;
use super::whiteout::{self, Form};
use super::workdir::{self, Staged, Workdir, move_dir};
use crate::sys::data::{Unshared, Writing};
use crate::sys::write_order::WriteOrder;
use crate::sys::{Errno, FileKind, Object, Result, fault, open};

/// The writable layer and its workdir.
pub struct Upper {
    /// The root directory.
    pub root: Arc<OwnedFd>,
    /// Where changes are prepared.
    pub work: Workdir,
    /// Where marks can be written.
    pub namespaces: Namespaces,
    /// How whiteouts are written.
    pub form: Form,
    /// How attributes are overridden, if they are.
    pub overriding: Option<StatOverride>,
    /// Who keeps it for root, if somebody does.
    pub keeper: Option<Keeper>,
    /// Whether nothing needs to survive a crash of the machine.
    pub volatile: bool,
    /// The hard links of lower files.
    pub index: Index,
    /// The inode numbers of what has been copied up.
    pub numbers: InodeMarks,
    /// Which filesystems share no data with this layer.
    pub unshared: Unshared,
    /// Found out when something is settled for the first time.
    write_order: OnceLock<WriteOrder>,
    can_rename_with_whiteout: bool,
    can_exchange: bool,
    _locks: [OwnedFd; 2],
}

/// What an upper layer is made of: see [`Upper::open`].
pub struct UpperParts {
    /// The root directory.
    pub root: Arc<OwnedFd>,
    /// The workdir, on the same filesystem.
    pub work: Arc<OwnedFd>,
    /// Whether nothing needs to survive a crash of the machine.
    pub volatile: bool,
    /// Whether marks are only to be written under `user.overlay.`.
    pub user_xattr: bool,
    /// Whether `.wh.` files are to be written even where devices could be.
    pub force_dot_files: bool,
    /// Held as long as the layer is in use, so that no other mount uses it.
    pub locks: [OwnedFd; 2],
}

impl Upper {
    /// Prepares an upper layer: removes what a crash left in the workdir, and finds out there what the
    /// filesystem can do.
    pub fn open(parts: UpperParts) -> Result<Self> {
        let UpperParts { root, work: work_root, volatile, user_xattr, force_dot_files, locks } =
            parts;
        let work = Workdir::open(&work_root)?;
        let features = Features::find(&work)?;
        let mut namespaces = features.namespaces;
        namespaces.trusted &= !user_xattr;
        let devices = !force_dot_files && features.exchange && features.whiteouts;
        let form = if devices { Form::CharDevice } else { Form::DotFile };
        let index = Index::open(work_root, work.own().clone(), namespaces)?;
        let numbers = InodeMarks::open(work.own().clone(), namespaces)?;
        let overriding = StatOverride::detect(&Object::Own(root.clone()))?;
        let keeper = Keeper::find(&Object::Own(root.clone()), overriding)?;
        Ok(Self {
            write_order: OnceLock::new(),
            can_rename_with_whiteout: devices && features.rename_with_whiteout,
            root,
            work,
            namespaces,
            form,
            overriding,
            keeper,
            volatile,
            index,
            numbers,
            unshared: Unshared::default(),
            can_exchange: features.exchange,
            _locks: locks,
        })
    }

    /// Refuses a name that this layer could not tell from a mark.
    pub fn check_name(&self, name: &OsStr) -> Result<()> {
        if name.len() > 255 {
            return Err(Errno::NAMETOOLONG);
        }
        let unmarkable = self.form == Form::DotFile || !self.namespaces.any();
        if whiteout::has_prefix(name) && unmarkable { Err(Errno::INVAL) } else { Ok(()) }
    }

    /// Sees to it that no crash of the machine shows `file` without the data that it has now under a name that it
    /// gets after this, or as anything but a metacopy when it is none any more after this.
    pub fn settle(&self, file: BorrowedFd<'_>) -> Result<()> {
        if self.volatile {
            return Ok(());
        }
        let order = match self.write_order.get() {
            Some(order) => *order,
            None => {
                let order = WriteOrder::of(self.root.as_fd())?;
                *self.write_order.get_or_init(|| order)
            }
        };
        order.settle(file)
    }

    /// When data that is going to be [settled](Self::settle) is best written.
    pub fn writing(&self) -> Writing {
        if self.volatile { Writing::Any } else { Writing::Early }
    }

    /// Marks `object`, about to be called `name`, as meant literally if its name looks like a mark.
    pub fn prepare_name(&self, object: &Object, kind: FileKind, name: &OsStr) -> Result<()> {
        let is_file = match kind {
            FileKind::Directory | FileKind::Symlink => false,
            FileKind::Regular => true,
            _ => self.overriding.is_some(),
        };
        if is_file && whiteout::has_prefix(name) {
            whiteout::mark_literal(self.namespaces, object)?;
        }
        Ok(())
    }

    /// Deletes `name`, which exists in lower layers only.
    pub fn delete_lower(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        match self.form {
            Form::CharDevice => self.work.link_whiteout(dir, name),
            Form::DotFile => self.make_dot_file(dir, name),
        }?;
        fault::point("unlink.published");
        Ok(())
    }

    /// Deletes the non-directory `name` of this layer; `covers` is whether lower layers have it too.
    pub fn delete_file(&self, dir: BorrowedFd<'_>, name: &OsStr, covers: bool) -> Result<()> {
        match (covers, self.form) {
            (false, _) => rustix::fs::unlinkat(dir, name, AtFlags::empty())?,
            (true, Form::CharDevice) => {
                let staged = self.work.stage_whiteout()?;
                fault::point("unlink.whiteout-staged");
                staged.publish_over(dir, name)?;
            }
            (true, Form::DotFile) => {
                self.make_dot_file(dir, name)?;
                fault::point("unlink.whiteout-staged");
                rustix::fs::unlinkat(dir, name, AtFlags::empty())
                    .inspect_err(|_| undo(self.remove_dot_file(dir, name)))?;
            }
        }
        fault::point("unlink.published");
        Ok(())
    }

    /// Deletes the directory `name` of this layer, which holds at most whiteouts; `covers` is whether
    /// lower layers have the name too.
    pub fn delete_dir(&self, dir: BorrowedFd<'_>, name: &OsStr, covers: bool) -> Result<()> {
        if !covers {
            match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                // It holds whiteouts.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                result => {
                    fault::point("rmdir.removed");
                    return result;
                }
            }
        }
        let taken = match (covers, self.form) {
            (true, Form::CharDevice) => {
                let whiteout = self.work.stage_whiteout()?;
                fault::point("rmdir.whiteout-staged");
                whiteout.exchange(dir, name)?
            }
            (covers, _) => {
                if covers {
                    self.make_dot_file(dir, name)?;
                    fault::point("rmdir.whiteout-staged");
                }
                let taken = self.work.take_away(dir, name);
                taken.inspect_err(|_| {
                    if covers {
                        undo(self.remove_dot_file(dir, name));
                    }
                })?
            }
        };
        fault::point("rmdir.moved-away");
        drop(taken);
        Ok(())
    }

    /// Makes a staged object visible as `name`; `whiteout` is the mark by which the name is deleted in
    /// this layer now. A regular file that replaces a device needs a staged name.
    pub fn publish(
        &self,
        staged: Staged<'_>,
        kind: FileKind,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        whiteout: Option<Form>,
    ) -> Result<()> {
        match whiteout {
            None => staged.publish_new(dir, name),
            Some(Form::CharDevice) if kind.is_dir() => {
                let whiteout = staged.exchange(dir, name)?;
                fault::point("mkdir.exchanged");
                drop(whiteout);
                Ok(())
            }
            Some(Form::CharDevice) => staged.publish_over(dir, name),
            Some(Form::DotFile) => {
                self.clear_hidden(dir, name)?;
                staged.publish_new(dir, name)?;
                self.remove_dot_file(dir, name).inspect_err(|_| undo(self.clear_hidden(dir, name)))
            }
        }
    }

    /// Makes a name free that a `.wh.` file hides: what it hides may be there too, out of a peer's layer or
    /// because a crash came between the steps of an operation.
    fn clear_hidden(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        match self.work.take_away(dir, name) {
            Ok(hidden) => drop(hidden),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Moves `name` of this layer to `new_name`. If it fails, everything is as it was.
    pub fn rename(&self, from: Spot<'_>, mut to: Spot<'_>, kind: FileKind) -> Result<()> {
        match (self.form, to.whiteout) {
            (Form::CharDevice, Some(Form::DotFile)) => {
                self.replace_dot_file(to.dir, to.name, true)?;
                to.whiteout = Some(Form::CharDevice);
            }
            (Form::DotFile, Some(Form::DotFile)) => {
                self.clear_hidden(to.dir, to.name)?;
                to.whiteout = None;
                to.hidden = true;
            }
            _ => {}
        }
        match self.form {
            Form::CharDevice => self.rename_with_devices(from, to, kind),
            Form::DotFile if kind.is_dir() => self.move_dir_with_dot_files(from, to),
            Form::DotFile => self.move_file_with_dot_files(from, to),
        }
    }

    fn rename_with_devices(&self, from: Spot<'_>, to: Spot<'_>, kind: FileKind) -> Result<()> {
        if to.whiteout.is_some() && (kind.is_dir() || !self.can_rename_with_whiteout) {
            // The whiteout comes to the old place in the same step.
            self.exchange(from, to)?;
            fault::point("rename.exchanged");
            if !from.covers {
                rustix::fs::unlinkat(from.dir, from.name, AtFlags::empty())
                    .inspect_err(|_| undo(self.exchange(to, from)))?;
            }
            return Ok(());
        }
        if !from.covers {
            return step(from, to, RenameFlags::empty());
        }
        if self.can_rename_with_whiteout {
            return step(from, to, RenameFlags::WHITEOUT);
        }
        // What is replaced makes room by an exchange, so that the old name never shows what is below.
        let whiteout = self.work.stage_whiteout()?;
        if to.occupied {
            let replaced = whiteout.exchange(to.dir, to.name)?;
            if let Err(error) = self.exchange(from, to) {
                undo(replaced.exchange(to.dir, to.name).map(drop));
                return Err(error);
            }
            drop(replaced);
        } else {
            whiteout.publish_new(to.dir, to.name)?;
            self.exchange(from, to).inspect_err(|_| {
                undo(rustix::fs::unlinkat(to.dir, to.name, AtFlags::empty()));
            })?;
        }
        Ok(())
    }

    fn move_dir_with_dot_files(&self, from: Spot<'_>, to: Spot<'_>) -> Result<()> {
        if from.covers {
            self.make_dot_file(from.dir, from.name)?;
        }
        self.move_marked_dir(from, to).inspect_err(|_| {
            if from.covers {
                undo(self.remove_dot_file(from.dir, from.name));
            }
        })
    }

    /// Moves a directory whose old name has its mark already.
    fn move_marked_dir(&self, from: Spot<'_>, to: Spot<'_>) -> Result<()> {
        // A device of a former mount, which a directory cannot replace.
        let device = match to.whiteout {
            Some(_) => Some(self.work.take_away(to.dir, to.name)?),
            None => None,
        };
        if let Err(error) = step(from, to, RenameFlags::empty()) {
            if let Some(device) = device {
                undo(device.publish_new(to.dir, to.name));
            }
            return Err(error);
        }
        if to.hidden {
            self.remove_dot_file(to.dir, to.name)
                .inspect_err(|_| undo(step(to, from, RenameFlags::empty())))?;
        }
        Ok(())
    }

    /// Moves a non-directory, where that takes several steps by way of a state in which it has both names, so
    /// that it is never hidden.
    fn move_file_with_dot_files(&self, from: Spot<'_>, to: Spot<'_>) -> Result<()> {
        if !from.covers && !to.hidden {
            return step(from, to, RenameFlags::empty());
        }
        let replaced = match to.occupied || to.whiteout.is_some() {
            true => Some(self.work.stage_link(&object(to)?)?),
            false => None,
        };
        self.work.stage_link(&object(from)?)?.publish_over(to.dir, to.name)?;
        let shown = if to.hidden { self.remove_dot_file(to.dir, to.name) } else { Ok(()) };
        shown.and_then(|()| self.delete_file(from.dir, from.name, from.covers)).inspect_err(|_| {
            if to.hidden {
                undo(self.make_dot_file(to.dir, to.name));
            }
            undo(match replaced {
                Some(replaced) => replaced.publish_over(to.dir, to.name),
                None => rustix::fs::unlinkat(to.dir, to.name, AtFlags::empty()),
            });
        })
    }

    /// Exchanges two names of this layer.
    pub fn exchange(&self, from: Spot<'_>, to: Spot<'_>) -> Result<()> {
        step(from, to, RenameFlags::EXCHANGE)
    }

    /// Replaces the directory `name`, which holds at most whiteouts, by the staged empty one.
    pub fn replace_dir(&self, staged: Staged<'_>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        if self.can_exchange {
            drop(staged.exchange(dir, name)?);
            return Ok(());
        }
        let old = self.work.take_away(dir, name)?;
        staged.publish_new(dir, name)?;
        drop(old);
        Ok(())
    }

    /// Makes `dir` opaque.
    pub fn set_opaque(&self, dir: &Object) -> Result<()> {
        match self.namespaces.set_opaque(dir) {
            Err(Errno::OPNOTSUPP) => {
                let fd = dir.pin()?;
                make_empty(fd.as_fd(), OsStr::new(whiteout::OPAQUE_FILE))
            }
            result => result,
        }
    }

    /// Removes the whiteout `name` from `dir`, which is opaque, so that it means nothing.
    pub fn remove_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr, form: Form) -> Result<()> {
        match form {
            Form::CharDevice => rustix::fs::unlinkat(dir, name, AtFlags::empty()),
            Form::DotFile => self.replace_dot_file(dir, name, false),
        }
    }

    /// Puts a whiteout device in the place of a `.wh.` file, or nothing unless lower layers have the name
    /// (`covers`).
    pub fn replace_dot_file(&self, dir: BorrowedFd<'_>, name: &OsStr, covers: bool) -> Result<()> {
        self.clear_hidden(dir, name)?;
        if covers {
            self.work.link_whiteout(dir, name)?;
        }
        self.remove_dot_file(dir, name)
    }

    fn make_dot_file(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        make_empty(dir, &whiteout::dot_file(name))
    }

    fn remove_dot_file(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        match rustix::fs::unlinkat(dir, &*whiteout::dot_file(name), AtFlags::empty()) {
            // A change that failed behind this step has removed it.
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }
}

/// One end of a rename.
#[derive(Clone, Copy)]
pub struct Spot<'a> {
    /// The directory.
    pub dir: BorrowedFd<'a>,
    /// The name in it.
    pub name: &'a OsStr,
    /// Whether lower layers have the name too.
    pub covers: bool,
    /// The mark by which the name is deleted in the upper layer now.
    pub whiteout: Option<Form>,
    /// Whether the upper layer has an object of that name now.
    pub occupied: bool,
    /// Whether a `.wh.` file hides whatever is under the name, until it is removed.
    pub hidden: bool,
}

/// One rename, which either happens or not.
fn step(from: Spot<'_>, to: Spot<'_>, flags: RenameFlags) -> Result<()> {
    move_dir((from.dir, from.name), (to.dir, to.name), || {
        rustix::fs::renameat_with(from.dir, from.name, to.dir, to.name, flags)
    })
}

fn object(spot: Spot<'_>) -> Result<Object> {
    let dir = spot.dir.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    Ok(Object::Child(Arc::new(dir), spot.name.into()))
}

fn make_empty(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    match open::create(dir, name, 0o600) {
        Ok(_) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

// Re-exported for the overlay, which makes nodes directly where nothing has to be staged.
pub use workdir::{link, make_node};
