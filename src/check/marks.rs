//! Marks in extended attributes: of directories, and of what is in them.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::XattrFlags;

use super::finding::Finding;
use super::rule::{self, Rule};
use super::upper::{Here, UpperCheck};
use crate::layer::dir_marks::Namespaces;
use crate::layer::index::LinkCount;
use crate::layer::mark::{Mark, Namespace};
use crate::layer::stat_override::{Overridden, StatOverride};
use crate::layer::{Opaque, Redirect, whiteout};
use crate::sys::{Errno, Object, Result};

/// The marks of one directory.
#[derive(Default)]
pub(super) struct DirState {
    /// What its attributes say, the stricter of several.
    pub opaque: Opaque,
    /// Whether root's kernel reads it as opaque.
    trusted: bool,
    /// Whether the kernel with `userxattr` does.
    user: bool,
    /// Whether `.wh..wh..opq` is in it.
    pub opaque_file: bool,
    pub redirect: Option<Redirect>,
}

/// The marks of anything else, as far as rules need them together.
#[derive(Default)]
pub(super) struct FileMarks {
    pub metacopy: bool,
    pub whiteout: bool,
    pub links: Option<LinkCount>,
}

impl UpperCheck<'_, '_> {
    /// Checks the attributes of a directory, and reads its marks.
    pub(super) fn check_directory(&mut self, dir: &Arc<OwnedFd>, path: &Path) -> Result<DirState> {
        let object = Object::Own(dir.clone());
        let names = object.xattr_names()?;
        // As a mount reads them: beside root's marks, those under `user.` are data (see `DirMarks`).
        let by_root =
            names.iter().any(|name| Mark::of(name) == Some((Namespace::Trusted, Mark::Origin)));
        let mut state = DirState::default();
        for name in &names {
            match Mark::of(name) {
                Some((Namespace::User, _)) if by_root => {}
                Some((namespace, mark)) => {
                    let Some(value) = self.check_value(&object, path, name, mark)? else {
                        continue;
                    };
                    state.note(namespace, mark, &value);
                }
                None => self.check_other(&object, path, name)?,
            }
        }
        state.opaque_file = whiteout::has_opaque_file(dir)?;
        Ok(state)
    }

    /// Checks who reads a directory as opaque.
    pub(super) fn check_opaque_file(&mut self, here: &Here<'_>) -> Result<()> {
        let state = &here.state;
        let file = OsStr::new(whiteout::OPAQUE_FILE);
        let by_kernel = state.trusted || state.user;
        match (state.opaque_file, by_kernel) {
            (true, true) => {
                let finding = here.finding(rule::OPAQUE_FILE_BESIDE_MARK, file);
                self.report.tell_or_repair(finding, || {
                    state.make_opaque_for_all(here.dir)?;
                    here.unlink(file)
                });
            }
            (true, false) => self.report.tell(&here.finding(rule::DOT_OPAQUE, file)),
            (false, false) if state.opaque == Opaque::Yes => {
                self.report.tell(&Finding::new(rule::PEER_OPAQUE, here.path.clone(), ""));
            }
            (false, _) => {}
        }
        Ok(())
    }

    /// Checks the attributes of what is no directory, and reads its marks.
    pub(super) fn check_file_marks(&mut self, object: &Object, path: &Path) -> Result<FileMarks> {
        let mut marks = FileMarks::default();
        for name in object.xattr_names()? {
            let Some((_, mark)) = Mark::of(&name) else {
                self.check_other(object, path, &name)?;
                continue;
            };
            let Some(value) = self.check_value(object, path, &name, mark)? else { continue };
            match mark {
                Mark::Metacopy => marks.metacopy = true,
                Mark::Whiteout => marks.whiteout = true,
                Mark::LinkCount => marks.links = marks.links.or(LinkCount::parse(&value)),
                _ => {}
            }
        }
        Ok(marks)
    }

    /// The value of a mark; `None`, and a finding, if nobody could understand it.
    fn check_value(
        &mut self,
        object: &Object,
        path: &Path,
        name: &OsStr,
        mark: Mark,
    ) -> Result<Option<Vec<u8>>> {
        let Some(value) = object.xattr(name)? else { return Ok(None) };
        if mark.understands(&value) {
            return Ok(Some(value));
        }
        let detail = format!("{}=\"{}\"", name.display(), value.escape_ascii());
        let mut finding = Finding::new(rule_of(mark), path.to_owned(), detail);
        if mark == Mark::Opaque && value.starts_with(b"y") {
            // fuse-overlayfs looks at the first letter only.
            finding = finding.with(rule::Remedy::Human(
                "set it to y if the directory is to hide what is below, or remove it",
            ));
        }
        self.report.tell_or_repair(finding, || match mark {
            Mark::Impure => object.set_xattr(name, b"y", XattrFlags::REPLACE),
            _ => object.remove_xattr(name),
        });
        Ok(None)
    }

    /// Checks an attribute that is no mark in itself.
    fn check_other(&mut self, object: &Object, path: &Path, name: &OsStr) -> Result<()> {
        let shown = || name.to_string_lossy();
        let form = StatOverride::ALL.into_iter().find(|form| form.name() == name);
        match form {
            Some(form) if Some(form) == self.overriding => {
                let value = object.xattr(name)?.unwrap_or_default();
                if Overridden::parse(&value).is_none() {
                    let detail = format!("{}=\"{}\"", shown(), value.escape_ascii());
                    self.report.tell(&Finding::new(rule::OVERRIDE_VALUE, path.to_owned(), detail));
                }
            }
            Some(_) if self.overriding.is_none() => {
                self.report.count(Finding::new(rule::UNREAD_ATTRIBUTES, path.to_owned(), shown()));
            }
            None if name.as_bytes().starts_with(b"user.fuseoverlayfs.") => {
                self.report.count(Finding::new(rule::PEER_ATTRIBUTE, path.to_owned(), shown()));
            }
            _ => {}
        }
        Ok(())
    }
}

impl DirState {
    fn note(&mut self, namespace: Namespace, mark: Mark, value: &[u8]) {
        match mark {
            Mark::Opaque => {
                let opaque = Opaque::parse(value);
                self.opaque = self.opaque.or(opaque);
                let yes = opaque == Opaque::Yes;
                self.trusted |= yes && namespace == Namespace::Trusted;
                self.user |= yes && namespace == Namespace::User;
            }
            Mark::Redirect => self.redirect = Redirect::parse(value),
            _ => {}
        }
    }

    /// Lets nothing below shine through for the strictest reader that this process may write for, before what
    /// had the same effect for others is removed.
    pub fn make_opaque_for_all(&self, dir: &Arc<OwnedFd>) -> Result<()> {
        if self.trusted {
            return Ok(());
        }
        let object = Object::Own(dir.clone());
        match (Namespaces { trusted: true, user: false }).set_opaque(&object) {
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) if self.user => Ok(()),
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {
                (Namespaces { trusted: false, user: true }).set_opaque(&object)
            }
            result => result,
        }
    }
}

fn rule_of(mark: Mark) -> &'static Rule {
    match mark {
        Mark::Opaque => rule::OPAQUE_VALUE,
        Mark::Redirect => rule::REDIRECT_VALUE,
        Mark::Metacopy => rule::METACOPY_VALUE,
        Mark::Origin => rule::ORIGIN_VALUE,
        Mark::LinkCount => rule::LINKS_VALUE,
        Mark::Impure => rule::IMPURE_VALUE,
        Mark::Protection => rule::PROTECTION_VALUE,
        Mark::InodeNumber => rule::NUMBER_VALUE,
        // Any value is one; only its place can be wrong.
        Mark::Whiteout | Mark::Literal | Mark::Layer | Mark::Uuid => rule::ATTRIBUTE_WHITEOUT,
    }
}
