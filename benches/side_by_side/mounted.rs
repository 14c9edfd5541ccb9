//! One mounted union: coming, going, and what its daemon uses.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::Outcome;
use super::contestant::{Contestant, Kind};
use super::results::Mode;
use super::row::Extra;
use super::tree::Tree;
use super::watchdog::Watchdog;

/// How long a daemon may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(120);

/// A contestant that shows a tree; on drop it is unmounted and what it wrote is removed.
#[derive(Debug)]
pub struct Union {
    root: PathBuf,
    place: PathBuf,
    mounted: bool,
    daemon: Option<Child>,
}

impl Union {
    /// Mounts `tree` with an empty upper layer below the new directory `place`.
    pub fn mount(
        contestant: &Contestant,
        tree: &Tree,
        place: &Path,
        extra: &Extra,
        mode: Mode,
    ) -> Outcome<Self> {
        for name in ["upper", "work", "root"] {
            fs::create_dir_all(place.join(name))?;
        }
        let mut union = Self {
            root: place.join("root"),
            place: place.to_owned(),
            mounted: false,
            daemon: None,
        };
        let mut options = format!(
            "lowerdir={},upperdir={},workdir={}",
            tree.lowerdir(),
            place.join("upper").display(),
            place.join("work").display()
        );
        match &contestant.kind {
            Kind::Bare => {}
            Kind::Kernel => {
                add(&mut options, if mode == Mode::Rootless { "userxattr" } else { "" });
                add(&mut options, extra.kernel);
                union.mount_kernel(&options, tree)?;
            }
            Kind::Plyfs(program, own) => {
                add(&mut options, own);
                add(&mut options, extra.plyfs);
                union.start(Command::new(program), &options, tree)?;
            }
            Kind::Peer(program) => {
                add(&mut options, extra.peer.unwrap_or_default());
                union.start(Command::new(program), &options, tree)?;
            }
        }
        Ok(union)
    }

    /// The bare copy of `tree`, which is not to be changed.
    pub fn shared_bare(tree: &Tree, place: &Path) -> Self {
        Self { root: tree.bare(), place: place.to_owned(), mounted: false, daemon: None }
    }

    /// Where the tree is seen.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The daemon's process.
    pub fn daemon(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Unmounts, waits until the daemon has ended, and says how long that took.
    pub fn unmount(&mut self) -> Outcome<Duration> {
        let start = Instant::now();
        if std::mem::take(&mut self.mounted) {
            unmount(&self.root, UnmountFlags::NOFOLLOW)
                .map_err(|error| format!("umount {}: {error}", self.root.display()))?;
        }
        if let Some(mut daemon) = self.daemon.take() {
            let killer = Watchdog::start(daemon.id());
            daemon.wait()?;
            killer.stop()?;
        }
        Ok(start.elapsed())
    }

    // The paths of the layers start at the directory in which they are: a mount has room for 4 KiB of options.
    fn mount_kernel(&mut self, options: &str, tree: &Tree) -> Outcome<()> {
        std::env::set_current_dir(tree.layers())?;
        let data = std::ffi::CString::new(options)?;
        mount("overlay", &self.root, "overlay", MountFlags::empty(), data.as_c_str())
            .map_err(|error| format!("kernel overlayfs: {error}"))?;
        self.mounted = true;
        Ok(())
    }

    fn start(&mut self, mut command: Command, options: &str, tree: &Tree) -> Outcome<()> {
        let log = self.place.join("log");
        let output = File::create(&log)?;
        let table = File::open("/proc/self/mountinfo")?;
        let device = fs::metadata(&self.root)?.dev();
        command.args(["-f", "-o", options]).arg(&self.root).current_dir(tree.layers());
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let daemon = self.daemon.insert(command.spawn()?);
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&self.root)?.dev() == device {
            if daemon.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(format!("not mounted: {}", fs::read_to_string(log)?.trim()).into());
            }
            // The table tells of every change since it was opened; the time-out is for a daemon that ends instead.
            let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            poll(&mut [PollFd::new(&table, PollFlags::PRI)], Some(&wait))?;
        }
        self.mounted = true;
        Ok(())
    }
}

fn add(options: &mut String, more: &str) {
    if !more.is_empty() {
        *options += ",";
        *options += more;
    }
}

impl Drop for Union {
    fn drop(&mut self) {
        if self.mounted {
            unmount(&self.root, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok();
        }
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().and_then(|()| daemon.wait()).ok();
        }
        if let Err(error) = fs::remove_dir_all(&self.place)
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("bench: {} stays behind: {error}", self.place.display());
        }
    }
}
