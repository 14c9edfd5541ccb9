//! Extended attributes as the mount shows them.

use std::ffi::OsStr;

use rustix::fs::XattrFlags;

use super::attr::CAPABILITY;
use super::copy_up::Wanted;
use super::locate::Located;
use super::node::NodeId;
use super::{Caller, Overlay, Result, acl, capability};
use crate::layer::xattr_names;
use crate::sys::Errno;

impl Overlay {
    /// The value of an attribute.
    ///
    /// # Errors
    /// `ENODATA` when it is not set; `EOPNOTSUPP` where the layer has none.
    pub fn get_xattr(&self, id: NodeId, name: &OsStr) -> Result<Vec<u8>> {
        let node = self.node(id)?;
        let stored = xattr_names::stored(name).ok_or(Errno::NODATA)?;
        let mut value = self.at(&node, |located| match located {
            Located::Upper(object) => match object.get_xattr(&stored) {
                // Where the kernel does not learn that there is no ACL, it denies every access.
                Err(Errno::OPNOTSUPP) if acl::is_acl(name) => Err(Errno::NODATA),
                result => result,
            },
            Located::Lower(place) => self.lowers.xattr(&place, &stored)?.ok_or(Errno::NODATA),
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

    /// The names of all attributes, without the union's own marks.
    pub fn list_xattr(&self, id: NodeId) -> Result<Vec<Box<OsStr>>> {
        let node = self.node(id)?;
        let stored = self.at(&node, |located| match located {
            Located::Upper(object) => object.xattr_names(),
            Located::Lower(place) => self.lowers.xattr_names(&place),
        })?;
        let shown = stored.iter().filter_map(|name| xattr_names::shown(name));
        Ok(shown.map(|name| name.into()).collect())
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
        set(&value)?;
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
