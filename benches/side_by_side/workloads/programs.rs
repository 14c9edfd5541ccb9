//! Programs that people run in containers.

use std::fs;
use std::process::Command;

use super::super::Outcome;
use super::super::row::{Row, State};
use super::super::run::{Run, succeed};
use super::super::scale::Scale;
use super::super::shape::{Shape, git};

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "python",
            "python starts and imports 12 modules",
            Shape::Python,
            State::Warm,
            python,
        )
        .goals(0.9, 1.1)
        .from(Scale::Quick)
        .in_chart(),
        Row::new("git-status", "git status, warm", Shape::Git, State::Warm, git_status)
            .goals(0.9, 2.0)
            .in_chart(),
        Row::new("git-grep", "git grep, warm", Shape::Git, State::Warm, git_grep).goals(0.9, 2.0),
        Row::new("build", "a program in C is built", Shape::Sources, State::Changed, build)
            .goals(0.9, 1.1)
            .in_chart(),
    ]
}

fn python(run: &mut Run) -> Outcome<()> {
    const PROGRAM: &str = "import argparse, json, subprocess, urllib.request, email, logging, \
                           sqlite3, unittest, xml.dom.minidom, asyncio, decimal, zipfile";
    let mut command = Command::new(run.root().join("python/bin/python3"));
    command.args(["-I", "-S", "-B", "-c", PROGRAM]);
    run.program(&mut command)
}

fn git_status(run: &mut Run) -> Outcome<()> {
    let repository = run.root().join("repository");
    let mut command = git(&repository);
    command.args(["status", "--porcelain"]);
    run.program(&mut command)?;
    let output = git(&repository).args(["status", "--porcelain"]).output()?;
    run.saw(output.stdout);
    Ok(())
}

fn git_grep(run: &mut Run) -> Outcome<()> {
    let mut command = git(&run.root().join("repository"));
    command.args(["grep", "-c", "words to look for 31"]);
    run.program(&mut command)
}

fn build(run: &mut Run) -> Outcome<()> {
    let directory = run.root().join("sources");
    let names = fs::read_dir(&directory)?.map(|entry| Ok(entry?.file_name()));
    let mut sources = names.collect::<Outcome<Vec<_>>>()?;
    sources.retain(|name| name.as_encoded_bytes().ends_with(b".c"));
    sources.sort();
    run.timed(sources.len(), || {
        let mut gcc = Command::new("gcc");
        succeed(gcc.current_dir(&directory).arg("-c").args(&sources))?;
        let mut gcc = Command::new("sh");
        succeed(gcc.current_dir(&directory).args(["-c", "gcc -o program *.o"]))
    })?;
    let output = Command::new(directory.join("program")).output()?;
    run.saw(output.status.code());
    Ok(())
}
