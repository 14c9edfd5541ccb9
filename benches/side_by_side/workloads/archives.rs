//! Unpacking, copying and installing whole trees.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use super::super::Outcome;
use super::super::fingerprint::Depth;
use super::super::row::{Row, State};
use super::super::run::{Run, succeed};
use super::super::shape::Shape::Lower;
use super::names::remove;

pub(super) fn rows() -> Vec<Row> {
    let change = |name, what, work| {
        Row::new(name, what, Lower, State::Changed, work).compared(Depth::Contents).goals(0.5, 2.0)
    };
    vec![
        change("tar-x", "tar x", unpack).in_chart(),
        change("cp-a", "cp -a of a lower tree", copy).in_chart(),
        change("rm-rf", "rm -rf of what was unpacked", remove_unpacked),
        change("dpkg", "a package installed as dpkg does it", install).in_chart(),
    ]
}

/// An archive of files of some KiB, made outside of the union.
fn archive(run: &Run) -> Outcome<PathBuf> {
    let (tree, archive) = (run.scratch.join("tree"), run.scratch.join("archive.tar"));
    for number in 0..run.scale.archived() {
        let directory = tree.join(format!("unpacked/d{}", number / 50));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("f{number}")), vec![b'a'; number * 37 % 8192])?;
    }
    succeed(Command::new("tar").arg("cf").arg(&archive).arg("-C").arg(&tree).arg("unpacked"))?;
    Ok(archive)
}

fn unpack(run: &mut Run) -> Outcome<()> {
    let archive = archive(run)?;
    let mut command = Command::new("tar");
    command.arg("xf").arg(archive).arg("-C").arg(run.root());
    let files = run.scale.archived();
    run.timed(files, || succeed(&mut command))
}

fn remove_unpacked(run: &mut Run) -> Outcome<()> {
    let archive = archive(run)?;
    succeed(Command::new("tar").arg("xf").arg(archive).arg("-C").arg(run.root()))?;
    remove(run, &run.root().join("unpacked"), run.scale.archived())
}

fn copy(run: &mut Run) -> Outcome<()> {
    let mut command = Command::new("cp");
    command.arg("-a").arg(run.root().join("lower")).arg(run.root().join("copy"));
    let files = run.tree.files().len();
    run.timed(files, || succeed(&mut command))
}

/// Every file beside its place, synced, and then renamed to it; every other one replaces a lower file.
fn install(run: &mut Run) -> Outcome<()> {
    let lower = run.tree.files();
    let count = lower.len().min(300);
    let mut places = Vec::new();
    for (number, file) in lower.iter().take(count).enumerate() {
        let place = run.root().join(file);
        places.push(if number % 2 == 0 { place } else { place.with_extension("new") });
    }
    let beside = |place: &PathBuf| place.with_extension("dpkg-new");
    let data = vec![b'p'; 5000];
    run.timed(count, || {
        for place in &places {
            let mut file = File::create_new(beside(place))?;
            file.write_all(&data)?;
        }
        for place in &places {
            File::open(beside(place))?.sync_all()?;
            if place.exists() {
                fs::hard_link(place, place.with_extension("dpkg-tmp"))?;
            }
            fs::rename(beside(place), place)?;
        }
        for place in &places {
            match fs::remove_file(place.with_extension("dpkg-tmp")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    })
}
