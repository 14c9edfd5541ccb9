//! Daemons that are killed, containers that are made or removed by who dies, and two who want the same.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::stage::{Stage, text};
use crate::support::posix::names;
use crate::support::scratch::detach;
use crate::{isolated, needs_root};

#[test]
fn a_daemon_that_is_killed_leaves_a_container_that_can_be_mounted_again() {
    needs_root!();
    let stage = Stage::new();
    let (point, again) = (stage.point("m"), stage.point("n"));
    stage.mount("--name web app m");
    fs::write(point.join("app"), "changed").unwrap();
    let pid = stage.program.json("ps --format json")["Pid"].to_string();
    let killed = std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    assert!(killed.success());
    stage.wait_until_nothing_is_mounted();
    assert_eq!(stage.program.says("ps -aq"), "web\n");
    // The dead mount is still in the tree; the container is free.
    stage.mount("--name web app n");
    assert_eq!(stage.mounted(), ["web"]);
    assert_eq!(text(again.join("app")), "changed");
    stage.program.says("umount web");
    detach(&point);
    stage.mount("-r app m");
    stage.program.says("umount m");
}

#[test]
fn of_two_who_mount_a_container_one_wins() {
    needs_root!();
    let stage = Stage::new();
    let points = ["a", "b", "c"];
    let mounts: Vec<_> = points
        .iter()
        .map(|point| {
            stage.point(point);
            let mut command = stage.program.command(&format!("mount --name web app {point}"));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let outputs: Vec<_> =
        mounts.into_iter().map(|mount| mount.wait_with_output().unwrap()).collect();
    let won: Vec<_> = outputs.iter().filter(|output| output.status.success()).collect();
    assert_eq!(won.len(), 1, "{outputs:?}");
    for lost in outputs.iter().filter(|output| !output.status.success()) {
        assert_eq!(lost.status.code(), Some(1));
        let line = String::from_utf8_lossy(&lost.stderr);
        assert!(
            line.starts_with("plyfs: container web is mounted on ") && line.lines().count() == 1,
            "{line}"
        );
    }
    assert_eq!(stage.mounted(), ["web"]);
    assert_eq!(stage.program.says("ps -aq"), "web\n");
    stage.program.says("umount web");
}

#[cfg(feature = "fault-points")]
#[test]
fn who_dies_while_a_container_is_made_or_removed_leaves_all_of_it_or_nothing() {
    needs_root!();
    for (point, words, left) in [
        ("container.staged", "mount --name web app m", ""),
        ("container.published", "mount --name web app m", "web\n"),
        ("container.removed", "rm web", ""),
    ] {
        let stage = Stage::new();
        let mountpoint = stage.point("m");
        if words.starts_with("rm") {
            stage.mount("--name web app m");
            fs::write(mountpoint.join("new"), "new").unwrap();
            stage.program.says("umount web");
        }
        let died = stage.program.command(words).env("PLYFS_FAULT", point).output().unwrap();
        assert_eq!(died.status.signal(), Some(9), "{point} was not reached");
        assert_eq!(stage.program.says("ps -aq"), left, "{point}");
        stage.program.says("store gc");
        for folder in ["tmp", "mounts"] {
            assert_eq!(names(stage.program.store().join(folder)), [""; 0], "{point}");
        }
        stage.mount("--name web app m");
        assert_eq!(names(&mountpoint), ["app", "bin", "etc", "null"], "{point}");
        stage.program.says("umount web");
        stage.program.says("rm web");
    }
}

/// The session in which it was mounted has ended, but its daemon keeps the namespace alive.
#[test]
fn a_container_whose_namespace_everybody_has_left_can_be_mounted_again() {
    isolated!(User, {
        let stage = Stage::new();
        let point = stage.point("m");
        let inside = format!(
            "unshare -Urm sh -c '{} mount --name web app m && echo changed > m/app'",
            crate::support::mount::program().display()
        );
        let mut session = std::process::Command::new("sh");
        session.args(["-c", &inside]).current_dir(stage.program.dir.path());
        let output = session.env("PLYFS_STORE", stage.program.store()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(names(&point), [""; 0], "mounted for us too");
        stage.mount("--name web app m");
        assert_eq!(text(point.join("app")), "changed\n");
        stage.program.says("umount web");
    });
}
