//! A store on a filesystem that is too small: one line, nothing left, and the same works when there is room.

use std::path::Path;

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
        small.make_room();
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

#[test]
fn a_load_for_which_there_is_no_room_works_when_there_is() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "not root");
        eprintln!("not root: nothing can be mounted");
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
