//! A base image, and everything that can be done to it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::FileType;

use crate::support::mount::program;
use crate::support::posix::{chmod, chown, mknod, run, set_xattr};
use crate::support::{Builder, Scratch, Snapshot, Union, tree};

/// What is in the base.
pub const BASE: &str = "
    d etc mode=0750 mtime=100 user.on=dir
    f etc/passwd text=root mtime=101
    f etc/copied text=same mtime=102
    f etc/gone text=x
    d etc/deep/er
    f etc/deep/er/file text=deep
    f linked mode=0640 text=linked
    h etc/hard to=linked
    d old/sub mtime=103
    f old/one text=one
    f old/sub/two text=two
    d replaced/inner
    f replaced/file text=before
    f replaced/inner/file text=before
    f becomes-dir text=x
    d becomes-file/x
    l link to=etc/passwd
    f data text=0123456789
    f times text=t mtime=104
    f other/untouched text=x
    d empty";

/// The changes of [`change`], as a list.
pub const CHANGES: &str = "\
A /added
A /added/file
A /added/second
C /becomes-dir
A /becomes-dir/below
C /becomes-file
C /data
C /etc
C /etc/deep
C /etc/deep/er
C /etc/deep/er/file
D /etc/gone
C /etc/hard
C /etc/passwd
A /fifo
C /link
C /linked
A /moved
A /moved/one
A /moved/sub
A /moved/sub/two
D /old
C /replaced
C /replaced/file
A /replaced/file2
D /replaced/inner
C /times
";

/// Changes a union of [`BASE`] in every way that whoever runs the test may. Directories are renamed only where the union
/// does that.
pub fn change(root: &Path) {
    let at = |path: &str| root.join(path);
    fs::create_dir(at("added")).unwrap();
    fs::write(at("added/file"), "new").unwrap();
    fs::hard_link(at("added/file"), at("added/second")).unwrap();
    fs::remove_file(at("becomes-dir")).unwrap();
    fs::create_dir(at("becomes-dir")).unwrap();
    fs::write(at("becomes-dir/below"), "").unwrap();
    fs::remove_dir_all(at("becomes-file")).unwrap();
    fs::write(at("becomes-file"), "file").unwrap();
    set_xattr(at("data"), "user.key", b"value\0").unwrap();
    fs::write(at("etc/deep/er/file"), "deeper").unwrap();
    // Copied up and put back.
    chmod(at("etc/copied"), 0o600).unwrap();
    chmod(at("etc/copied"), 0o644).unwrap();
    fs::remove_file(at("etc/gone")).unwrap();
    chmod(at("etc/passwd"), 0o600).unwrap();
    // Its other name, `etc/hard`, is not looked at: the upper layer does not have it.
    fs::write(at("linked"), "still linked").unwrap();
    mknod(at("fifo"), FileType::Fifo, (0, 0)).unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("elsewhere", at("link")).unwrap();
    // By copying, where a union does not rename directories.
    run("mv", [at("old"), at("moved")].each_ref());
    fs::remove_dir_all(at("replaced")).unwrap();
    fs::create_dir(at("replaced")).unwrap();
    fs::write(at("replaced/file"), "after").unwrap();
    fs::rename(at("replaced/file"), at("replaced/file2")).unwrap();
    fs::write(at("replaced/file"), "after").unwrap();
    File::options()
        .append(true)
        .open(at("times"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
}

/// What only root can do, or whoever stores owners in attributes.
pub fn change_owners(root: &Path) {
    let at = |path: &str| root.join(path);
    mknod(at("device"), FileType::CharacterDevice, (5, 1)).unwrap();
    mknod(at("block"), FileType::BlockDevice, (7, 300)).unwrap();
    chown(at("added"), 12, 34).unwrap();
    chown(at("data"), 4_000_000_000, 56).unwrap();
    chmod(at("data"), 0o4755).unwrap();
    chmod(at("added"), 0o2775).unwrap();
}

/// A socket, which no image can have.
pub fn listen(root: &Path) -> UnixListener {
    UnixListener::bind(root.join("socket")).unwrap()
}

/// A store with the image `base:1`.
pub struct Store {
    pub scratch: Scratch,
}

impl Store {
    /// Its files belong to whoever runs this.
    pub fn new() -> Self {
        Self::with_owners(&["--numeric-owner"])
    }

    /// Its files are root's, whoever runs this.
    pub fn of_root() -> Self {
        Self::with_owners(&["--owner=0", "--group=0"])
    }

    fn with_owners(owners: &[&str]) -> Self {
        let store = Self { scratch: Scratch::new() };
        let base = store.scratch.dir("base");
        tree::make(&base, BASE);
        let archive = store.path("base.tar");
        let mut words = vec!["--create", "--format=posix", "--xattrs", "--xattrs-include=*"];
        words.extend(owners);
        let mut words: Vec<&OsStr> = words.into_iter().map(OsStr::new).collect();
        words.extend(["--file".as_ref(), archive.as_os_str(), "-C".as_ref(), base.as_os_str()]);
        run("tar", words.into_iter().chain(["."].map(OsStr::new)));
        store.says("image import base.tar base:1");
        store
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(program());
        command.args(words).current_dir(self.scratch.path()).stdin(Stdio::null());
        command.env("PLYFS_STORE", self.path("store")).env("SOURCE_DATE_EPOCH", "1000000000");
        command
    }

    pub fn run(&self, words: &str) -> Output {
        self.command(&words.split(' ').collect::<Vec<_>>()).output().unwrap()
    }

    /// What it prints, if it succeeds.
    pub fn says(&self, words: &str) -> String {
        succeeded(words, &self.run(words))
    }

    pub fn inspect(&self, image: &str) -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&self.says(&format!("image inspect {image}")))
            .unwrap()[0]
            .clone()
    }

    /// The layers of an image as a union, top first.
    pub fn union(&self, image: &str) -> Builder {
        let image = self.inspect(image);
        let layers = image["RootFS"]["Layers"].as_array().unwrap().iter().rev();
        layers.fold(Union::new().unchecked_lowers(), |union, layer| {
            let hex = layer.as_str().unwrap().strip_prefix("sha256:").unwrap();
            union.lower_at(self.path("store/layers").join(hex).join("index"))
        })
    }

    /// Copies the upper layer of a union and its workdir, which has some of its links, into the folder `name`.
    pub fn take_layer(&self, union: &Union, name: &str) {
        let to = self.scratch.dir(name);
        let [upper, work] = [union.upper(""), union.work("")];
        run("cp", [Path::new("-a"), &upper, &work, &to]);
    }

    /// How an image looks when it is mounted.
    pub fn snapshot(&self, image: &str) -> Snapshot {
        let mut union = self.union(image).read_only().mount();
        let snapshot = union.snapshot();
        union.unmount();
        snapshot
    }
}

pub fn succeeded(what: &str, output: &Output) -> String {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}
