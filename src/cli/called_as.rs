//! The names the program is called by.

use std::ffi::OsStr;
use std::path::Path;

/// Whose command line the arguments follow, by the last component of `argv[0]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledAs {
    /// `plyfs`, or a name that means nothing special.
    Plyfs,
    /// `mount.plyfs` or `mount.fuse.plyfs`: mount(8) calls `mount.TYPE SOURCE DIR [-sfnv] [-o
    /// OPTIONS]`.
    MountHelper,
    /// `fuse-overlayfs`.
    FuseOverlayfs,
}

impl CalledAs {
    /// Looks at the first argument of the process.
    pub fn from_argv0(argv0: Option<&OsStr>) -> CalledAs {
        match argv0.and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str) {
            Some("mount.plyfs" | "mount.fuse.plyfs") => CalledAs::MountHelper,
            Some("fuse-overlayfs") => CalledAs::FuseOverlayfs,
            _ => CalledAs::Plyfs,
        }
    }

    /// The name to show in usage lines.
    pub fn name(self) -> &'static str {
        match self {
            CalledAs::Plyfs => "plyfs",
            CalledAs::MountHelper => "mount.plyfs",
            CalledAs::FuseOverlayfs => "fuse-overlayfs",
        }
    }

    /// The filesystem type of mounts made under this name.
    pub fn type_name(self) -> &'static str {
        match self {
            CalledAs::Plyfs | CalledAs::MountHelper => "fuse.plyfs",
            CalledAs::FuseOverlayfs => "fuse.fuse-overlayfs",
        }
    }

    /// The output of `--version`. podman shows the first line, and looks for the name in it.
    pub fn version(self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let alias = match self {
            CalledAs::FuseOverlayfs => format!("fuse-overlayfs: version {version} (plyfs)\n"),
            CalledAs::Plyfs | CalledAs::MountHelper => String::new(),
        };
        format!("{alias}plyfs {version}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_component_of_argv0_decides() {
        let table = [
            ("plyfs", CalledAs::Plyfs),
            ("/usr/bin/plyfs", CalledAs::Plyfs),
            ("fuse-overlayfs/plyfs", CalledAs::Plyfs),
            ("", CalledAs::Plyfs),
            ("/sbin/mount.plyfs", CalledAs::MountHelper),
            ("mount.fuse.plyfs", CalledAs::MountHelper),
            ("./fuse-overlayfs", CalledAs::FuseOverlayfs),
        ];
        for (argv0, called_as) in table {
            assert_eq!(CalledAs::from_argv0(Some(OsStr::new(argv0))), called_as, "{argv0}");
        }
        assert_eq!(CalledAs::from_argv0(None), CalledAs::Plyfs);
    }
}
