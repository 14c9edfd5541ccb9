//! Rights that an object's owner lends himself. The daemon of an ordinary user owns what it changes, and is
//! bound by its permissions all the same.

use std::ffi::OsStr;

use parking_lot::ReentrantMutex;

use crate::sys::{Errno, Object, Result};

/// May read.
pub const READ: u32 = 0o400;
/// May look into a directory.
pub const READ_AND_SEARCH: u32 = 0o500;
/// May write.
pub const WRITE: u32 = 0o200;
/// May change the names in a directory.
pub const WRITE_AND_SEARCH: u32 = 0o300;

/// Two at once would take for an object's own permissions what one of them has lent it.
static LENDING: ReentrantMutex<()> = ReentrantMutex::new(());

/// Sets permissions that nobody who has lent some takes back.
pub fn set_permissions(object: &Object, permissions: u32) -> Result<()> {
    let _alone = LENDING.lock();
    object.set_permissions(permissions)
}

/// Does `change` while the owners of `objects` have `rights` (permission bits), and takes back afterwards
/// what they did not have before. The result is that of `change`, whether or not that can be done.
pub fn lend<T>(objects: &[&Object], rights: u32, change: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some((object, others)) = objects.split_first() else { return change() };
    let _alone = LENDING.lock();
    let before = object.stat()?.permissions();
    if before & rights == rights {
        return lend(others, rights, change);
    }
    object.set_permissions(before | rights)?;
    let result = lend(others, rights, change);
    if let Err(error) = object.set_permissions(before) {
        log::warn!("permissions could not be set back to {before:o}: {error}");
    }
    result
}

/// The value of an attribute, also of an upper object that its owner may not read.
pub fn xattr(object: &Object, name: &OsStr) -> Result<Option<Vec<u8>>> {
    match object.xattr(name) {
        Err(Errno::ACCESS) => lend(&[object], READ, || object.xattr(name)),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::open;
    use std::sync::Arc;

    #[test]
    fn lent_rights_are_taken_back_also_after_a_failure() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let object = Object::Own(Arc::new(open::directory(root.path()).unwrap()));
        for (permissions, during) in [(0o505, 0o705), (0o755, 0o755)] {
            object.set_permissions(permissions).unwrap();
            let failed: Result<()> = lend(&[&object], WRITE_AND_SEARCH, || {
                assert_eq!(object.stat()?.permissions(), during);
                Err(Errno::IO)
            });
            assert_eq!(failed, Err(Errno::IO));
            assert_eq!(object.stat().unwrap().permissions(), permissions);
        }
        object.set_permissions(0o700).unwrap();
    }
}
