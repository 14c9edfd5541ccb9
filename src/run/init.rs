//! The first process of a container, number 1 in it: makes the root directory what it is to be, starts the program as
//! number 2, passes signals on, and reaps whom others leave.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{
    DumpableBehavior, Pid, Signal, chdir, fchdir, pivot_root, set_dumpable_behavior,
    set_parent_process_death_signal, umask,
};
use rustix::system::sethostname;
use rustix::thread::UnshareFlags;

use super::error::RunError;
use super::host_files::HostFiles;
use super::ids::Ids;
use super::process::{self, Standard};
use super::report::Reporter;
use super::root::{Root, in_container, open_inside};
use super::terminal::Terminal;
use super::volume::Opened;
use super::{Request, capabilities, devices, kernel_files, supervise, user};
use crate::sys::process::Signals;
use crate::sys::{confinement, mount_tree};

/// What the first process is given.
pub struct Init<'r> {
    /// What the caller wants.
    pub request: &'r Request,
    /// The ids that there are.
    pub ids: &'r Ids,
    /// What the root is mounted on.
    pub files: &'r HostFiles,
    /// In the order in which they are put in place.
    pub volumes: Vec<Opened<'r>>,
    /// Who wants to know.
    pub reporter: Reporter,
    /// Blocked, for [`supervise::wait_for`].
    pub signals: &'r Signals,
}

/// Lives the life of the first process; its exit status.
pub fn live(mut init: Init<'_>) -> u8 {
    let started = init.start();
    let told = match &started {
        Ok(_) => init.reporter.running(),
        Err(error) => init.reporter.failed(error),
    };
    let Init { signals, reporter, .. } = init;
    drop(reporter);
    match (started, told) {
        (Ok((program, _terminal)), Ok(())) => {
            supervise::wait_for(program, signals).unwrap_or_else(|error| error.status)
        }
        // Whoever should be told is gone, and so is the container: when number 1 ends, all do.
        (Ok(_), Err(error)) | (Err(error), _) => error.status,
    }
}

impl Init<'_> {
    /// Everything up to a running program. The terminal stays open here, so that it is there as long as the container.
    fn start(&mut self) -> Result<(Pid, Standard), RunError> {
        let request = self.request;
        let own = RunError::system::<Errno>;
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(own("prctl"))?;
        // What this process runs is a file of the host's, and its environment the caller's: not for the container's eyes.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(own("prctl"))?;
        umask(Mode::empty());
        confinement::unshare(UnshareFlags::NEWNS).map_err(own("a mount namespace"))?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).map_err(own("private mounts"))?;
        sethostname(request.hostname.as_bytes()).map_err(own("the name of the machine"))?;

        let root = Root::open(&self.files.root())?;
        let terminals = devices::attach(&root, self.ids)?;
        kernel_files::attach(&root)?;
        self.files.attach(&root)?;
        for volume in &self.volumes {
            volume.attach(&root)?;
        }
        let terminal = match request.terminal {
            true => Some(Terminal::make(&terminals).map_err(own("the terminal"))?),
            false => None,
        };
        if let Some(terminal) = &terminal {
            devices::attach_console(&root, &terminal.inner)?;
        }
        enter(&root).map_err(own("the root directory"))?;
        let user = user::find(&request.program.user, self.ids)?;
        let directory = working_directory(&root, Path::new(&request.program.working_directory))?;
        // Devices that the image has, or that came through a layer, are not to be used: no control group would stop it.
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, request.read_only);
        mount_tree::restrict(root.as_fd(), attributes, false).map_err(own("the root directory"))?;
        let standard = match terminal {
            Some(Terminal { outer, inner }) => {
                give(&inner, &user).map_err(own("the terminal"))?;
                self.reporter.give_terminal(&outer)?;
                Standard::Terminal(inner)
            }
            None => Standard::OfCaller { is_interactive: request.interactive },
        };
        confinement::leave_session_keyring().map_err(own("the session keyring"))?;
        capabilities::give_up().map_err(own("giving capabilities up"))?;
        let program = process::start(&request.program, &user, self.ids, &directory, &standard)?;
        Ok((program, standard))
    }
}

/// Makes the root that of this process, and leaves nothing of the former one in the namespace.
fn enter(root: &Root) -> Result<(), Errno> {
    fchdir(root.as_fd())?;
    // The former root ends up on top of the new one, from where it is taken (pivot_root(2)).
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

/// Found once, made if it is missing.
fn working_directory(root: &Root, path: &Path) -> Result<OwnedFd, RunError> {
    let absolute = Path::new("/").join(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_inside(&absolute, flags) {
        Err(Errno::NOENT) => root.directory(&absolute),
        found => found.map_err(in_container(&absolute)),
    }
}

/// The terminal belongs to who works at it.
fn give(inner: &OwnedFd, user: &user::User) -> Result<(), Errno> {
    rustix::fs::fchown(inner.as_fd(), Some(rustix::fs::Uid::from_raw(user.uid)), None)
}
