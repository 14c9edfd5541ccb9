//! Which extended attributes belong to the union itself, and how a user's own of the same names are
//! stored.
//!
//! The union's marks lie under `trusted.overlay.`, `user.overlay.` and the prefixes of its peers. They are
//! hidden from the mount, also where this union gives them no meaning: the next mount may. A user's own attribute under one of these prefixes (a union nested in this one
//! sets such) is stored with the last word of the prefix doubled, `trusted.overlay.overlay.X`, and shown
//! as `trusted.overlay.X` (Documentation/filesystems/overlayfs.rst, "Nesting overlayfs mounts").

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::sys::{Errno, Result};

/// Each reserved prefix and what is inserted after it to store a user's own attribute.
const RESERVED: [(&[u8], &[u8]); 5] = [
    (b"trusted.overlay.", b"overlay."),
    (b"user.overlay.", b"overlay."),
    (b"user.fuseoverlayfs.", b"fuseoverlayfs."),
    (b"security.fuseoverlayfs.", b"fuseoverlayfs."),
    (b"user.containers.", b"containers."),
];

/// The longest attribute name of the Linux kernel in bytes (`XATTR_NAME_MAX`).
const LONGEST: usize = 255;

/// The namespaces that every filesystem may have attributes in (xattr(7)).
const NAMESPACES: [&[u8]; 4] = [b"security.", b"system.posix_acl_", b"trusted.", b"user."];

/// Refuses what is the name of no attribute: a namespace alone.
///
/// # Errors
/// `EINVAL`, as the kernel has it.
pub fn check(name: &OsStr) -> Result<()> {
    let alone = [&b"security."[..], b"trusted.", b"user."].contains(&name.as_bytes());
    if alone { Err(Errno::INVAL) } else { Ok(()) }
}

/// How to say that no layer has the attribute `name`: `ENODATA`, or `EOPNOTSUPP` where none could have it.
pub fn absence(name: &OsStr) -> Errno {
    let known = NAMESPACES.iter().any(|namespace| name.as_bytes().starts_with(namespace));
    if known { Errno::NODATA } else { Errno::OPNOTSUPP }
}

/// The name under which the mount's attribute `name` is stored in a layer, or `None` when the stored
/// name would be too long.
pub fn stored(name: &OsStr) -> Option<Cow<'_, OsStr>> {
    let bytes = name.as_bytes();
    let Some((prefix, insert)) = RESERVED.iter().find(|(prefix, _)| bytes.starts_with(prefix))
    else {
        return Some(Cow::Borrowed(name));
    };
    let escaped = [prefix, *insert, &bytes[prefix.len()..]].concat();
    (escaped.len() <= LONGEST).then(|| Cow::Owned(OsString::from_vec(escaped)))
}

/// The name that the mount shows for the attribute stored as `name`, or `None` for a mark of the union.
pub fn shown(name: &OsStr) -> Option<Cow<'_, OsStr>> {
    let bytes = name.as_bytes();
    let Some((prefix, insert)) = RESERVED.iter().find(|(prefix, _)| bytes.starts_with(prefix))
    else {
        return Some(Cow::Borrowed(name));
    };
    let own = bytes[prefix.len()..].strip_prefix(*insert)?;
    Some(Cow::Owned(OsString::from_vec([*prefix, own].concat())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::stat_override::StatOverride;

    #[test]
    fn marks_are_hidden_and_own_names_come_back() {
        let overrides = StatOverride::ALL.map(|form| form.name().to_str().unwrap());
        let marks = ["trusted.overlay.opaque", "user.overlay.origin", "user.fuseoverlayfs.opaque"];
        for mark in marks.into_iter().chain(overrides) {
            assert_eq!(shown(OsStr::new(mark)), None);
            let inner = stored(OsStr::new(mark)).unwrap();
            assert_eq!(shown(&inner).as_deref(), Some(OsStr::new(mark)));
            let innermost = stored(&inner).unwrap();
            assert_eq!(shown(&innermost).as_deref(), Some(&*inner));
        }
        assert_eq!(
            stored(OsStr::new("trusted.overlay.x")).as_deref().unwrap(),
            "trusted.overlay.overlay.x"
        );
        assert_eq!(stored(OsStr::new("user.overlayx")).as_deref().unwrap(), "user.overlayx");
        let long = format!("trusted.overlay.{}", "x".repeat(239));
        assert_eq!(stored(OsStr::new(&long)), None);
    }
}
