//! What operations and trees say, as questions with answers in words, so that any of them can be
//! compared and excepted by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, open};
use rustix::io::Errno;

use crate::support::posix::lstat;
use crate::support::snapshot::{attributes, printable};
use crate::support::{Field, Snapshot};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The error of an operation.
    Error,
    /// What it returned.
    Value,
    /// Names in a directory, with their types as listed.
    Names,
    /// The time of last access, where it was set.
    AccessTime,
    /// Names whose inode number in the listing is not that of stat(2).
    OtherNumbers,
    Attribute(String),
    Field(Field),
}

pub type Answer = BTreeMap<Question, String>;

/// The answers of each object of a tree by its path; the root's is empty.
pub type Tree = BTreeMap<PathBuf, Answer>;

/// The answer that stands for an error.
pub fn error_name(errno: Errno) -> String {
    errno.to_string()
}

/// Whether the operation was carried out.
pub fn succeeded(answer: &Answer) -> bool {
    answer[&Question::Error] == "none"
}

/// Times from `started` on, in seconds since 1970, differ from side to side.
fn set_fields(fields: BTreeMap<Field, String>, started: i64) -> Answer {
    let known = fields.into_iter().filter(|(it, _)| !matches!(it, Field::Ctime | Field::Inode));
    known
        .map(|(field, value)| match field {
            Field::Mtime if is_recent(&value, started) => (Question::Field(field), "recent".into()),
            field => (Question::Field(field), value),
        })
        .collect()
}

fn is_recent(time: &str, started: i64) -> bool {
    let seconds = time.split('.').next().unwrap();
    seconds.parse::<i64>().unwrap() >= started - 1
}

/// What stat(2) tells of an object.
pub fn stat_answer(stat: &Stat, started: i64) -> Answer {
    set_fields(attributes(stat, FileType::from_raw_mode(stat.st_mode)), started)
}

pub fn tree(root: &Path, started: i64) -> Tree {
    let snapshot = Snapshot::of(root);
    let answers = snapshot.entries().map(|(path, fields, xattrs)| {
        let mut answer = set_fields(fields.clone(), started);
        for (name, value) in xattrs {
            answer.insert(Question::Attribute(name.clone()), value.clone());
        }
        if fields[&Field::Kind] == "Directory" {
            let names = other_numbers(&root.join(path));
            answer.insert(Question::OtherNumbers, format!("{names:?}"));
        }
        (path.to_owned(), answer)
    });
    answers.collect()
}

/// Names of a directory with their types, sorted.
pub fn names(dir: impl std::os::fd::AsFd) -> Result<String, Errno> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = printable(entry.file_name().to_bytes());
        if !names.insert((name.clone(), format!("{:?}", entry.file_type()))) {
            return Ok(format!("{name} comes twice"));
        }
    }
    Ok(format!("{names:?}"))
}

fn other_numbers(path: &Path) -> BTreeSet<String> {
    let dir = open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let entries = Dir::read_from(dir).unwrap().map(Result::unwrap);
    let others = entries.filter_map(|entry| {
        let name = entry.file_name().to_bytes();
        if name == b".." {
            return None;
        }
        let number = lstat(path.join(OsStr::from_bytes(name))).st_ino;
        (number != entry.ino()).then(|| printable(name))
    });
    others.collect()
}
