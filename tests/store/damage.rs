//! What is damaged is found, and made again where it can be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::program::{Program, TestImage, archive, gzip};

fn loaded() -> Program {
    let program = Program::new();
    program.write("image.tar", &archive(&TestImage::small().oci("app", gzip, "+gzip")));
    program.says("image load -q image.tar");
    program
}

/// The first file below `folder` of which `wanted` is true.
fn file(folder: PathBuf, wanted: fn(&Path) -> bool) -> PathBuf {
    let mut open = vec![folder];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if wanted(&path) {
                return path;
            }
        }
    }
    panic!("no such file");
}

/// Changes one bit.
fn flip(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Found by this depth of verification, and gone after a repair.
fn found_and_repaired(program: &Program, depth: &str, what: &str) {
    let output = program.run(&format!("store verify{depth}"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains(what), "{text}");
    let repaired = program.says("store verify --full --repair");
    assert!(repaired.contains("repaired"), "{repaired}");
    assert!(program.says("store verify --full").ends_with("no problems\n"));
    program.says("image save app -o saved.tar");
}

/// An image that cannot be read keeps nobody from the others, and its name can be taken away.
#[test]
fn a_damaged_image_stands_alone() {
    let program = loaded();
    let inspected = program.says("image inspect app");
    let id = inspected.split("\"Id\": \"sha256:").nth(1).unwrap()[..64].to_owned();
    fs::create_dir(program.path("other")).unwrap();
    fs::write(program.path("other/file"), "content").unwrap();
    program.says("image import -q other other:1");
    fs::remove_file(program.store().join("blobs/sha256").join(&id)).unwrap();
    let listed = program.run("image ls");
    assert!(listed.status.success());
    let (rows, warning) = (String::from_utf8(listed.stdout), String::from_utf8(listed.stderr));
    assert!(rows.unwrap().lines().nth(1).unwrap().starts_with("other"));
    assert!(warning.unwrap().contains("see `plyfs store verify`"));
    program.says("image inspect other:1");
    let (status, line) = program.fails("image inspect app");
    assert_eq!(status, 4, "{line}");
    assert!(line.contains(&id), "{line}");
    assert_eq!(program.fails("store gc").0, 4);
    assert_eq!(program.says("image rm app"), "Untagged: app:latest\n");
    program.says("store gc");
    assert!(program.says("store verify --full").ends_with("no problems\n"));
}

#[test]
fn objects_are_made_again_from_blobs() {
    let program = loaded();
    flip(&file(program.store().join("objects"), |_| true));
    assert!(program.says("store verify").ends_with("no problems\n"));
    assert_eq!(program.fails("image save app -o saved.tar").0, 4);
    assert!(!program.path("saved.tar").exists());
    found_and_repaired(&program, " --full", "it is damaged");
    fs::remove_file(file(program.store().join("objects"), |_| true)).unwrap();
    found_and_repaired(&program, "", "it is missing");
}

#[test]
fn indexes_are_made_again() {
    let program = loaded();
    let index = |path: &Path| path.ends_with("index");
    flip(&file(program.store().join("layers"), index));
    found_and_repaired(&program, "", "index: it is damaged");
    fs::remove_file(file(program.store().join("layers"), |path| path.ends_with("tar-split")))
        .unwrap();
    found_and_repaired(&program, "", "tar-split");
}

#[test]
fn what_cannot_be_made_again_is_told() {
    let program = loaded();
    let long = |path: &Path| fs::read(path).unwrap().starts_with(&[0x1f, 0x8b]);
    flip(&file(program.store().join("blobs/sha256"), long));
    let output = program.run("store verify --full --repair");
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("blob sha256:") && text.ends_with("1 problem\n"), "{text}");
}

/// Blobs that were made here can be made again.
#[test]
fn blobs_are_made_again_from_layers() {
    let program = Program::new();
    program.write("image.tar", &archive(&TestImage::small().old_docker("app")));
    program.says("image load -q image.tar");
    let long = |path: &Path| fs::read(path).unwrap().starts_with(&[0x1f, 0x8b]);
    flip(&file(program.store().join("blobs/sha256"), long));
    found_and_repaired(&program, " --full", "it is damaged");
}
