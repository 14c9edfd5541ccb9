//! A store with images, and places to mount them on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::store::program::{Files, Program, TestImage, archive};
use crate::store::support::{Fields, Tar};
use crate::support::Scratch;

/// A store. What is mounted below is taken away with it.
pub struct Stage {
    _scratch: Scratch,
    pub program: Program,
}

impl Stage {
    /// With the image `app` of [`image`].
    pub fn new() -> Self {
        let stage = Self::empty();
        stage.load("app", &image());
        stage
    }

    pub fn empty() -> Self {
        let scratch = Scratch::new();
        let dir = tempfile::tempdir_in(scratch.path()).unwrap();
        Self { _scratch: scratch, program: Program { dir } }
    }

    /// Loads an image under a name.
    pub fn load(&self, name: &str, image: &TestImage) {
        let files: Files = image.old_docker(&format!("{name}:latest"));
        self.program.write("image.tar", &archive(&files));
        self.program.says("image load -q image.tar");
    }

    /// A directory beside the store, to be mounted on.
    pub fn point(&self, name: &str) -> PathBuf {
        let path = self.program.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Mounts, and gives the name that is printed.
    pub fn mount(&self, words: &str) -> String {
        self.program.says(&format!("mount {words}")).trim_end().to_owned()
    }

    /// Waits for daemons that have been killed.
    pub fn wait_until_nothing_is_mounted(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.mounted().is_empty() {
            assert!(Instant::now() < deadline, "still mounted: {:?}", self.mounted());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The names that `ps` shows.
    pub fn mounted(&self) -> Vec<String> {
        self.program.says("ps -q").lines().map(ToOwned::to_owned).collect()
    }
}

/// Two layers: `etc/passwd` of the base is deleted by the second; a set-id program of user 7, and a device.
pub fn image() -> TestImage {
    let program = Fields { mode: 0o4755, uid: 7, gid: 5, ..Fields::new(b'0', "bin/su") };
    let device = Fields { mode: 0o666, device: (1, 3), ..Fields::new(b'3', "null") };
    let base = Tar::new()
        .dir("bin")
        .entry(program, b"su")
        .file("bin/sh", "shell")
        .dir("etc")
        .file("etc/passwd", "root")
        .file("etc/motd", "hello")
        .entry(device, b"")
        .end();
    let app = Tar::new().file("app", "application").file("etc/.wh.passwd", "").end();
    TestImage { layers: vec![base, app] }
}

/// What a file holds.
pub fn text(path: impl AsRef<std::path::Path>) -> String {
    let bytes = std::fs::read(path).unwrap();
    OsStr::from_bytes(&bytes).to_str().unwrap().to_owned()
}
