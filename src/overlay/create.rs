//! Making objects.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, XattrFlags};

use super::copy_attributes::first_permissions;
use super::copy_up::Wanted;
use super::directory::{Contents, Directory};
use super::node::{NameRef, Node, NodeId};
use super::node_state::{Place, Plain, Unsynced};
use super::protection::Intent;
use super::{Caller, Entry, Overlay, acl};
use crate::layer::stat_override::Overridden;
use crate::layer::undo::undo;
use crate::layer::upper::make_node;
use crate::layer::whiteout::Form;
use crate::layer::workdir::{Staged, link};
use crate::layer::{Name, Protection, Upper, whiteout};
use crate::sys::{Errno, FileKind, Object, Result, Stat, fault, open};

/// What an object made in a directory gets from it.
#[derive(Clone)]
pub(super) struct Inherited {
    /// The stored group, in a set-group-id directory.
    group: Option<u32>,
    /// The ACL that children start with.
    default_acl: Option<Vec<u8>>,
}

/// What is to be made.
#[derive(Clone, Copy)]
struct New<'a> {
    kind: FileKind,
    /// Permission bits, before the umask.
    permissions: u32,
    umask: u32,
    /// Of a device.
    rdev: u64,
    /// Of a symbolic link.
    target: &'a OsStr,
}

/// What a new object is to have.
struct Outfit {
    uid: u32,
    gid: u32,
    permissions: u32,
    access_acl: Option<Vec<u8>>,
    default_acl: Option<Vec<u8>>,
}

impl Outfit {
    /// The attributes of a new object, which was like `made` at first.
    fn worn_by(&self, made: Stat, kind: FileKind) -> Stat {
        let mode = kind.mode_bits() | self.permissions;
        Stat { uid: self.uid, gid: self.gid, mode, nlink: made.nlink.max(1), ..made }
    }
}

/// A new object of the upper layer.
struct Made {
    /// The open file, of a regular one that was opened.
    file: Option<Arc<OwnedFd>>,
    stat: Stat,
}

const S_ISGID: u32 = 0o2000;

/// The permissions of an object in the upper layer whose real ones are in an attribute (as
/// fuse-overlayfs makes them).
const OVERRIDDEN_MODE: u32 = 0o755;

impl Overlay {
    /// Makes a regular file.
    pub fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        umask: u32,
    ) -> Result<Entry> {
        self.make_node(caller, parent, name, FileKind::Regular.mode_bits() | mode, umask, 0)
    }

    /// Makes an object of the type in `mode`: anything but a directory and a symbolic link.
    ///
    /// # Errors
    /// `EPERM` for the character device 0:0, which would be a whiteout.
    pub fn make_node(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u64,
    ) -> Result<Entry> {
        let kind = FileKind::from_mode(mode);
        if kind == FileKind::CharDevice && rdev == 0 {
            return Err(Errno::PERM);
        }
        let permissions = mode & 0o7777;
        let new = New { kind, permissions, umask, rdev, target: OsStr::new("") };
        self.pins.with_space(|| self.make(caller, parent, name, new))
    }

    /// Makes a directory.
    pub fn make_dir(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        umask: u32,
    ) -> Result<Entry> {
        let permissions = mode & 0o7777;
        let kind = FileKind::Directory;
        let new = New { kind, permissions, umask, rdev: 0, target: OsStr::new("") };
        self.pins.with_space(|| self.make(caller, parent, name, new))
    }

    /// Makes a symbolic link to `target`.
    pub fn symlink(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        target: &OsStr,
    ) -> Result<Entry> {
        let kind = FileKind::Symlink;
        let new = New { kind, permissions: 0o777, umask: 0, rdev: 0, target };
        self.pins.with_space(|| self.make(caller, parent, name, new))
    }

    fn make(&self, caller: Caller, parent: NodeId, name: &OsStr, new: New<'_>) -> Result<Entry> {
        let upper = self.writable()?;
        let parent = self.node(parent)?;
        upper.check_name(name)?;
        self.refresh(&parent)?;
        self.permit(&parent, Intent::Add)?;
        self.copy_up(&parent, Wanted::Attributes)?;
        let mut contents = self.contents_mut(&parent)?;
        let (whiteout, below) = contents.room_for(name)?;
        let dir = self.upper_dir(&parent)?;
        self.free_mark_name(upper, &mut contents, &dir, name)?;
        let inherited = self.inherited(&mut contents, &dir)?;
        let outfit = self.outfit(caller, &new, &inherited)?;
        let hides_something = whiteout.is_some() || (below && new.kind.is_dir());
        let in_place = !hides_something
            && upper.overriding.is_none()
            && !whiteout::has_prefix(name)
            && outfit.uid == self.own.uid
            && (outfit.gid == self.own.gid || inherited.group.is_some());
        let made = match in_place {
            true => self.make_in_place(upper, &dir, name, &new, inherited.default_acl.is_some())?,
            false => self.make_staged(upper, &dir, name, &new, outfit, whiteout, below)?,
        };
        Ok(self.enter_new(&parent, &mut contents, Name::from(name), new.kind, made))
    }

    /// Makes an object where it belongs, or nothing if that cannot be told everything of.
    fn make_in_place(
        &self,
        upper: &Upper,
        dir: &Arc<OwnedFd>,
        name: &OsStr,
        new: &New<'_>,
        has_default_acl: bool,
    ) -> Result<Made> {
        let file = make_in_place(dir, name, new, has_default_acl)?;
        let object = match &file {
            Some(file) => Object::Own(file.clone()),
            None => Object::Child(dir.clone(), name.into()),
        };
        let known = self.upper_stat(&object).and_then(|stat| {
            upper.numbers.renew(stat.ino)?;
            Ok(stat)
        });
        let stat = known.inspect_err(|_| {
            let how = if new.kind.is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            undo(rustix::fs::unlinkat(dir, name, how));
        })?;
        Ok(Made { file, stat })
    }

    /// Makes an object completely in the workdir and publishes it: where it covers a whiteout, or has an
    /// owner or attributes that it would not have at once.
    #[allow(clippy::too_many_arguments)]
    fn make_staged(
        &self,
        upper: &Upper,
        dir: &Arc<OwnedFd>,
        name: &OsStr,
        new: &New<'_>,
        outfit: Outfit,
        whiteout: Option<Form>,
        below: bool,
    ) -> Result<Made> {
        let staged = stage(upper, new, &outfit, whiteout)?;
        let object = staged.object();
        let made = object.stat()?;
        self.fit_out(upper, (&object, &made), new, &outfit)?;
        if below && new.kind.is_dir() {
            upper.set_opaque(&object)?;
        }
        upper.prepare_name(&object, new.kind, name)?;
        let file = staged.file().filter(|_| new.kind == FileKind::Regular).cloned();
        upper.numbers.renew(made.ino)?;
        fault::point(if new.kind.is_dir() { "mkdir.staged" } else { "create.staged" });
        upper.publish(staged, new.kind, dir.as_fd(), name, whiteout)?;
        fault::point(if new.kind.is_dir() { "mkdir.published" } else { "create.published" });
        let object = match &file {
            Some(file) => Object::Own(file.clone()),
            None => Object::Child(dir.clone(), name.into()),
        };
        // It exists now, also if nothing but its time of change cannot be asked for.
        let stat = self.upper_stat(&object).unwrap_or_else(|_| outfit.worn_by(made, new.kind));
        Ok(Made { file, stat })
    }

    fn fit_out(
        &self,
        upper: &Upper,
        (object, made): (&Object, &Stat),
        new: &New<'_>,
        outfit: &Outfit,
    ) -> Result<()> {
        let link = new.kind == FileKind::Symlink;
        if let Some(form) = upper.overriding {
            if !link || form == crate::layer::stat_override::StatOverride::Security {
                let stored = Overridden {
                    uid: outfit.uid,
                    gid: outfit.gid,
                    permissions: outfit.permissions,
                    kind: Some(new.kind),
                    rdev: new.rdev,
                };
                form.store(object, &stored)?;
            }
            if !link {
                object.set_permissions(OVERRIDDEN_MODE)?;
            }
        } else {
            if !self.ids.squashes() {
                self.give_owner((object, made), outfit.uid, outfit.gid)?;
            }
            if !link && made.permissions() != outfit.permissions {
                object.set_permissions(outfit.permissions)?;
            }
        }
        let acls = [(acl::ACCESS, &outfit.access_acl), (acl::DEFAULT, &outfit.default_acl)];
        for (name, value) in acls {
            if let Some(value) = value {
                object.set_xattr(OsStr::new(name), value, XattrFlags::empty())?;
            }
        }
        Ok(())
    }

    fn outfit(&self, caller: Caller, new: &New<'_>, inherited: &Inherited) -> Result<Outfit> {
        // Who mounts for a container whose ids he is not among (podman run --userns=auto) prepares it on behalf of
        // its root.
        let or_root = |id: Option<u32>, is_own: bool| id.or(is_own.then_some(0));
        let uid = or_root(self.ids.stored_uid(caller.uid), caller.uid == self.own.uid);
        let uid = uid.ok_or(Errno::OVERFLOW)?;
        let gid = match inherited.group {
            Some(group) => group,
            None => or_root(self.ids.stored_gid(caller.gid), caller.gid == self.own.gid)
                .ok_or(Errno::OVERFLOW)?,
        };
        let mut permissions = new.permissions;
        if new.kind.is_dir() && inherited.group.is_some() {
            permissions |= S_ISGID;
        }
        let (access_acl, permissions) = match (&inherited.default_acl, new.kind) {
            (_, FileKind::Symlink) => (None, permissions),
            (None, _) => (None, permissions & !new.umask),
            (Some(acl), _) => acl::inherit(acl, permissions)?,
        };
        let default_acl = inherited.default_acl.clone().filter(|_| new.kind.is_dir());
        Ok(Outfit { uid, gid, permissions, access_acl, default_acl })
    }

    fn inherited(&self, contents: &mut Contents, dir: &Arc<OwnedFd>) -> Result<Inherited> {
        if let Some(known) = &contents.inherited {
            return Ok(known.clone());
        }
        let object = Object::Own(dir.clone());
        let stat = self.upper_stat(&object)?;
        let inherited = Inherited {
            group: (stat.mode & S_ISGID != 0).then_some(stat.gid),
            default_acl: object.xattr(OsStr::new(acl::DEFAULT))?,
        };
        Ok(contents.inherited.insert(inherited).clone())
    }

    /// Forgets what children of the directory `node` inherit, after a change of its attributes.
    pub(super) fn forget_inherited(&self, node: &Node) {
        if let Some(dir) = &node.dir
            && let Some(contents) = dir.contents.write().contents()
        {
            contents.inherited = None;
        }
    }

    /// Enters a new object of the upper layer in its directory's names, and gives it a node.
    fn enter_new(
        &self,
        parent: &Arc<Node>,
        contents: &mut Contents,
        name: Name,
        kind: FileKind,
        Made { file, stat }: Made,
    ) -> Entry {
        let ino = self.numbers.number(stat.dev, stat.ino);
        let entry = contents.names.insert_upper(name.clone(), kind, stat.ino);
        let name = NameRef { parent: parent.clone(), name, in_upper: true, leaving: false };
        let node = self.nodes.intern(&entry.node, name, &[], false, (ino, false), |id, name| {
            let directory = kind.is_dir().then(Directory::empty);
            let node = Node::new(id, kind, ino, Place::Upper, directory);
            {
                let mut state = node.state.lock();
                state.complete = true;
                state.unsynced = Unsynced::Attributes;
            }
            node.remembered.note_protection(Protection::NONE);
            node.add_name(name);
            node
        });
        if let Some(file) = file {
            self.keep_data(&node, file);
        }
        let attr = self.shown(&node, stat);
        Entry { node: node.id, attr }
    }

    /// Gives the object of `node` another name.
    pub fn link(&self, node: NodeId, parent: NodeId, name: &OsStr) -> Result<Entry> {
        let upper = self.writable()?;
        let node = self.node(node)?;
        let parent = self.node(parent)?;
        upper.check_name(name)?;
        if node.kind.is_dir() {
            return Err(Errno::PERM);
        }
        self.refresh(&parent)?;
        self.permit(&parent, Intent::Add)?;
        self.permit(&node, Intent::Change)?;
        self.copy_up(&node, Wanted::Data)?;
        self.copy_up(&parent, Wanted::Attributes)?;
        let mut contents = self.contents_mut(&parent)?;
        let (whiteout, _) = contents.room_for(name)?;
        let object = self.upper_object(&node)?;
        let stat = self.upper_stat(&object)?;
        if self.shown(&node, stat).nlink == 0 {
            return Err(Errno::NOENT);
        }
        let dir = self.upper_dir(&parent)?;
        if node.ino != self.numbers.number(stat.dev, stat.ino) {
            self.mark_impure(upper, &mut contents, &dir)?;
        }
        self.free_mark_name(upper, &mut contents, &dir, name)?;
        upper.prepare_name(&object, node.kind, name)?;
        if whiteout.is_some() {
            let staged = upper.work.stage_link(&object)?;
            fault::point("link.staged");
            upper.publish(staged, node.kind, dir.as_fd(), name, whiteout)?;
        } else {
            link(&object, dir.as_fd(), name)?;
        }
        fault::point("link.published");
        let name = Name::from(name);
        let entry = contents.names.insert_upper(name.clone(), node.kind, stat.ino);
        let key = super::hard_link::upper_key(&stat);
        self.nodes.register(&node, key);
        let name = NameRef { parent: parent.clone(), name, in_upper: true, leaving: false };
        let node = self.nodes.intern(
            &entry.node,
            name,
            &[key],
            true,
            (node.ino, false),
            |id, NameRef { parent, name, .. }| {
                // Not reached: the node was registered under its key just now and is held by the caller.
                Node::plain(id, node.kind, node.ino, Plain { parent, name, lower: None })
            },
        );
        // It has the name now, also if nothing but its time of change cannot be asked for.
        let linked = Stat { nlink: stat.nlink + 1, ..stat };
        let attr = self.node_attr(&node).unwrap_or_else(|_| self.shown(&node, linked));
        Ok(Entry { node: node.id, attr })
    }
}

impl Contents {
    /// The whiteout that the upper layer has of `name`, which must not exist, and whether lower layers
    /// have the name.
    ///
    /// # Errors
    /// `EEXIST`; `ENOENT` in a directory that has been deleted.
    fn room_for(&self, name: &OsStr) -> Result<(Option<Form>, bool)> {
        if self.gone {
            return Err(Errno::NOENT);
        }
        match self.names.get(name) {
            Some(entry) if entry.visible => Err(Errno::EXIST),
            Some(entry) => Ok((entry.whiteout, entry.below)),
            None => Ok((None, false)),
        }
    }
}

/// Makes an object where it belongs; its filesystem gives it group and ACL as the directory says.
fn make_in_place(
    dir: &OwnedFd,
    name: &OsStr,
    new: &New<'_>,
    has_default_acl: bool,
) -> Result<Option<Arc<OwnedFd>>> {
    // A default ACL takes the place of the umask.
    let umask = if has_default_acl { 0 } else { new.umask };
    let permissions = new.permissions & !umask;
    match new.kind {
        FileKind::Regular => {
            return open::create(dir.as_fd(), name, permissions).map(|file| Some(Arc::new(file)));
        }
        FileKind::Directory => {
            rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(permissions))?;
        }
        FileKind::Symlink => rustix::fs::symlinkat(new.target, dir, name)?,
        kind => make_node(dir.as_fd(), name, kind, permissions, new.rdev)?,
    }
    Ok(None)
}

fn stage<'u>(
    upper: &'u Upper,
    new: &New<'_>,
    outfit: &Outfit,
    whiteout: Option<Form>,
) -> Result<Staged<'u>> {
    let overridden = upper.overriding.is_some();
    let permissions = |needs| match overridden {
        true => needs,
        false => first_permissions(outfit.permissions, needs),
    };
    match new.kind {
        FileKind::Directory => upper.work.stage_dir(permissions(0o700)),
        FileKind::Symlink => upper.work.stage_symlink(new.target),
        kind if kind == FileKind::Regular || overridden => match whiteout {
            Some(Form::CharDevice) => upper.work.stage_named_file(permissions(0o600)),
            _ => upper.work.stage_file(permissions(0o600)),
        },
        kind => upper.work.stage_node(kind, permissions(0o600), new.rdev),
    }
}
