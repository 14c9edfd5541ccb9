//! The root directory of a container, before it is anybody's root: places in it are found as the container would find
//! them, and nothing that is in it leads out (openat2(2), `RESOLVE_IN_ROOT`).

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat2};
use rustix::io::Errno;

use super::error::RunError;
use crate::sys::mount_tree;

/// The root directory, which is a mount.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// The root of what is mounted at `path`.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).map(Self).map_err(RunError::system(path.display()))
    }

    /// The directory `name` of the root, made if it is missing.
    ///
    /// # Errors
    /// If it is something else, also a symbolic link: what is mounted here must not be led elsewhere by an image.
    pub fn own_directory(&self, name: &str) -> Result<OwnedFd, RunError> {
        self.make(self.0.as_fd(), OsStr::new(name)).map_err(in_container(Path::new(name)))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let found = resolve(self.0.as_fd(), Path::new(name), flags, ResolveFlags::NO_SYMLINKS);
        found.map_err(in_container(Path::new(name)))
    }

    /// What `path` leads to, if there is something.
    ///
    /// # Errors
    /// Those of openat2(2) but for `ENOENT`.
    pub fn find(&self, path: &Path) -> Result<Option<OwnedFd>, RunError> {
        match resolve(self.0.as_fd(), path, OFlags::PATH, ResolveFlags::empty()) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(in_container(path)(error)),
        }
    }

    /// The directory at `path`, made with its parents where they are missing.
    ///
    /// # Errors
    /// Those of openat2(2) and mkdirat(2).
    pub fn directory(&self, path: &Path) -> Result<OwnedFd, RunError> {
        self.make_directories(path).map_err(in_container(path))
    }

    /// The file at `path`, made empty with its parents where they are missing; not a directory.
    ///
    /// # Errors
    /// Those of openat2(2) and mkdirat(2).
    pub fn file(&self, path: &Path) -> Result<OwnedFd, RunError> {
        let find = || -> Result<OwnedFd, Errno> {
            let path = normal(path);
            let root = self.0.as_fd();
            match resolve(root, &path, OFlags::PATH, ResolveFlags::empty()) {
                Err(Errno::NOENT) => {}
                found => return found,
            }
            self.make_directories(path.parent().unwrap_or(Path::new("")))?;
            // Through a link that leads nowhere the file is made where it leads.
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            resolve(root, &path, flags, ResolveFlags::empty())?;
            resolve(root, &path, OFlags::PATH, ResolveFlags::empty())
        };
        let found = find().map_err(in_container(path))?;
        let attributes = fstat(&found).map_err(in_container(path))?;
        match FileType::from_raw_mode(attributes.st_mode) {
            FileType::Directory => Err(in_container(path)(Errno::ISDIR)),
            _ => Ok(found),
        }
    }

    /// Attaches a mount at a place that was found in this root.
    ///
    /// # Errors
    /// Those of move_mount(2).
    pub fn attach(&self, mount: &OwnedFd, place: &OwnedFd, called: &Path) -> Result<(), RunError> {
        mount_tree::attach(mount.as_fd(), place.as_fd()).map_err(in_container(called))
    }

    /// The mount that the root is.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn make_directories(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let root = self.0.as_fd();
        let mut at = resolve(root, Path::new(""), OFlags::PATH, ResolveFlags::empty())?;
        let mut so_far = PathBuf::new();
        for name in &normal(path) {
            so_far.push(name);
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            at = match resolve(root, &so_far, flags, ResolveFlags::empty()) {
                Err(Errno::NOENT) => {
                    self.make(at.as_fd(), name)?;
                    resolve(root, &so_far, flags, ResolveFlags::empty())?
                }
                found => found?,
            };
        }
        Ok(at)
    }

    fn make(&self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Opens a path of the container's after its root has become ours, through no link that a process gives (`/proc/1/root`).
///
/// # Errors
/// Those of openat2(2).
pub fn open_inside(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    again(|| openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS))
}

fn resolve(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    let mode = if flags.contains(OFlags::CREATE) { 0o644 } else { 0 };
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    again(|| openat2(root, path, flags, Mode::from_raw_mode(mode), how))
}

/// A rename or mount elsewhere on the system may race with the walk (openat2(2)).
fn again(mut open: impl FnMut() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    loop {
        match open() {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
}

/// The path without `.` and `..`, from the root on.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

/// For `map_err`: what the path is that the system refused, as the container knows it.
pub fn in_container(path: &Path) -> impl FnOnce(Errno) -> RunError {
    let path = Path::new("/").join(path.strip_prefix("/").unwrap_or(path));
    move |error| {
        let reason = match error {
            Errno::LOOP => "a symbolic link of the image stands in the way".to_owned(),
            error => std::io::Error::from(error).to_string(),
        };
        let path = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
        RunError::failed(format!("{path} in the container: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        (dir, root)
    }

    #[test]
    fn what_is_made_stays_in_the_root() {
        let (dir, root) = root();
        let inside = dir.path().join("root");
        symlink("/../../..", inside.join("up")).unwrap();
        symlink(dir.path().join("outside"), inside.join("out")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        root.directory(Path::new("/up/a/../b/c")).unwrap();
        assert!(inside.join("b/c").is_dir());
        root.file(Path::new("up/b/../../../file")).unwrap();
        assert!(inside.join("file").is_file());
        let through = root.directory(Path::new("/out/below")).unwrap_err().to_string();
        assert!(through.starts_with("/out/below in the container: "), "{through}");
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_where_the_file_is_made() {
        let (dir, root) = root();
        let inside = dir.path().join("root");
        fs::create_dir(inside.join("run")).unwrap();
        symlink("/run/resolv.conf", inside.join("link")).unwrap();
        root.file(Path::new("/link")).unwrap();
        assert!(inside.join("run/resolv.conf").is_file());
        let directory = root.file(Path::new("/run")).unwrap_err().to_string();
        assert_eq!(directory, "/run in the container: Is a directory (os error 21)");
    }

    #[test]
    fn a_place_of_our_own_is_no_link() {
        let (dir, root) = root();
        symlink("etc", dir.path().join("root/proc")).unwrap();
        fs::create_dir(dir.path().join("root/etc")).unwrap();
        let line = root.own_directory("proc").unwrap_err().to_string();
        assert_eq!(line, "/proc in the container: a symbolic link of the image stands in the way");
        root.own_directory("sys").unwrap();
    }
}
