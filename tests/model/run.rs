//! How a case runs.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cases::case::{Case, Check};
use crate::cases::initial::{build, initial_tree};
use crate::cases::layer::LayerSpec;
use crate::cases::materialise::materialise;
use crate::cases::op::Op;
use crate::driver::Driver;
use crate::kernel::{HostDir, OverlayMount};
use crate::setup::Setup;
use crate::snapshot::Snapshot;
use crate::subject::Subject;
use crate::union::Union;

/// Directories of one run, removed on drop.
pub struct Directories {
    /// Top first.
    pub layers: Vec<PathBuf>,
    pub work: PathBuf,
    _temporary: Vec<TempDir>,
}

impl Setup {
    /// Runs a case; an error tells the first difference.
    pub fn run(self, case: &Case) -> Check {
        let specs = build(&case.layers);
        let directories = Directories::make(self, &specs)
            .map_err(|error| format!("making the layers: {error}"))?;
        let Directories { layers, work, .. } = &directories;
        let merged = specs.iter().filter(|spec| !spec.data_only).count();
        let (stack, data_only) = layers.split_at(merged);
        match self {
            Setup::Host => {
                let open = || HostDir::open(layers[0].clone()).map_err(|errno| errno.to_string());
                self.drive(open, case, &specs, &[])
            }
            Setup::KernelOverlay => {
                let mount = OverlayMount::new(stack, work);
                let mount = mount.map_err(|errno| format!("mounting: {errno}"))?;
                let open = || HostDir::open(mount.root()).map_err(|errno| errno.to_string());
                self.drive(open, case, &specs, layers)
            }
            _ => {
                let open = || Union::open(self, stack, data_only, work);
                let upper = usize::from(self != Setup::ReadOnly);
                self.drive(open, case, &specs, &layers[upper..])
            }
        }
    }

    /// Lower layers are recorded before the subject sees them.
    fn drive<S: Subject>(
        self,
        open: impl FnOnce() -> Result<S, String>,
        case: &Case,
        specs: &[LayerSpec],
        lowers: &[PathBuf],
    ) -> Check {
        let mut model = initial_tree(specs);
        model.rules = self.rules();
        let lowers: Vec<(&Path, Snapshot)> = lowers
            .iter()
            .map(|lower| Snapshot::take(lower).map(|snapshot| (lower.as_path(), snapshot)))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("reading a layer: {error}"))?;
        let untouched = || lowers.iter().try_for_each(|(lower, before)| before.check(lower));

        let mut driver = Driver::new(open()?, model);
        driver.compare_trees(false).map_err(|why| format!("at the start: {why}"))?;
        for (at, op) in case.ops.iter().enumerate() {
            let fail = |why: String| format!("step {at}, {op:?}: {why}");
            driver.step(op).map_err(fail)?;
            let remounted = matches!(op, Op::Remount | Op::RemountTo(_));
            if (at + 1) % case.compare_every == 0 || remounted {
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
