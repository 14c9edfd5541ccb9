//! Mounting with other rights than root's: through fusermount3, and as root of a user namespace.

use std::fs;

use rustix::process::Signal;

use crate::stage::{Stage, Visitor, fails, run, succeeds, text, wait_until};

#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    let Some(stage) = Stage::of_user() else { return };
    let daemon = stage.mount();
    assert_eq!(stage.read(), "hello");
    let line = stage.mounts().pop().unwrap();
    assert!(line.contains(" - fuse.plyfs plyfs ro,user_id=65534,group_id=65534,"), "{line}");
    assert!(line.contains("nosuid,nodev,noatime"), "{line}");
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let consent = conf.lines().any(|line| line.trim() == "user_allow_other");
    assert_eq!(line.contains("allow_other"), consent, "{line}");
    succeeds(stage.command("fusermount3").arg("-u").arg(stage.mountpoint()));
    daemon.ends();
    assert_eq!(stage.mounts(), [""; 0]);
}

#[test]
fn signals_unmount_an_ordinary_users_mount_idle_or_busy() {
    let Some(stage) = Stage::of_user() else { return };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let daemon = stage.mount();
        daemon.signal(signal);
        daemon.ends();
        assert_eq!(stage.mounts(), [""; 0]);
    }
    let daemon = stage.mount();
    let _visitor = Visitor::in_directory(&stage, &stage.mountpoint());
    daemon.signal(Signal::TERM);
    wait_until("it is unmounted", || stage.mounts().is_empty());
    daemon.ends();
}

#[test]
fn an_ordinary_users_successor_is_left_alone() {
    let Some(stage) = Stage::of_user() else { return };
    for _ in 0..10 {
        let first = stage.mount();
        succeeds(stage.command("fusermount3").arg("-u").arg(stage.mountpoint()));
        succeeds(&mut stage.plyfs(&stage.read_only()));
        first.ends();
        assert_eq!(stage.read(), "hello");
        succeeds(stage.command(stage.program()).arg("umount").arg(stage.mountpoint()));
        wait_until("it has ended", || stage.daemons().is_empty());
    }
}

#[test]
fn a_source_with_commas_and_backslashes_passes_through_fusermount3() {
    let Some(stage) = Stage::of_user() else { return };
    let mut command = stage.command(stage.program());
    command.arg(r"a,b\c").arg(stage.mountpoint()).args(["-o", &stage.read_only()]);
    succeeds(&mut command);
    let line = stage.mounts().pop().unwrap();
    assert!(line.contains(r" - fuse.plyfs a,b\134c "), "{line}");
}

#[test]
fn what_fusermount3_refuses_is_one_line() {
    let Some(stage) = Stage::of_user() else { return };
    let mut elsewhere = stage.command(stage.program());
    let line = fails(elsewhere.arg("-o").arg(stage.read_only()).arg("/etc"));
    assert!(line.contains("/etc: fusermount3: "), "{line}");
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if conf.lines().any(|line| line.trim() == "user_allow_other") {
        eprintln!("not run: refusal of allow_other, as /etc/fuse.conf permits it");
        return;
    }
    let line = fails(&mut stage.plyfs(&format!("{},allow_other", stage.read_only())));
    assert!(line.contains("user_allow_other"), "{line}");
    assert_eq!(stage.mounts(), [""; 0]);
}

/// Runs `script` as root of a new user and mount namespace; `$1` is the program, `$2` the options,
/// `$3` the mountpoint.
pub fn in_user_namespace(stage: &Stage, script: &str) -> String {
    let mut command = stage.command("unshare");
    command.args(["-Urm", "--propagation", "slave", "sh", "-ec", script, "sh"]);
    command.arg(stage.program());
    command.arg(stage.writable()).arg(stage.mountpoint());
    let output = run(&mut command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn root_of_a_user_namespace_mounts_directly() {
    let Some(stage) = Stage::of_user() else { return };
    let script = r#""$1" -o "$2" "$3"; cat "$3/hello"; grep -c "$3 rw,noatime - fuse.plyfs plyfs rw" /proc/self/mountinfo
        umount "$3"; grep -c "$3" /proc/self/mountinfo || true"#;
    assert_eq!(in_user_namespace(&stage, script), "hello1\n0\n");
    wait_until("it has ended", || stage.daemons().is_empty());
}

#[test]
fn signals_unmount_in_a_user_namespace() {
    let Some(stage) = Stage::of_user() else { return };
    let script = r#""$1" -f -o "$2" "$3" & daemon=$!
        until grep -q "$3" /proc/self/mountinfo; do sleep 0.05; done
        (cd "$3"; exec sleep 60) & visitor=$!
        kill -TERM $daemon; wait $daemon; grep -c "$3" /proc/self/mountinfo || true; kill $visitor"#;
    assert_eq!(in_user_namespace(&stage, script), "0\n");
}

#[test]
fn a_mount_in_a_namespace_that_is_gone_ends() {
    let Some(stage) = Stage::of_user() else { return };
    in_user_namespace(&stage, r#""$1" -o "$2" "$3""#);
    // The daemon keeps the namespace; removing the mountpoint takes the mount out of it.
    assert_eq!(stage.daemons().len(), 1);
    fs::remove_dir(stage.mountpoint()).unwrap();
    wait_until("it has ended", || stage.daemons().is_empty());
}

#[test]
fn proc_may_be_read_only() {
    let Some(stage) = Stage::of_user() else { return };
    let script = r#"mount --bind /proc /proc 2>/dev/null || mount --rbind /proc /proc
        mount -o remount,bind,ro /proc; "$1" -o "$2" "$3"; cat "$3/hello"; umount "$3""#;
    assert_eq!(in_user_namespace(&stage, script), "hello");
}
