//! What a caller asks of [`crate::mount`].

use std::ffi::OsString;
use std::path::PathBuf;

use crate::mount::options::Options;

/// One mount to make.
#[derive(Clone, Debug, PartialEq)]
pub struct MountRequest {
    /// The first of two positional arguments, which mount(8) calls the source. It names no file and
    /// is shown in /proc/mounts unless `fsname=` is given.
    pub source: Option<OsString>,
    /// The directory to mount on, as given: it may be relative.
    pub mountpoint: PathBuf,
    /// The mount options.
    pub options: Options,
    /// The texts that they were read from, for another version to read.
    pub given: Vec<OsString>,
    /// The filesystem type by the name the program was called by, `fuse.plyfs` or
    /// `fuse.fuse-overlayfs`, which counts unless `subtype=` is given.
    pub type_name: &'static str,
    /// Serve the mount in this process instead of in the background.
    pub foreground: bool,
    /// In the background: end when the process ends that asked for it.
    pub ends_with_caller: bool,
    /// Log every request.
    pub debug: bool,
}

impl MountRequest {
    /// The type name without its `fuse.`.
    pub fn program(&self) -> &'static str {
        self.type_name.strip_prefix("fuse.").unwrap_or(self.type_name)
    }
}
