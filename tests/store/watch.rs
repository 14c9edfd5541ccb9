//! Nothing outside of the store is touched while images come in, whatever is in them: everything there is watched.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::program::{Files, Program, TestImage, archive, gzip};
use crate::support::{Fields, Tar};

/// What is told of, of directories and of files in them.
struct Watch {
    queue: OwnedFd,
    places: Vec<(i32, PathBuf)>,
}

impl Watch {
    /// Everything below `dir`, even if it is only opened or looked into.
    fn below(dir: &Path) -> Self {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        let mut watch = Self { queue, places: Vec::new() };
        watch.add(dir);
        watch
    }

    fn add(&mut self, path: &Path) {
        let all = WatchFlags::ALL_EVENTS | WatchFlags::DONT_FOLLOW;
        // Before it is watched, since that is an access.
        let inside = fs::symlink_metadata(path).unwrap().is_dir().then(|| {
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        });
        inside.into_iter().flatten().for_each(|path| self.add(&path));
        let place = inotify::add_watch(&self.queue, path, all).unwrap();
        self.places.push((place, path.to_owned()));
    }

    /// What has happened since the last time.
    fn seen(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.queue, &mut buffer);
        let mut seen = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let place = self.places.iter().find(|(place, _)| *place == event.wd());
                    let (path, name) = (place.map(|(_, path)| path), event.file_name());
                    let flags: ReadFlags = event.events();
                    seen.push(format!("{path:?} {name:?} {flags:?}"));
                }
                Err(Errno::WOULDBLOCK) => return seen,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Layers that want to write to, link to, read or delete `outside/canary`, or make something there.
fn layers(outside: &Path) -> Vec<Vec<u8>> {
    let absolute = outside.to_str().unwrap();
    let up = "../".repeat(12);
    let far = format!("{up}{}", &absolute[1..]);
    let mut layers = Vec::new();
    for base in [absolute, far.as_str(), "../outside", "../../outside", "../../../../outside"] {
        let canary = format!("{base}/canary");
        let whiteout = format!("{base}/.wh.canary");
        let opaque = format!("{base}/.wh..wh..opq");
        for name in [&canary, &whiteout, &opaque, &format!("{base}/new"), &format!("x/../{canary}")]
        {
            layers.push(Tar::new().file(name, "overwritten").end());
        }
        layers.push(Tar::new().dir(&format!("{base}/made")).end());
        layers.push(Tar::new().symlink(&canary, "/etc/passwd").end());
        layers.push(Tar::new().link("link", &canary).file("link", "overwritten").end());
        let device = Fields { mode: 0o666, device: (1, 3), ..Fields::new(b'3', &canary) };
        layers.push(Tar::new().entry(device, b"").end());
        // Through links, which are there before and after.
        for through in ["canary", ".wh.canary", ".wh..wh..opq", "new", "below/new"] {
            let (link, path) = (Tar::new().symlink("d", base), format!("d/{through}"));
            layers.push(link.file(&path, "overwritten").end());
            layers.push(Tar::new().dir("d").file(&path, "x").symlink("d", base).end());
        }
        let link = || Tar::new().symlink("d", base);
        layers.push(link().link("h", "d/canary").file("h", "overwritten").end());
        layers.push(Tar::new().symlink("f", &canary).file("f", "overwritten").end());
        layers.push(Tar::new().symlink("f", &canary).link("h", "f").file("h", "x").end());
        layers.push(link().link("e", "d").file("e/canary", "overwritten").end());
    }
    layers
}

/// The archives of an image that refer to what is outside themselves.
fn archives(outside: &Path) -> Vec<Vec<u8>> {
    let image = TestImage::small();
    let canary = outside.join("canary").to_str().unwrap().to_owned();
    let mut found = Vec::new();
    let targets =
        [canary.clone(), format!("../../../../../../..{canary}"), "../outside/canary".into()];
    for target in targets {
        let change = |change: &dyn Fn(&mut Value)| {
            let mut files = image.old_docker("app");
            let last = files.last_mut().unwrap();
            let mut manifest: Value = serde_json::from_slice(&last.1).unwrap();
            change(&mut manifest[0]);
            last.1 = manifest.to_string().into();
            archive(&files)
        };
        found.push(change(&|image| image["Config"] = target.as_str().into()));
        found.push(change(&|image| image["Layers"][0] = target.as_str().into()));
        found.push(change(&|image| image["RepoTags"] = json!([target])));
        // A layer that is a link.
        let files: Files = image.old_docker("app");
        let others = files[1..].iter();
        let tar =
            others.fold(Tar::new(), |tar, (name, bytes)| tar.entry(Fields::new(b'0', name), bytes));
        found.push(tar.symlink(&files[0].0, &target).end());
        // A blob that is called so.
        let mut files = image.oci("app", gzip, "+gzip");
        files[0].0 = format!("blobs/sha256/{target}");
        found.push(archive(&files));
    }
    found
}

#[test]
fn nothing_outside_of_the_store_is_touched_by_hostile_archives() {
    let program = Program::new();
    let outside = program.path("outside");
    for dir in ["home", "tmp", "run", "made/deep"] {
        fs::create_dir_all(outside.join(dir)).unwrap();
    }
    fs::write(outside.join("canary"), "sings").unwrap();
    let before = fs::metadata(outside.join("canary")).unwrap();
    let mut hostile: Vec<Vec<u8>> = archives(&outside);
    for layer in layers(&outside) {
        let image = TestImage { layers: vec![TestImage::small().layers[0].clone(), layer] };
        hostile.push(archive(&image.old_docker("app")));
    }
    let watch = Watch::below(&outside);
    assert_eq!(watch.seen(), [""; 0]);
    let run = |words: &str| {
        let mut command = program.command(words);
        for (name, place) in [("HOME", "home"), ("TMPDIR", "tmp"), ("XDG_RUNTIME_DIR", "run")] {
            command.env(name, outside.join(place));
        }
        command.output().unwrap()
    };
    let mut taken = 0;
    for (at, bytes) in hostile.iter().enumerate() {
        program.write("image.tar", bytes);
        if run("image load -q image.tar").status.success() {
            taken += 1;
            for words in ["store verify --full", "image save -o saved.tar app", "image rm app"] {
                let output = run(words);
                assert!(output.status.success(), "{at}: {words}: {output:?}");
            }
        }
        assert_eq!(watch.seen(), [""; 0], "archive {at}");
    }
    run("store gc");
    assert_eq!(watch.seen(), [""; 0]);
    let mut names: Vec<_> =
        fs::read_dir(program.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["image.tar", "outside", "saved.tar", "store"]);
    let after = fs::metadata(outside.join("canary")).unwrap();
    assert_eq!((after.ino(), after.nlink(), after.ctime()), (before.ino(), 1, before.ctime()));
    assert!(taken > 0 && taken < hostile.len(), "{taken} of {}", hostile.len());
    // It does tell.
    fs::read(outside.join("canary")).unwrap();
    fs::write(outside.join("made/deep/new"), "").unwrap();
    let seen = watch.seen();
    for told in ["canary", "made/deep"] {
        assert!(seen.iter().any(|event| event.contains(told)), "{told}: {seen:?}");
    }
}
