//! Looking at a layer before it is changed: what cannot be said in the other form, and what rights are needed.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use super::Form;
use super::item::{Item, Marks, classify};
use crate::layer::mark::{Mark, Namespace};
use crate::layer::stat_override::StatOverride;
use crate::layer::walk::{Place, Visitor};
use crate::layer::{Name, whiteout};
use crate::sys::dir::for_each;
use crate::sys::stat::stat_at;
use crate::sys::{Errno, Object, Result};

/// The longest name of which there can be a `.wh.` file, in bytes.
const LONGEST_HIDDEN: usize = 255 - whiteout::PREFIX.len();
/// The name whose `.wh.` file would make the directory opaque.
const UNSPEAKABLE: &str = ".wh..opq";

pub(super) struct Plan<'a> {
    base: &'a Path,
    form: Form,
    pub needs_devices: bool,
    pub needs_attributes: bool,
    /// The first thing that cannot be converted; the walk ends there.
    pub refusal: Option<String>,
}

impl<'a> Plan<'a> {
    pub fn new(base: &'a Path, form: Form) -> Self {
        Self { base, form, needs_devices: false, needs_attributes: false, refusal: None }
    }

    fn refuse<T>(&mut self, path: &Path, problem: &str) -> Result<T> {
        let path = self.base.join(path);
        self.refusal = Some(format!("{}: {problem}; nothing was changed", path.display()));
        Err(Errno::CANCELED)
    }

    fn directory(&mut self, place: &Place<'_>) -> Result<Marks> {
        let marks = match Marks::read(place.dir) {
            Err(Errno::IO) => {
                return self.refuse(&place.path(), "its marks cannot be read; see plyfs check");
            }
            marks => marks?,
        };
        let object = Object::Own(place.dir.clone());
        if place.names.is_empty()
            && StatOverride::detect(&object)?.is_some()
            && self.form.is_kernel()
        {
            let problem =
                "owners and modes are kept in an attribute, which the kernel does not read";
            return self.refuse(&place.path(), problem);
        }
        if !marks.opaque && marks.dir.redirect.is_some() && !self.form.has_redirects() {
            return self.refuse(&place.path(), "a redirect, which this form has no mark for");
        }
        if marks.opaque {
            self.needs_attributes = true;
        }
        self.attributes(&object, &place.path(), marks.by_root)?;
        Ok(marks)
    }

    /// Looks at the marks that move from one namespace to the other.
    fn attributes(&mut self, object: &Object, path: &Path, by_root: bool) -> Result<()> {
        for name in object.xattr_names()? {
            let Some((namespace, mark)) = Mark::of(&name) else { continue };
            if mark == Mark::Metacopy && !self.form.has_redirects() {
                return self.refuse(path, "a metacopy file, which this form has no mark for");
            }
            if by_root && namespace == Namespace::User && self.form == Form::UserXattr {
                // A user's data becomes a mark when root's marks are gone.
                let roots = name.to_string_lossy().replacen("user.", "trusted.", 1);
                if object.xattr(OsStr::new(&roots))? != object.xattr(&name)? {
                    return self
                        .refuse(path, "marks of two namespaces that differ; see plyfs check");
                }
            }
            let Some(to) = self.form.moves(object, by_root, &name)? else { continue };
            self.needs_attributes = true;
            let (old, new) = (object.xattr(&name)?, object.xattr(&to)?);
            if new.is_some() && new != old {
                return self.refuse(path, "marks of two namespaces that differ; see plyfs check");
            }
        }
        Ok(())
    }

    fn entry(&mut self, place: &Place<'_>, marks: &Marks, name: &OsStr, item: &Item) -> Result<()> {
        let path = place.path().join(name);
        match item {
            Item::DotFile(None) => {
                return self.refuse(&path, "a mark for no name; see plyfs check");
            }
            Item::DotFile(Some(hidden)) => {
                self.needs_devices |= !marks.opaque;
                if self.is_live(place, marks, hidden)? {
                    return self.refuse(&path, "the name that it hides is there; see plyfs check");
                }
            }
            Item::Device | Item::Attribute if !marks.opaque => {
                self.needs_devices = true;
                if self.form.has_dot_files() && (name.len() > LONGEST_HIDDEN || name == UNSPEAKABLE)
                {
                    return self.refuse(&path, "a deletion that no .wh. file can say");
                }
            }
            Item::Directory | Item::Own => {
                let is_mark = whiteout::has_prefix(name);
                if is_mark && matches!(self.form, Form::FuseOverlayfs | Form::DotFiles) {
                    return self.refuse(&path, "called like a mark, and would be read as one");
                }
            }
            _ => {}
        }
        if let Item::Own = item {
            let object = Object::Child(place.dir.clone(), Name::from(name));
            self.attributes(&object, &path, false)?;
        }
        Ok(())
    }

    /// Whether the directory has an object of that name, and not a whiteout in another form.
    fn is_live(&self, place: &Place<'_>, marks: &Marks, name: &OsStr) -> Result<bool> {
        let stat = match stat_at(place.dir.as_fd(), name) {
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(false),
            stat => stat?,
        };
        let entry = crate::sys::dir::RawEntry { name, kind: Some(stat.kind()), ino: stat.ino };
        let item = classify(place.dir, marks, entry)?;
        Ok(!matches!(item, Item::Device | Item::Attribute))
    }
}

impl Visitor for Plan<'_> {
    fn enter(&mut self, place: &Place<'_>) -> Result<Vec<Name>> {
        let marks = self.directory(place)?;
        let mut dirs = Vec::new();
        for_each(place.dir.as_fd(), |entry| {
            let item = classify(place.dir, &marks, entry)?;
            self.entry(place, &marks, entry.name, &item)?;
            if let Item::Directory = item {
                dirs.push(Name::from(entry.name));
            }
            Ok(())
        })?;
        Ok(dirs)
    }

    fn leave(&mut self) {}
}
