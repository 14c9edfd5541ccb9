//! What `store gc` keeps for mounts and containers, and that it takes nothing from under those that just begin.

use std::path::Path;
use std::process::Command;

use crate::needs_root;
use crate::stage::{Stage, image, text};
use crate::store::program::archive;

/// The files of the image are all there, those that have not been opened yet too.
fn whole(point: &Path) {
    assert_eq!(text(point.join("app")), "application");
    assert_eq!(text(point.join("bin/sh")), "shell");
}

#[test]
fn what_is_mounted_is_kept_and_what_is_not_goes() {
    needs_root!();
    for words in ["-r app m", "--upper up app m"] {
        let stage = Stage::new();
        let point = stage.point("m");
        stage.point("up");
        stage.mount(words);
        stage.program.says("image rm -f app");
        stage.program.says("store gc");
        whole(&point);
        stage.program.says("umount m");
        stage.program.says("store gc");
        assert_eq!(stage.program.stored(), [""; 0], "{words}");
    }
}

#[test]
fn a_container_keeps_its_image() {
    needs_root!();
    let stage = Stage::new();
    let point = stage.point("m");
    stage.mount("--name web app m");
    stage.program.says("image rm -f app");
    for _ in 0..2 {
        stage.program.says("store gc");
        whole(&point);
        stage.program.says("umount web");
        stage.program.says("store gc");
        stage.mount("--name web m");
    }
    stage.program.says("umount web");
    stage.program.says("rm web");
    stage.program.says("store gc");
    assert_eq!(stage.program.stored(), [""; 0]);
}

#[test]
fn the_record_of_a_dead_mount_goes_and_keeps_nothing() {
    needs_root!();
    let stage = Stage::new();
    stage.program.write("store/mounts/dead.json", b"{ half of it");
    stage.program.says("image rm -f app");
    stage.program.says("store gc --dry-run");
    assert!(stage.program.path("store/mounts/dead.json").exists());
    stage.program.says("store gc");
    assert_eq!(stage.program.stored(), [""; 0]);
}

/// Garbage is collected again and again while images are loaded, mounted, read and lose their names: whoever has
/// mounted one has all of it.
#[test]
fn nothing_is_taken_from_under_a_mount_that_begins() {
    needs_root!();
    let stage = Stage::new();
    stage.program.write("image.tar", &archive(&image().old_docker("app:latest")));
    let done = std::sync::atomic::AtomicBool::new(false);
    let mounted = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                stage.program.run("image rm -f app");
                stage.program.says("store gc");
            }
        });
        let mounts: Vec<_> = ["a", "b"]
            .map(|name| {
                let point = stage.point(name);
                let program = &stage.program;
                scope.spawn(move || {
                    let mut mounted = 0;
                    for _ in 0..12 {
                        program.says("image load -q image.tar");
                        // Another may have taken the name away since.
                        if program.run(&format!("mount -r app {name}")).status.success() {
                            // Not by this process: programs that other threads start just then would have the files open too.
                            let files = [point.join("app"), point.join("bin/sh")];
                            let read = Command::new("cat").args(files).output().unwrap();
                            assert_eq!(read.stdout, b"applicationshell");
                            program.says(&format!("umount {name}"));
                            mounted += 1;
                        }
                    }
                    mounted
                })
            })
            .into_iter()
            .collect();
        let mounted: Vec<_> = mounts.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        mounted.into_iter().map(Result::unwrap).sum::<i32>()
    });
    assert!(mounted > 0, "no mount came about");
    stage.program.run("image rm -f app");
    stage.program.says("store gc");
    assert_eq!(stage.program.stored(), [""; 0]);
}

#[test]
fn an_image_that_a_container_or_a_mount_uses_is_removed_by_force_alone() {
    needs_root!();
    let stage = Stage::new();
    let (point, id) = (stage.point("m"), image().id());
    let refused = |text: &str, user: &str| {
        let line = format!(
            "plyfs: conflict: unable to remove image {text} (must force): {user} is using it"
        );
        let words = format!("image rm {text}");
        assert_eq!(stage.program.fails(&words), (1, line));
    };
    stage.mount("--name web app m");
    refused("app", "container web");
    stage.program.says("umount web");
    for text in ["app", &id[7..19]] {
        refused(text, "container web");
    }
    // Its other name can go, and nothing is deleted.
    stage.program.says("image tag app other");
    assert_eq!(stage.program.says("image rm other"), "Untagged: other:latest\n");
    assert_eq!(stage.program.says("image rm -f app"), "Untagged: app:latest\n");
    stage.load("app", &image());
    assert_eq!(stage.program.says(&format!("image rm -f {id}")), "Untagged: app:latest\n");
    stage.program.says("store gc");
    stage.mount("--name web m");
    whole(&point);
    stage.program.says("umount web");
    stage.program.says("rm web");

    stage.load("app", &image());
    let name = stage.mount("-r app m");
    refused("app", &format!("mount {name}"));
    assert_eq!(stage.program.says("image rm -f app"), "Untagged: app:latest\n");
    whole(&point);
    stage.program.says("umount m");

    stage.load("app", &image());
    let gone = format!("Untagged: app:latest\nDeleted: {id}\n");
    assert_eq!(stage.program.says("image rm app"), gone);
}
