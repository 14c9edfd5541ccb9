//! A store on a filesystem that is too small: one line, nothing left, and the same works when there is room.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::FallocateFlags;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::program::{Program, TestImage, archive, gzip};
use crate::support::Tar;

/// A small filesystem in memory, as long as this is there.
struct Small<'p>(&'p Path);

impl<'p> Small<'p> {
    fn mount(at: &'p Path, options: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("none", at, "tmpfs", MountFlags::empty(), &*options).unwrap();
        Self(at)
    }

    fn make_room(&self) {
        let options = c"size=64m,nr_inodes=10000";
        rustix::mount::mount_remount(self.0, MountFlags::empty(), options).unwrap();
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(self.0, UnmountFlags::DETACH) {
            eprintln!("{}: stays mounted: {error}", self.0.display());
        }
    }
}

fn image() -> Vec<u8> {
    let mut image = TestImage::small();
    let small = |tar: Tar, n| tar.file(&format!("many/{n}"), &format!("content {n}").repeat(400));
    image.layers.push((0..20).fold(Tar::new(), small).end());
    archive(&image.oci("app", gzip, "+gzip"))
}

/// Loads into a store on a filesystem with these options; true if there was room.
fn load(program: &Program, options: &str) -> bool {
    let store = program.store();
    let small = Small::mount(&store, options);
    load_into(program, options, || small.make_room())
}

/// Loads into a store for which there may be too little room until `make_room` is called; true if there was enough.
fn load_into(program: &Program, options: &str, make_room: impl FnOnce()) -> bool {
    let store = program.store();
    let output = program.run("image load -q image.tar");
    let fits = output.status.success();
    if !fits {
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{options}: {error}");
        assert_eq!(error.lines().count(), 1, "{options}: {error}");
        assert!(error.contains("No space left on device"), "{options}: {error}");
        assert!(
            !store.join("tmp").exists() || store.join("tmp").read_dir().unwrap().next().is_none()
        );
        make_room();
        assert_eq!(program.says("image ls -q"), "", "{options}");
        assert!(program.says("store verify --full").ends_with("no problems\n"), "{options}");
        assert_eq!(program.says("image load -q image.tar"), "Loaded image: app:latest\n");
    }
    assert!(program.says("store verify --full").ends_with("no problems\n"), "{options}");
    program.says("image rm app");
    program.says("store gc");
    assert_eq!(program.stored(), [""; 0], "{options}");
    fits
}

/// A small disk with a store on it, and files that take the rest of the room.
struct Disk {
    point: PathBuf,
    filler: PathBuf,
}

/// What is left on a [`Disk`].
#[derive(Clone, Copy, Debug)]
enum Left {
    Blocks(u64),
    Inodes(u64),
}

impl Disk {
    /// On ext4, in an image of 16 MiB with blocks of 4096 bytes and 512 inodes.
    fn mount(program: &Program) -> Self {
        let (image, point) = (program.path("disk.image"), program.path("disk"));
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let mkfs = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-N", "512", "-m0"].map(OsStr::new);
        succeeds(&[&mkfs[..], &[image.as_os_str()]].concat());
        std::fs::create_dir(&point).unwrap();
        let mount = ["mount", "-o", "loop"].map(OsStr::new);
        succeeds(&[&mount[..], &[image.as_os_str(), point.as_os_str()]].concat());
        std::fs::create_dir(point.join("store")).unwrap();
        std::os::unix::fs::symlink(point.join("store"), program.store()).unwrap();
        Self { filler: point.join("filler"), point }
    }

    /// Takes all of the room but this.
    fn fill(&self, left: Left) {
        std::fs::create_dir(&self.filler).unwrap();
        let free = rustix::fs::statvfs(&self.point).unwrap();
        match left {
            Left::Blocks(left) => {
                let file = File::create(self.filler.join("blocks")).unwrap();
                let length = (free.f_bavail - left) * free.f_frsize;
                rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length).unwrap();
            }
            Left::Inodes(left) => {
                for n in left..free.f_ffree {
                    File::create(self.filler.join(n.to_string())).unwrap();
                }
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.point, UnmountFlags::DETACH) {
            eprintln!("{}: stays mounted: {error}", self.point.display());
        }
    }
}

fn succeeds(words: &[&OsStr]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn can_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "not root");
        eprintln!("not root: nothing can be mounted");
    }
    root
}

/// Unlike in memory, data is given its blocks when it is written to the disk, and directories take some.
#[test]
fn a_load_for_which_there_is_no_room_on_ext4_works_when_there_is() {
    if !can_mount() {
        return;
    }
    let program = Program::new();
    program.write("image.tar", &image());
    let disk = Disk::mount(&program);
    let load = |left: Left| {
        disk.fill(left);
        let make_room = || std::fs::remove_dir_all(&disk.filler).unwrap();
        let fits = load_into(&program, &format!("{left:?}"), make_room);
        if fits {
            make_room();
        }
        // The folders of objects are new the next time, too.
        std::fs::remove_dir_all(disk.point.join("store")).unwrap();
        std::fs::create_dir(disk.point.join("store")).unwrap();
        fits
    };
    let step = if std::env::var_os("PLYFS_SOAK_SECONDS").is_some() { 1 } else { 7 };
    let blocks = (0..).step_by(step).find(|blocks| load(Left::Blocks(*blocks)));
    let inodes = (0..).step_by(step).find(|inodes| load(Left::Inodes(*inodes)));
    assert!(blocks.unwrap() > 20 && inodes.unwrap() > 20, "{blocks:?} {inodes:?}");
}

#[test]
fn a_load_for_which_there_is_no_room_works_when_there_is() {
    if !can_mount() {
        return;
    }
    let program = Program::new();
    program.write("image.tar", &image());
    // At every page, and at every file.
    let step = if std::env::var_os("PLYFS_SOAK_SECONDS").is_some() { 1 } else { 5 };
    let pages = (1..).step_by(step).find(|pages| load(&program, &format!("size={}k", 4 * pages)));
    let files = (2..).step_by(step).find(|files| load(&program, &format!("nr_inodes={files}")));
    assert!(pages.unwrap() > 20 && files.unwrap() > 20, "{pages:?} {files:?}");
}
