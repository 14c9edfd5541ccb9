//! The process between the caller and the container: it has the namespaces made and the root mounted, and takes away what is
//! left when the container has ended. It stays outside of the container's process namespace, and so does the daemon that
//! serves the mount, which is its child.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::exit;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::{Errno, retry_on_intr};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{
    Pid, Signal, WaitOptions, getppid, set_parent_process_death_signal, setsid, wait,
};
use rustix::thread::{Gid, Uid, UnshareFlags, set_thread_res_gid, set_thread_res_uid};

use super::error::RunError;
use super::host_files::HostFiles;
use super::ids::Ids;
use super::init::{self, Init};
use super::report::Reporter;
use super::volume::{Opened, Volume};
use super::{Request, RootSource, supervise};
use crate::container::{Container, Prepared};
use crate::sys::process::{Fork, Signals, fork};
use crate::sys::{confinement, mount_tree, open};

/// How long the daemon may take to write what the container has left in caches, when it has been unmounted.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lives the life of the process; its exit status is that of the container.
pub fn live(
    request: &Request,
    source: RootSource,
    ids: &Ids,
    caller: Pid,
    mut reporter: Reporter,
    signals: &Signals,
) -> u8 {
    match keep(request, source, ids, caller, &mut reporter, signals) {
        Ok(status) => status,
        Err(error) => {
            // Nobody else is left to hear of it.
            drop(reporter.failed(&error));
            error.status
        }
    }
}

fn keep(
    request: &Request,
    source: RootSource,
    ids: &Ids,
    caller: Pid,
    reporter: &mut Reporter,
    signals: &Signals,
) -> Result<u8, RunError> {
    let own = RunError::system::<Errno>;
    // Signals of the terminal go to the caller alone, who passes them on.
    setsid().map_err(own("setsid"))?;
    let volumes = match open_volumes(request, ids, caller, reporter) {
        Ok(volumes) => volumes,
        Err(error) => {
            if let RootSource::Container(prepared) = source {
                prepared.abandon();
            }
            return Err(error);
        }
    };
    let files = mount_root(request, source)?;
    let others = UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    confinement::unshare(others).map_err(own("namespaces"))?;
    let reporter = reporter.try_clone()?;
    let first = match fork().map_err(own("fork"))? {
        Fork::Child => {
            let init = Init { request, ids, files: &files, volumes, reporter, signals };
            exit(init::live(init).into())
        }
        Fork::Parent(first) => first,
    };
    drop((volumes, reporter));
    let status = supervise::wait_for(first, signals)?;
    take_away(&files, signals)?;
    Ok(status)
}

/// Up to what cannot be taken back: in the namespaces, with the sources of the volumes, in the order of their places.
fn open_volumes<'r>(
    request: &'r Request,
    ids: &Ids,
    caller: Pid,
    reporter: &mut Reporter,
) -> Result<Vec<Opened<'r>>, RunError> {
    let own = RunError::system::<Errno>;
    enter_namespaces(ids, reporter)?;
    // After the ids have changed, which forgets it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(own("prctl"))?;
    if getppid() != Some(caller) {
        return Err(RunError::failed("the caller is gone"));
    }
    // What the host unmounts goes here too; what is mounted here stays here.
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).map_err(own("private mounts"))?;
    let mut volumes: Vec<_> = request.volumes.iter().collect();
    // What lies in another volume comes after it.
    volumes.sort_by_key(|volume| volume.target.components().count());
    volumes.into_iter().map(Volume::open).collect()
}

fn enter_namespaces(ids: &Ids, reporter: &mut Reporter) -> Result<(), RunError> {
    let own = RunError::system::<Errno>;
    if !ids.in_namespace() {
        return confinement::unshare(UnshareFlags::NEWNS).map_err(own("a mount namespace"));
    }
    let namespaces = UnshareFlags::NEWUSER | UnshareFlags::NEWNS;
    confinement::unshare(namespaces).map_err(no_user_namespace)?;
    reporter.await_maps()?;
    let become_root = || {
        let (uid, gid) = (Uid::ROOT, Gid::ROOT);
        set_thread_res_gid(Some(gid), Some(gid), Some(gid))?;
        if ids.groups_can_be_set() {
            rustix::thread::set_thread_groups(&[])?;
        }
        set_thread_res_uid(Some(uid), Some(uid), Some(uid))
    };
    become_root().map_err(own("the ids of the container"))
}

fn no_user_namespace(error: Errno) -> RunError {
    let advice = match error {
        Errno::PERM | Errno::ACCESS => "; ordinary users may have none here",
        Errno::NOSPC | Errno::USERS => "; see /proc/sys/user/max_user_namespaces",
        _ => "",
    };
    let reason = std::io::Error::from(error);
    RunError::failed(format!("a user namespace cannot be made: {reason}{advice}"))
}

/// Mounts what the container is to have as its root.
fn mount_root(request: &Request, source: RootSource) -> Result<HostFiles, RunError> {
    match source {
        RootSource::Directory(directory) => mount_directory(request, &directory),
        RootSource::Container(prepared) => mount_container(request, *prepared),
    }
}

fn mount_directory(request: &Request, directory: &Path) -> Result<HostFiles, RunError> {
    let refused = || RunError::system(directory.display().to_string());
    // Before something is mounted on it.
    let tree: OwnedFd = mount_tree::copy(directory).map_err(refused())?;
    let files = HostFiles::make(directory, &request.hostname)?;
    let place = open::directory(&files.root()).map_err(refused())?;
    mount_tree::attach(tree.as_fd(), place.as_fd()).map_err(refused())?;
    Ok(files)
}

/// In a directory of the container's, which only this namespace sees filled.
fn mount_container(request: &Request, mut prepared: Prepared) -> Result<HostFiles, RunError> {
    let Some(place) = prepared.container().map(Container::mountpoint) else {
        prepared.abandon();
        return Err(RunError::failed("there is no container"));
    };
    let mut mount = || {
        match rustix::fs::mkdir(&place, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(RunError::system(place.display())(error)),
        }
        let files = HostFiles::make(&place, &request.hostname)?;
        prepared.in_namespace(files.root(), files.places());
        prepared.serve().map_err(|error| RunError::failed(error.to_string()))?;
        Ok(files)
    };
    mount().inspect_err(|_error| {
        // A directory on which something is mounted cannot be removed.
        match unmount(&place, UnmountFlags::DETACH) {
            // Nothing has been.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => log::warn!("{}: {error}", place.display()),
        }
        prepared.abandon();
    })
}

/// Takes the root away, and waits for the daemon, so that all is stored when this process ends.
fn take_away(files: &HostFiles, signals: &Signals) -> Result<(), RunError> {
    match unmount(files.root(), UnmountFlags::DETACH) {
        // The daemon has done so.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(RunError::system("unmounting the container")(error)),
    }
    let timeout = Timespec::try_from(PATIENCE).map_err(|_range| RunError::failed("time"))?;
    loop {
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return Ok(()),
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(error) => return Err(RunError::system("waiting for the daemon")(error)),
        }
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut fds, Some(&timeout))).is_ok_and(|ready| ready == 0) {
            log::warn!("the container's mount is still in use; it ends when its users do");
            return Ok(());
        }
        signals.take().map_err(RunError::system("waiting for the daemon"))?;
    }
}
