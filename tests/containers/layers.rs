//! Images of many layers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::needs_root;
use crate::stage::{Stage, text};
use crate::store::program::TestImage;
use crate::store::support::Tar;
use crate::support::posix::names;

/// Each layer has a file of its own, changes `last`, and deletes the file of the one below.
fn of_layers(count: usize) -> TestImage {
    let layer = |at: usize| {
        let tar = Tar::new().file(&format!("f{at}"), "own").file("last", &at.to_string());
        let tar = if at > 0 { tar.file(&format!(".wh.f{}", at - 1), "") } else { tar };
        tar.end()
    };
    TestImage { layers: (0..count).map(layer).collect() }
}

fn mounted(count: usize) {
    let stage = Stage::empty();
    stage.load("app", &of_layers(count));
    let point = stage.point("m");
    stage.mount("--name web app m");
    let own = format!("f{}", count - 1);
    assert_eq!(names(&point), [own.as_str(), "last"]);
    assert_eq!(text(point.join("last")), (count - 1).to_string());
    fs::remove_file(point.join(&own)).unwrap();
    fs::write(point.join("f0"), "new").unwrap();
    stage.program.says("umount web");
    stage.mount("--name web m");
    assert_eq!(names(&point), ["f0", "last"]);
    stage.program.says("umount web");
}

/// `FROM scratch`: what is made in it is its first layer.
#[test]
fn an_image_without_layers_is_an_empty_tree() {
    needs_root!();
    let stage = Stage::empty();
    stage.load("scratch", &TestImage { layers: Vec::new() });
    let point = stage.point("m");
    stage.mount("-r scratch m");
    assert_eq!(names(&point), [""; 0]);
    assert_eq!(fs::metadata(&point).unwrap().permissions().mode() & 0o7777, 0o755);
    stage.program.says("umount m");
    stage.program.says("store gc");
    stage.mount("--name web scratch m");
    stage.program.says("store gc");
    fs::write(point.join("first"), "1").unwrap();
    stage.program.says("umount web");
    assert_eq!(stage.program.says("diff web"), "A /first\n");
    stage.program.says("commit web app");
    stage.mount("-r app m");
    assert_eq!(text(point.join("first")), "1");
    stage.program.says("umount m");
    stage.program.says("store gc");
    stage.program.says("store verify --full");
    let seal = stage.program.says("image seal scratch");
    let seal = seal.trim_end();
    let (status, line) = stage.program.fails(&format!("mount --require-seal {seal} scratch m"));
    assert_eq!(status, 1);
    assert!(line.contains("image scratch:latest: it has no layers that could be sealed"), "{line}");
}

#[test]
fn an_image_of_130_layers_is_mounted() {
    needs_root!();
    mounted(130);
}

#[test]
fn an_image_of_1000_layers_is_mounted() {
    needs_root!();
    mounted(1000);
}
