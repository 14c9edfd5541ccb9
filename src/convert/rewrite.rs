//! The rewrite itself: directory by directory, each new mark before the old one goes.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, XattrFlags};

use super::item::{Item, Marks, classify};
use super::{Converted, Form};
use crate::layer::mark::{Mark, Namespace};
use crate::layer::walk::{Place, Visitor};
use crate::layer::workdir::Workdir;
use crate::layer::{Name, Opaque, whiteout};
use crate::sys::dir::for_each;
use crate::sys::{Errno, Object, Result, fault, open};

pub(super) struct Rewrite<'a> {
    form: Form,
    stage: &'a Workdir,
    pub converted: Converted,
}

impl<'a> Rewrite<'a> {
    pub fn new(form: Form, stage: &'a Workdir) -> Self {
        Self { form, stage, converted: Converted::default() }
    }

    fn step(&mut self) {
        self.converted.changed += 1;
        fault::point("convert.step");
    }

    /// Makes a directory opaque in the new form too.
    fn add_opaque(&mut self, dir: &Arc<OwnedFd>) -> Result<()> {
        let object = Object::Own(dir.clone());
        match self.form.opaque_attribute().map(OsStr::new) {
            Some(name) if object.xattr(name)?.as_deref() == Some(b"y") => return Ok(()),
            Some(name) => object.set_xattr(name, b"y", XattrFlags::empty())?,
            None => match open::create(dir.as_fd(), OsStr::new(whiteout::OPAQUE_FILE), 0o600) {
                Ok(_) => {}
                Err(Errno::EXIST) => return Ok(()),
                Err(error) => return Err(error),
            },
        }
        self.step();
        Ok(())
    }

    /// Removes what makes a directory opaque, or a holder of whiteouts by attribute, in other forms.
    fn remove_other_opaque(&mut self, dir: &Arc<OwnedFd>, marks: &Marks) -> Result<()> {
        let object = Object::Own(dir.clone());
        for name in object.xattr_names()? {
            let Some((namespace, Mark::Opaque)) = Mark::of(&name) else { continue };
            let is_users = marks.by_root && namespace == Namespace::User;
            let keeps =
                marks.opaque && Some(&*name) == self.form.opaque_attribute().map(OsStr::new);
            if !is_users && !keeps {
                object.remove_xattr(&name)?;
                self.step();
            }
        }
        if marks.opaque_file && !self.form.has_dot_files() {
            rustix::fs::unlinkat(dir, whiteout::OPAQUE_FILE, AtFlags::empty())?;
            self.step();
        }
        Ok(())
    }

    /// Gives a deletion the new form, or removes it where the directory is opaque.
    fn whiteout(
        &mut self,
        place: &Place<'_>,
        opaque: bool,
        entry: &OsStr,
        item: &Item,
    ) -> Result<()> {
        let dir = place.dir.as_fd();
        let unlink = |name: &OsStr| rustix::fs::unlinkat(dir, name, AtFlags::empty());
        match (item, self.form.has_dot_files()) {
            _ if opaque => unlink(entry)?,
            (Item::DotFile(_), true) | (Item::Device, false) => return Ok(()),
            (Item::DotFile(Some(hidden)), false) => {
                match self.stage.link_whiteout(dir, hidden) {
                    Ok(()) => self.step(),
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                unlink(entry)?;
            }
            (Item::Attribute, false) => self.stage.stage_whiteout()?.publish_over(dir, entry)?,
            (Item::Device | Item::Attribute, true) => {
                match open::create(dir, &whiteout::dot_file(entry), 0o600) {
                    Ok(_) => self.step(),
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                unlink(entry)?;
            }
            _ => return Ok(()),
        }
        self.step();
        Ok(())
    }

    /// Moves marks from one namespace to the other. What tells root's marks from a user's data, the origin under
    /// `trusted.`, comes last and goes first.
    fn move_marks(&mut self, object: &Object, by_root: bool) -> Result<()> {
        let mut moves = Vec::new();
        for name in object.xattr_names()? {
            if let Some(to) = self.form.moves(object, by_root, &name)? {
                let is_origin = Mark::of(&name).is_some_and(|(_, mark)| mark == Mark::Origin);
                moves.push((is_origin, name, to));
            }
        }
        moves.sort();
        let (origins, others): (Vec<_>, Vec<_>) = moves.into_iter().partition(|(is, ..)| *is);
        let to_root = self.form == Form::Kernel;
        let steps = if to_root { [others, origins] } else { [origins, others] };
        if !to_root {
            for (_, from, to) in &steps[1] {
                self.copy_mark(object, from, to)?;
            }
        }
        for (_, from, to) in steps.iter().flatten() {
            self.copy_mark(object, from, to)?;
            object.remove_xattr(from)?;
            self.step();
        }
        Ok(())
    }

    fn copy_mark(&mut self, object: &Object, from: &OsStr, to: &OsStr) -> Result<()> {
        let value = object.get_xattr(from)?;
        if object.xattr(to)?.as_ref() != Some(&value) {
            object.set_xattr(to, &value, XattrFlags::empty())?;
            self.step();
        }
        Ok(())
    }

    fn directory(&mut self, place: &Place<'_>) -> Result<Vec<Name>> {
        let marks = Marks::read(place.dir)?;
        if marks.opaque {
            self.add_opaque(place.dir)?;
        }
        let mut dirs = Vec::new();
        for_each(place.dir.as_fd(), |entry| {
            self.converted.objects += 1;
            let item = match classify(place.dir, &marks, entry) {
                // Replaced since the directory was read.
                Err(Errno::NOENT) => return Ok(()),
                item => item?,
            };
            match item {
                Item::Directory => dirs.push(Name::from(entry.name)),
                Item::Own => {
                    let object = Object::Child(place.dir.clone(), Name::from(entry.name));
                    self.move_marks(&object, false)?;
                }
                Item::OpaqueFile => {}
                item => self.whiteout(place, marks.opaque, entry.name, &item)?,
            }
            Ok(())
        })?;
        let holds_whiteouts = marks.dir.opaque == Opaque::XattrWhiteouts;
        if marks.opaque || holds_whiteouts {
            self.remove_other_opaque(place.dir, &marks)?;
        }
        self.move_marks(&Object::Own(place.dir.clone()), marks.by_root)?;
        Ok(dirs)
    }
}

impl Visitor for Rewrite<'_> {
    fn enter(&mut self, place: &Place<'_>) -> Result<Vec<Name>> {
        Object::Own(place.dir.clone()).keeping_times(|| self.directory(place))
    }

    fn leave(&mut self) {}
}

impl Form {
    /// Whether the kernel reads it.
    pub(super) fn is_kernel(self) -> bool {
        matches!(self, Self::Kernel | Self::UserXattr)
    }

    /// What the mark `name` of `object` is called in this form, if it is to be moved. Marks of opaque directories
    /// are written by `add_opaque`. On a directory that root has marked (`by_root`) those under `user.` are data, but
    /// for an origin that says the same: that is a move which was cut off.
    pub(super) fn moves(
        self,
        object: &Object,
        by_root: bool,
        name: &OsStr,
    ) -> Result<Option<OsString>> {
        let Some((namespace, mark)) = Mark::of(name) else { return Ok(None) };
        let (from, to) = match (self, namespace) {
            (Self::Kernel, Namespace::User) => ("user.", "trusted."),
            (Self::UserXattr, Namespace::Trusted) => ("trusted.", "user."),
            _ => return Ok(None),
        };
        if matches!(mark, Mark::Opaque | Mark::Whiteout) {
            return Ok(None);
        }
        let word = name.to_str().and_then(|name| name.strip_prefix(from));
        let Some(to) = word.map(|word| OsString::from(format!("{to}{word}"))) else {
            return Ok(None);
        };
        let is_data = self == Self::Kernel
            && by_root
            && (mark != Mark::Origin || object.xattr(name)? != object.xattr(&to)?);
        Ok((!is_data).then_some(to))
    }
}
