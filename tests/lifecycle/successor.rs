//! A mountpoint that has another mount by the time the first one's daemon ends: it must be left
//! alone. fuse-overlayfs 2.0 detaches it.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::stage::{Daemon, Stage, fails, is_root, shell, succeeds, wait_until};

/// Mounts in a mount namespace of its own and then does `rest` there.
fn mount_elsewhere(stage: &Stage, rest: &str) -> Command {
    let mut command = stage.command("unshare");
    let script = format!("\"$1\" -o \"$2\" \"$3\" && {rest}");
    if !stage.is_of_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation=private", "sh", "-c", &script, "sh"]);
    command.arg(stage.program()).arg(stage.writable()).arg(stage.mountpoint());
    command
}

/// A daemon keeps the namespaces alive in which its own mount is.
fn makes_way(stage: &Stage, mut successor: Command) {
    for _ in 0..3 {
        succeeds(&mut mount_elsewhere(stage, "echo more >> \"$3\"/hello"));
        let first = stage.daemon();
        assert_eq!(stage.mounts(), [""; 0]);
        succeeds(&mut successor);
        remaining(stage, first).signal(Signal::TERM);
        wait_until("both have ended", || stage.daemons().is_empty());
    }
    assert_eq!(
        fs::read_to_string(stage.path("upper/hello")).unwrap(),
        "hello".to_owned() + &"more\n".repeat(3)
    );
}

#[test]
fn a_mount_that_nobody_can_reach_any_more_makes_way_for_the_next() {
    if !is_root("mounting in a namespace") {
        return;
    }
    let stage = Stage::new();
    makes_way(&stage, stage.plyfs(&stage.writable()));
}

/// As `buildah unshare` does it: every command has a user namespace of its own.
#[test]
fn an_unreachable_mount_of_another_user_namespace_makes_way_too() {
    let Some(stage) = Stage::of_user() else { return };
    makes_way(&stage, mount_elsewhere(&stage, "true"));
}

#[test]
fn a_mount_in_another_namespace_stays_as_long_as_somebody_is_there() {
    if !is_root("mounting in a namespace") {
        return;
    }
    let stage = Stage::new();
    let mut visitor =
        mount_elsewhere(&stage, "echo > \"$3\"/ready && exec sleep 1000").spawn().unwrap();
    wait_until("it is mounted", || stage.path("upper/ready").exists());
    let first = stage.daemon();
    let line = fails(&mut stage.plyfs(&stage.writable()));
    assert!(line.contains("in use by another live mount"), "{line}");
    assert!(first.is_running());
    visitor.kill().unwrap();
    visitor.wait().unwrap();
    succeeds(&mut stage.plyfs(&stage.writable()));
    remaining(&stage, first).signal(Signal::TERM);
}

/// The daemon that is not `first`, once `first` has ended.
fn remaining(stage: &Stage, first: Daemon) -> Daemon {
    first.ends();
    stage.daemon()
}

#[test]
fn mounting_again_at_once_after_an_unmount() {
    let stage = Stage::new();
    // The second takes over the upper too, from a daemon that may not have ended yet.
    for _ in 0..20 {
        succeeds(&mut stage.plyfs(&stage.writable()));
        let first = stage.daemon();
        succeeds(&mut shell("umount $1", &[stage.mountpoint()]));
        succeeds(&mut stage.plyfs(&stage.writable()));
        let second = remaining(&stage, first);
        assert_eq!(stage.mounts().len(), 1);
        assert_eq!(stage.read(), "hello");
        second.signal(Signal::TERM);
        second.ends();
    }
}

#[test]
fn a_signal_to_the_first_while_it_is_replaced() {
    let stage = Stage::new();
    for _ in 0..20 {
        let first = stage.mount();
        let visitor = fs::File::open(stage.mountpoint().join("hello")).unwrap();
        succeeds(&mut shell("umount -l $1", &[stage.mountpoint()]));
        succeeds(&mut stage.plyfs(&stage.read_only()));
        // It still serves the visitor, so its own filesystem lives: only its mount is gone.
        first.signal(Signal::TERM);
        drop(visitor);
        let second = remaining(&stage, first);
        assert_eq!(stage.mounts().len(), 1);
        assert_eq!(stage.read(), "hello");
        second.signal(Signal::TERM);
        second.ends();
    }
}

#[test]
fn a_signal_to_the_first_beneath_the_second() {
    let stage = Stage::new();
    let first = stage.mount();
    succeeds(&mut stage.plyfs(&stage.read_only()));
    first.signal(Signal::TERM);
    let second = remaining(&stage, first);
    assert_eq!(stage.read(), "hello");
    second.signal(Signal::TERM);
    second.ends();
    // What is left of the first can only be reached now.
    assert_eq!(stage.mounts().len(), 1);
    succeeds(Command::new(stage.program()).arg("umount").arg(stage.mountpoint()));
}

#[test]
fn a_mountpoint_that_is_renamed_and_replaced() {
    let stage = Stage::new();
    let first = stage.mount();
    succeeds(&mut shell("umount -l $1; mv $1 $1.old; mkdir $1", &[stage.mountpoint()]));
    first.ends();
    assert_eq!(fs::read_dir(stage.mountpoint()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(stage.path("mnt.old")).unwrap().count(), 0);
}
