//! The workdir: what a crash left in it, and what it says of the layer.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::AtFlags;

use super::finding::Finding;
use super::report::Report;
use super::rule::{self, Rule};
use crate::layer::index::{self, LinkCount, link_count};
use crate::layer::mark::Mark;
use crate::layer::volatile_mark::{self, VolatileMark};
use crate::layer::walk::WalkError;
use crate::layer::{Name, inode_mark, origin, whiteout, workdir};
use crate::sys::dir::{RawEntry, for_each};
use crate::sys::{Errno, FileKind, Object, Result, open};

/// What the workdir says of the layer.
pub(super) struct Work {
    /// The inodes that the index has entries for.
    indexed: HashSet<u64>,
    /// The directory of records of inode numbers, and the upper inodes that have one and were not seen yet.
    numbers: Option<Records>,
    unseen: HashSet<u64>,
}

/// A directory of the workdir.
#[derive(Clone)]
struct Records {
    dir: Arc<OwnedFd>,
    path: PathBuf,
}

impl Records {
    /// The directory with this path in the workdir; `None` where there is none.
    fn open(
        work: &OwnedFd,
        base: &Path,
        path: &str,
    ) -> std::result::Result<Option<Self>, WalkError> {
        match open::descend(work.as_fd(), path.split('/').map(OsStr::new), false) {
            Ok(dir) => Ok(Some(Self { dir: Arc::new(dir), path: base.join(path) })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(WalkError { path: path.into(), error }),
        }
    }

    /// Calls `each` with every entry.
    fn check(
        &self,
        mut each: impl FnMut(RawEntry<'_>, Object) -> Result<()>,
    ) -> std::result::Result<(), WalkError> {
        for_each(self.dir.as_fd(), |entry| {
            each(entry, Object::Child(self.dir.clone(), Name::from(entry.name)))
        })
        .map_err(|error| WalkError { path: self.path.clone(), error })
    }

    fn finding(&self, rule: &'static Rule, name: &OsStr) -> Finding {
        Finding::new(rule, self.path.join(name), "")
    }

    fn unlink(&self, name: &OsStr) -> Result<()> {
        rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())
    }
}

impl Work {
    /// Checks everything in the workdir that does not need the upper layer.
    pub fn check(
        base: &Path,
        work: &Arc<OwnedFd>,
        report: &mut Report<'_>,
    ) -> std::result::Result<Self, WalkError> {
        // A mark of this boot has lost nothing.
        match volatile_mark::read(work) {
            Ok(VolatileMark::Absent | VolatileMark::ThisBoot) => {}
            Ok(VolatileMark::OtherBoot | VolatileMark::Foreign) => {
                let path = base.join("work/incompat/volatile");
                report.tell(&Finding::new(rule::VOLATILE, path, ""));
            }
            Err(error) => return Err(WalkError { path: "work/incompat".into(), error }),
        }
        if let Some(stage) = Records::open(work, base, "plyfs/stage")? {
            stage.check(|entry, _| {
                let finding = stage.finding(rule::STAGE_LEFTOVER, entry.name);
                report.tell_or_repair(finding, || {
                    workdir::remove(stage.dir.as_fd(), entry.name, stage.dir.as_fd())
                });
                Ok(())
            })?;
        }
        if let Some(links) = Records::open(work, base, "plyfs/nlink")? {
            links.check(|entry, object| check_link_record(&links, entry.name, &object, report))?;
        }
        let mut indexed = HashSet::new();
        if let Some(index) = Records::open(work, base, "index")? {
            index.check(|entry, object| {
                indexed.insert(entry.ino);
                check_index_entry(&index, entry.name, &object, report)
            })?;
        }
        let numbers = Records::open(work, base, "plyfs/ino")?;
        let mut unseen = HashSet::new();
        if let Some(numbers) = &numbers {
            numbers.check(|entry, object| {
                match entry.name.to_str().and_then(inode_mark::parse_number) {
                    _ if object.stat()?.kind() != FileKind::Symlink => {
                        report.tell(&numbers.finding(rule::NUMBER_RECORD, entry.name));
                    }
                    Some(number) => drop(unseen.insert(number)),
                    None => {}
                }
                Ok(())
            })?;
        }
        Ok(Self { indexed, numbers, unseen })
    }

    /// Notes that the upper layer has this inode.
    pub fn saw(&mut self, ino: u64) {
        self.unseen.remove(&ino);
    }

    /// Checks, after all inodes were seen, that each record is about one of them.
    pub fn check_stale_numbers(self, report: &mut Report<'_>) -> Result<()> {
        let Some(numbers) = self.numbers else { return Ok(()) };
        for number in self.unseen {
            let name = number.to_string();
            let finding = numbers.finding(rule::NUMBER_RECORD_STALE, OsStr::new(&name));
            report.tell_or_repair(finding, || numbers.unlink(OsStr::new(&name)));
        }
        Ok(())
    }

    /// Whether the file with this inode number has an entry in the index.
    pub fn is_indexed(&self, ino: u64) -> bool {
        self.indexed.contains(&ino)
    }
}

fn check_link_record(
    links: &Records,
    name: &OsStr,
    record: &Object,
    report: &mut Report<'_>,
) -> Result<()> {
    let rule = match name.to_str().and_then(|name| name.strip_suffix(".new")) {
        Some(_) => rule::LINK_RECORD_UNFINISHED,
        // Others are not read.
        None if !index::is_entry_name(name) => return Ok(()),
        None => match record.read_link() {
            Ok(count) if count.to_str().and_then(index::parse_difference).is_some() => {
                return Ok(());
            }
            Ok(_) | Err(Errno::INVAL) => rule::LINK_RECORD,
            Err(error) => return Err(error),
        },
    };
    report.tell_or_repair(links.finding(rule, name), || links.unlink(name));
    Ok(())
}

fn check_index_entry(
    index: &Records,
    name: &OsStr,
    object: &Object,
    report: &mut Report<'_>,
) -> Result<()> {
    // The kernel's whiteouts and temporary files, which its next mount removes.
    if name.as_bytes().starts_with(b"#") {
        return Ok(());
    }
    if !index::is_entry_name(name) {
        report.tell(&index.finding(rule::INDEX_FOREIGN, name));
        return Ok(());
    }
    let stat = object.stat()?;
    // The kernel's notes on directories, and on deleted ones, for NFS.
    if stat.kind().is_dir() || whiteout::is_char_whiteout(&stat) {
        return Ok(());
    }
    for attribute in object.xattr_names()? {
        let Some((_, Mark::LinkCount)) = Mark::of(&attribute) else { continue };
        let Some(value) = object.xattr(&attribute)? else { continue };
        if LinkCount::parse(&value).is_none() {
            let mut finding = index.finding(rule::LINKS_VALUE, name);
            finding.detail = format!("{}=\"{}\"", attribute.display(), value.escape_ascii());
            report.tell_or_repair(finding, || object.remove_xattr(&attribute));
            return Ok(());
        }
    }
    if let Some(LinkCount::Upper(added)) = link_count(object)?
        && stat.nlink.saturating_add_signed(added) == 0
    {
        report.tell_or_repair(index.finding(rule::INDEX_ORPHAN, name), || index.unlink(name));
        return Ok(());
    }
    let told = origin_of(object)?.map(|blob| origin::index_name(&blob));
    if told.as_deref().map(OsStr::new) != Some(name) {
        report.tell(&index.finding(rule::INDEX_ORIGIN, name));
    }
    Ok(())
}

fn origin_of(object: &Object) -> Result<Option<Vec<u8>>> {
    for name in object.xattr_names()? {
        if Mark::of(&name).is_some_and(|(_, mark)| mark == Mark::Origin) {
            return object.xattr(&name);
        }
    }
    Ok(None)
}
