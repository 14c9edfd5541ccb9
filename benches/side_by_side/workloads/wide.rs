//! One directory of very many names.

use std::process::Command;

use super::super::Outcome;
use super::super::row::{Row, State};
use super::super::run::Run;
use super::super::shape::Shape::Wide;
use super::walk::read_directories;

pub(super) fn rows() -> Vec<Row> {
    let first = |name, what, shape| Row::new(name, what, shape, State::Fresh, once).goals(0.8, 6.0);
    let second = |name, what, shape| {
        Row::new(name, what, shape, State::Warm, read_directories).goals(0.8, 6.0)
    };
    let list = |name, what, shape| Row::new(name, what, shape, State::Warm, list).goals(0.8, 3.0);
    vec![
        first("wide-first", "readdir of a wide directory, first time", Wide(1)).in_chart(),
        second("wide-second", "readdir of a wide directory, again", Wide(1)).in_chart(),
        list("wide-ls", "ls -l of a wide directory, warm", Wide(1)),
        first("wide-10-first", "readdir of one in 10 layers, first time", Wide(10)),
        second("wide-10-second", "readdir of one in 10 layers, again", Wide(10)),
        list("wide-10-ls", "ls -l of a wide directory in 10 layers, warm", Wide(10)).in_chart(),
    ]
}

fn once(run: &mut Run) -> Outcome<()> {
    let directory = run.root().join("wide");
    let names = run.timed(1, || Ok(std::fs::read_dir(&directory)?.count()))?;
    run.saw(names);
    Ok(())
}

fn list(run: &mut Run) -> Outcome<()> {
    let mut command = Command::new("ls");
    command.arg("-l").arg(run.root().join("wide"));
    run.program(&mut command)
}
