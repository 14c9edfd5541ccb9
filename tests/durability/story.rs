//! What a program does, written down one system call a line:
//!
//! ```text
//! write d/new "some text"     # creates or empties, and writes
//! overwrite d/file XY         # at the beginning, without emptying it
//! append d/file more
//! truncate d/file 3
//! fsync d/file                # of a file or a directory; also fdatasync, and sync of everything
//! user write d/other text     # as an ordinary user
//! ```
//!
//! See `mounted.rs` for the others.

use std::path::PathBuf;

use crate::power::Cut;
use crate::promise::Moment;

/// A union in which stories can happen.
pub trait Tree {
    /// Takes a step, as an ordinary user if told so.
    fn act(&self, words: &[&str], by_user: bool);

    /// The size of a file; 0 if there is none.
    fn size(&self, path: &str) -> usize;

    /// Whether there is a directory at `path`.
    fn is_dir(&self, path: &str) -> bool;

    /// How it is now.
    fn moment(&self) -> Moment;
}

/// One line of a story.
#[derive(Clone, Debug)]
pub struct Step {
    words: Vec<String>,
    by_user: bool,
}

/// How a step changes the data of a file.
pub struct Change {
    pub file: PathBuf,
    /// How many bytes keep a value of their own whatever gets onto the disk: the rest may be missing or NULs.
    pub kept: usize,
}

/// What a step makes durable.
#[derive(Clone)]
pub enum Sync {
    File(PathBuf),
    FileData(PathBuf),
    Directory(PathBuf),
    All,
}

/// Reads a story.
pub fn steps(text: &str) -> Vec<Step> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let by_user = words[0] == "user";
            if by_user {
                words.remove(0);
            }
            Step { words, by_user }
        })
        .collect()
}

impl Step {
    fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    /// Takes the step in `tree`.
    pub fn perform(&self, tree: &impl Tree) {
        tree.act(&self.words(), self.by_user);
    }

    /// The ways in which the power may go after it that differ from those before it.
    pub fn cuts(&self) -> &'static [Cut] {
        match self.words()[..] {
            ["fsync" | "fdatasync" | "sync", ..] => &[Cut::AtOnce],
            _ => &[Cut::AtOnce, Cut::AfterLog],
        }
    }

    /// How it changes the data of a file in the tree, in which it is about to be taken.
    pub fn change(&self, tree: &impl Tree) -> Option<Change> {
        let size = |path| tree.size(path);
        let (path, kept) = match self.words()[..] {
            ["write", path, _] => (path, 0),
            ["truncate", path, to] => (path, size(path).min(to.parse().unwrap())),
            [
                "overwrite" | "overwrite-mapped" | "append" | "append-sync" | "append-dsync",
                path,
                ..,
            ] => (path, size(path)),
            _ => return None,
        };
        Some(Change { file: path.into(), kept })
    }

    /// What is durable when it is done.
    pub fn sync(&self, tree: &impl Tree) -> Option<Sync> {
        Some(match self.words()[..] {
            ["fsync", path] if tree.is_dir(path) => Sync::Directory(directory(path)),
            ["fsync" | "append-sync", path, ..] => Sync::File(path.into()),
            ["fdatasync" | "append-dsync" | "overwrite-mapped", path, ..] => {
                Sync::FileData(path.into())
            }
            ["sync"] => Sync::All,
            _ => return None,
        })
    }
}

fn directory(path: &str) -> PathBuf {
    if path == "." { PathBuf::new() } else { path.into() }
}
