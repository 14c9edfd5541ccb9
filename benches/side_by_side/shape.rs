//! The trees that unions are made of: which files lie in which layer.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::Outcome;
use super::fingerprint::Depth;
use super::run::succeed;
use super::scale::Scale;

const FILES_IN_A_DIRECTORY: usize = 100;
const LAYERS_OF_MANY: usize = 5;

/// A kind of tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One file.
    Empty,
    /// Small files, 100 a directory, in 5 layers: every other directory is merged from all of them.
    Many,
    /// One directory of very many empty files, spread over so many layers.
    Wide(usize),
    /// 1,000 files in the lowest of so many layers, all of which have their directory.
    Deep(usize),
    /// A big file, and small ones beside it.
    Big,
    /// Files of 4 KiB in one layer.
    Lower,
    /// Empty files, 1,000 a directory, in one layer.
    Walked,
    /// A git repository.
    Git,
    /// Python with its library.
    Python,
    /// A program in C.
    Sources,
}

impl Shape {
    /// A name for its directory.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase().replace('(', "-").replace(')', "")
    }

    /// Number of lower layers.
    pub fn layers(self) -> usize {
        match self {
            Self::Many => LAYERS_OF_MANY,
            Self::Wide(layers) | Self::Deep(layers) => layers,
            _ => 1,
        }
    }

    /// How its views are compared before they are measured.
    pub fn compared(self) -> Depth {
        match self {
            Self::Wide(_) | Self::Walked => Depth::Listing,
            _ => Depth::Contents,
        }
    }

    /// The files that workloads go through, relative to the root of the union.
    pub fn files(self, scale: Scale) -> Vec<String> {
        let paths = |count: usize, path: fn(usize) -> String| (0..count).map(path).collect();
        match self {
            Self::Many => paths(scale.files(), many_path),
            Self::Wide(_) => paths(scale.names(), |i| format!("wide/name-{i:06}")),
            Self::Deep(_) => paths(deep_files(scale), |i| format!("d/f{i:04}")),
            Self::Big => paths(500, |i| format!("small/f{i:04}")),
            Self::Lower => paths(scale.lower_files(), |i| format!("lower/d{}/f{i:05}", i / 100)),
            Self::Walked => paths(scale.walked(), |i| format!("walked/d{:03}/f{i:06}", i / 1000)),
            Self::Empty | Self::Git | Self::Python | Self::Sources => Vec::new(),
        }
    }

    /// Makes the files; `roots` are the layers, top first.
    pub fn fill(self, scale: Scale, roots: &[PathBuf]) -> Outcome<()> {
        for root in roots {
            fs::create_dir_all(root)?;
        }
        let top = &roots[0];
        match self {
            Self::Empty => fs::write(top.join("seed"), "seed\n")?,
            Self::Git => git_repository(top, scale.repository())?,
            Self::Python => python(top)?,
            Self::Sources => sources(top, scale.sources())?,
            _ => {}
        }
        for (layer, root) in roots.iter().enumerate().filter(|_| matches!(self, Self::Deep(_))) {
            fs::create_dir_all(root.join("d"))?;
            fs::write(root.join(format!("d/own-{layer}")), "")?;
        }
        if self == Self::Big {
            big_file(&top.join("big"), scale.big())?;
        }
        let mut directories = Directories::default();
        for (number, path) in self.files(scale).into_iter().enumerate() {
            let path = roots[self.layer_of(number)].join(path);
            directories.need(&path)?;
            fs::write(path, text(number, self.length(number)))?;
        }
        Ok(())
    }

    fn layer_of(self, file: usize) -> usize {
        let directory = file / FILES_IN_A_DIRECTORY;
        match self {
            Self::Many if directory.is_multiple_of(2) => file % LAYERS_OF_MANY,
            Self::Many => directory % LAYERS_OF_MANY,
            Self::Wide(layers) => file % layers,
            Self::Deep(layers) => layers - 1,
            _ => 0,
        }
    }

    fn length(self, file: usize) -> usize {
        match self {
            Self::Many => file * 7919 % 2048,
            Self::Lower => 4096,
            Self::Big | Self::Deep(_) => 100,
            _ => 0,
        }
    }
}

/// Remembers which directory was made last, so that not every file asks again.
#[derive(Default)]
struct Directories {
    last: PathBuf,
}

impl Directories {
    fn need(&mut self, path: &Path) -> Outcome<()> {
        if let Some(parent) = path.parent().filter(|parent| **parent != self.last) {
            fs::create_dir_all(parent)?;
            self.last = parent.to_owned();
        }
        Ok(())
    }
}

fn many_path(file: usize) -> String {
    let directory = file / FILES_IN_A_DIRECTORY;
    format!("many/a{}/b{}/c/f{file:05}", directory / 20, directory % 20)
}

fn deep_files(scale: Scale) -> usize {
    if scale == Scale::Smoke { 50 } else { 1000 }
}

/// `length` bytes of lines that differ from file to file.
fn text(file: usize, length: usize) -> Vec<u8> {
    let line = format!("line of file {file} with some words to look for {}\n", file * 31 % 1009);
    line.bytes().cycle().take(length).collect()
}

/// Bytes that no filesystem can store as a hole or compress away.
fn big_file(path: &Path, length: u64) -> Outcome<()> {
    let mut file = File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0; 1 << 20];
    for _ in 0..length >> 20 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}

/// Files that are a year old, so that git does not take them for changed while it looked.
fn git_repository(root: &Path, files: usize) -> Outcome<()> {
    let year_ago = SystemTime::now() - Duration::from_secs(365 * 86400);
    let mut directories = Directories::default();
    for file in 0..files {
        let path = root.join(format!("repository/src/d{}/f{file:05}.txt", file / 50));
        directories.need(&path)?;
        fs::write(&path, text(file, 200 + file * 37 % 3000))?;
        File::options().write(true).open(&path)?.set_modified(year_ago)?;
    }
    let repository = root.join("repository");
    for arguments in [&["init", "-q"][..], &["add", "-A"], &["commit", "-q", "-m", "all files"]] {
        succeed(git(&repository).args(arguments))?;
    }
    Ok(())
}

/// git, knowing nothing of this machine and its user.
pub fn git(repository: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository);
    command.args(["-c", "user.name=bench", "-c", "user.email=bench", "-c", "gc.auto=0"]);
    command.args(["-c", "maintenance.auto=false", "-c", "commit.gpgsign=false"]);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

/// The interpreter that is installed, as a tree of its own.
fn python(root: &Path) -> Outcome<()> {
    const WHERE: &str = "import os, sys, sysconfig as s; print(os.path.realpath(sys.executable)); \
                         print(s.get_path('stdlib'))";
    let output = Command::new("/usr/bin/python3").args(["-c", WHERE]).output()?;
    let answer = String::from_utf8(output.stdout)?;
    let [program, library] = answer.lines().collect::<Vec<_>>()[..] else {
        return Err("python3 does not say where its library is".into());
    };
    fs::create_dir_all(root.join("python/bin"))?;
    fs::create_dir_all(root.join("python/lib"))?;
    fs::copy(program, root.join("python/bin/python3"))?;
    let copy = ["--recursive", "--preserve=timestamps,links"];
    succeed(Command::new("cp").args(copy).arg(library).arg(root.join("python/lib")))
}

fn sources(root: &Path, files: usize) -> Outcome<()> {
    let directory = root.join("sources");
    fs::create_dir_all(&directory)?;
    for header in 0..30 {
        let text = format!("static inline int h{header}(int x) {{ return x * {header}; }}\n");
        fs::write(directory.join(format!("h{header}.h")), text)?;
    }
    let includes: String = (0..30).map(|header| format!("#include \"h{header}.h\"\n")).collect();
    for file in 0..files {
        let main = if file == 0 { "int main(void) { return h1(0); }\n" } else { "" };
        let functions: String = (0..40)
            .map(|i| format!("int f{file}_{i}(int x) {{ return h{}(x) + {i}; }}\n", i % 30))
            .collect();
        let text = format!("#include <stdio.h>\n{includes}{functions}{main}");
        fs::write(directory.join(format!("f{file}.c")), text)?;
    }
    Ok(())
}
