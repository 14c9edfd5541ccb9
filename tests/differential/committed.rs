//! A layer made of what the upper layer changes, over the same lower layers, shows what the mount has shown.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use plyfs::archive::Limits;
use plyfs::changes::{Layers, write_archive};
use plyfs::store::Store;

use crate::cases::case::{Case, Check};
use crate::cases::initial::{build, initial_tree};
use crate::cases::model::Tree as Model;
use crate::cases::op::Op;
use crate::setup::Setup;
use crate::sides::{Mounted, Stack};
use crate::support::{Field, Program as By, Snapshot, Union};

/// Files that are nearly nothing but holes have all their zeros in an archive.
const LARGEST: u64 = 64 << 20;

impl Setup {
    /// Runs a case through plyfs alone, and compares the mount with what is committed of it.
    pub fn run_committed(self, case: &Case) -> Check {
        let specs = build(&case.layers);
        let mut stack = Stack::new(self, &specs);
        let mut model = initial_tree(&specs);
        model.rules = self.profile().rules;
        let redirect = |model: &Model| model.rules.redirect.unwrap_or_else(|| self.redirect());
        let mut upper = specs.first();
        let mut mounted = stack.mount(By::Plyfs, upper.take(), redirect(&model));
        for op in case.ops.iter().filter(|op| !matches!(op, Op::ReadSome(..) | Op::ReadRest)) {
            if !model.admits(op) {
                continue;
            }
            match op {
                Op::Remount => mounted.remount(None),
                Op::RemountTo(redirect) => mounted.remount(Some(*redirect)),
                Op::Seal => {
                    stack.seal(mounted);
                    mounted = stack.mount(By::Plyfs, None, redirect(&model));
                }
                _ => drop(mounted.program().perform(op)),
            }
            model.apply(op).ok();
        }
        compare(&stack, mounted)
    }
}

fn compare(stack: &Stack, mut mounted: Mounted) -> Check {
    if has_large_files(&mounted.path()) {
        return Ok(());
    }
    let before = mounted.unmounted(Snapshot::of);
    let lower = stack.lowers().to_vec();
    let layers =
        Layers { upper: mounted.upper(), lower: Some(lower.clone()), work: Some(mounted.work()) };
    let archive = mounted.scratch().join("committed.tar");
    let mut file = File::create(&archive).unwrap();
    write_archive(&layers, &mut file).map_err(|error| error.to_string())?;
    file.flush().unwrap();
    let mut again = Vec::new();
    write_archive(&layers, &mut again).map_err(|error| error.to_string())?;
    let written = fs::read(&archive).unwrap();
    if written != again {
        return Err("not the same archive twice".to_owned());
    }
    let mut committed = Union::new().unchecked_lowers();
    if !written.is_empty() {
        let store = Store::open(&mounted.scratch().join("store")).unwrap();
        let imported = store.import_layer("1", &written[..], Limits::default());
        let imported = imported.map_err(|error| error.to_string())?;
        if imported.replaced > 0 {
            return Err("a name comes twice".to_owned());
        }
        committed = committed.lower_at(store.layer_path(&imported.diff_id).join("index"));
    }
    let committed = lower.iter().fold(committed, |union, lower| union.lower_at(lower));
    let mut committed = committed.read_only().mount();
    let after = committed.snapshot();
    committed.unmount();
    // Names of lower files that were deleted are counted by who reads layers without a workdir.
    let forget = [Field::Nlink];
    let (mut before, mut after) = (before.without(&forget), after.without(&forget));
    if written.is_empty() {
        before.forget("", &[Field::Mtime]);
        after.forget("", &[Field::Mtime]);
    }
    let (before, after) = (without_sockets(before), without_sockets(after));
    match after.difference(&before) {
        difference if difference.is_empty() => Ok(()),
        difference => Err(format!("committed, and as it was mounted:\n{difference}")),
    }
}

/// No image has one: what was in its place before is not there either.
fn without_sockets(snapshot: Snapshot) -> Snapshot {
    let paths: Vec<PathBuf> = snapshot.paths().into_iter().map(Path::to_owned).collect();
    paths.iter().fold(snapshot, |snapshot, path| match snapshot.field(path, Field::Kind) {
        Some("Socket") => snapshot.without_path(path),
        _ => snapshot,
    })
}

fn has_large_files(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() { has_large_files(&path) } else { meta.len() > LARGEST }
    })
}
