//! Volumes: files and directories of the host in a container, `SRC:DST[:ro]`.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};
use rustix::mount::MountAttrFlags;

use super::error::RunError;
use super::root::Root;
use crate::sys::mount_tree;

/// What is to be mounted where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// A path of the host.
    pub source: PathBuf,
    /// An absolute path of the container.
    pub target: PathBuf,
    /// Whether nothing can be changed through it, nor through what is mounted below.
    pub read_only: bool,
}

/// A volume whose source has been found.
#[derive(Debug)]
pub struct Opened<'v> {
    volume: &'v Volume,
    mount: OwnedFd,
}

impl Volume {
    /// Reads `SRC:DST[:OPTION[,OPTION]]` with the options `ro` and `rw`.
    ///
    /// # Errors
    /// What is wrong about it.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        let refused = |why: &str| format!("option --volume: `{}`: {why}", text.to_string_lossy());
        let parts: Vec<&[u8]> = text.as_bytes().split(|byte| *byte == b':').collect();
        let (source, target, options) = match parts[..] {
            [source, target] => (source, target, &b""[..]),
            [source, target, options] => (source, target, options),
            _ => return Err(refused("write SRC:DST or SRC:DST:ro")),
        };
        if !source.contains(&b'/') && source != b"." && source != b".." {
            return Err(refused("volumes have no names here; give a path, such as ./NAME"));
        }
        if !target.starts_with(b"/") || Path::new(OsStr::from_bytes(target)) == Path::new("/") {
            return Err(refused("the place in the container is an absolute path, not the root"));
        }
        let mut read_only = false;
        for option in options.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
            match option {
                b"ro" => read_only = true,
                b"rw" => read_only = false,
                _ => return Err(refused("the options are ro and rw")),
            }
        }
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        Ok(Self { source: path(source), target: path(target), read_only })
    }

    /// Finds the source, as the caller sees it.
    ///
    /// # Errors
    /// When it does not exist, or may not be used.
    pub fn open(&self) -> Result<Opened<'_>, RunError> {
        let open = || {
            let mount = mount_tree::copy(&self.source)?;
            if self.read_only {
                mount_tree::restrict(mount.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, true)?;
            }
            Ok(mount)
        };
        let mount = open().map_err(|error: rustix::io::Errno| {
            let (source, reason) = (self.source.display(), std::io::Error::from(error));
            RunError::failed(format!("option --volume: {source}: {reason}"))
        })?;
        Ok(Opened { volume: self, mount })
    }
}

impl Opened<'_> {
    /// Puts it in its place, which is made if it is missing.
    ///
    /// # Errors
    /// When the place is of another kind.
    pub fn attach(&self, root: &Root) -> Result<(), RunError> {
        let target = &self.volume.target;
        let kind = fstat(&self.mount).map_err(RunError::system(self.volume.source.display()))?;
        let place = match FileType::from_raw_mode(kind.st_mode) {
            FileType::Directory => root.directory(target)?,
            _ => root.file(target)?,
        };
        root.attach(&self.mount, &place, target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_paths_of_both_sides() {
        let parse = |text: &str| Volume::parse(OsStr::new(text));
        let volume = parse("/a:/b:ro").unwrap();
        assert_eq!((volume.source.as_path(), volume.read_only), (Path::new("/a"), true));
        assert!(!parse("./a:/b:rw").unwrap().read_only);
        assert!(!parse(".:/b").unwrap().read_only);
        for wrong in ["a:/b", "/a", "/a:b", "/a:/", "/a:/b:z", "/a:/b:ro:x", ":/b", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
