//! Capabilities of files: the user namespace whose root has them is named by that root's user id, which is an id as the
//! owner of a file is (capabilities(7), "File capability extended attribute versioning").

use crate::sys::{Errno, Result};

// linux/capability.h: `struct vfs_cap_data` and `struct vfs_ns_cap_data`, which ends with the id.
const REVISION: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const LENGTH_2: usize = 20;
const LENGTH_3: usize = 24;

/// The value to show for a stored one. Without an id it is that of the layer's root.
pub(super) fn shown(value: Vec<u8>, user: impl Fn(u32) -> u32) -> Vec<u8> {
    match root(&value) {
        Some(stored) => with_root(value, user(stored)),
        None => value,
    }
}

/// The value to store for one that is set. Without an id it comes from who has rights over the whole filesystem, and is
/// kept for the layer's root, whoever that is shown as.
///
/// # Errors
/// `EINVAL` for an id that has no counterpart.
pub(super) fn stored(value: &[u8], user: impl Fn(u32) -> Option<u32>) -> Result<Vec<u8>> {
    match root(value) {
        Some(shown) if value.len() == LENGTH_3 => {
            Ok(with_root(value.to_vec(), user(shown).ok_or(Errno::INVAL)?))
        }
        _ => Ok(value.to_vec()),
    }
}

/// The root whose capabilities these are; `None` for what has no such form.
fn root(value: &[u8]) -> Option<u32> {
    match (word(value, 0)? & REVISION, value.len()) {
        (REVISION_2, LENGTH_2) => Some(0),
        (REVISION_3, LENGTH_3) => word(value, LENGTH_2),
        _ => None,
    }
}

/// The same capabilities for the root `id`.
fn with_root(mut value: Vec<u8>, id: u32) -> Vec<u8> {
    let revision = if id == 0 { REVISION_2 } else { REVISION_3 };
    let flags = word(&value, 0).unwrap_or(0) & !REVISION;
    value.truncate(LENGTH_2);
    value[..4].copy_from_slice(&(revision | flags).to_le_bytes());
    if id != 0 {
        value.extend(id.to_le_bytes());
    }
    value
}

fn word(value: &[u8], at: usize) -> Option<u32> {
    let bytes = value.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_root(id: u32) -> Vec<u8> {
        let mut value = vec![1, 0, 0, 2];
        value.extend([7; 16]);
        with_root(value, id)
    }

    #[test]
    fn the_root_is_shown_and_stored_as_owners_are() {
        let add = |id: u32| id + 1000;
        let subtract = |id: u32| id.checked_sub(1000);
        for id in [0, 5] {
            assert_eq!(shown(of_root(id), add), of_root(id + 1000));
            assert_eq!(stored(&of_root(id + 1000), subtract), Ok(of_root(id)));
        }
        assert_eq!(stored(&of_root(999), subtract), Err(Errno::INVAL));
        assert_eq!(stored(&of_root(0), subtract), Ok(of_root(0)));
    }

    #[test]
    fn what_has_another_form_stays_as_it_is() {
        let longer = [of_root(7), vec![0]].concat();
        for other in [&b""[..], b"123", b"12345678", &longer, &of_root(7)[..20], &of_root(0)[..19]]
        {
            assert_eq!(shown(other.to_vec(), |_| 9), other);
            assert_eq!(stored(other, |_| None), Ok(other.to_vec()));
        }
    }
}
