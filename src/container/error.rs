//! Why an image is not mounted.

use std::fmt;

use crate::mount::MountError;
use crate::store;

/// What is in the way: in the store, or of the mount. Displayed as one line.
#[derive(Debug)]
pub enum Error {
    /// The image or the container.
    Store(store::Error),
    /// The mount.
    Mount(MountError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Mount(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<MountError> for Error {
    fn from(error: MountError) -> Self {
        Self::Mount(error)
    }
}
