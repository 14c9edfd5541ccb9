//! The table of every mount option, the one definition that parsing and documentation derive from.

use super::OptionError;
use super::draft::Draft;
use super::union_options::UNION_OPTIONS;
use super::value::Value;
use super::vfs_options::{FUSE_OPTIONS, IGNORED_OPTIONS, VFS_OPTIONS};

/// What giving an option does today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does what it says.
    Implemented,
    /// It goes to the kernel with the mount.
    Kernel,
    /// It is taken so that callers of other programs work, and changes nothing.
    NoEffect,
    /// It is an error.
    Refused,
}

impl Status {
    /// The word used in documentation.
    pub fn word(self) -> &'static str {
        match self {
            Status::Implemented => "implemented",
            Status::Kernel => "passed to the kernel",
            Status::NoEffect => "accepted, no effect",
            Status::Refused => "refused",
        }
    }
}

/// One row of the table: an option with one kind of value.
///
/// A name that goes both with and without a value has two rows.
pub struct OptionSpec {
    /// The name; one that ends in `*` stands for all that begin so.
    pub name: &'static str,
    /// What it means, in one line.
    pub help: &'static str,
    /// What holds when it is not given; empty when nothing does.
    pub default: &'static str,
    /// What giving it does today.
    pub status: Status,
    pub(super) value: Value,
}

impl OptionSpec {
    pub(super) const fn new(
        name: &'static str,
        value: Value,
        status: Status,
        default: &'static str,
        help: &'static str,
    ) -> OptionSpec {
        OptionSpec { name, help, default, status, value }
    }

    /// The option as written on a command line, such as `threaded=0|1`.
    pub fn syntax(&self) -> String {
        format!("{}{}", self.name, self.value.syntax())
    }

    /// How it can begin on a command line: the name, with each word that may follow, or with `=` alone; nothing for what
    /// is refused, has no effect, or stands for other names.
    pub fn spellings(&self) -> Vec<String> {
        let is_offered = matches!(self.status, Status::Implemented | Status::Kernel);
        match is_offered && !self.name.ends_with('*') {
            true => {
                self.value.beginnings().iter().map(|text| format!("{}{text}", self.name)).collect()
            }
            false => Vec::new(),
        }
    }

    /// Whether its value is the path of a directory, or several.
    pub fn takes_directories(&self) -> bool {
        matches!(self.value, Value::Path(_) | Value::Layers(_))
    }

    pub(super) fn apply(&self, draft: &mut Draft, text: Option<&[u8]>) -> Result<(), OptionError> {
        self.value.apply(self.name, text, draft)
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix.as_bytes()),
            None => name == self.name.as_bytes(),
        }
    }
}

/// A part of the table with its heading.
pub struct Group {
    /// What its options are about.
    pub title: &'static str,
    /// Its rows, in the order of documentation.
    pub options: &'static [OptionSpec],
}

/// Every option, by group.
pub const GROUPS: &[Group] = &[
    Group { title: "Layers and semantics", options: UNION_OPTIONS },
    Group { title: "Kernel mount options", options: VFS_OPTIONS },
    Group { title: "FUSE transport", options: FUSE_OPTIONS },
    Group { title: "Options of mount(8) and of other programs", options: IGNORED_OPTIONS },
];

/// Every option.
pub fn all() -> impl Iterator<Item = &'static OptionSpec> {
    GROUPS.iter().flat_map(|group| group.options)
}

/// The row for `name`, preferably one that suits the presence of a value, so that the error of the
/// other says what is wrong.
pub(super) fn find(name: &[u8], has_value: bool) -> Option<&'static OptionSpec> {
    let rows = || all().filter(|spec| spec.matches(name));
    rows().find(|spec| spec.value.suits(has_value)).or_else(|| rows().next())
}

/// Whether the value of the option called `name` may be quoted. Those of unknown options may.
pub(super) fn is_quotable(name: &[u8]) -> bool {
    find(name, true).is_none_or(|spec| spec.value.is_quotable())
}
