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
//! See [`Step::perform`] for the others.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, RenameFlags};

use crate::power::Cut;
use crate::support::posix::{
    as_user, chmod, chown, mknod, open_rw, rename_with, run, set_times, set_xattr,
};

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

    /// Takes the step in the tree `root`.
    pub fn perform(&self, root: &Path) {
        if self.by_user { as_user(|| self.act(root)) } else { self.act(root) }
    }

    fn act(&self, root: &Path) {
        let at = |path: &str| root.join(path);
        match self.words()[..] {
            ["write", path, text] => fs::write(at(path), text).unwrap(),
            ["overwrite", path, text] => {
                open_rw(at(path)).write_all_at(text.as_bytes(), 0).unwrap();
            }
            ["append", path, text] => crate::support::posix::append(at(path), text),
            ["append-sync", path, text] => append_with(&at(path), OFlags::SYNC, text),
            ["append-dsync", path, text] => append_with(&at(path), OFlags::DSYNC, text),
            ["overwrite-mapped", path] => {
                let tool = ["-c", "mmap -rw 0 3", "-c", "mwrite -S 0x4d 0 3", "-c", "msync -s"];
                run("xfs_io", tool.map(Into::into).into_iter().chain([at(path).into_os_string()]));
            }
            ["truncate", path, size] => open_rw(at(path)).set_len(size.parse().unwrap()).unwrap(),
            ["chmod", path, mode] => {
                chmod(at(path), u32::from_str_radix(mode, 8).unwrap()).unwrap();
            }
            ["chown", path, id] => {
                chown(at(path), id.parse().unwrap(), id.parse().unwrap()).unwrap();
            }
            ["touch", path, time] => {
                let time = time.parse().unwrap();
                set_times(at(path), time, time).unwrap();
            }
            ["xattr", path, value] => set_xattr(at(path), "user.note", value.as_bytes()).unwrap(),
            ["mkdir", path] => fs::create_dir(at(path)).unwrap(),
            ["fifo", path] => mknod(at(path), FileType::Fifo, (0, 0)).unwrap(),
            ["symlink", target, path] => symlink(target, at(path)).unwrap(),
            ["link", path, new] => fs::hard_link(at(path), at(new)).unwrap(),
            ["unlink", path] => fs::remove_file(at(path)).unwrap(),
            ["rmdir", path] => fs::remove_dir(at(path)).unwrap(),
            ["rename", path, new] => fs::rename(at(path), at(new)).unwrap(),
            ["exchange", path, new] => {
                rename_with(&at(path), &at(new), RenameFlags::EXCHANGE).unwrap();
            }
            ["fsync", path] => File::open(at(path)).unwrap().sync_all().unwrap(),
            ["fdatasync", path] => open_rw(at(path)).sync_data().unwrap(),
            ["sync"] => rustix::fs::sync(),
            ref other => panic!("no such step: {other:?}"),
        }
    }

    /// The ways in which the power may go after it that differ from those before it.
    pub fn cuts(&self) -> &'static [Cut] {
        match self.words()[..] {
            ["fsync" | "fdatasync" | "sync", ..] => &[Cut::AtOnce],
            _ => &[Cut::AtOnce, Cut::AfterLog],
        }
    }

    /// How it changes the data of a file in the tree `root`, in which it is about to be taken.
    pub fn change(&self, root: &Path) -> Option<Change> {
        let size = |path: &str| fs::metadata(root.join(path)).map_or(0, |file| file.len() as usize);
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
    pub fn sync(&self, root: &Path) -> Option<Sync> {
        Some(match self.words()[..] {
            ["fsync", path] if root.join(path).is_dir() => Sync::Directory(directory(path)),
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

fn append_with(path: &Path, flags: OFlags, text: &str) {
    let mut options = File::options();
    let mut file =
        options.append(true).custom_flags(flags.bits().cast_signed()).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
