//! Changed files of which the upper layer has no name.
//!
//! A lower file with several names that was changed under one of them, which then was deleted, is in the index of the
//! workdir alone (`layer::index`); a mount finds it under its other names by what it is a copy of.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::held::Held;
use super::{Error, Result};
use crate::layer::Name;
use crate::layer::index::{self, CopyMarks, LinkCount, link_count};
use crate::overlay::{Config, Overlay};
use crate::sys::{self, Errno, FileKind, Object, dir, open};

/// The files in the index that have no name in the upper layer.
pub struct Unnamed {
    /// The index as a layer, read as the upper layer is.
    layer: Overlay,
    files: Vec<File>,
}

struct File {
    name: Name,
    /// What it is a copy of.
    marks: CopyMarks,
    /// How many names it has in the union, or more than one where that is not known.
    names: u32,
}

impl Unnamed {
    /// Looks into the index of the workdir `work` of the layer `upper`; `None` if there are no such files.
    pub fn find(work: &Path, upper: &Path) -> Result<Option<Self>> {
        let path = work.join("index");
        let index = match open::directory_for_reading(&path) {
            Ok(index) => Arc::new(index),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(Error::of_index(&path, error)),
        };
        let files = files(&index).map_err(|error| Error::of_index(&path, error))?;
        if files.is_empty() {
            return Ok(None);
        }
        let part_of = Some(upper.to_owned());
        let layer = Overlay::open(&Config { lower: vec![path], part_of, ..Config::default() })?;
        Ok(Some(Self { layer, files }))
    }

    /// What the files are copies of, each with its name in the index.
    pub fn copies(&self) -> impl Iterator<Item = (&CopyMarks, &Name)> {
        self.files.iter().map(|file| (&file.marks, &file.name))
    }

    /// A file by its name in the index, with as many links as it has names in the union.
    pub fn file(&self, name: &Name) -> sys::Result<Held<'_>> {
        let mut file = Held::root(&self.layer)?.child(name)?.ok_or(Errno::NOENT)?;
        let known = self.files.iter().find(|file| file.name == *name);
        file.attr.nlink = known.map_or(file.attr.nlink, |file| file.names);
        Ok(file)
    }
}

fn files(index: &Arc<OwnedFd>) -> sys::Result<Vec<File>> {
    let mut names = Vec::new();
    dir::for_each(index.as_fd(), |entry| {
        if index::is_entry_name(entry.name) {
            names.push(Name::from(entry.name));
        }
        Ok(())
    })?;
    names.sort_unstable();
    let mut files = Vec::new();
    for name in names {
        let object = Object::Child(index.clone(), name.clone());
        let stat = match object.stat() {
            Ok(stat) => stat,
            // Of a mount that goes on.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        };
        // The kernel's index has directories and whiteouts, too. A second link is a name in the upper layer.
        let is_mark = stat.kind() == FileKind::CharDevice && stat.rdev == 0;
        if stat.nlink != 1 || stat.kind().is_dir() || is_mark {
            continue;
        }
        let names = match link_count(&object)? {
            Some(LinkCount::Upper(more)) => stat.nlink.saturating_add_signed(more),
            Some(LinkCount::Lower(_)) | None => 2,
        };
        if names > 0
            && let Some(marks) = CopyMarks::read(&object)?
        {
            files.push(File { name, marks, names });
        }
    }
    Ok(files)
}
