//! What a container has of its host and what no commit is to have of it: /etc/hosts, /etc/hostname and /etc/resolv.conf, and
//! the places at which things are mounted. All of it is in a filesystem in memory that goes with the container.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, mkdirat, symlinkat};
use rustix::mount::MountAttrFlags;

use super::error::RunError;
use super::root::{Root, in_container};
use crate::sys::{mount_tree, open};

/// The files, by their names in /etc.
const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// The filesystem in memory, mounted at a place of this namespace.
#[derive(Debug)]
pub struct HostFiles {
    place: PathBuf,
    filesystem: OwnedFd,
}

impl HostFiles {
    /// Makes them, on the directory `place`.
    ///
    /// # Errors
    /// When there is no memory, or nothing can be mounted.
    pub fn make(place: &Path, hostname: &str) -> Result<Self, RunError> {
        let make = || -> io::Result<OwnedFd> {
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            let options = [("mode", "0755"), ("size", "16m")];
            let filesystem = mount_tree::fresh("tmpfs", &options, attributes)?;
            mount_tree::attach(filesystem.as_fd(), open::directory(place)?.as_fd())?;
            for name in ["root", "files", "places"] {
                directory(&filesystem, name)?;
            }
            Ok(filesystem)
        };
        let filesystem = make().map_err(RunError::system(place.display()))?;
        let files = Self { place: place.to_owned(), filesystem };
        files.write(hostname).map_err(RunError::system("the files of the host"))?;
        files.lay_out().map_err(RunError::system("places for mounts"))?;
        Ok(files)
    }

    /// Where the root directory of the container is to be mounted.
    pub fn root(&self) -> PathBuf {
        self.place.join("root")
    }

    /// A layer with nothing but places to mount at, which lies below all others, so that images decide what is theirs.
    pub fn places(&self) -> PathBuf {
        self.place.join("places")
    }

    /// Puts the files where programs look for them.
    ///
    /// # Errors
    /// When a place is no file.
    pub fn attach(&self, root: &Root) -> Result<(), RunError> {
        for name in FILES {
            let path = Path::new("etc").join(name);
            // By its path: this may be another mount namespace than that in which the filesystem was opened.
            let copy = mount_tree::copy(&self.place.join("files").join(name));
            let place = match root.file(&path) {
                Ok(place) => place,
                // A link to a place that does not exist in this image, or a directory: then it has none.
                Err(error) => {
                    log::warn!("{error}; it is left out");
                    continue;
                }
            };
            root.attach(&copy.map_err(in_container(&path))?, &place, &path)?;
        }
        Ok(())
    }

    fn write(&self, hostname: &str) -> io::Result<()> {
        // Where there is nothing to be read the container gets an empty file.
        let of_host = |path: &str| fs::read(path).unwrap_or_default();
        let mut hosts = of_host("/etc/hosts");
        if !hosts.is_empty() && !hosts.ends_with(b"\n") {
            hosts.push(b'\n');
        }
        hosts.extend(format!("127.0.1.1 {hostname}\n").into_bytes());
        let texts = [hosts, format!("{hostname}\n").into_bytes(), of_host("/etc/resolv.conf")];
        for (name, text) in FILES.iter().zip(texts) {
            fs::File::from(self.create("files", name)?).write_all(&text)?;
        }
        Ok(())
    }

    /// As docker's bottom of every container.
    fn lay_out(&self) -> io::Result<()> {
        for name in ["places/dev", "places/proc", "places/sys", "places/etc"] {
            directory(&self.filesystem, name)?;
        }
        for name in FILES {
            self.create("places/etc", name)?;
        }
        Ok(symlinkat("/proc/mounts", &self.filesystem, "places/etc/mtab")?)
    }

    fn create(&self, directory: &str, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = open::child(self.filesystem.as_fd(), OsStr::new(directory), flags)?;
        Ok(open::create(directory.as_fd(), OsStr::new(name), 0o644)?)
    }
}

fn directory(filesystem: &OwnedFd, name: &str) -> io::Result<()> {
    Ok(mkdirat(filesystem, name, Mode::from_raw_mode(0o755))?)
}
