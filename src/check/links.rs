//! Link counts that are kept in a mark.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::XattrFlags;

use super::finding::Finding;
use super::rule;
use super::upper::UpperCheck;
use crate::layer::index::LinkCount;
use crate::layer::mark::Mark;
use crate::sys::{Object, Result};

impl UpperCheck<'_, '_> {
    /// Checks that a file is not given up while it has a name. A count that is too high is harmless, and what
    /// a crash leaves.
    pub(super) fn check_links(
        &mut self,
        object: &Object,
        path: &Path,
        links: LinkCount,
    ) -> Result<()> {
        let Some(work) = &self.work else { return Ok(()) };
        let stat = object.stat()?;
        if stat.nlink < 2 {
            return Ok(());
        }
        // The index entry is a link too, and no name.
        let entries = i32::from(work.is_indexed(stat.ino));
        let added = match links {
            LinkCount::Upper(added) => added,
            // Relative to the lower file, unless nothing leads back to that.
            LinkCount::Lower(_) if entries == 1 => return Ok(()),
            LinkCount::Lower(_) => -1,
        };
        if added >= -entries {
            return Ok(());
        }
        let detail = format!("{} links and {added:+}", stat.nlink);
        let finding = Finding::new(rule::LINKS_LOW, path.to_owned(), detail);
        self.report.tell_or_repair(finding, || {
            let value = format!("U{:+}", -entries);
            for name in object.xattr_names()? {
                if Mark::of(&name).is_some_and(|(_, mark)| mark == Mark::LinkCount) {
                    object.set_xattr(OsStr::new(&name), value.as_bytes(), XattrFlags::REPLACE)?;
                }
            }
            Ok(())
        });
        Ok(())
    }
}
