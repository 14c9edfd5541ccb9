//! One entry of a directory of the upper layer.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, OFlags};

use super::rule::{self, Remedy};
use super::upper::{Here, UpperCheck};
use crate::layer::{Name, Opaque, whiteout};
use crate::sys::dir::{RawEntry, is_empty};
use crate::sys::stat::stat_at;
use crate::sys::{Errno, FileKind, Object, Result, open};

/// What AUFS keeps in the root of a layer besides whiteouts: two directories and a file.
const AUFS_DIRS: [&str; 2] = [".wh..wh.plnk", ".wh..wh.orph"];
const AUFS_FILE: &str = ".wh..wh.aufs";

/// Content in a mark, which nobody reads: not ours to throw away.
const HAS_CONTENT: Remedy = Remedy::Human("it has content: move that elsewhere, or remove it");

impl UpperCheck<'_, '_> {
    /// Checks one entry; true for a directory, which is then to be visited.
    pub(super) fn check_entry(&mut self, here: &Here<'_>, entry: RawEntry<'_>) -> Result<bool> {
        let object = here.object(entry.name);
        let kind = match entry.kind {
            Some(kind) => kind,
            None => object.stat()?.kind(),
        };
        if kind.is_dir() {
            return self.check_aufs_dir(here, entry.name);
        }
        self.report.summary.objects += 1;
        match kind {
            FileKind::CharDevice if whiteout::is_char_whiteout(&object.stat()?) => {
                self.check_attributes_of_whiteout(here, &object, entry.name)?;
                self.check_whiteout(here, entry.name, entry.name)?;
            }
            FileKind::Regular
                if whiteout::has_prefix(entry.name) && !whiteout::is_literal(&object)? =>
            {
                self.check_dot_file(here, &object, entry.name)?;
            }
            _ => self.check_file(here, &object, kind, entry.name)?,
        }
        if let Some(work) = &mut self.work {
            work.saw(entry.ino);
        }
        Ok(false)
    }

    fn check_file(
        &mut self,
        here: &Here<'_>,
        object: &Object,
        kind: FileKind,
        name: &OsStr,
    ) -> Result<()> {
        let path = here.path.join(name);
        let marks = self.check_file_marks(object, &path)?;
        if marks.whiteout && kind == FileKind::Regular {
            match here.state.opaque {
                Opaque::XattrWhiteouts => self.check_whiteout(here, name, name)?,
                _ => self.report.tell(&here.finding(rule::ATTRIBUTE_WHITEOUT, name)),
            }
        }
        if let Some(links) = marks.links {
            self.check_links(object, &path, links)?;
        }
        if marks.metacopy
            && kind == FileKind::Regular
            && let Some(below) = &mut self.below
            && !below.has_data(&Name::from(name))?
        {
            self.report.tell(&here.finding(rule::METACOPY_DANGLING, name));
        }
        Ok(())
    }

    /// Checks the mark `entry` that `name` is deleted.
    fn check_whiteout(&mut self, here: &Here<'_>, entry: &OsStr, name: &OsStr) -> Result<()> {
        if here.state.is_opaque() {
            let finding = here.finding(rule::WHITEOUT_IN_OPAQUE, entry);
            self.report.tell_or_repair(finding, || {
                here.state.make_opaque_for_all(here.dir)?;
                here.unlink(entry)
            });
            return Ok(());
        }
        if let Some(below) = &self.below
            && !below.has(&Name::from(name))?
        {
            self.report.tell(&here.finding(rule::WHITEOUT_OVER_NOTHING, entry));
        } else if entry != name {
            self.report.tell(&here.finding(rule::DOT_WHITEOUT, entry));
        }
        Ok(())
    }

    fn check_attributes_of_whiteout(
        &mut self,
        here: &Here<'_>,
        object: &Object,
        name: &OsStr,
    ) -> Result<()> {
        for attribute in object.xattr_names()? {
            // A label is on everything where there are labels.
            if &*attribute != "security.selinux" {
                let mut finding = here.finding(rule::WHITEOUT_ATTRIBUTES, name);
                finding.detail = attribute.to_string_lossy().into_owned();
                self.report.count(finding);
            }
        }
        Ok(())
    }

    fn check_dot_file(&mut self, here: &Here<'_>, object: &Object, entry: &OsStr) -> Result<()> {
        if entry == whiteout::OPAQUE_FILE {
            return Ok(());
        }
        let remedy = |otherwise| match object.stat()?.size {
            0 => Ok::<_, Errno>(otherwise),
            _ => Ok(HAS_CONTENT),
        };
        let hidden = whiteout::hidden_by(entry);
        let rule = match hidden {
            _ if entry == AUFS_FILE => rule::AUFS_LEFTOVER,
            None => rule::VOID_WHITEOUT,
            Some(hidden) => match stat_at(here.dir.as_fd(), hidden) {
                Ok(stat) if whiteout::is_char_whiteout(&stat) => rule::DOT_BESIDE_WHITEOUT,
                Ok(_) => {
                    self.report.tell(&here.finding(rule::HIDDEN_NAME, entry));
                    return Ok(());
                }
                Err(Errno::NOENT | Errno::NAMETOOLONG) => {
                    return self.check_whiteout(here, entry, hidden);
                }
                Err(error) => return Err(error),
            },
        };
        let finding = here.finding(rule, entry).with(remedy(rule.remedy)?);
        self.report.tell_or_repair(finding, || here.unlink(entry));
        Ok(())
    }

    /// Whether the directory `name` is to be visited: not if it was AUFS's, and has been removed.
    fn check_aufs_dir(&mut self, here: &Here<'_>, name: &OsStr) -> Result<bool> {
        if !AUFS_DIRS.iter().any(|known| name == *known) {
            return Ok(true);
        }
        let dir = open::child(here.dir.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY)?;
        let empty = is_empty(dir.as_fd())?;
        let mut finding = here.finding(rule::AUFS_LEFTOVER, name);
        if !empty {
            finding = finding.with(Remedy::Human("look at the files in it, then remove it"));
        }
        let mut removed = false;
        self.report.tell_or_repair(finding, || {
            here.remove(name, AtFlags::REMOVEDIR)?;
            removed = true;
            Ok(())
        });
        Ok(!removed)
    }
}
