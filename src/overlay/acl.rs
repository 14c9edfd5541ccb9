//! Default ACLs: what a new object inherits when its filesystem cannot give it to it, because it is made
//! in the workdir first (acl(5), "Object creation and default ACLs").

use std::ffi::OsStr;

use crate::sys::{Errno, Result};

/// The attribute that holds an object's ACL (`POSIX_ACL_XATTR_ACCESS` of linux/xattr.h).
pub(super) const ACCESS: &str = "system.posix_acl_access";
/// The attribute that holds the ACL which children inherit.
pub(super) const DEFAULT: &str = "system.posix_acl_default";

// linux/posix_acl_xattr.h and linux/posix_acl.h
const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const ENTRY: usize = 8;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Whether an attribute is an ACL.
pub(super) fn is_acl(name: &OsStr) -> bool {
    name == ACCESS || name == DEFAULT
}

/// What a default ACL makes of the permissions that a new object is asked to have: its own ACL (in the
/// form of the attribute; `None` when permission bits say it all) and its permissions.
///
/// # Errors
/// `EINVAL` for what is no ACL.
pub(super) fn inherit(default: &[u8], permissions: u32) -> Result<(Option<Vec<u8>>, u32)> {
    let entries = default.strip_prefix(&VERSION).ok_or(Errno::INVAL)?;
    if entries.len() % ENTRY != 0 {
        return Err(Errno::INVAL);
    }
    let mut access = default.to_vec();
    let mut granted = permissions & !0o777;
    visit(&mut access, |allowed, shift| {
        let kept = allowed & (permissions >> shift & 7) as u16;
        granted |= u32::from(kept) << shift;
        kept
    })?;
    let minimal = entries.len() == 3 * ENTRY;
    Ok(((!minimal).then_some(access), granted))
}

/// The permission bits that show for an ACL, of which the mask stands in for the group.
///
/// # Errors
/// `EINVAL` for what is no ACL.
pub(super) fn permissions(acl: &[u8]) -> Result<u32> {
    let mut shown = 0;
    visit(&mut acl.to_vec(), |allowed, shift| {
        shown |= u32::from(allowed & 7) << shift;
        allowed
    })?;
    Ok(shown)
}

/// What chmod(2) makes of an ACL.
///
/// # Errors
/// `EINVAL` for what is no ACL.
pub(super) fn with_permissions(acl: &[u8], permissions: u32) -> Result<Vec<u8>> {
    let mut changed = acl.to_vec();
    visit(&mut changed, |_, shift| (permissions >> shift & 7) as u16)?;
    Ok(changed)
}

/// Gives each entry that permission bits stand for what `change` makes of it and of the place of its bits.
fn visit(acl: &mut [u8], mut change: impl FnMut(u16, u32) -> u16) -> Result<()> {
    let entries = match acl.split_at_mut_checked(VERSION.len()) {
        Some((version, entries)) if *version == VERSION => entries,
        _ => return Err(Errno::INVAL),
    };
    let has_mask = entries.chunks_exact(ENTRY).any(|entry| tag(entry) == MASK);
    for entry in entries.chunks_exact_mut(ENTRY) {
        let shift = match tag(entry) {
            USER_OBJ => 6,
            GROUP_OBJ if !has_mask => 3,
            MASK => 3,
            OTHER => 0,
            _ => continue,
        };
        let changed = change(u16::from_le_bytes([entry[2], entry[3]]), shift);
        entry[2..4].copy_from_slice(&changed.to_le_bytes());
    }
    Ok(())
}

/// Translates the ids of named users and groups in an ACL, stored to shown or back.
///
/// # Errors
/// `EINVAL` for what is no ACL, and for an id that has no counterpart.
pub(super) fn map_ids(
    acl: &mut [u8],
    user: impl Fn(u32) -> Option<u32>,
    group: impl Fn(u32) -> Option<u32>,
) -> Result<()> {
    let entries = match acl.split_at_mut_checked(VERSION.len()) {
        Some((version, entries)) if *version == VERSION => entries,
        _ => return Err(Errno::INVAL),
    };
    for entry in entries.chunks_exact_mut(ENTRY) {
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let mapped = match tag(entry) {
            USER => user(id),
            GROUP => group(id),
            _ => continue,
        };
        entry[4..].copy_from_slice(&mapped.ok_or(Errno::INVAL)?.to_le_bytes());
    }
    Ok(())
}

fn tag(entry: &[u8]) -> u16 {
    u16::from_le_bytes([entry[0], entry[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn permissions_are_cut_by_the_acl_and_the_acl_by_the_permissions() {
        let minimal = acl(&[(USER_OBJ, 7, !0), (GROUP_OBJ, 5, !0), (OTHER, 0, !0)]);
        assert_eq!(inherit(&minimal, 0o666).unwrap(), (None, 0o640));

        let named =
            [(USER_OBJ, 7, !0), (USER, 7, 1000), (GROUP_OBJ, 7, !0), (MASK, 7, !0), (OTHER, 5, !0)];
        let (own, permissions) = inherit(&acl(&named), 0o640).unwrap();
        assert_eq!(permissions, 0o640);
        let expected =
            [(USER_OBJ, 6, !0), (USER, 7, 1000), (GROUP_OBJ, 7, !0), (MASK, 4, !0), (OTHER, 0, !0)];
        assert_eq!(own.unwrap(), acl(&expected));
        assert!(inherit(b"garbage", 0o600).is_err());
    }

    #[test]
    fn the_mask_stands_in_for_the_group() {
        let named =
            [(USER_OBJ, 7, !0), (USER, 7, 1000), (GROUP_OBJ, 4, !0), (MASK, 6, !0), (OTHER, 5, !0)];
        assert_eq!(permissions(&acl(&named)).unwrap(), 0o765);
        let changed =
            [(USER_OBJ, 6, !0), (USER, 7, 1000), (GROUP_OBJ, 4, !0), (MASK, 0, !0), (OTHER, 1, !0)];
        assert_eq!(with_permissions(&acl(&named), 0o4601).unwrap(), acl(&changed));
        assert!(permissions(b"garbage").is_err());
    }
}
