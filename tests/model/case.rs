//! One test case: a stack of layers and a sequence of operations, and how it is run.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::driver::{Check, Driver};
use crate::initial::{build, initial_tree};
use crate::kernel::{HostDir, OverlayMount};
use crate::layer::{Layer, LayerSpec};
use crate::materialise::materialise;
use crate::model::Rules;
use crate::op::Op;
use crate::snapshot::Snapshot;
use crate::subject::Subject;
use crate::text::Text;
use crate::union::Union;

/// What the case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// One layer as a plain directory, by the kernel: proves the model.
    Host,
    /// Layers mounted by kernel overlayfs: proves the initial tree.
    KernelOverlay,
    /// A union with everything on one filesystem.
    Union(Redirect),
    /// A union with upper and workdir on a filesystem in memory, apart from the lower layers.
    UpperInMemory(Redirect),
    /// A union that writes `.wh.` files instead of devices.
    DotFiles,
    /// A union that keeps owners, permissions and types in an attribute.
    StoredAttributes,
    /// A union of lower layers only.
    ReadOnly,
}

/// What a rename of a directory that has a lower part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Copies it up as a whole.
    Copy,
    /// Moves its upper part and notes where the lower one lies.
    Mark,
    /// Fails.
    Refuse,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Case {
    pub setup: Setup,
    /// Top first. The first one is the upper layer unless the setup is read-only.
    pub layers: Vec<Layer>,
    pub ops: Vec<Op>,
    /// The whole tree is compared after so many operations.
    pub compare_every: usize,
}

/// Directories of one run, removed on drop.
pub struct Directories {
    /// Top first.
    pub layers: Vec<PathBuf>,
    pub work: PathBuf,
    _temporary: Vec<TempDir>,
}

impl Setup {
    pub fn rules(self) -> Rules {
        let redirect = match self {
            Setup::Union(redirect) | Setup::UpperInMemory(redirect) => Some(redirect),
            Setup::DotFiles | Setup::StoredAttributes => Some(Redirect::Copy),
            Setup::Host | Setup::KernelOverlay | Setup::ReadOnly => None,
        };
        Rules { dot_files: self == Setup::DotFiles, read_only: self == Setup::ReadOnly, redirect }
    }

    /// Whether objects can be called `name` in every layer.
    pub fn can_have(self, name: &Text) -> bool {
        let like_a_mark = name.0.starts_with(b".wh.");
        match self {
            // There is no `.wh.` file for the longest names, nor for names that are one themselves.
            Setup::DotFiles => name.0.len() <= 251 && !like_a_mark,
            // A file that is called like a mark has an attribute that only plyfs hides.
            Setup::Host => !like_a_mark,
            _ => true,
        }
    }

    /// Whether access lists are kept: they cannot be where permissions are stored in an attribute.
    pub fn has_acls(self) -> bool {
        self != Setup::StoredAttributes
    }

    /// A union is mounted with one lower layer at least.
    pub fn fewest_layers(self) -> usize {
        if self.rules().redirect.is_some() { 2 } else { 1 }
    }

    /// Whether layers have marks: a plain directory has no use for them.
    pub fn has_marks(self) -> bool {
        self != Setup::Host
    }
}

impl Case {
    /// Runs the case; an error tells the first difference.
    pub fn run(&self) -> Check {
        let specs = build(&self.layers);
        let directories = Directories::make(self.setup, &specs)
            .map_err(|error| format!("making the layers: {error}"))?;
        let Directories { layers, work, .. } = &directories;
        let merged = specs.iter().filter(|spec| !spec.data_only).count();
        let (stack, data_only) = layers.split_at(merged);
        match self.setup {
            Setup::Host => {
                let open = || HostDir::open(layers[0].clone()).map_err(|errno| errno.to_string());
                self.drive(open, &specs, &[])
            }
            Setup::KernelOverlay => {
                let mount = OverlayMount::new(stack, work);
                let mount = mount.map_err(|errno| format!("mounting: {errno}"))?;
                let open = || HostDir::open(mount.root()).map_err(|errno| errno.to_string());
                self.drive(open, &specs, layers)
            }
            _ => {
                let open = || Union::open(self.setup, stack, data_only, work);
                let upper = usize::from(self.setup != Setup::ReadOnly);
                self.drive(open, &specs, &layers[upper..])
            }
        }
    }

    /// Lower layers are recorded before the subject sees them.
    fn drive<S: Subject>(
        &self,
        open: impl FnOnce() -> Result<S, String>,
        specs: &[LayerSpec],
        lowers: &[PathBuf],
    ) -> Check {
        let mut model = initial_tree(specs);
        model.rules = self.setup.rules();
        let lowers: Vec<(&Path, Snapshot)> = lowers
            .iter()
            .map(|lower| Snapshot::take(lower).map(|snapshot| (lower.as_path(), snapshot)))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("reading a layer: {error}"))?;
        let untouched = || lowers.iter().try_for_each(|(lower, before)| before.check(lower));

        let mut driver = Driver::new(open()?, model);
        driver.compare_trees(false).map_err(|why| format!("at the start: {why}"))?;
        for (at, op) in self.ops.iter().enumerate() {
            let fail = |why: String| format!("step {at}, {op:?}: {why}");
            driver.step(op).map_err(fail)?;
            let remounted = matches!(op, Op::Remount | Op::RemountTo(_));
            if (at + 1) % self.compare_every == 0 || remounted {
                driver.compare_trees(at % 2 == 1).map_err(|why| format!("after {}", fail(why)))?;
            }
            if remounted {
                untouched().map_err(fail)?;
            }
        }
        driver.compare_trees(false).map_err(|why| format!("at the end: {why}"))?;
        driver.forget_everything()?;
        driver.step(&Op::Remount)?;
        driver.compare_trees(true).map_err(|why| format!("after reopening: {why}"))?;
        untouched()
    }
}

impl Directories {
    /// Puts the layers on disk. Temporary directories go below the build directory: a real
    /// filesystem, unlike /tmp on many machines.
    fn make(setup: Setup, specs: &[LayerSpec]) -> std::io::Result<Directories> {
        let temporary =
            |place: &str| tempfile::Builder::new().prefix("plyfs-model").tempdir_in(place);
        let disk = temporary(env!("CARGO_TARGET_TMPDIR"))?;
        let writable = match setup {
            Setup::UpperInMemory(_) => Some(temporary("/dev/shm")?),
            _ => None,
        };
        let top = writable.as_ref().unwrap_or(&disk).path();
        let layers: Vec<PathBuf> = (0..specs.len())
            .map(|at| if at == 0 { top } else { disk.path() }.join(format!("layer{at}")))
            .collect();
        for (spec, layer) in specs.iter().zip(&layers) {
            fs::create_dir(layer)?;
            materialise(spec, layer)?;
        }
        let work = top.join("work");
        fs::create_dir(&work)?;
        Ok(Directories { layers, work, _temporary: writable.into_iter().chain([disk]).collect() })
    }
}

/// Prints the code of a regression test.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "check(\n    {:?},", self.setup)?;
        writeln!(f, "    vec![")?;
        for layer in &self.layers {
            writeln!(f, "        layer(vec![")?;
            for item in &layer.items {
                let code = format!("{item:?}").replace(", [", ", vec![");
                writeln!(f, "            {code},")?;
            }
            writeln!(f, "        ]){},", layer.extra_code())?;
        }
        writeln!(f, "    ],\n    &[")?;
        for op in &self.ops {
            writeln!(f, "        {op:?},")?;
        }
        write!(f, "    ],\n);")?;
        if self.compare_every > 1 {
            write!(f, " // trees compared every {} operations", self.compare_every)?;
        }
        Ok(())
    }
}
