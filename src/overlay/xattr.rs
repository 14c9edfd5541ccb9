//! Extended attributes as the mount shows them.

use std::ffi::OsStr;

use rustix::fs::XattrFlags;

use super::attr::CAPABILITY;
use super::copy_up::Wanted;
use super::locate::Located;
use super::node::{Node, NodeId};
use super::protection::Intent;
use super::{Caller, Overlay, Result, acl, capability};
use crate::layer::{LowerPlace, xattr_names};
use crate::sys::Errno;

impl Overlay {
    /// The value of an attribute.
    ///
    /// # Errors
    /// `ENODATA` when it is not set; `EOPNOTSUPP` where the layer can have none of that name; `EINVAL` for a
    /// namespace without a name.
    pub fn get_xattr(&self, id: NodeId, name: &OsStr) -> Result<Vec<u8>> {
        let node = self.node(id)?;
        xattr_names::check(name)?;
        let stored = xattr_names::stored(name).ok_or(Errno::NODATA)?;
        let mut value = self.at(&node, |located| match located {
            Located::Upper(object) => match object.get_xattr(&stored) {
                // Where the kernel does not learn that there is no ACL, it denies every access.
                Err(Errno::OPNOTSUPP) if acl::is_acl(name) => Err(Errno::NODATA),
                result => result,
            },
            Located::Lower(place) => self.lower_xattr(&node, &place, &stored),
        })?;
        if acl::is_acl(name) {
            let user = |id| Some(self.ids.shown_uid(id));
            acl::map_ids(&mut value, user, |id| Some(self.ids.shown_gid(id)))?;
        }
        if name == CAPABILITY {
            value = capability::shown(value, |id| self.ids.shown_uid(id));
        }
        Ok(value)
    }

    /// The names of all attributes, without the union's own marks; [`Caller::sees_attribute`] says who may know
    /// of which.
    pub fn list_xattr(&self, id: NodeId) -> Result<Vec<Box<OsStr>>> {
        let node = self.node(id)?;
        let stored = self.at(&node, |located| match located {
            Located::Upper(object) => object.xattr_names(),
            Located::Lower(place) => self.lower_xattr_names(&node, &place),
        })?;
        let shown = stored.iter().filter_map(|name| xattr_names::shown(name));
        Ok(shown.map(|name| name.into()).collect())
    }

    /// The names of all extended attributes of `node` at `place`, where it lies in a lower layer; the union's own marks
    /// are not filtered. That there are none is remembered.
    pub(super) fn lower_xattr_names(
        &self,
        node: &Node,
        place: &LowerPlace,
    ) -> Result<Vec<Box<OsStr>>> {
        if node.remembered.bare_below() {
            return Ok(Vec::new());
        }
        let names = self.lowers.xattr_names(place)?;
        if names.is_empty() && !self.lowers_may_change() {
            node.remembered.note_bare_below();
        }
        Ok(names)
    }

    fn lower_xattr(&self, node: &Node, place: &LowerPlace, name: &OsStr) -> Result<Vec<u8>> {
        // The kernel asks for it before each first write and change of owner, programs that compare trees for each file.
        // Nearly no file has it or any other attribute, and who asks wants the names of all next, as does a copy-up.
        if name == CAPABILITY {
            let names = self.lower_xattr_names(node, place)?;
            if !names.iter().any(|known| **known == *name) {
                return Err(Errno::NODATA);
            }
        }
        self.lowers.xattr(place, name)?.ok_or_else(|| xattr_names::absence(name))
    }

    /// Sets an attribute; `create` and `replace` as in setxattr(2).
    pub fn set_xattr(
        &self,
        caller: Caller,
        id: NodeId,
        name: &OsStr,
        value: &[u8],
        create: bool,
        replace: bool,
    ) -> Result<()> {
        let node = self.node(id)?;
        self.writable()?;
        let stored = xattr_names::stored(name).ok_or(Errno::RANGE)?;
        self.permit(&node, Intent::Change)?;
        self.copy_up(&node, Wanted::Attributes)?;
        let mut flags = XattrFlags::empty();
        flags.set(XattrFlags::CREATE, create);
        flags.set(XattrFlags::REPLACE, replace);
        let set = |value: &[u8]| self.at(&node, |at| at.upper()?.set_xattr(&stored, value, flags));
        if name == CAPABILITY {
            return set(&capability::stored(value, |id| self.ids.stored_root(id))?);
        }
        if !acl::is_acl(name) {
            return set(value);
        }
        let mut value = value.to_vec();
        acl::map_ids(&mut value, |id| self.ids.stored_uid(id), |id| self.ids.stored_gid(id))?;
        // First: whoever may not keep it must not have it under new permissions for a moment either.
        if name == acl::ACCESS {
            self.drop_group_bit(caller, &node)?;
        }
        match name == acl::ACCESS {
            true => self.with_permissions_of_acl(&node, &value, || set(&value))?,
            false => set(&value)?,
        }
        self.forget_inherited(&node);
        Ok(())
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// `ENODATA` when it is not set.
    pub fn remove_xattr(&self, id: NodeId, name: &OsStr) -> Result<()> {
        let node = self.node(id)?;
        self.writable()?;
        let stored = xattr_names::stored(name).ok_or(Errno::NODATA)?;
        self.permit(&node, Intent::Change)?;
        if !node.is_upper() {
            // Do not copy a file up for nothing.
            self.get_xattr(id, name)?;
        }
        self.copy_up(&node, Wanted::Attributes)?;
        self.at(&node, |at| at.upper()?.remove_xattr(&stored))?;
        if acl::is_acl(name) {
            self.forget_inherited(&node);
        }
        if name == CAPABILITY {
            node.state.lock().lost_capabilities = true;
        }
        Ok(())
    }
}
