//! Opening and reading small files.

use std::process::Command;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::read;

use super::super::Outcome;
use super::super::row::{Row, State};
use super::super::run::Run;
use super::super::shape::Shape::Many;
use super::walk::open_root;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new("open", "open and close of every file, warm", Many, State::Warm, open_all)
            .goals(0.95, 5.0)
            .in_chart(),
        Row::new("read", "open, read and close of small files, warm", Many, State::Warm, read_all)
            .goals(0.9, 2.0)
            .in_chart(),
        Row::new("grep", "grep -r, warm", Many, State::Warm, grep).goals(0.9, 2.0).in_chart(),
        Row::new("cold-read", "open, read and close, first time", Many, State::Cold, read_all),
    ]
}

fn open_all(run: &mut Run) -> Outcome<()> {
    let (root, files) = (open_root(run)?, run.tree.files());
    run.repeated(files.len(), || {
        for file in &files {
            openat(&root, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        }
        Ok(())
    })
}

/// Every small file once, as a program that loads it does: to the end.
pub(super) fn read_all(run: &mut Run) -> Outcome<()> {
    let (root, files) = (open_root(run)?, run.tree.files());
    let mut buffer = vec![0; 16384];
    let mut bytes = 0;
    run.repeated(files.len(), || {
        bytes = 0;
        for file in &files {
            let opened = openat(&root, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            loop {
                let count = read(&opened, &mut buffer)?;
                bytes += count;
                if count == 0 {
                    break;
                }
            }
        }
        Ok(())
    })?;
    run.saw(bytes);
    Ok(())
}

fn grep(run: &mut Run) -> Outcome<()> {
    let mut command = Command::new("sh");
    // That nothing is found is what grep calls a failure.
    command
        .args(["-c", "LC_ALL=C grep -r 'no such words' \"$1\"; test $? -eq 1", "sh"])
        .arg(run.root());
    run.program(&mut command)
}
