//! Images of many layers.

use std::fs;

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
