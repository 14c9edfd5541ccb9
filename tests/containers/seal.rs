//! `plyfs image seal` and `--require-seal`: an image that differs in any bit is not shown.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::needs_root;
use crate::stage::{Stage, image, text};
use crate::support::posix::{append, errno, names};

fn seal(stage: &Stage, image: &str) -> String {
    stage.program.says(&format!("image seal {image}")).trim_end().to_owned()
}

/// Changes one bit.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    // Objects are read-only for everybody but root.
    fs::write(path, bytes).unwrap();
}

fn indexes(stage: &Stage) -> Vec<PathBuf> {
    let layers = fs::read_dir(stage.program.store().join("layers")).unwrap();
    layers.map(|layer| layer.unwrap().path().join("index")).collect()
}

#[test]
fn a_seal_is_that_of_one_image_in_every_store() {
    let stage = Stage::new();
    let first = seal(&stage, "app");
    assert_eq!(first.len(), 64);
    assert_eq!(seal(&Stage::new(), "app"), first);
    let mut other = image();
    other.layers.pop();
    stage.load("other", &other);
    assert_ne!(seal(&stage, "other"), first);
    // By the words of docs/format.md.
    let config = stage.program.json("image inspect app")[0]["Id"].as_str().unwrap().to_owned();
    let mut sealed = format!("plyfs seal 1\n{config}\n");
    for layer in stage.program.json("image inspect app")[0]["RootFS"]["Layers"].as_array().unwrap()
    {
        let layer = layer.as_str().unwrap();
        let index = stage.program.store().join("layers").join(&layer[7..]).join("index");
        let bytes = fs::read(index).unwrap();
        let whole = [&bytes[..96], &bytes[128..]].concat();
        assert_eq!(blake3::hash(&whole).as_bytes(), &bytes[96..128]);
        sealed.push_str(&format!("{layer} {}\n", blake3::hash(&whole)));
    }
    assert_eq!(blake3::hash(sealed.as_bytes()).to_hex().as_str(), first);
}

#[test]
fn an_image_with_the_seal_is_mounted_and_every_other_is_not() {
    needs_root!();
    let stage = Stage::new();
    let point = stage.point("m");
    let seal = seal(&stage, "app");
    let mount = format!("mount --require-seal {seal}");
    stage.program.says(&format!("{mount} --name box app m"));
    assert_eq!(text(point.join("app")), "application");
    append(point.join("app"), "+");
    stage.program.says("umount m");
    // Changes are not the image's.
    stage.program.says(&format!("{mount} --name box m"));
    assert_eq!(text(point.join("app")), "application+");
    stage.program.says("umount m");

    let (status, line) =
        stage.program.fails(&format!("mount -r --require-seal {} app m", "0".repeat(64)));
    assert_eq!(status, 4);
    assert!(line.contains(&format!("its seal is {seal}, not 0000")), "{line}");
    let (status, line) = stage.program.fails("mount -r --require-seal 12 app m");
    assert_eq!((status, line.contains("a seal is 64 digits of 0-9a-f")), (2, true), "{line}");
    assert_eq!(names(&point), [""; 0]);
}

#[test]
fn a_bit_of_an_index_or_of_the_configuration_keeps_the_image_from_being_mounted() {
    needs_root!();
    let damages: [fn(&Stage) -> PathBuf; 3] = [
        |stage| indexes(stage)[0].clone(),
        |stage| indexes(stage)[1].clone(),
        |stage| {
            let id = stage.program.json("image inspect app")[0]["Id"].as_str().unwrap().to_owned();
            stage.program.store().join("blobs/sha256").join(&id[7..])
        },
    ];
    for damage in damages {
        let stage = Stage::new();
        let point = stage.point("m");
        let seal = seal(&stage, "app");
        let path = damage(&stage);
        let length = fs::metadata(&path).unwrap().len() as usize;
        for at in [1, 20, 60, 100, length / 2, length - 1] {
            let before = fs::read(&path).unwrap();
            flip(&path, at);
            let (status, line) =
                stage.program.fails(&format!("mount -r --require-seal {seal} app m"));
            assert_eq!(status, 4, "{at} of {}: {line}", path.display());
            assert_eq!(names(&point), [""; 0]);
            fs::write(&path, before).unwrap();
        }
        stage.program.says(&format!("mount -r --require-seal {seal} app m"));
        stage.program.says("umount m");
    }
}

#[test]
fn a_bit_of_a_content_does_not_come_to_who_reads_a_sealed_image() {
    needs_root!();
    let stage = Stage::new();
    let point = stage.point("m");
    let seal = seal(&stage, "app");
    let hex = blake3::hash(b"hello").to_hex();
    flip(&stage.program.store().join("objects").join(&hex[..2]).join(&hex[2..]), 3);
    stage.program.says(&format!("mount -r --require-seal {seal} app m"));
    assert_eq!(errno(fs::read(point.join("etc/motd"))), Errno::IO);
    assert_eq!(text(point.join("app")), "application");
    // An index that changes while it is mounted: what was compared is in memory.
    for index in indexes(&stage) {
        let length = fs::metadata(&index).unwrap().len() as usize;
        for at in 128..length {
            flip(&index, at);
        }
    }
    assert_eq!(names(point.join("bin")), ["sh", "su"]);
    assert_eq!(text(point.join("bin/sh")), "shell");
    stage.program.says("umount m");
}
