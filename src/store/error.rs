//! What can go wrong with a store.

use std::fmt;
use std::path::Path;

/// One line that says what is wrong and, where that is not plain, what to do.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something failed, or was refused.
    Failure,
    /// What was named does not exist.
    NotFound,
    /// Something is not what its name says.
    Damaged,
}

/// The result of working on a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Something failed.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failure, message: message.into() }
    }

    /// Something does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { kind: Kind::NotFound, message: message.into() }
    }

    /// Something is not what its name says.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self { kind: Kind::Damaged, message: message.into() }
    }

    /// The same, about `what`.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same, about the file or directory `path`, if it is not named already.
    #[must_use]
    pub fn about_file(self, path: &Path) -> Self {
        let shown = path.display().to_string();
        let is_named = self.message.starts_with(&format!("{shown}: "));
        if is_named { self } else { self.about(&shown) }
    }

    /// What kind of error it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
