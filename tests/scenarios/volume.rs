//! Filesystems to put layers on: loop images, memory, and packed read-only images.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::posix::run;

/// A filesystem that layers can be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
    /// Has no extended attributes and no ACLs.
    Ramfs,
    Squashfs,
    Erofs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
            Self::Ramfs => "ramfs",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }

    /// Whether this kernel has it, as a module perhaps not loaded yet.
    pub fn is_known(self) -> bool {
        let listed =
            |text: &str| text.lines().any(|line| line.split('\t').nth(1) == Some(self.name()));
        listed(&fs::read_to_string("/proc/filesystems").unwrap())
            || Command::new("modprobe")
                .arg(self.name())
                .status()
                .is_ok_and(|status| status.success())
    }

    /// Mounts a new filesystem with the content of `source` on the empty directory `point`. Its image lies beside
    /// `point`, and goes with the mount.
    pub fn mount_copy(self, source: &Path, point: &Path) {
        let image = image_of(point);
        match self {
            Self::Squashfs => {
                run(
                    "mksquashfs",
                    [source, &image]
                        .map(Path::as_os_str)
                        .into_iter()
                        .chain(words("-noappend -quiet -no-progress")),
                );
            }
            Self::Erofs => {
                run(
                    "mkfs.erofs",
                    words("--quiet").chain([&image, source].map(|path| path.as_os_str())),
                );
            }
            _ => {
                self.mount_empty(point);
                let content = source.join(".");
                run("cp", words("-a").chain([content.as_os_str(), point.as_os_str()]));
                return;
            }
        }
        mount(words("-o loop,ro"), &image, point);
    }

    /// Mounts a new and empty filesystem that can be written to on the directory `point`.
    pub fn mount_empty(self, point: &Path) {
        match self {
            Self::Tmpfs => mount(words("-t tmpfs"), Path::new("tmpfs"), point),
            Self::Ext4 => self.mount_image(64, "mkfs.ext4 -q -F -b 4096", point),
            _ => self.mount_small(point),
        }
    }

    /// The same, as small as the filesystem can be for something to be done in it.
    pub fn mount_small(self, point: &Path) {
        match self {
            Self::Tmpfs => {
                mount(words("-t tmpfs -o size=16m,nr_inodes=1k"), Path::new("tmpfs"), point);
            }
            Self::Ramfs => mount(words("-t ramfs"), Path::new("ramfs"), point),
            Self::Ext4 => self.mount_image(16, "mkfs.ext4 -q -F -b 4096 -N 1024", point),
            Self::Xfs => self.mount_image(320, "mkfs.xfs -q -f", point),
            Self::Btrfs => self.mount_image(256, "mkfs.btrfs -q -f", point),
            Self::Squashfs | Self::Erofs => panic!("{self:?} cannot be written to"),
        }
    }

    fn mount_image(self, megabytes: u64, mkfs: &'static str, point: &Path) {
        let image = image_of(point);
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let (tool, arguments) = mkfs.split_once(' ').unwrap();
        run(tool, words(arguments).chain([image.as_os_str()]));
        mount(words("-o loop"), &image, point);
        let lost = point.join("lost+found");
        if lost.exists() {
            fs::remove_dir(lost).unwrap();
        }
    }
}

/// The image that what is mounted on `point` is in.
pub fn image_of(point: &Path) -> PathBuf {
    point.with_extension("image")
}

fn words<'a>(text: &'static str) -> impl Iterator<Item = &'a OsStr> {
    text.split(' ').map(OsStr::new)
}

fn mount<'a>(options: impl Iterator<Item = &'a OsStr>, source: &'a Path, point: &'a Path) {
    run("mount", options.chain([source.as_os_str(), point.as_os_str()]));
}
