//! Other programs take what we save, read our store in place, and give us what they save.

use std::path::Path;
use std::process::Command;

use crate::program::{Program, TestImage, archive, gzip, zstd};

/// Runs a program that must succeed; `None` if it is not installed.
pub fn peer(program: &Program, words: &[&str]) -> Option<String> {
    if is_missing(words[0]) {
        return None;
    }
    let output =
        Command::new(words[0]).args(&words[1..]).current_dir(program.dir.path()).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is not installed, which is said aloud, and where nothing may be skipped is a failure.
pub fn is_missing(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = !std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    if missing {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{name} is missing");
        eprintln!("SKIPPED: {name} is not installed: nothing is tested with it");
    }
    missing
}

fn id(program: &Program, name: &str) -> String {
    program.json(&format!("image inspect {name}"))[0]["Id"].as_str().unwrap().to_owned()
}

#[test]
fn skopeo_reads_the_store_in_place_and_what_we_save() {
    let image = TestImage::small();
    let program = Program::new();
    program.write("image.tar", &archive(&image.docker("app:1")));
    program.says("image load -q image.tar");
    let Some(text) = peer(&program, &["skopeo", "inspect", "oci:store:app:1"]) else { return };
    assert!(text.contains("\"/bin/sh\"") || text.contains("PATH=/bin"), "{text}");
    program.says("image save app:1 -o docker.tar");
    program.says("image save app:1 -o oci.tar --format oci");
    let other = Program::new();
    let target = |name: &str| other.path(name).display().to_string();
    for (source, form) in [
        ("oci:store:app:1", "docker-archive"),
        ("oci:store:app:1", "oci-archive"),
        ("docker-archive:docker.tar", "oci"),
        ("oci-archive:oci.tar:app:1", "docker-archive"),
        ("docker-archive:docker.tar", "docker-archive"),
    ] {
        let name = format!("{}-{form}", source.split(':').next().unwrap());
        let to = format!("{form}:{}:back:{form}", target(&name));
        peer(&program, &["skopeo", "copy", "-q", source, &to]);
        assert_eq!(
            other.says(&format!("image load -q {name}")),
            format!("Loaded image: back:{form}\n")
        );
        let same = id(&other, &format!("back:{form}")) == image.id();
        // From one kind to the other skopeo writes the configuration anew.
        assert_eq!(same, (source, form) != ("docker-archive:docker.tar", "oci"), "{source} {form}");
    }
    assert!(other.says("store verify --full").ends_with("no problems\n"));
}

#[test]
fn zstd_layers_pass_through_skopeo_unchanged() {
    let image = TestImage::small();
    let program = Program::new();
    program.write("image.tar", &archive(&image.oci("app:1", zstd, "+zstd")));
    program.says("image load -q image.tar");
    if peer(&program, &["skopeo", "copy", "-q", "oci:store:app:1", "oci:copy:app:1"]).is_none() {
        return;
    }
    let digest = |program: &Program| program.json("image inspect app:1")[0]["Digest"].clone();
    let other = Program::new();
    let source = program.path("copy").display().to_string();
    other.says(&format!("image load -q {source}"));
    assert_eq!(digest(&program), digest(&other));
}

#[test]
fn umoci_reads_the_store_in_place() {
    let program = Program::new();
    program.write("image.tar", &archive(&TestImage::small().oci("app:1", gzip, "+gzip")));
    program.says("image load -q image.tar");
    let Some(text) = peer(&program, &["umoci", "ls", "--layout", "store"]) else { return };
    assert_eq!(text, "app:1\n");
    peer(&program, &["umoci", "unpack", "--rootless", "--image", "store:app:1", "unpacked"]);
    let root = program.path("unpacked/rootfs");
    assert_eq!(std::fs::read(root.join("app")).unwrap(), b"application");
    assert!(!root.join("etc/passwd").exists());
    assert!(program.says("store verify --full").ends_with("no problems\n"));
}

#[test]
fn podman_takes_what_we_save_and_gives_it_back() {
    let image = TestImage::small();
    let program = Program::new();
    program.write("image.tar", &archive(&image.docker("localhost/app:1")));
    program.says("image load -q image.tar");
    // podman refuses one with a path of more than 50 characters.
    let run = tempfile::tempdir().unwrap();
    let root = program.path("podman");
    let podman = |words: &[&str]| {
        let places =
            ["--root", text(&root), "--runroot", text(run.path()), "--storage-driver", "vfs"];
        peer(&program, &[&["podman"], &places[..], words].concat())
    };
    for format in ["docker", "oci"] {
        program.says(&format!("image save localhost/app:1 -o saved.tar --format {format}"));
        if podman(&["load", "-q", "-i", "saved.tar"]).is_none() {
            return;
        }
        let found = podman(&["images", "--no-trunc", "-q", "localhost/app:1"]).unwrap();
        assert_eq!(found.trim(), image.id(), "{format}");
    }
    podman(&["save", "-q", "-o", "back.tar", "localhost/app:1"]);
    let other = Program::new();
    other.says(&format!("image load -q {}", text(&program.path("back.tar"))));
    assert_eq!(id(&other, "localhost/app:1"), image.id());
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
