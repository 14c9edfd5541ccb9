//! `plyfs check` on the layers of a union.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Union;
use super::mount::{path_option, program};

/// What a check came to.
#[derive(Debug)]
pub struct Checked {
    /// Its exit status.
    pub status: i32,
    /// Rule, path below the scratch directory, and outcome of each finding, sorted.
    pub findings: Vec<[String; 3]>,
    /// What it wrote to standard error.
    pub error: String,
}

impl Checked {
    /// The rules that found something, each with the path, as one sorted text.
    pub fn found(&self) -> String {
        let lines = self.findings.iter().map(|[rule, path, _]| format!("{rule} {path}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Panics unless the status is this, and the findings are these lines of rule and path.
    pub fn expect(&self, status: i32, findings: &str) -> &Self {
        let expected: Vec<_> = findings.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        assert_eq!((self.status, self.found()), (status, expected.join("\n")), "{}", self.error);
        self
    }
}

impl Union {
    /// Checks the upper layer with its workdir and lower layers; `flags` as on the command line.
    pub fn check(&self, flags: &[&str]) -> Checked {
        let mut lower = path_option("", self.lowers());
        for layer in self.data_layers() {
            lower.push("::");
            lower.push(layer);
        }
        let lower = lower.to_str().unwrap().trim_start_matches('=').to_owned();
        let work = self.work("").to_str().unwrap().to_owned();
        self.check_alone(&[flags, &["--work", &work, "--lower", &lower]].concat())
    }

    /// Checks the upper layer alone.
    pub fn check_alone(&self, flags: &[&str]) -> Checked {
        let mut command = Command::new(program());
        command.args(["check", "--json"]).args(flags).arg(self.upper(""));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let scratch = self.scratch();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let findings = lines.filter(|line| line.get("summary").is_none()).map(|line| {
            ["rule", "path", "outcome"].map(|name| below(scratch, line[name].as_str().unwrap()))
        });
        let mut findings: Vec<_> = findings.collect();
        findings.sort();
        Checked {
            status: output.status.code().unwrap(),
            findings,
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn below(scratch: &Path, path: &str) -> String {
    let path = Path::new(path);
    path.strip_prefix(scratch).unwrap_or(path).to_str().unwrap().to_owned()
}
