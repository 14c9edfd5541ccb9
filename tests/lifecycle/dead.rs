//! The mount of a daemon that was killed, and the next one at the same place.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::process::Signal;

use crate::rights::in_user_namespace;
use crate::stage::{
    Stage, Visitor, fails, is_not_connected, is_root, run, succeeds, text, wait_until,
};

/// What the next mount says about the last one.
const TAKEN_AWAY: &str = "took away a mount whose daemon was gone";

fn kill(stage: &Stage) {
    let daemon = stage.daemon();
    daemon.signal(Signal::KILL);
    daemon.ends();
}

/// Mounts where something dead is; how many of these were taken away.
fn mounts_again(stage: &Stage) -> usize {
    let output = run(&mut stage.plyfs(&stage.writable()));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.lines().all(|line| line.contains(TAKEN_AWAY)), "{said}");
    said.lines().count()
}

#[test]
fn a_mount_whose_daemon_was_killed_makes_way_for_the_next() {
    for stage in [Some(Stage::new()), Stage::of_user()].into_iter().flatten() {
        for turn in 0..3 {
            succeeds(&mut stage.plyfs(&stage.writable()));
            let name = format!("kept{turn}");
            succeeds(stage.command("touch").arg(stage.mountpoint().join(&name)));
            let visitor = Visitor::in_directory(&stage, &stage.mountpoint());
            kill(&stage);
            assert_eq!(mounts_again(&stage), 1);
            assert_eq!(stage.mounts().len(), 1);
            assert_eq!(stage.read(), "hello");
            succeeds(stage.command("test").arg("-e").arg(stage.mountpoint().join(name)));
            drop(visitor);
            succeeds(stage.command(stage.program()).arg("umount").arg(stage.mountpoint()));
            wait_until("it has ended", || stage.daemons().is_empty());
            assert_eq!(stage.mounts(), [""; 0]);
        }
    }
}

#[test]
fn root_of_a_user_namespace_mounts_where_a_dead_mount_is() {
    let Some(stage) = Stage::of_user() else { return };
    let script = r#""$1" -o "$2" "$3"; daemon=$(pgrep -n -f -- "$2"); kill -KILL $daemon
        while cat "$3/hello" >/dev/null 2>&1; do sleep 0.01; done
        "$1" -o "$2" "$3" 2>/dev/null; cat "$3/hello"; grep -c " $3 " /proc/self/mountinfo; umount "$3""#;
    assert_eq!(in_user_namespace(&stage, script), "hello1\n");
    wait_until("it has ended", || stage.daemons().is_empty());
}

#[test]
fn a_dead_mount_is_found_by_any_path_and_below_another() {
    if !is_root("mounting over a mount") {
        return;
    }
    let stage = Stage::new();
    symlink("mnt", stage.path("link")).unwrap();
    for path in ["mnt", "./mnt/", "lower/../mnt", "link"] {
        for _ in 0..2 {
            succeeds(&mut stage.plyfs(&stage.read_only()));
        }
        for daemon in stage.daemons() {
            daemon.signal(Signal::KILL);
            daemon.ends();
        }
        assert_eq!(stage.mounts().len(), 2, "{path}");
        let mut command = stage.command(stage.program());
        command.arg("-o").arg(stage.read_only()).arg(path).current_dir(stage.path(""));
        let output = run(&mut command);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{path}: {said}");
        assert_eq!(said.matches(TAKEN_AWAY).count(), 2, "{path}: {said}");
        assert_eq!((stage.mounts().len(), stage.read()), (1, "hello".into()), "{path}");
        unmount(stage.mountpoint(), UnmountFlags::empty()).unwrap();
    }
}

#[test]
fn what_others_have_mounted_stays() {
    if !is_root("mounting below and over a mount") {
        return;
    }
    let stage = Stage::new();
    fs::create_dir(stage.path("lower/inside")).unwrap();
    fs::write(stage.path("work/theirs"), "theirs").unwrap();
    let inside = stage.mountpoint().join("inside");
    succeeds(&mut stage.plyfs(&stage.read_only()));
    mount_bind(stage.path("work"), &inside).unwrap();
    kill(&stage);
    let line = fails(&mut stage.plyfs(&stage.read_only()));
    assert!(line.contains("whose daemon is gone"), "{line}");
    assert_eq!(stage.mounts().len(), 2);
    unmount(&inside, UnmountFlags::empty()).unwrap();
    // A living mount over a dead one: mounted over, as over any directory.
    mount_bind(stage.path("work"), stage.mountpoint()).unwrap();
    // Else what is mounted on it is mounted on the directory itself, too, where mounts are shared.
    mount_change(stage.mountpoint(), MountPropagationFlags::PRIVATE).unwrap();
    assert_eq!(mounts_again(&stage), 0);
    assert_eq!(stage.mounts().len(), 3);
    kill(&stage);
    let dead = fs::read_dir(stage.mountpoint()).unwrap_err();
    assert!(is_not_connected(&dead), "{dead}");
    assert_eq!(mounts_again(&stage), 1);
    assert_eq!(stage.mounts().len(), 3);
}

#[test]
fn a_dead_mount_of_another_program_stays() {
    if !is_root("mounting by hand") {
        return;
    }
    let stage = Stage::new();
    succeeds(&mut stage.plyfs(&format!("{},subtype=another", stage.read_only())));
    kill(&stage);
    let line = fails(&mut stage.plyfs(&stage.read_only()));
    assert!(line.contains("whose daemon is gone"), "{line}");
    assert_eq!(stage.mounts().len(), 1);
}

#[test]
fn a_dead_mount_can_be_unmounted() {
    let stage = Stage::new();
    stage.mount();
    kill(&stage);
    succeeds(stage.command(stage.program()).arg("umount").arg(stage.mountpoint()));
    assert_eq!(stage.mounts(), [""; 0]);
}
