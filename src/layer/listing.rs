//! What one directory of one layer says: its entries, and the names that it deletes.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::stat_override::StatOverride;
use super::whiteout::Form;
use super::{Name, whiteout};
use crate::sys::dir::{RawEntry, for_rest};
use crate::sys::name::Names;
use crate::sys::{FileKind, Object, Result, open};

/// An entry of a directory in one layer.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub kind: FileKind,
    /// Its inode number in the layer.
    pub ino: u64,
}

/// One directory of one layer, with all marks in it understood.
#[derive(Debug, Default)]
pub struct Listing {
    /// The entries that are no marks and that no `.wh.` file of the same directory hides.
    pub entries: Vec<Listed>,
    /// The names that are deleted here, and by which form of mark.
    pub whiteouts: HashMap<Name, Form>,
    /// Whether a file in it makes the directory opaque.
    pub opaque: bool,
}

impl Listing {
    /// Reads the directory `dir`. `xattr_whiteouts` is whether files may be whiteouts by an attribute;
    /// `overriding` the layer's form of stored attributes, if it has one.
    pub fn read(
        dir: &Arc<OwnedFd>,
        xattr_whiteouts: bool,
        overriding: Option<StatOverride>,
    ) -> Result<Self> {
        let reader = open::reopen_directory(dir.as_fd())?;
        Self::read_from(&Arc::new(reader), xattr_whiteouts, overriding)
    }

    /// The same of a directory that is open for reading, from its beginning on, and that nobody else reads.
    pub fn read_from(
        dir: &Arc<OwnedFd>,
        xattr_whiteouts: bool,
        overriding: Option<StatOverride>,
    ) -> Result<Self> {
        let mut listing = Self::default();
        let mut dotted = false;
        let mut names = Names::default();
        let mut found = Vec::new();
        for_rest(dir.as_fd(), |entry| {
            match (Classifier { dir, xattr_whiteouts, overriding }).classify(entry)? {
                Class::Entry(kind) => {
                    names.push(entry.name);
                    found.push((kind, entry.ino));
                }
                Class::Whiteout(name, form) => {
                    dotted |= form == Form::DotFile;
                    // Of two marks for one name, the `.wh.` file is the one that must be known of: it wins
                    // over whatever takes the place of the other.
                    let known = listing.whiteouts.entry(name).or_insert(form);
                    if form == Form::DotFile {
                        *known = form;
                    }
                }
                Class::OpaqueFile => listing.opaque = true,
                Class::Nothing => {}
            }
            Ok(())
        })?;
        let entries = names.share().into_iter().zip(found);
        listing.entries = entries.map(|(name, (kind, ino))| Listed { name, kind, ino }).collect();
        if dotted {
            // A `.wh.` file wins over an entry of the same directory, as all peers read it.
            listing.entries.retain(|entry| !listing.whiteouts.contains_key(&entry.name));
        }
        Ok(listing)
    }
}

enum Class {
    Entry(FileKind),
    Whiteout(Name, Form),
    OpaqueFile,
    Nothing,
}

struct Classifier<'a> {
    dir: &'a Arc<OwnedFd>,
    xattr_whiteouts: bool,
    overriding: Option<StatOverride>,
}

impl Classifier<'_> {
    fn classify(&self, raw: RawEntry<'_>) -> Result<Class> {
        let object = || Object::Child(self.dir.clone(), Name::from(raw.name));
        let char_whiteout = || Class::Whiteout(Name::from(raw.name), Form::CharDevice);
        let kind = match raw.kind {
            Some(kind) if kind != FileKind::CharDevice => kind,
            _ => {
                let stat = object().stat()?;
                if whiteout::is_char_whiteout(&stat) {
                    return Ok(char_whiteout());
                }
                stat.kind()
            }
        };
        if kind == FileKind::Regular {
            if whiteout::has_prefix(raw.name) && !whiteout::is_literal(&object())? {
                return Ok(match whiteout::hidden_by(raw.name) {
                    _ if raw.name == whiteout::OPAQUE_FILE => Class::OpaqueFile,
                    Some(hidden) => Class::Whiteout(Name::from(hidden), Form::DotFile),
                    None => Class::Nothing,
                });
            }
            if self.xattr_whiteouts && whiteout::has_whiteout_xattr(&object())? {
                return Ok(char_whiteout());
            }
        }
        let Some(form) = self.overriding else {
            return Ok(Class::Entry(kind));
        };
        let object = object();
        let stat = form.apply_if_valid(&object, object.stat()?)?;
        if whiteout::is_char_whiteout(&stat) {
            return Ok(char_whiteout());
        }
        Ok(Class::Entry(stat.kind()))
    }
}
