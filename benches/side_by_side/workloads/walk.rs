//! Looking at names and attributes of a large tree.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, statat};

use super::super::Outcome;
use super::super::row::{Row, State};
use super::super::run::Run;
use super::super::shape::Shape::Many;

pub(super) fn rows() -> Vec<Row> {
    let warm = |name, what, work| {
        Row::new(name, what, Many, State::Warm, work).goals(0.9, 2.0).where_slower()
    };
    vec![
        warm("stat", "stat of every file, warm", stat_all).in_chart(),
        warm("readdir", "readdir of every directory, warm", read_directories),
        warm("find", "find, warm", find).in_chart(),
        warm("ls-lR", "ls -lR, warm", list).in_chart(),
        warm("absent", "absent names asked for again", absent).in_chart(),
        Row::new("du", "du, warm", Many, State::Warm, du).goals(0.9, 1.1),
        Row::new("cold-find", "find, first time", Many, State::Cold, find)
            .goals(0.8, 1.5)
            .in_chart(),
        Row::new("cold-stat", "stat of every file, first time", Many, State::Cold, stat_all)
            .goals(0.8, 1.5)
            .in_chart(),
    ]
}

/// The root of a union, from which paths are short for everybody.
pub(super) fn open_root(run: &Run) -> Outcome<OwnedFd> {
    Ok(openat(CWD, run.root(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?)
}

/// stat(2) of all files of the tree, one after the other.
pub(super) fn stat_all(run: &mut Run) -> Outcome<()> {
    let (root, files) = (open_root(run)?, run.tree.files());
    let mut sizes = 0;
    run.repeated(files.len(), || {
        sizes = 0;
        for file in &files {
            sizes += statat(&root, file, AtFlags::SYMLINK_NOFOLLOW)?.st_size;
        }
        Ok(())
    })?;
    run.saw(sizes);
    Ok(())
}

fn directories(files: &[String]) -> Vec<&Path> {
    let mut all: Vec<_> = files.iter().filter_map(|file| Path::new(file).parent()).collect();
    all.dedup();
    all
}

/// Opens and reads every directory that has files.
pub(super) fn read_directories(run: &mut Run) -> Outcome<()> {
    let (root, files) = (open_root(run)?, run.tree.files());
    let directories = directories(&files);
    let mut names = 0;
    run.repeated(directories.len(), || {
        names = 0;
        for directory in &directories {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let opened = openat(&root, *directory, flags, Mode::empty())?;
            for entry in Dir::new(opened)? {
                entry?;
                names += 1;
            }
        }
        Ok(())
    })?;
    run.saw(names);
    Ok(())
}

fn absent(run: &mut Run) -> Outcome<()> {
    let root = open_root(run)?;
    let names: Vec<_> = run.tree.files().iter().map(|file| format!("{file}.absent")).collect();
    run.repeated(names.len(), || ask_for_absent(&root, &names))
}

/// stat(2) of names that must not exist.
pub(super) fn ask_for_absent(root: &OwnedFd, names: &[String]) -> Outcome<()> {
    for name in names {
        match statat(root, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(format!("wrong: {name} exists").into()),
        }
    }
    Ok(())
}

fn find(run: &mut Run) -> Outcome<()> {
    let mut command = Command::new("find");
    command.arg(run.root());
    run.program(&mut command)
}

fn list(run: &mut Run) -> Outcome<()> {
    let mut command = Command::new("ls");
    command.arg("-lR").arg(run.root());
    run.program(&mut command)
}

fn du(run: &mut Run) -> Outcome<()> {
    let mut command = Command::new("du");
    command.arg("-s").arg(run.root());
    run.program(&mut command)
}
