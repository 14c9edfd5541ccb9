//! The program itself: from the container's first process to what the image has.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, fchdir, setsid, umask};
use rustix::stdio::dup2_stdin;

use super::command::Program;
use super::error::RunError;
use super::ids::Ids;
use super::root::open_inside;
use super::terminal;
use super::user::User;
use crate::sys::confinement;
use crate::sys::process::{Fork, fork, unblock_signals};

/// Where a program gets its input and output.
#[derive(Debug)]
pub enum Standard {
    /// From the caller; the input is empty unless it is interactive.
    OfCaller {
        /// Whether the input is the caller's too.
        is_interactive: bool,
    },
    /// From this terminal.
    Terminal(OwnedFd),
}

/// Starts the program as a child of this process, and returns when it is executed.
///
/// # Errors
/// Why it is not, with the exit status for it.
pub fn start(
    program: &Program,
    user: &User,
    ids: &Ids,
    directory: &OwnedFd,
    standard: &Standard,
) -> Result<Pid, RunError> {
    // Closed when the program is executed; otherwise what is wrong comes first.
    let (verdict, ours) = pipe_with(PipeFlags::CLOEXEC).map_err(RunError::system("pipe"))?;
    match fork().map_err(RunError::system("fork"))? {
        Fork::Child => {
            drop(verdict);
            let error = execute(program, user, ids, directory, standard);
            let text = [&[error.status], error.line.as_bytes()].concat();
            // Without a reader there is nobody to tell.
            exit(if write(&ours, &text).is_ok() { 1 } else { 2 })
        }
        Fork::Parent(child) => {
            drop(ours);
            let mut text = Vec::new();
            File::from(verdict).read_to_end(&mut text).map_err(RunError::system("the program"))?;
            match text.split_first() {
                None => Ok(child),
                Some((status, line)) => {
                    let line = String::from_utf8_lossy(line).into_owned();
                    Err(RunError { status: *status, line })
                }
            }
        }
    }
}

/// In the child; returns only if it fails.
fn execute(
    program: &Program,
    user: &User,
    ids: &Ids,
    directory: &OwnedFd,
    standard: &Standard,
) -> RunError {
    let prepare = || -> Result<(), Errno> {
        match standard {
            Standard::Terminal(inner) => terminal::take_seat(inner)?,
            Standard::OfCaller { is_interactive } => {
                // Nobody's terminal controls it: what is typed there is the caller's.
                setsid()?;
                if !is_interactive {
                    dup2_stdin(open_inside(Path::new("/dev/null"), OFlags::RDONLY)?)?;
                }
            }
        }
        umask(Mode::from_raw_mode(0o022));
        // With the rights of root, as docker does it; no path is looked up again.
        fchdir(directory.as_fd())?;
        user.assume(ids)?;
        unblock_signals()?;
        confinement::close_on_exec()
    };
    match prepare() {
        Ok(()) => run(program, user),
        Err(error) => RunError::system("the program's process")(error),
    }
}

/// Executes the first that is found, as execvp(3) looks for it but by the PATH of the container.
fn run(program: &Program, user: &User) -> RunError {
    let name = &program.words[0];
    let path = program.variable("PATH").unwrap_or_default();
    let shown = name.to_string_lossy();
    let mut found: Option<io::Error> = None;
    for candidate in candidates(name, path) {
        let error = replace(&candidate, program, user);
        match Errno::from_io_error(&error) {
            // A directory of PATH that is none, or closed to the user, is passed over.
            Some(Errno::NOENT | Errno::NOTDIR) => {}
            _ => {
                found.get_or_insert(error);
            }
        }
    }
    match found {
        Some(error) => RunError::not_executable(format!("{shown}: {error}")),
        None if name.as_bytes().contains(&b'/') => {
            RunError::not_found(format!("{shown}: no such program in the container"))
        }
        None => RunError::not_found(format!("{shown}: not found in the container's PATH")),
    }
}

/// Takes the place of this process; returns only if that fails.
fn replace(path: &Path, program: &Program, user: &User) -> io::Error {
    let mut command = Command::new(path);
    command.arg0(&program.words[0]).args(&program.words[1..]).env_clear();
    command.envs(program.environment.iter().map(|(name, value)| (name, value)));
    if program.variable("HOME").is_none() {
        command.env("HOME", &user.home);
    }
    command.exec()
}

fn candidates(name: &OsStr, path: &OsStr) -> Vec<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return vec![name.into()];
    }
    let directories = path.as_bytes().split(|byte| *byte == b':');
    let in_directory = |directory: &[u8]| {
        // An empty entry is the working directory; a name without a slash would be looked up once more.
        let directory = if directory.is_empty() { &b"."[..] } else { directory };
        let joined: OsString = OsStr::from_bytes(directory).to_owned();
        PathBuf::from(joined).join(name)
    };
    directories.map(in_directory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_every_directory() {
        let found = |name: &str, path: &str| candidates(OsStr::new(name), OsStr::new(path));
        assert_eq!(
            found("sh", "/bin::/usr/bin"),
            ["/bin/sh", "./sh", "/usr/bin/sh"].map(PathBuf::from)
        );
        assert_eq!(found("./sh", "/bin"), [PathBuf::from("./sh")]);
    }
}
