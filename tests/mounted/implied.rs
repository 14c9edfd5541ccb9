//! Directories that a stored layer has for what is in them alone: no entry of its archive is about them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plyfs::archive::Limits;
use plyfs::store::{Digest, Store};

use crate::needs_root;
use crate::support::posix::{chmod, exists, get_xattr, ino, mode, mtime, names, owner, xattrs};
use crate::support::{Scratch, Union, tree};

/// An archive with a line for each entry: `d MODE PATH`, with an owner, a time and an attribute of its own, or `f PATH`.
fn archive(lines: &[&str]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for line in lines {
        let mut header = tar::Header::new_ustar();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let path = match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["d", mode, path] => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(u32::from_str_radix(mode, 8).unwrap());
                header.set_uid(7);
                header.set_gid(8);
                header.set_mtime(1000);
                let attribute = [("SCHILY.xattr.user.key", &b"value"[..])];
                tar.append_pax_extensions(attribute).unwrap();
                (*path).to_owned()
            }
            ["f", path] => {
                header.set_mode(0o644);
                (*path).to_owned()
            }
            other => panic!("{other:?}"),
        };
        header.set_size(0);
        tar.append_data(&mut header, path, std::io::empty()).unwrap();
    }
    tar.into_inner().unwrap()
}

const BASE: [&str; 7] =
    ["d 711 ./", "d 700 a/", "d 1777 a/b/", "f a/b/old", "d 750 cut/", "f cut/old", "d 750 again/"];
const TOP: [&str; 6] =
    ["f a/b/new", "f cut/.wh..wh..opq", "f cut/new", "f .wh.again", "f again/new", "f alone/new"];
const DIRECTORIES: [&str; 6] = ["", "a", "a/b", "cut", "again", "alone"];

/// Mode, owner and attributes.
type Seen = (u32, (u32, u32), Vec<String>);

fn seen(root: &Path) -> Vec<(&'static str, Seen)> {
    let of = |dir: &'static str| {
        let path = root.join(dir);
        (dir, (mode(&path), owner(&path), xattrs(&path)))
    };
    DIRECTORIES.map(of).to_vec()
}

fn stored(scratch: &Scratch, archives: &[Vec<u8>]) -> Vec<PathBuf> {
    let store = Store::open(&scratch.path().join("store")).unwrap();
    let index = |archive: &Vec<u8>| {
        let imported = store.import_layer("1", &archive[..], Limits::default()).unwrap();
        store.layer_path(&imported.diff_id).join("index")
    };
    archives.iter().map(index).collect()
}

fn union(layers: &[PathBuf]) -> crate::support::Builder {
    layers.iter().fold(Union::new().unchecked_lowers(), |union, layer| union.lower_at(layer))
}

#[test]
fn implied_directories_have_the_attributes_of_those_below() {
    needs_root!();
    let scratch = Scratch::new();
    let layers = stored(&scratch, &[archive(&TOP), archive(&["f a/between"]), archive(&BASE)]);
    let here = union(&layers).read_only().mount();
    let own = |mode: u32| (mode, (7, 8), vec!["user.key".to_owned()]);
    let implied = (0o755, (0, 0), Vec::new());
    let expected = [
        ("", own(0o711)),
        ("a", own(0o700)),
        ("a/b", own(0o1777)),
        // Opaque is what is in it, and not the directory itself.
        ("cut", own(0o750)),
        ("again", implied.clone()),
        ("alone", implied),
    ];
    assert_eq!(seen(&here.path("")), expected);
    assert_eq!(mtime(here.path("a/b")), (1000, 0));
    assert_eq!(get_xattr(here.path("a/b"), "user.key").as_deref(), Ok(&b"value"[..]));
    assert_eq!(names(here.path("a")), ["b", "between"]);
    assert_eq!(names(here.path("a/b")), ["new", "old"]);
    assert_eq!(names(here.path("cut")), ["new"]);
    // A list and a look agree on the number.
    for dir in ["a", "cut", "again", "alone"] {
        let entry = |entry: &fs::DirEntry| entry.file_name() == *dir;
        let listed = fs::read_dir(here.path("")).unwrap().map(Result::unwrap).find(entry).unwrap();
        let number = std::os::unix::fs::DirEntryExt::ino(&listed);
        assert_eq!(number, ino(here.path(dir)), "{dir}");
    }
}

#[test]
fn a_directory_that_is_copied_up_takes_its_attributes_from_below() {
    needs_root!();
    let scratch = Scratch::new();
    let layers = stored(&scratch, &[archive(&TOP), archive(&BASE)]);
    let mut here = union(&layers).mount();
    let number = ino(here.path("a/b"));
    fs::write(here.path("a/b/mine"), "").unwrap();
    chmod(here.path("cut"), 0o701).unwrap();
    here.remount();
    assert_eq!((mode(here.path("a/b")), owner(here.path("a/b"))), (0o1777, (7, 8)));
    assert_eq!((mode(here.path("cut")), owner(here.path("cut"))), (0o701, (7, 8)));
    assert_eq!(ino(here.path("a/b")), number);
    assert!(exists(here.path("a/b/old")) && !exists(here.path("cut/old")));
}

#[test]
fn a_directory_of_the_host_below_has_the_attributes_too() {
    needs_root!();
    let scratch = Scratch::new();
    let mut layers = stored(&scratch, &[archive(&TOP)]);
    let host = scratch.dir("host");
    tree::make(&host, "d a mode=2770 own=3:4\nf a/host");
    layers.push(host);
    let here = union(&layers).read_only().option("timeout=1").mount();
    assert_eq!((mode(here.path("a")), owner(here.path("a"))), (0o2770, (3, 4)));
    assert_eq!(names(here.path("a")), ["b", "host"]);
}

/// podman, without layers of the host's kernel: each image is unpacked onto a copy of the one below.
#[test]
fn podman_unpacks_them_so() {
    needs_root!();
    let scratch = Scratch::new();
    let archives = [archive(&BASE), archive(&TOP)];
    let diff_ids: Vec<String> = archives.iter().map(|a| Digest::of(a).to_string()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": ["localhost/implied:1"], "Layers": ["0.tar", "1.tar"],
    }]);
    let mut image = tar::Builder::new(fs::File::create(scratch.path().join("image.tar")).unwrap());
    for (name, bytes) in [
        ("manifest.json", manifest.to_string().into_bytes()),
        ("config.json", config.to_string().into_bytes()),
        ("0.tar", archives[0].clone()),
        ("1.tar", archives[1].clone()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        image.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    image.finish().unwrap();
    // podman refuses one with a path of more than 50 characters.
    let run = tempfile::tempdir().unwrap();
    let podman = |words: &[&str]| {
        let mut command = Command::new("podman");
        let root = scratch.path().join("podman");
        command.arg("--root").arg(root).arg("--runroot").arg(run.path());
        match command.args(["--storage-driver", "vfs"]).args(words).output() {
            Ok(output) => {
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "podman {words:?}: {error}");
                Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "podman is missing");
                eprintln!("podman is not installed: not compared with it");
                None
            }
            Err(error) => panic!("podman: {error}"),
        }
    };
    let image = scratch.path().join("image.tar");
    if podman(&["load", "-q", "-i", image.to_str().unwrap()]).is_none() {
        return;
    }
    let theirs = podman(&["image", "mount", "localhost/implied:1"]).unwrap();
    let [bottom, top] = archives;
    let ours = union(&stored(&scratch, &[top, bottom])).read_only().mount();
    let seen = [Path::new(&theirs), &ours.path("")].map(seen);
    podman(&["image", "umount", "localhost/implied:1"]);
    assert_eq!(seen[0], seen[1]);
}
