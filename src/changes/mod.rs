//! What an upper layer changes of the layers below it.
//!
//! The walk is through the upper layer, in the order of names. What an object is, and what it was, is asked of two
//! unions: that of all layers, and that of the lower ones. So every mark means what it means in a mount, and nothing
//! needs to be mounted. Nothing is written.

mod archive;
mod compare;
mod held;
mod links;
mod list;
mod unnamed;
mod walk;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use archive::write_archive;
pub use list::{Change, list};

use crate::overlay::OpenError;
use crate::sys::Errno;

/// The layers of a union, unmounted or not.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The upper layer.
    pub upper: PathBuf,
    /// The lower layers, top first; `None` if they are not known.
    pub lower: Option<Vec<PathBuf>>,
    /// The work directory, if it is known: changed files of which the upper layer has no name are in its index.
    pub work: Option<PathBuf>,
}

impl Layers {
    /// An upper layer by itself. Its work directory is `work`, or where `plyfs mount --upper` has it: beside it.
    pub fn of(upper: PathBuf, lower: Option<Vec<PathBuf>>, work: Option<PathBuf>) -> Self {
        let beside = || {
            let mut name = upper.canonicalize().ok()?.into_os_string();
            name.push(".work");
            Some(PathBuf::from(name)).filter(|work| work.is_dir())
        };
        let work = work.or_else(beside);
        Self { upper, lower, work }
    }
}

/// What has become of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was not there before.
    Added,
    /// It is another object, or has other contents or attributes.
    Changed,
    /// It is there no more.
    Deleted,
}

impl Kind {
    /// The letter that docker has for it.
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// Why the changes cannot be told: one line.
#[derive(Debug)]
pub struct Error(io::Error);

/// The result of looking for changes.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `error` of the object at `path`, from the root of the layers.
    fn at(path: &Path, error: impl Into<io::Error>) -> Self {
        let (shown, error) = (path.display(), error.into());
        Self(io::Error::other(match Errno::from_io_error(&error) {
            Some(Errno::XDEV) => format!("/{shown}: something is mounted here; unmount it"),
            Some(Errno::NOENT | Errno::STALE) => format!("/{shown}: it changes while it is read"),
            _ => format!("/{shown}: {error}"),
        }))
    }

    /// `error` of the index of a workdir.
    fn of_index(path: &Path, error: Errno) -> Self {
        Self(io::Error::other(format!("workdir: {}: {error}", path.display())))
    }

    /// The archive cannot be written.
    fn output(error: io::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self(io::Error::other(error.to_string()))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        error.0
    }
}
