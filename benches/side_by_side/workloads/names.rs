//! Making, renaming and removing names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::Outcome;
use super::super::fingerprint::Depth;
use super::super::row::{Row, State};
use super::super::run::Run;
use super::super::shape::Shape::{Big, Lower};

pub(super) fn rows() -> Vec<Row> {
    let change = |name, what, work| {
        Row::new(name, what, Lower, State::Changed, work).compared(Depth::Listing)
    };
    vec![
        change("create", "empty files made", create).goals(0.4, 2.0).in_chart(),
        change("mkdir", "directories made", make_directories).goals(0.4, 2.0),
        change("rename", "new files renamed", rename).goals(0.4, 2.0).in_chart(),
        change("unlink", "new files removed", unlink).goals(0.4, 2.0),
        change("rm-lower", "lower files removed", remove_lower).goals(0.4, 4.0).in_chart(),
        change("rm-rf-lower", "rm -rf of a lower tree", remove_tree).goals(0.4, 4.0).in_chart(),
        Row::new("rm-big-lower", "a big lower file removed", Big, State::Changed, remove_big)
            .goals(0.4, 20.0)
            .without_bare(),
    ]
}

/// A new directory in the union, and the names to be made in it.
fn new_names(run: &Run) -> Outcome<(PathBuf, Vec<PathBuf>)> {
    let directory = run.root().join("new");
    fs::create_dir(&directory)?;
    let names = (0..run.scale.changes()).map(|number| directory.join(format!("n{number}")));
    let names = names.collect();
    Ok((directory, names))
}

fn new_files(run: &Run) -> Outcome<(PathBuf, Vec<PathBuf>)> {
    let (directory, names) = new_names(run)?;
    names.iter().try_for_each(|name| File::create_new(name).map(drop))?;
    Ok((directory, names))
}

fn create(run: &mut Run) -> Outcome<()> {
    let (_, names) = new_names(run)?;
    run.timed(names.len(), || Ok(names.iter().try_for_each(|n| File::create_new(n).map(drop))?))
}

fn make_directories(run: &mut Run) -> Outcome<()> {
    let (_, names) = new_names(run)?;
    run.timed(names.len(), || Ok(names.iter().try_for_each(fs::create_dir)?))
}

fn rename(run: &mut Run) -> Outcome<()> {
    let (directory, names) = new_files(run)?;
    let others: Vec<_> = (0..names.len()).map(|n| directory.join(format!("renamed-{n}"))).collect();
    run.timed(names.len(), || {
        Ok(names.iter().zip(&others).try_for_each(|(from, to)| fs::rename(from, to))?)
    })
}

fn unlink(run: &mut Run) -> Outcome<()> {
    let (_, names) = new_files(run)?;
    run.timed(names.len(), || Ok(names.iter().try_for_each(fs::remove_file)?))
}

fn remove_lower(run: &mut Run) -> Outcome<()> {
    let names: Vec<_> = run.tree.files().iter().map(|file| run.root().join(file)).collect();
    run.timed(names.len(), || Ok(names.iter().try_for_each(fs::remove_file)?))
}

fn remove_tree(run: &mut Run) -> Outcome<()> {
    remove(run, &run.root().join("lower"), run.tree.files().len())
}

/// rm -rf, for so many files.
pub(super) fn remove(run: &mut Run, tree: &Path, files: usize) -> Outcome<()> {
    let mut command = Command::new("rm");
    command.arg("-rf").arg(tree);
    run.timed(files, || super::super::run::succeed(&mut command))
}

fn remove_big(run: &mut Run) -> Outcome<()> {
    let path = run.root().join("big");
    run.timed(1, || Ok(fs::remove_file(&path)?))?;
    run.saw(path.exists());
    Ok(())
}
