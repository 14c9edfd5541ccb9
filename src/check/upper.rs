//! The walk through the upper layer: each directory with its marks, then its entries.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::AtFlags;

use super::below::Below;
use super::finding::Finding;
use super::marks::DirState;
use super::redirects::Redirects;
use super::report::Report;
use super::rule::{self, Rule};
use super::work::Work;
use crate::layer::stat_override::StatOverride;
use crate::layer::walk::{Place, Visitor};
use crate::layer::{Name, Opaque};
use crate::sys::dir::for_each;
use crate::sys::{Object, Result};

/// The state of a walk.
pub(super) struct UpperCheck<'r, 's> {
    pub base: &'r Path,
    pub report: &'r mut Report<'s>,
    pub below: Option<Below>,
    pub work: Option<&'r mut Work>,
    /// How the layer keeps attributes, if it does.
    pub overriding: Option<StatOverride>,
    redirects: Redirects,
}

/// The directory whose entries are looked at.
pub(super) struct Here<'a> {
    pub dir: &'a Arc<OwnedFd>,
    pub path: PathBuf,
    pub state: DirState,
}

impl Here<'_> {
    pub fn object(&self, name: &OsStr) -> Object {
        Object::Child(self.dir.clone(), Name::from(name))
    }

    pub fn finding(&self, rule: &'static Rule, name: &OsStr) -> Finding {
        Finding::new(rule, self.path.join(name), "")
    }

    pub fn unlink(&self, name: &OsStr) -> Result<()> {
        self.remove(name, AtFlags::empty())
    }

    /// Removes a name, without anybody seeing it by the time of the directory.
    pub fn remove(&self, name: &OsStr, flags: AtFlags) -> Result<()> {
        let dir = Object::Own(self.dir.clone());
        dir.keeping_times(|| rustix::fs::unlinkat(self.dir, name, flags))
    }
}

impl<'r, 's> UpperCheck<'r, 's> {
    pub fn new(
        base: &'r Path,
        root: &Arc<OwnedFd>,
        report: &'r mut Report<'s>,
        below: Option<Below>,
        work: Option<&'r mut Work>,
    ) -> Result<Self> {
        let overriding = StatOverride::detect(&Object::Own(root.clone()))?;
        if let Some(form) = overriding {
            let name = form.name().to_string_lossy();
            report.tell(&Finding::new(rule::STORED_ATTRIBUTES, base.to_owned(), name));
        }
        Ok(Self { base, report, below, work, overriding, redirects: Redirects::default() })
    }

    /// Follows the walk down, in the lower layers too, and checks where the directory leads.
    fn follow(&mut self, place: &Place<'_>, here: &Here<'_>) -> Result<()> {
        let name = place.names.last().cloned().unwrap_or_else(|| Name::from(OsStr::new("/")));
        let opaque = here.state.is_opaque();
        let redirect = here.state.redirect.clone().filter(|_| !opaque);
        let target = |redirect: &crate::layer::Redirect| {
            String::from_utf8_lossy(&redirect.value()).into_owned()
        };
        if let Some(below) = &mut self.below
            && !below.enter(name.clone(), opaque, redirect.as_ref())?
            && let Some(redirect) = &redirect
        {
            let finding =
                Finding::new(rule::REDIRECT_DANGLING, here.path.clone(), target(redirect));
            self.report.tell(&finding);
        }
        if let Some(redirect) = &redirect
            && self.redirects.is_taken(redirect)
        {
            let finding =
                Finding::new(rule::REDIRECT_DUPLICATE, here.path.clone(), target(redirect));
            self.report.tell(&finding);
        }
        self.redirects.enter(name, redirect);
        Ok(())
    }
}

impl Visitor for UpperCheck<'_, '_> {
    fn enter(&mut self, place: &Place<'_>) -> Result<Vec<Name>> {
        self.report.summary.objects += 1;
        let path = self.base.join(place.path());
        let state = self.check_directory(place.dir, &path)?;
        let here = Here { dir: place.dir, path, state };
        self.follow(place, &here)?;
        self.check_opaque_file(&here)?;
        let mut dirs = Vec::new();
        for_each(place.dir.as_fd(), |entry| {
            if self.check_entry(&here, entry)? {
                dirs.push(Name::from(entry.name));
            }
            Ok(())
        })?;
        Ok(dirs)
    }

    fn leave(&mut self) {
        self.redirects.leave();
        if let Some(below) = &mut self.below {
            below.leave();
        }
    }
}

impl DirState {
    /// Whether nothing below shines through, for those who read every form.
    pub fn is_opaque(&self) -> bool {
        self.opaque == Opaque::Yes || self.opaque_file
    }
}
