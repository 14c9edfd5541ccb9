//! Names of directory entries.

use std::borrow::Borrow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

/// A name of a directory entry, shared between the tables that hold it.
///
/// Names that were read together lie in one piece of memory, which stays as long as one of them is used: a name of
/// its own would cost as much for its allocation as for its bytes.
#[derive(Clone)]
pub struct Name {
    block: Arc<Box<[u8]>>,
    at: u32,
    length: u32,
}

/// Names that are being read together.
#[derive(Debug, Default)]
pub struct Names {
    shared: Vec<Name>,
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

/// The most bytes that names share: one of them keeps so many alive.
const LARGEST_BLOCK: usize = 1 << 20;

impl Names {
    /// Adds a name.
    pub fn push(&mut self, name: &OsStr) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.ends.push(self.bytes.len() as u32);
        if self.bytes.len() >= LARGEST_BLOCK {
            self.close_block();
        }
    }

    /// The names, in the order in which they were added.
    pub fn share(mut self) -> Vec<Name> {
        self.close_block();
        self.shared
    }

    fn close_block(&mut self) {
        let block = Arc::new(std::mem::take(&mut self.bytes).into_boxed_slice());
        let mut at = 0;
        for end in self.ends.drain(..) {
            self.shared.push(Name { block: block.clone(), at, length: end - at });
            at = end;
        }
    }
}

impl Deref for Name {
    type Target = OsStr;

    fn deref(&self) -> &OsStr {
        let at = self.at as usize;
        OsStr::from_bytes(&self.block[at..at + self.length as usize])
    }
}

impl From<OsString> for Name {
    fn from(name: OsString) -> Self {
        let bytes = name.into_vec();
        let length = bytes.len() as u32;
        Self { block: Arc::new(bytes.into_boxed_slice()), at: 0, length }
    }
}

impl<N: AsRef<OsStr> + ?Sized> From<&N> for Name {
    fn from(name: &N) -> Self {
        Self::from(name.as_ref().to_os_string())
    }
}

impl Borrow<OsStr> for Name {
    fn borrow(&self) -> &OsStr {
        self
    }
}

impl AsRef<OsStr> for Name {
    fn as_ref(&self) -> &OsStr {
        self
    }
}

impl AsRef<Path> for Name {
    fn as_ref(&self) -> &Path {
        Path::new(&**self)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_share_memory_are_each_themselves() {
        let mut names = Names::default();
        for name in ["a", "", "long name", "\u{e4}"] {
            names.push(OsStr::new(name));
        }
        let names: Vec<Name> = names.share();
        assert_eq!(names, ["a", "", "long name", "\u{e4}"].map(Name::from));
        assert!(names[1] < names[0] && *names[2] == *"long name");
        assert_eq!(size_of::<Name>(), 16);
    }
}
