//! What a copy gets of its original besides the data.

use std::ffi::OsStr;

use rustix::fs::XattrFlags;

use super::attr::{CAPABILITY, overridden};
use super::copy_up::Cut;
use super::node::Node;
use super::{Overlay, acl};
use crate::layer::{LowerPlace, Upper, xattr_names};
use crate::sys::object::NewTime;
use crate::sys::{Errno, FileKind, Object, Result, Stat};

/// What is copied.
pub(super) struct Original<'a> {
    pub place: &'a LowerPlace,
    pub stat: &'a Stat,
    /// The names of its extended attributes.
    pub xattrs: &'a [Box<OsStr>],
}

/// The permissions that something is staged with: its final ones, unless these could keep its owner, who `needs` some,
/// from something, or would go with the change of something else.
pub(super) fn first_permissions(wanted: u32, needs: u32) -> u32 {
    if wanted & (0o7000 | needs) == needs { wanted } else { needs }
}

impl Overlay {
    /// Owner, permissions, extended attributes (ACLs are such) and times, in an order in which none
    /// undoes another. Of a file that is `cut`, they are those that it has then. `made` is how `object` was when it was
    /// made.
    pub(super) fn copy_attributes(
        &self,
        upper: &Upper,
        original: &Original<'_>,
        (object, made): (&Object, &Stat),
        cut: Option<Cut>,
    ) -> Result<()> {
        let Original { place, stat, xattrs } = original;
        let permissions = match cut {
            Some(cut) => self.permissions_after(cut.caller, stat),
            None => stat.permissions(),
        };
        match upper.overriding {
            Some(form) => form.store(object, &overridden(stat, permissions))?,
            None => self.give_owner((object, made), stat.uid, stat.gid)?,
        }
        let mut may_differ = made.permissions() != permissions;
        for name in *xattrs {
            let lost = cut.is_some() && **name == *CAPABILITY;
            let private = lost || xattr_names::shown(name).is_none();
            let value = if private { None } else { self.lowers.xattr(place, name)? };
            if let Some(value) = value {
                match object.set_xattr(name, &value, XattrFlags::empty()) {
                    Ok(()) => may_differ |= acl::is_acl(name),
                    // What this user or filesystem cannot have (as the kernel: ovl_copy_xattr).
                    Err(Errno::OPNOTSUPP | Errno::PERM) if may_be_lost(name) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        // Last, because they can keep the owner from everything else.
        if upper.overriding.is_none() && stat.kind() != FileKind::Symlink && may_differ {
            object.set_permissions(permissions)?;
        }
        let mtime = if cut.is_some() { NewTime::Now } else { NewTime::At(stat.mtime) };
        object.set_times(Some(NewTime::At(stat.atime)), Some(mtime))
    }

    /// Has the flags of `node`, which is in a lower layer, stand beside its copy. Where no attributes can be, the copy
    /// has none, as the kernel's.
    pub(super) fn copy_protection(&self, upper: &Upper, node: &Node, copy: &Object) -> Result<()> {
        let protection = self.protection(node)?;
        if !protection.any() || !upper.namespaces.any() {
            return Ok(());
        }
        protection.store(upper.namespaces, copy)
    }

    /// Gives `object` all attributes of `original`, which is in the upper layer too.
    pub(super) fn copy_upper_attributes(&self, original: &Object, object: &Object) -> Result<()> {
        let stat = original.stat()?;
        self.give_owner((object, &object.stat()?), stat.uid, stat.gid)?;
        object.set_permissions(stat.permissions())?;
        for name in original.xattr_names()? {
            if let Some(value) = original.xattr(&name)? {
                object.set_xattr(&name, &value, XattrFlags::empty())?;
            }
        }
        object.set_times(Some(NewTime::At(stat.atime)), Some(NewTime::At(stat.mtime)))
    }

    /// Gives an upper object, which is like `now`, its owner, where that is not this process's own already. Where owners
    /// are squashed, nobody misses one that this process may not give.
    pub(super) fn give_owner(
        &self,
        (object, now): (&Object, &Stat),
        uid: u32,
        gid: u32,
    ) -> Result<()> {
        let uid = (now.uid != uid).then_some(uid);
        let gid = (now.gid != gid).then_some(gid);
        if uid.is_none() && gid.is_none() {
            return Ok(());
        }
        match object.set_owner(uid, gid) {
            Err(Errno::PERM | Errno::INVAL) if self.ids.squashes() => Ok(()),
            given => given,
        }
    }
}

/// Attributes without which a copy is still right: labels of security modules, and what only the
/// privileged may set.
fn may_be_lost(name: &OsStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let name = name.as_bytes();
    ["security.", "trusted.", "system."].iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}
