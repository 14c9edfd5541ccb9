//! Objects of unions that are looked at.

use std::ffi::OsStr;
use std::path::Path;

use crate::overlay::{Attr, Entry, NodeId, Overlay};
use crate::sys::{Errno, FileKind, Result};

/// An object of a union, referred to as long as this exists.
pub struct Held<'u> {
    /// The union.
    pub union: &'u Overlay,
    /// The node.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
}

/// A label belongs to the machine, not to the file.
const LABEL: &str = "security.selinux";

impl<'u> Held<'u> {
    /// The root of a union.
    pub fn root(union: &'u Overlay) -> Result<Self> {
        Ok(Self { union, node: NodeId::ROOT, attr: union.attr(NodeId::ROOT)? })
    }

    /// What is called `name` in this directory.
    pub fn child(&self, name: &OsStr) -> Result<Option<Self>> {
        let found = self.union.lookup(self.node, name)?;
        Ok(found.map(|Entry { node, attr }| Self { union: self.union, node, attr }))
    }

    /// What is at `path` in this directory.
    pub fn at(self, path: &Path) -> Result<Option<Self>> {
        let mut at = self;
        for name in path {
            match at.is_dir().then(|| at.child(name)).transpose()?.flatten() {
                Some(child) => at = child,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.attr.kind() == FileKind::Directory
    }

    /// Its extended attributes that go with it wherever it goes, in the order of their names.
    pub fn xattrs(&self) -> Result<Vec<(Box<OsStr>, Vec<u8>)>> {
        let mut names = match self.union.list_xattr(self.node) {
            Err(Errno::OPNOTSUPP) => Vec::new(),
            names => names?,
        };
        names.retain(|name| **name != *LABEL);
        names.sort_unstable();
        let value = |name: Box<OsStr>| Ok((self.union.get_xattr(self.node, &name)?, name));
        names.into_iter().map(|name| value(name).map(|(value, name)| (name, value))).collect()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.node != NodeId::ROOT {
            self.union.forget(self.node, 1);
        }
    }
}

/// The data of a file.
pub struct Data<'h, 'u> {
    file: &'h Held<'u>,
    offset: u64,
}

impl<'h, 'u> Data<'h, 'u> {
    /// From its beginning.
    pub fn of(file: &'h Held<'u>) -> Self {
        Self { file, offset: 0 }
    }

    /// Reads what comes next; 0 bytes at the end.
    pub fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.file.union.read(self.file.node, self.offset, buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl std::io::Read for Data<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(self.next(buffer)?)
    }
}
