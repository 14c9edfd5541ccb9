//! When the program returns, and what it leaves behind in the background.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;

use rustix::process::{Pid, Signal};

use crate::stage::{Daemon, Stage, fails, is_root, run, shell, succeeds, text, wait_until};

#[test]
fn status_zero_means_that_the_mount_answers() {
    let stage = Stage::new();
    for _ in 0..50 {
        let daemon = stage.mount();
        assert_eq!(fs::read_to_string(stage.mountpoint().join("hello")).unwrap(), "hello");
        succeeds(shell("umount $1", &[stage.mountpoint()]).current_dir("/"));
        daemon.ends();
    }
}

#[test]
fn the_daemon_has_a_session_of_its_own_and_no_directory_or_terminal() {
    let stage = Stage::new();
    let daemon = stage.mount();
    let stat = daemon.stat().unwrap();
    let id = daemon.0.as_raw_nonzero().to_string();
    let (group, session, terminal) = (&stat[2], &stat[3], &stat[4]);
    assert_eq!((group, session, terminal.as_str()), (&id, &id, "0"));
    let link = |name: &str| fs::read_link(daemon.proc(name)).unwrap();
    assert_eq!(link("cwd"), Path::new("/"));
    for number in 0..3 {
        assert_eq!(link(&format!("fd/{number}")), Path::new("/dev/null"));
    }
}

#[test]
fn the_callers_pipes_close_also_those_it_did_not_mean_to_pass_on() {
    let stage = Stage::new();
    let script = r#"exec "$1" -o "$2" "$3" 7>&1 8>&2"#;
    // Waits for the end of file on both pipes.
    succeeds(&mut shell(script, &stage.arguments()));
    assert_eq!(stage.read(), "hello");
}

#[test]
fn descriptors_of_the_daemon_are_raised_to_the_hard_limit() {
    let stage = Stage::new();
    let script = r#"ulimit -Sn 256; ulimit -Hn 4000; exec "$1" -o "$2" "$3""#;
    succeeds(&mut shell(script, &stage.arguments()));
    let limits = fs::read_to_string(stage.daemon().proc("limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("4000"));
}

#[test]
fn in_the_foreground_it_stays_until_unmounted() {
    let stage = Stage::new();
    let mut child = stage.plyfs(&stage.read_only()).arg("-f").spawn().unwrap();
    wait_until("it is mounted", || !stage.mounts().is_empty());
    assert_eq!(stage.read(), "hello");
    assert_eq!(child.try_wait().unwrap(), None);
    succeeds(&mut shell("umount $1", &[stage.mountpoint()]));
    wait_until("it has ended", || stage.daemons().is_empty());
    assert!(child.wait().unwrap().success());
}

#[test]
fn type_and_source_are_as_the_caller_names_them() {
    let stage = Stage::new();
    let shown = || {
        let mounts = stage.mounts();
        assert_eq!(mounts.len(), 1, "{mounts:?}");
        let (_, shown) = mounts[0].split_once(" - ").unwrap();
        let fields: Vec<&str> = shown.split(' ').collect();
        succeeds(&mut shell("umount $1", &[stage.mountpoint()]));
        stage.daemons().into_iter().for_each(Daemon::ends);
        format!("{} {}", fields[0], fields[1])
    };
    stage.mount();
    assert_eq!(shown(), "fuse.plyfs plyfs");
    let mut with_source = stage.command(stage.program());
    with_source.arg("a source").arg(stage.mountpoint()).args(["-o", &stage.read_only()]);
    succeeds(&mut with_source);
    assert_eq!(shown(), "fuse.plyfs a\\040source");
    succeeds(&mut stage.plyfs(&format!("{},fsname=a\\,b,subtype=other", stage.read_only())));
    assert_eq!(shown(), "fuse.other a,b");
    succeeds(stage.plyfs(&stage.read_only()).arg0("fuse-overlayfs"));
    assert_eq!(shown(), "fuse.fuse-overlayfs fuse-overlayfs");
}

#[test]
fn mount_8_mounts_by_type_and_by_helper() {
    if !is_root("mount(8)") {
        return;
    }
    let stage = Stage::new();
    // mount(8) and mount.fuse3 know only the usual places for programs.
    let script = r#"mount --bind "${1%/*}" /usr/local/bin; cd /; export PATH=/usr/local/bin:$PATH
        show() { cat "$3/hello"; grep -c "$3 ro,noexec,noatime - fuse.plyfs none ro" /proc/self/mountinfo; umount "$3"; }
        mount -t fuse.plyfs none "$3" -o "$2,noexec"; show "$@"
        mount -t fuse 'plyfs#none' "$3" -o "$2,noexec"; show "$@""#;
    let mut command = stage.command("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-ec", script, "sh"]);
    let output = run(command.args(stage.arguments()));
    let printed = (text(&output.stdout), text(&output.stderr));
    assert_eq!(printed, ("hello1\nhello1\n".into(), String::new()));
}

#[test]
fn the_superblock_is_writable_only_with_an_upper() {
    let stage = Stage::new();
    let superblock = || {
        let line = stage.mounts().pop().unwrap();
        line.rsplit(' ').next().unwrap().split(',').next().unwrap().to_owned()
    };
    let daemon = stage.mount();
    assert_eq!(superblock(), "ro");
    let denied = fs::write(stage.mountpoint().join("new"), "").unwrap_err();
    assert_eq!(denied.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    succeeds(&mut shell("umount $1", &[stage.mountpoint()]));
    daemon.ends();
    succeeds(&mut stage.plyfs(&stage.writable()));
    assert_eq!(superblock(), "rw");
}

#[test]
fn a_mountpoint_inside_a_layer_does_not_lead_into_the_mount() {
    let stage = Stage::new();
    let inside = stage.path("lower/inside");
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("covered"), "").unwrap();
    let mut command = stage.command(stage.program());
    succeeds(command.arg("-o").arg(stage.read_only()).arg(&inside));
    let listing = run(shell("cd $1; find . | sort", &[&inside]).current_dir("/"));
    assert_eq!(text(&listing.stdout), ".\n./hello\n./inside\n./inside/covered\n");
    succeeds(&mut shell("umount $1", &[inside]));
}

#[test]
fn a_mountpoint_on_top_of_its_layer_works() {
    let stage = Stage::new();
    let mut command = stage.command(stage.program());
    succeeds(command.arg("-o").arg(stage.read_only()).arg(stage.path("lower")));
    let listing = run(&mut shell("cd $1; find . -type f", &[stage.path("lower")]));
    assert_eq!(text(&listing.stdout), "./hello\n");
    succeeds(&mut shell("umount $1", &[stage.path("lower")]));
}

#[test]
fn log_lines_of_the_daemon_go_to_the_file_that_the_environment_names() {
    let stage = Stage::new();
    let log = stage.path("log");
    succeeds(stage.plyfs(&stage.read_only()).env("PLYFS_LOG_FILE", &log));
    assert_eq!(fs::read_link(stage.daemon().proc("fd/2")).unwrap(), log);
    let line = fails(stage.plyfs(&stage.read_only()).env("PLYFS_LOG_FILE", stage.path("no/log")));
    assert!(line.contains("PLYFS_LOG_FILE"), "{line}");
}

/// Starts a mount whose daemon waits until somebody opens its log file, a FIFO, for reading.
/// The waiting caller and the daemon.
fn start_held_up(stage: &Stage) -> (Child, Daemon) {
    succeeds(&mut shell("mkfifo -m 666 $1", &[stage.path("fifo")]));
    let mut command = stage.plyfs(&stage.read_only());
    command.env("PLYFS_LOG_FILE", stage.path("fifo")).stderr(Stdio::piped());
    let caller = command.spawn().unwrap();
    let id = Pid::from_child(&caller);
    let daemon = || stage.daemons().into_iter().find(|daemon| daemon.0 != id);
    wait_until("the daemon is there", || daemon().is_some());
    (caller, daemon().unwrap())
}

#[test]
fn a_daemon_that_dies_without_a_word_is_reported() {
    let stage = Stage::new();
    let (caller, daemon) = start_held_up(&stage);
    daemon.signal(Signal::KILL);
    let output = caller.wait_with_output().unwrap();
    assert!(!output.status.success());
    let line = "plyfs: the daemon ended before the mount was ready: killed by signal 9\n";
    assert_eq!(text(&output.stderr), line);
}

#[test]
fn nothing_stays_mounted_when_the_caller_is_gone() {
    let stage = Stage::new();
    let (mut caller, daemon) = start_held_up(&stage);
    caller.kill().unwrap();
    caller.wait().unwrap();
    let mut log = String::new();
    // Lets the daemon go on, and ends with it.
    fs::File::open(stage.path("fifo")).unwrap().read_to_string(&mut log).unwrap();
    daemon.ends();
    assert!(log.contains("unmounted, as the process that waited for it is gone"), "{log}");
    assert_eq!(stage.mounts(), [""; 0]);
}

#[test]
fn many_mounts_at_once_do_not_disturb_each_other() {
    let threads: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(|| {
                let stage = Stage::new();
                let daemon = stage.mount();
                assert_eq!(stage.read(), "hello");
                let umount =
                    shell("umount $1", &[stage.mountpoint()]).stderr(Stdio::null()).status();
                assert!(umount.unwrap().success());
                daemon.ends();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
