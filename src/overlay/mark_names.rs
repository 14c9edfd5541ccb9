//! Making room for a user's file that is called like a mark.
//!
//! Layers of peers have `.wh.NAME` files as marks. Where this mount writes devices, a user can have files
//! of such names; a mark that is in the way takes its other form first.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Overlay;
use super::directory::Contents;
use crate::layer::whiteout::{self, Form};
use crate::layer::{Name, Upper};
use crate::sys::stat::stat_at;
use crate::sys::{Errno, FileKind, Object, Result};

impl Overlay {
    /// Makes sure that no mark in the upper directory `dir` is called `name`.
    pub(super) fn free_mark_name(
        &self,
        upper: &Upper,
        contents: &mut Contents,
        dir: &Arc<OwnedFd>,
        name: &OsStr,
    ) -> Result<()> {
        let own = contents.names.visible(name).is_some_and(|entry| entry.layer.is_upper());
        if own || !whiteout::has_prefix(name) {
            return Ok(());
        }
        match stat_at(dir.as_fd(), name) {
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
            Ok(stat) if stat.kind() != FileKind::Regular => return Ok(()),
            Ok(_) => {}
        }
        if whiteout::is_literal(&Object::Child(dir.clone(), Name::from(name)))? {
            return Ok(());
        }
        if name == whiteout::OPAQUE_FILE {
            upper.namespaces.set_opaque(&Object::Own(dir.clone()))?;
        }
        let hidden = whiteout::hidden_by(name).map(Name::from);
        let marked = hidden.as_ref().and_then(|hidden| contents.names.get(hidden));
        let covers = marked.is_some_and(|entry| entry.below && entry.whiteout.is_some());
        match hidden {
            Some(hidden) if marked.is_some_and(|entry| entry.whiteout == Some(Form::DotFile)) => {
                upper.replace_dot_file(dir.as_fd(), &hidden, covers)?;
                contents.names.remove(&hidden, Form::CharDevice);
            }
            _ => drop(upper.work.take_away(dir.as_fd(), name)?),
        }
        Ok(())
    }
}
