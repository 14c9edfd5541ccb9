//! What can go wrong between the command line and a mount that answers.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::fuse::passthrough::Unavailable;

/// Why something is not mounted, or not unmounted: one line that names the path and what to do.
#[derive(Debug)]
pub enum MountError {
    /// The mountpoint cannot be used.
    Mountpoint(PathBuf, io::Error),
    /// The layers do not make a union; the line says which and why.
    Layers(String),
    /// /dev/fuse cannot be opened.
    Device(io::Error),
    /// mount(2) failed, and not for lack of privilege.
    Mount(PathBuf, Errno),
    /// We may not mount, and there is no fusermount3 that may.
    NoFusermount(PathBuf),
    /// fusermount3 said no, with this line.
    Fusermount(PathBuf, String),
    /// The handshake with the kernel failed, or the session broke.
    Session(PathBuf, io::Error),
    /// `io=passthrough` is not possible; this line says why.
    Passthrough(Unavailable),
    /// The mount is there but its root does not answer.
    Silent(PathBuf, Errno),
    /// What the daemon reported before it ended.
    Daemon(String),
    /// The daemon ended before the mount answered and said nothing; how it ended.
    DaemonDied(String),
    /// The process that waited for the mount is gone.
    CallerGone(PathBuf),
    /// The file for log lines cannot be opened.
    LogFile(PathBuf, io::Error),
    /// The system refused something else that was needed.
    System(&'static str, io::Error),
    /// Unmounting, remounting: there is no mount of ours at this path, but what this says.
    NotOurs(PathBuf, String),
    /// Unmounting: the mount is in use.
    Busy(PathBuf),
    /// Unmounting failed.
    Unmount(PathBuf, String),
    /// `supervise`: a layer, or the mountpoint, would not be found again; what lies where.
    Unfindable(PathBuf, PathBuf),
    /// `supervise`: this layer is not what it was when the mount was made.
    LayerReplaced(PathBuf),
    /// `supervise`: one daemon after the other has died.
    GivenUp(PathBuf),
    /// `supervise`: this program cannot go on for the mount; why.
    Successor(PathBuf, String),
    /// What another program handed over is not understood; why.
    Handover(String),
    /// The former program goes on for the mount at this path; why.
    NotUpgraded(PathBuf, String),
    /// mount(2) refused the new flags.
    Remount(PathBuf, Errno),
}

impl MountError {
    /// What is on top at `path`: a mount of another type, or none.
    pub(super) fn not_ours(path: &Path, fs_type: Option<String>) -> Self {
        let found = match fs_type {
            Some(name) => format!("mounted as {name}, not by plyfs"),
            None => "not mounted".into(),
        };
        Self::NotOurs(path.to_owned(), found)
    }

    /// What was mounted at `path` cannot be found.
    pub(super) fn out_of_reach(path: &Path) -> Self {
        let why = "the mount is covered by another one, or in another mount namespace";
        Self::NotOurs(path.to_owned(), why.into())
    }

    /// The session at `path` failed with `error`.
    pub(super) fn session(path: &Path, error: io::Error) -> Self {
        match error.downcast::<Unavailable>() {
            Ok(why) => Self::Passthrough(why),
            Err(error) => Self::Session(path.to_owned(), error),
        }
    }

    /// For `map_err`: the system refused `what`.
    pub(super) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::System(what, error.into())
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mountpoint(path, error) => mountpoint_problem(f, path, error),
            Self::Layers(line) | Self::Daemon(line) => f.write_str(line),
            Self::Device(error) => device_problem(f, error),
            Self::Mount(path, error) => {
                write!(f, "{}: cannot mount: {}", path.display(), text(*error))?;
                f.write_str(match *error {
                    Errno::NODEV => " (the kernel has no FUSE; try: modprobe fuse)",
                    Errno::NOSPC => " (too many mounts; see /proc/sys/fs/mount-max)",
                    _ => "",
                })
            }
            Self::NoFusermount(path) => write!(
                f,
                "{}: not permitted to mount here, and there is no fusermount3: install fuse3, be \
                 root, or use a user namespace (unshare -rm)",
                path.display()
            ),
            Self::Fusermount(path, line) => write!(f, "{}: {line}", path.display()),
            Self::Session(path, error) => {
                write!(f, "{}: the FUSE session failed: {error}", path.display())
            }
            Self::Passthrough(why) => write!(f, "{why}"),
            Self::Silent(path, error) => {
                write!(f, "{}: mounted, but its root gives: {}", path.display(), text(*error))
            }
            Self::DaemonDied(how) => {
                write!(f, "the daemon ended before the mount was ready: {how}")
            }
            Self::CallerGone(path) => write!(
                f,
                "{}: unmounted, as the process that waited for it is gone",
                path.display()
            ),
            Self::LogFile(path, error) => write!(f, "PLYFS_LOG_FILE={}: {error}", path.display()),
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::NotOurs(path, found) => write!(f, "{}: {found}", path.display()),
            Self::Busy(path) => {
                write!(f, "{}: in use; end what uses it, or detach it with --lazy", path.display())
            }
            Self::Unmount(path, problem) => {
                write!(f, "{}: cannot unmount: {problem}", path.display())
            }
            Self::Unfindable(layer, mountpoint) => write!(
                f,
                "option supervise: the layer {} and the mountpoint {} must not lie in each other",
                layer.display(),
                mountpoint.display()
            ),
            Self::LayerReplaced(path) => {
                write!(f, "{}: no longer the layer that was mounted", path.display())
            }
            Self::GivenUp(path) => {
                write!(f, "{}: no daemon stays alive; unmount it and mount again", path.display())
            }
            Self::Successor(path, why) => {
                write!(f, "{} cannot go on: {why}", path.display())
            }
            Self::Handover(why) => write!(f, "nothing to go on with: {why}"),
            Self::NotUpgraded(path, why) => write!(f, "{}: not upgraded: {why}", path.display()),
            Self::Remount(path, error) => {
                write!(f, "{}: cannot remount: {}", path.display(), text(*error))
            }
        }
    }
}

impl std::error::Error for MountError {}

/// "Permission denied (os error 13)", as the standard library words it.
pub(super) fn text(error: Errno) -> io::Error {
    error.into()
}

fn mountpoint_problem(f: &mut fmt::Formatter<'_>, path: &Path, error: &io::Error) -> fmt::Result {
    write!(f, "mountpoint {}: ", path.display())?;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => f.write_str("does not exist; create the directory first"),
        Some(Errno::NOTDIR) => f.write_str("not a directory"),
        Some(Errno::NOTCONN) => f.write_str(
            "a FUSE mount whose daemon is gone is still there; unmount it first (umount, or \
             fusermount3 -u)",
        ),
        _ => write!(f, "{error}"),
    }
}

fn device_problem(f: &mut fmt::Formatter<'_>, error: &io::Error) -> fmt::Result {
    f.write_str("/dev/fuse: ")?;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => f.write_str(
            "does not exist; load the module (modprobe fuse), or give the container the device \
             (--device /dev/fuse)",
        ),
        Some(Errno::NODEV | Errno::NXIO) => {
            f.write_str("the kernel has no FUSE; load the module (modprobe fuse)")
        }
        Some(Errno::ACCESS | Errno::PERM) => {
            f.write_str("no permission; users need read and write access (chmod 666 /dev/fuse)")
        }
        _ => write!(f, "{error}"),
    }
}
