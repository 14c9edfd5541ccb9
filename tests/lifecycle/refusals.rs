//! What cannot be mounted or unmounted, and the one line that says why.

use std::fs;
use std::process::Command;

use crate::stage::{Stage, USER, Visitor, fails, is_root, run, shell, succeeds, text};

fn plyfs_at(stage: &Stage, mountpoint: &str) -> Command {
    let mut command = stage.command(stage.program());
    command.arg("-o").arg(stage.read_only()).arg(mountpoint);
    command
}

#[test]
fn a_mountpoint_must_be_a_directory() {
    let stage = Stage::new();
    let missing = stage.path("missing").display().to_string();
    let line = fails(&mut plyfs_at(&stage, &missing));
    assert!(line.contains(&format!("{missing}: does not exist")), "{line}");
    let file = stage.path("lower/hello").display().to_string();
    let line = fails(&mut plyfs_at(&stage, &file));
    assert!(line.contains(&format!("{file}: not a directory")), "{line}");
    let below = format!("{file}/below");
    let line = fails(&mut plyfs_at(&stage, &below));
    assert!(line.contains(&format!("{below}: not a directory")), "{line}");
}

#[test]
fn a_layer_that_is_missing_leaves_nothing_mounted() {
    let stage = Stage::new();
    let missing = stage.path("missing").display().to_string();
    let line = fails(&mut stage.plyfs(&format!("lowerdir={missing}")));
    assert!(line.contains(&missing), "{line}");
    assert_eq!(stage.mounts(), [""; 0]);
    assert_eq!(stage.daemons(), []);
}

#[test]
fn an_upper_in_use_by_a_live_mount_is_refused() {
    let stage = Stage::new();
    succeeds(&mut stage.plyfs(&stage.writable()));
    let daemon = stage.daemon();
    let elsewhere = stage.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut second = stage.command(stage.program());
    let line = fails(second.arg("-o").arg(stage.writable()).arg(&elsewhere));
    assert!(line.contains("in use by another live mount"), "{line}");
    assert_eq!(stage.mounts().len(), 1);
    assert_eq!(stage.read(), "hello");
    // A mount that nobody can reach any more, but somebody still uses, is live too.
    let visitor = Visitor::in_directory(&stage, &stage.mountpoint());
    succeeds(&mut shell("umount -l $1", &[stage.mountpoint()]));
    let line = fails(&mut stage.plyfs(&stage.writable()));
    assert!(line.contains("in use by another live mount"), "{line}");
    drop(visitor);
    daemon.ends();
    succeeds(&mut stage.plyfs(&stage.writable()));
}

/// Runs the program through `runner` in a mount namespace that `prepare` has changed; its line.
fn fails_after(stage: &Stage, prepare: &str, runner: &str) -> String {
    let script = format!(r#"{prepare}; exec {runner} "$1" -o "$2" "$3""#);
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-ec", &script, "sh"]);
    fails(command.args(stage.arguments()))
}

#[test]
fn without_the_device_it_says_what_to_do() {
    if !is_root("hiding /dev/fuse") {
        return;
    }
    let stage = Stage::new();
    let line = fails_after(&stage, "mount -t tmpfs t /dev", "env");
    assert!(line.contains("/dev/fuse: does not exist; load the module"), "{line}");
    // A device number without a driver behind it.
    let other = "mknod $3.dev c 240 200; mount --bind $3.dev /dev/fuse";
    let line = fails_after(&stage, other, "env");
    assert!(line.contains("/dev/fuse: the kernel has no FUSE"), "{line}");
}

#[test]
fn without_proc_it_says_so() {
    if !is_root("hiding /proc") {
        return;
    }
    let line = fails_after(&Stage::new(), "mount -t tmpfs t /proc", "env");
    assert!(line.contains("mount /proc first"), "{line}");
}

#[test]
fn without_permission_on_the_device_it_says_so() {
    let Some(stage) = Stage::of_user() else { return };
    let closed = "mknod -m 600 $3.dev c 10 229; mount --bind $3.dev /dev/fuse";
    let user = format!("setpriv --reuid={USER} --regid={USER} --clear-groups");
    let line = fails_after(&stage, closed, &user);
    assert!(line.contains("/dev/fuse: no permission"), "{line}");
}

#[test]
fn only_a_union_is_unmounted() {
    let stage = Stage::new();
    let umount = |path: &str| fails(stage.command(stage.program()).arg("umount").arg(path));
    assert!(umount("/proc").contains("/proc: mounted as proc, not by plyfs"));
    let nothing = stage.mountpoint().display().to_string();
    assert!(umount(&nothing).contains(&format!("{nothing}: not mounted")));
    let missing = stage.path("missing").display().to_string();
    assert!(umount(&missing).contains(&format!("{missing}: does not exist")));
}

#[test]
fn a_busy_union_is_not_unmounted() {
    let stage = Stage::new();
    stage.mount();
    let _file = fs::File::open(stage.mountpoint().join("hello")).unwrap();
    let line = fails(stage.command(stage.program()).arg("umount").arg(stage.mountpoint()));
    assert!(line.contains("in use"), "{line}");
    assert_eq!(stage.mounts().len(), 1);
}

#[test]
fn an_ordinary_users_busy_union_is_not_unmounted() {
    let Some(stage) = Stage::of_user() else { return };
    stage.mount();
    let _visitor = Visitor::in_directory(&stage, &stage.mountpoint());
    let line = fails(stage.command(stage.program()).arg("umount").arg(stage.mountpoint()));
    assert!(line.contains("in use"), "{line}");
}

#[test]
fn a_context_where_there_is_no_selinux_is_named_and_ignored() {
    let stage = Stage::new();
    if fs::exists("/sys/fs/selinux/enforce").unwrap() {
        eprintln!("not run: SELinux is enabled");
        return;
    }
    let options = format!("{},context=\"u:r:t:s0:c1,c2\"", stage.read_only());
    let output = run(&mut stage.plyfs(&options));
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("context has no effect"), "{}", text(&output.stderr));
    assert_eq!(stage.read(), "hello");
}
