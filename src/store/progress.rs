//! What is told about layers while images come and go.

use std::fmt;
use std::io::{self, Read};

use super::Digest;

/// What happens to a layer, in docker's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It will be fetched.
    PullingFsLayer,
    /// It is being fetched, and stored at the same time.
    Downloading,
    /// All of it is here; what is left is to store the rest.
    Extracting,
    /// It has been fetched.
    PullComplete,
    /// It is stored already.
    AlreadyExists,
    /// It is being read from an archive.
    LoadingLayer,
    /// It has been read from an archive.
    LoadComplete,
    /// It will be sent.
    Preparing,
    /// It is being sent.
    Pushing,
    /// It has been sent.
    Pushed,
    /// The registry has it.
    LayerAlreadyExists,
    /// The registry has it in this other repository, and takes it from there.
    MountedFrom(String),
    /// It is being made of a root filesystem.
    Importing,
    /// It has been made.
    ImportComplete,
    /// It is being written to an archive.
    SavingLayer,
    /// It has been written.
    SaveComplete,
}

impl Status {
    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::PullComplete
                | Self::AlreadyExists
                | Self::LoadComplete
                | Self::Pushed
                | Self::LayerAlreadyExists
                | Self::MountedFrom(_)
                | Self::ImportComplete
                | Self::SaveComplete
        )
    }

    /// Whether bytes move.
    pub fn is_moving(&self) -> bool {
        matches!(
            self,
            Self::Downloading
                | Self::LoadingLayer
                | Self::Pushing
                | Self::Importing
                | Self::SavingLayer
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PullingFsLayer => "Pulling fs layer",
            Self::Downloading => "Downloading",
            Self::Extracting => "Extracting",
            Self::PullComplete => "Pull complete",
            Self::AlreadyExists => "Already exists",
            Self::LoadingLayer => "Loading layer",
            Self::LoadComplete => "Load complete",
            Self::Preparing => "Preparing",
            Self::Pushing => "Pushing",
            Self::Pushed => "Pushed",
            Self::LayerAlreadyExists => "Layer already exists",
            Self::MountedFrom(repository) => return write!(f, "Mounted from {repository}"),
            Self::Importing => "Importing",
            Self::ImportComplete => "Import complete",
            Self::SavingLayer => "Saving layer",
            Self::SaveComplete => "Save complete",
        })
    }
}

/// Who is told. Several layers may move at once.
pub trait Progress: Sync {
    /// A layer has come so far: `current` of `total` bytes. It is called by its blob while it is fetched, else by its diff id;
    /// by nothing where that is found out at the end only. Of an unknown `total` 0 is told.
    fn tell(&self, layer: Option<&Digest>, status: &Status, current: u64, total: u64);
}

/// Nobody is told.
pub struct Silent;

impl Progress for Silent {
    fn tell(&self, _: Option<&Digest>, _: &Status, _: u64, _: u64) {}
}

/// Tells how much of a layer has been read.
pub struct Watched<'p, R> {
    source: R,
    progress: &'p dyn Progress,
    layer: Option<Digest>,
    status: Status,
    /// What is told when everything has been read.
    then: Option<Status>,
    current: u64,
    total: u64,
}

impl<'p, R> Watched<'p, R> {
    /// Reads `source`, of `total` bytes, and tells `progress`.
    pub fn new(
        source: R,
        progress: &'p dyn Progress,
        layer: Option<Digest>,
        status: Status,
        total: u64,
    ) -> Self {
        progress.tell(layer.as_ref(), &status, 0, total);
        Self { source, progress, layer, status, then: None, current: 0, total }
    }

    /// Tells this when all of it has been read.
    #[must_use]
    pub fn then(mut self, status: Status) -> Self {
        self.then = Some(status);
        self
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.current += count as u64;
        self.progress.tell(self.layer.as_ref(), &self.status, self.current, self.total);
        if let Some(then) = self.then.take_if(|_| self.current >= self.total) {
            self.progress.tell(self.layer.as_ref(), &then, self.current, self.total);
            self.status = then;
        }
        Ok(count)
    }
}
