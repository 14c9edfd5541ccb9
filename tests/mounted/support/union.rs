//! Layers, and the union of them at a mountpoint.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::mode;
use super::mount::{LIFETIME, Mount, Program, Refusal, kernel_under_test, path_option, program};
use super::packed;
use super::scratch::Scratch;
use super::snapshot::{Snapshot, assert_same};
use super::tree;

/// Describes layers that are not mounted yet.
pub struct Builder {
    scratch: Scratch,
    lowers: Vec<PathBuf>,
    data_layers: Vec<PathBuf>,
    lower_option: Option<OsString>,
    writable: bool,
    point: PathBuf,
    options: Vec<OsString>,
    program: Program,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    /// What holds `upper` and `work`.
    volume: PathBuf,
    lifetime: Duration,
    check_lowers: bool,
}

impl Builder {
    fn new() -> Self {
        let scratch = Scratch::new();
        for name in ["upper", "work", "merged"] {
            scratch.dir(name);
        }
        let directory = scratch.path().to_owned();
        Self {
            scratch,
            lowers: Vec::new(),
            data_layers: Vec::new(),
            lower_option: None,
            writable: true,
            point: directory.join("merged"),
            options: Vec::new(),
            program: Program::Plyfs,
            volume: directory.clone(),
            directory,
            environment: Vec::new(),
            wrapper: Vec::new(),
            lifetime: LIFETIME,
            check_lowers: true,
        }
    }

    /// Adds a layer *below* those there are, from the text form of [`tree`].
    #[must_use]
    pub fn lower(self, text: &str) -> Self {
        self.lower_with(|dir| tree::make(dir, text))
    }

    /// Adds a layer below those there are, filled by `fill`.
    #[must_use]
    pub fn lower_with(mut self, fill: impl FnOnce(&Path)) -> Self {
        let dir = self.scratch.dir(&format!("lower{}", self.lowers.len()));
        fill(&dir);
        self.lowers.push(dir);
        self
    }

    /// Adds an existing directory as a layer below those there are.
    #[must_use]
    pub fn lower_at(mut self, dir: impl Into<PathBuf>) -> Self {
        self.lowers.push(dir.into());
        self
    }

    /// Adds a layer that gives data to metacopy files and nothing else.
    #[must_use]
    pub fn data_layer(mut self, text: &str) -> Self {
        let dir = self.scratch.dir(&format!("data{}", self.data_layers.len()));
        tree::make(&dir, text);
        self.data_layers.push(dir);
        self
    }

    /// Gives the text of `lowerdir=` as it is, instead of the paths of the layers.
    #[must_use]
    pub fn lower_option(mut self, text: &str) -> Self {
        self.lower_option = Some(text.into());
        self
    }

    /// Gives the options of the upper layer as they are; the directories are `upper` and `work`.
    #[must_use]
    pub fn upper_option(mut self, text: &str) -> Self {
        self.writable = false;
        self.option(text)
    }

    /// Mounts on this directory below the scratch directory.
    #[must_use]
    pub fn on(mut self, name: &str) -> Self {
        self.point = self.scratch.dir(name);
        self
    }

    /// Fills the upper layer before the mount, as an earlier mount would have.
    #[must_use]
    pub fn upper(self, text: &str) -> Self {
        self.upper_with(|dir| tree::make(dir, text))
    }

    /// Fills the upper layer before the mount.
    #[must_use]
    pub fn upper_with(self, fill: impl FnOnce(&Path)) -> Self {
        fill(&self.volume.join("upper"));
        self
    }

    /// Mounts without an upper layer.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.writable = false;
        self
    }

    /// Adds one more mount option.
    #[must_use]
    pub fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Puts the upper layer on a filesystem that `mount` mounts on the directory it is given; to be
    /// called before the upper layer is filled.
    #[must_use]
    pub fn upper_on(mut self, mount: impl FnOnce(&Path)) -> Self {
        self.volume = self.scratch.dir("volume");
        mount(&self.volume);
        for name in ["upper", "work"] {
            std::fs::create_dir(self.volume.join(name)).unwrap();
        }
        self
    }

    /// Starts the program in this directory below the scratch directory.
    #[must_use]
    pub fn directory(mut self, name: &str) -> Self {
        self.directory = self.scratch.dir(name);
        self
    }

    /// Sets an environment variable of the program.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the program by these words, such as `prlimit --nofile=256`, which must end in exec.
    #[must_use]
    pub fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(ToString::to_string).collect();
        self
    }

    /// Mounts with another program than the one under test.
    #[must_use]
    pub fn program(mut self, program: Program) -> Self {
        self.program = program;
        self
    }

    /// Lets the mount live longer than a minute.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Does without the proof that no lower layer changed: for large trees.
    #[must_use]
    pub fn unchecked_lowers(mut self) -> Self {
        self.check_lowers = false;
        self
    }

    /// The scratch directory, in which the layers are `lower0` (top), `lower1`… and `upper`.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// The layers alone, not mounted.
    pub fn layers(self) -> Union {
        let proof = LowerProof { dirs: Vec::new(), before: Vec::new() };
        Union { mount: None, proof, layers: self }
    }

    /// Mounts.
    pub fn mount(self) -> Union {
        self.try_mount().unwrap_or_else(|refusal| panic!("{}: {}", refusal.status, refusal.message))
    }

    /// Mounts, or says why the program refused.
    pub fn try_mount(self) -> Result<Union, Refusal> {
        let checked = if self.check_lowers { self.lowers.clone() } else { Vec::new() };
        let before = checked.iter().map(|dir| Snapshot::exact(dir)).collect();
        let mut union =
            Union { mount: None, proof: LowerProof { dirs: checked, before }, layers: self };
        union.try_start()?;
        Ok(union)
    }
}

/// Layers that are, most of the time, mounted. On drop it unmounts and proves that no lower layer
/// has changed.
pub struct Union {
    // Dropped in this order.
    mount: Option<Mount>,
    proof: LowerProof,
    layers: Builder,
}

impl Union {
    /// Layers to be described and mounted.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Builder {
        Builder::new()
    }

    /// A path in the union.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.layers.point.join(path)
    }

    /// A path in the upper layer.
    pub fn upper(&self, path: impl AsRef<Path>) -> PathBuf {
        self.layers.volume.join("upper").join(path)
    }

    /// A path in the work directory.
    pub fn work(&self, path: impl AsRef<Path>) -> PathBuf {
        self.layers.volume.join("work").join(path)
    }

    /// A path in a lower layer, 0 being the top one.
    pub fn lower(&self, index: usize, path: impl AsRef<Path>) -> PathBuf {
        self.layers.lowers[index].join(path)
    }

    /// The lower layers, top first.
    pub fn lowers(&self) -> &[PathBuf] {
        &self.layers.lowers
    }

    /// The layers that give data to metacopy files and nothing else.
    pub fn data_layers(&self) -> &[PathBuf] {
        &self.layers.data_layers
    }

    /// The directory that all of it is in.
    pub fn scratch(&self) -> &Path {
        self.layers.path()
    }

    /// The live mount.
    pub fn live(&self) -> &Mount {
        self.mount.as_ref().expect("mounted")
    }

    /// How the union looks now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.path(""))
    }

    /// Unmounts cleanly and waits for the program to end.
    pub fn unmount(&mut self) {
        self.mount.take().expect("mounted").unmount();
    }

    /// Kills the program and clears away the dead mount.
    pub fn kill(&mut self) {
        self.mount.take().expect("mounted").kill();
    }

    /// Mounts again what was unmounted.
    pub fn start(&mut self) {
        let result = self.try_start();
        result.unwrap_or_else(|refusal| panic!("{}: {}", refusal.status, refusal.message));
    }

    /// Mounts again what was unmounted, or says why the program refused.
    pub fn try_start(&mut self) -> Result<(), Refusal> {
        let (options, point) = (self.options(), self.path(""));
        self.mount = Some(match self.command(&options, &point) {
            None => Mount::kernel(&options, &point),
            Some(command) => {
                let log = self.scratch().join("log");
                Mount::start(command, &point, &log, self.layers.lifetime)?
            }
        });
        Ok(())
    }

    /// The command to be started; none if it is the kernel that mounts.
    fn command(&self, options: &OsStr, point: &Path) -> Option<Command> {
        let layers = &self.layers;
        let program = match &layers.program {
            Program::Plyfs if kernel_under_test() => return None,
            Program::Plyfs => program(),
            Program::Peer(path) => path.clone(),
            Program::Kernel => return None,
        };
        let mut words = layers.wrapper.iter().map(OsString::from).chain([program.into()]);
        let mut command = Command::new(words.next()?);
        command.args(words).arg("-f").arg("-o").arg(options).arg(point);
        command.current_dir(&layers.directory).envs(layers.environment.iter().cloned());
        Some(command)
    }

    /// Takes the mount out of the union, to be handled by itself.
    pub fn take(&mut self) -> Mount {
        self.mount.take().expect("mounted")
    }

    /// Clean unmount, then mounted anew: nothing is remembered but what the layers hold.
    pub fn remount(&mut self) {
        self.unmount();
        self.start();
    }

    /// Clean unmount, then the same layers mounted by another program with other options.
    pub fn switch(&mut self, program: Program, options: &[&str]) {
        if self.mount.is_some() {
            self.unmount();
        }
        self.layers.program = program;
        self.layers.options = options.iter().map(OsString::from).collect();
        self.start();
    }

    fn options(&self) -> OsString {
        let layers = &self.layers;
        let mut lowers = layers.lowers.clone();
        if mode::packs_layers() && matches!(layers.program, Program::Plyfs) {
            let store = self.scratch().join("store");
            lowers = lowers.iter().map(|dir| packed::packed(dir, &store)).collect();
        }
        let mut lowers = path_option("lowerdir", &lowers);
        for dir in &layers.data_layers {
            lowers.push("::");
            lowers.push(dir);
        }
        if let Some(text) = &layers.lower_option {
            lowers = OsString::from("lowerdir=");
            lowers.push(text);
        }
        let mut options = vec![lowers];
        if layers.writable {
            options.push(path_option("upperdir", &[self.upper("")]));
            options.push(path_option("workdir", &[self.work("")]));
        }
        if layers.program == Program::Plyfs && !kernel_under_test() {
            options.extend(mode::options());
        }
        options.extend(layers.options.iter().cloned());
        options.join(OsStr::new(","))
    }
}

/// How the lower layers looked before the mount; on drop they must still.
struct LowerProof {
    dirs: Vec<PathBuf>,
    before: Vec<Snapshot>,
}

impl Drop for LowerProof {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for (dir, before) in self.dirs.iter().zip(&self.before) {
            assert_same(before, &Snapshot::exact(dir), "a lower layer has changed");
        }
    }
}
