//! The three sides: a union mounted by plyfs, one by the kernel, and a plain directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::cases::layer::LayerSpec;
use crate::cases::materialise::materialise;
use crate::cases::op::Redirect;
use crate::setup::Setup;
use crate::support::{self, Scratch, Union};
use crate::system_calls::Program;

/// Lower layers, to which the upper layer of a union can be added.
pub struct Stack {
    setup: Setup,
    scratch: Scratch,
    /// Top first.
    lowers: Vec<PathBuf>,
    pub started: i64,
}

/// A mounted union and a program that works in it.
pub struct Mounted {
    setup: Setup,
    by: support::Program,
    redirect: Redirect,
    started: i64,
    /// None only while nothing is mounted. Dropped first: a mount in use stays.
    program: Option<Program>,
    union: Union,
}

impl Stack {
    /// All layers but the first one, which is to become the upper layer.
    pub fn new(setup: Setup, specs: &[LayerSpec]) -> Stack {
        let started = UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        let mut stack = Stack { setup, scratch: Scratch::new(), lowers: Vec::new(), started };
        for spec in specs[1..].iter().rev() {
            let dir = stack.next();
            fs::create_dir(&dir).unwrap();
            materialise(spec, &dir).unwrap();
            stack.lowers.insert(0, dir);
        }
        stack
    }

    /// The lower layers, top first.
    pub fn lowers(&self) -> &[PathBuf] {
        &self.lowers
    }

    fn next(&self) -> PathBuf {
        self.scratch.path().join(format!("layer{}", self.lowers.len()))
    }

    /// Mounts with an upper layer on top: that of the case, or an empty one.
    pub fn mount(
        &self,
        by: support::Program,
        upper: Option<&LayerSpec>,
        redirect: Redirect,
    ) -> Mounted {
        let mut builder = Union::new().program(by.clone());
        for lower in &self.lowers {
            builder = builder.lower_at(lower);
        }
        if let Some(spec) = upper {
            builder = builder.upper_with(|dir| materialise(spec, dir).unwrap());
        }
        for option in self.setup.options(&by, redirect) {
            builder = builder.option(option);
        }
        let union = builder.mount();
        let (setup, started) = (self.setup, self.started);
        let program = Some(Program::new(&union.path(""), started));
        Mounted { setup, by, redirect, union, started, program }
    }

    /// Makes the upper layer of a union the topmost lower one.
    pub fn seal(&mut self, mut mounted: Mounted) {
        mounted.program = None;
        mounted.union.unmount();
        let layer = self.next();
        fs::rename(mounted.union.upper(""), &layer).unwrap();
        self.lowers.insert(0, layer);
    }

    /// A plain copy of what is mounted.
    pub fn copy(&self, mounted: &Mounted) -> PathBuf {
        let copy = self.scratch.dir("plain");
        let from = mounted.path();
        support::posix::run("cp", ["-aT".as_ref(), from.as_os_str(), copy.as_os_str()]);
        copy
    }
}

impl Mounted {
    pub fn path(&self) -> PathBuf {
        self.union.path("")
    }

    pub fn program(&mut self) -> &mut Program {
        self.program.as_mut().unwrap()
    }

    /// Unmounts and mounts, perhaps to rename directories in another way from then on.
    pub fn remount(&mut self, redirect: Option<Redirect>) {
        self.redirect = redirect.unwrap_or(self.redirect);
        self.mount_by(self.by.clone());
    }

    /// Unmounts, and has another program mount the same layers.
    pub fn mount_by(&mut self, by: support::Program) {
        self.program = None;
        self.by = by;
        self.union.unmount();
        self.vouch_for_disk();
        self.union.switch(self.by.clone(), &self.setup.options(&self.by, self.redirect));
        self.program = Some(Program::new(&self.path(), self.started));
    }

    /// Takes away the mark of a volatile mount, over which the kernel does not mount again.
    fn vouch_for_disk(&self) {
        let mark = self.union.work("work/incompat");
        if mark.exists() {
            fs::remove_dir_all(mark).unwrap();
        }
    }

    /// Looks at it once more, and unmounts it for good.
    pub fn unmounted<T>(&mut self, look: impl FnOnce(&Path) -> T) -> T {
        self.program = None;
        let seen = look(&self.path());
        self.union.unmount();
        seen
    }

    /// The upper layer.
    pub fn upper(&self) -> PathBuf {
        self.union.upper("")
    }

    /// Its workdir.
    pub fn work(&self) -> PathBuf {
        self.union.work("")
    }

    /// A folder that goes with it.
    pub fn scratch(&self) -> &Path {
        self.union.scratch()
    }

    /// What plyfs wrote so far.
    pub fn log(&self) -> String {
        self.union.live().log()
    }
}

/// A path as [`Path::join`] wants it: nothing behind the root.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}
