//! fusermount3, the set-uid program that mounts for ordinary users: it opens /dev/fuse, mounts, and
//! hands the descriptor over through a socket.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::error::MountError;
use super::spec::MountSpec;
use crate::sys::descriptor_passing;

/// Where it is looked for: in PATH, then where distributions put it, as a service's PATH may be
/// empty. `fusermount` is the same program of FUSE 2.
const PROGRAMS: &[&str] =
    &["fusermount3", "/usr/bin/fusermount3", "/bin/fusermount3", "fusermount"];

/// The descriptor number in which fusermount3 finds its end of the socket.
const COMM_FD_VARIABLE: &str = "_FUSE_COMMFD";

/// Mounts at `mountpoint` (absolute) and returns the FUSE device of the mount.
///
/// # Errors
/// [`MountError::NoFusermount`], or [`MountError::Fusermount`] with the line that it printed.
pub fn mount(mountpoint: &Path, spec: &MountSpec) -> Result<OwnedFd, MountError> {
    for name in spec.beyond_fusermount() {
        log::warn!("{name} has no effect: fusermount3 does not pass it on");
    }
    let options = spec.fusermount_options(spec.allow.is_some() || others_are_allowed());
    let (ours, theirs) = UnixStream::pair().map_err(MountError::system("socketpair"))?;
    let theirs = OwnedFd::from(theirs);
    // The socket is its standard input: that needs no descriptor that crosses exec.
    let start = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-o").arg(&options).arg("--").arg(mountpoint).env(COMM_FD_VARIABLE, "0");
        command.stdin(theirs.try_clone()?).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn()
    };
    let child = first_that_exists(start, mountpoint)?;
    // Without this copy of their end, receiving ends when fusermount3 does.
    drop(theirs);
    let device = descriptor_passing::receive(ours.as_fd());
    let complaint = wait(child, mountpoint)?;
    match (device, complaint) {
        (Ok(Some((_, Some(device)))), None) => Ok(device),
        (_, Some(line)) => Err(MountError::Fusermount(mountpoint.to_owned(), line)),
        (Ok(_), None) => {
            let line = "fusermount3 mounted nothing and gave no reason".to_owned();
            Err(MountError::Fusermount(mountpoint.to_owned(), line))
        }
        (Err(error), None) => Err(MountError::System("receiving from fusermount3", error.into())),
    }
}

/// Unmounts what is mounted at `mountpoint` (absolute); even while in use if `lazy`.
///
/// # Errors
/// [`MountError::Busy`], else as [`mount`].
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = if lazy { "-uz" } else { "-u" };
    let start = |program: &str| {
        let mut command = Command::new(program);
        command.arg(flags).arg("--").arg(mountpoint);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    };
    let child = first_that_exists(start, mountpoint)?;
    match wait(child, mountpoint)? {
        None => Ok(()),
        Some(line) if line.ends_with("Device or resource busy") => {
            Err(MountError::Busy(mountpoint.to_owned()))
        }
        Some(line) => Err(MountError::Fusermount(mountpoint.to_owned(), line)),
    }
}

/// Whether an ordinary user's mount may be opened to others.
fn others_are_allowed() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    // Unreadable or absent is no consent, as fusermount3 itself sees it.
    fs::read_to_string("/etc/fuse.conf").is_ok_and(|text| consents(&text))
}

fn consents(fuse_conf: &str) -> bool {
    fuse_conf.lines().any(|line| line.trim() == "user_allow_other")
}

fn first_that_exists(
    start: impl Fn(&str) -> io::Result<Child>,
    mountpoint: &Path,
) -> Result<Child, MountError> {
    for program in PROGRAMS {
        match start(program) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map_err(MountError::system("starting fusermount3")),
        }
    }
    Err(MountError::NoFusermount(mountpoint.to_owned()))
}

/// Waits for the end of `child`; the last line that it printed unless it succeeded.
fn wait(child: Child, mountpoint: &Path) -> Result<Option<String>, MountError> {
    let output = child.wait_with_output().map_err(MountError::system("waiting for fusermount3"))?;
    let printed = String::from_utf8_lossy(&output.stderr);
    let line = printed.lines().rfind(|line| !line.trim().is_empty());
    if output.status.success() {
        if let Some(line) = line {
            log::warn!("{}: {line}", mountpoint.display());
        }
        return Ok(None);
    }
    let silent = || format!("fusermount3 failed: {}", output.status);
    Ok(Some(line.map_or_else(silent, str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_is_a_line_of_its_own() {
        assert!(consents("# comment\n  user_allow_other \nmount_max = 10\n"));
        assert!(!consents("#user_allow_other\n# user_allow_other\nmount_max = 10\n"));
    }

    #[test]
    fn a_program_that_does_not_exist_is_passed_over() {
        let absent = |_: &str| Err(io::ErrorKind::NotFound.into());
        let error = first_that_exists(absent, Path::new("/m")).unwrap_err();
        assert!(error.to_string().starts_with("/m: not permitted to mount here"));
    }
}
