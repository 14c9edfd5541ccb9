//! Stories through a real mount.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, RenameFlags};

use crate::promise::Moment;
use crate::story::Tree;
use crate::support::posix::{
    as_user, chmod, chown, mknod, open_rw, rename_with, run, set_times, set_xattr,
};

/// The union that is mounted here.
pub struct Mounted(pub PathBuf);

impl Tree for Mounted {
    fn act(&self, words: &[&str], by_user: bool) {
        if by_user { as_user(|| act(&self.0, words)) } else { act(&self.0, words) }
    }

    fn size(&self, path: &str) -> usize {
        fs::metadata(self.0.join(path)).map_or(0, |file| file.len() as usize)
    }

    fn is_dir(&self, path: &str) -> bool {
        self.0.join(path).is_dir()
    }

    fn moment(&self) -> Moment {
        Moment::of(&self.0)
    }
}

fn act(root: &Path, words: &[&str]) {
    let at = |path: &str| root.join(path);
    match *words {
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

fn append_with(path: &Path, flags: OFlags, text: &str) {
    let mut options = File::options();
    let mut file =
        options.append(true).custom_flags(flags.bits().cast_signed()).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
