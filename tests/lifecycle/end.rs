//! How a mount ends: by a signal, or because somebody unmounted it.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal};

use crate::stage::{
    Daemon, Stage, Visitor, is_not_connected, is_root, run, shell, succeeds, text, wait_until,
};

const SIGNALS: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];

#[test]
fn a_signal_unmounts_and_ends_an_idle_mount() {
    let stage = Stage::new();
    for signal in SIGNALS {
        let daemon = stage.mount();
        daemon.signal(signal);
        daemon.ends();
        assert_eq!(stage.mounts(), [""; 0]);
        assert_eq!(fs::read_dir(stage.mountpoint()).unwrap().count(), 0);
    }
}

#[test]
fn a_signal_unmounts_in_the_foreground_with_status_zero() {
    let stage = Stage::new();
    for signal in SIGNALS {
        let mut child = stage.plyfs(&stage.read_only()).arg("-f").spawn().unwrap();
        wait_until("it is mounted", || !stage.mounts().is_empty());
        let daemon = Daemon(Pid::from_child(&child));
        daemon.signal(signal);
        daemon.ends();
        assert!(child.wait().unwrap().success());
        assert_eq!(stage.mounts(), [""; 0]);
    }
}

#[test]
fn a_signal_unmounts_and_ends_a_busy_mount() {
    let stage = Stage::new();
    for signal in SIGNALS {
        let daemon = stage.mount();
        let mut file = File::open(stage.mountpoint().join("hello")).unwrap();
        let _visitor = Visitor::in_directory(&stage, &stage.mountpoint());
        daemon.signal(signal);
        wait_until("it is unmounted", || stage.mounts().is_empty());
        daemon.ends();
        assert!(is_not_connected(&file.read_to_end(&mut Vec::new()).unwrap_err()));
    }
}

#[test]
fn a_signal_that_asks_for_statistics_ends_nothing() {
    let stage = Stage::new();
    let log = stage.path("log");
    succeeds(stage.plyfs(&stage.read_only()).env("PLYFS_LOG_FILE", &log));
    let daemon = stage.daemon();
    for time in 1..=2 {
        assert_eq!(stage.read(), "hello");
        stage.daemon().signal(Signal::USR1);
        let lines = || fs::read_to_string(&log).unwrap().matches("\"LOOKUP\":{\"count\":").count();
        wait_until("the statistics are in the log", || lines() == time);
    }
    daemon.signal(Signal::TERM);
    daemon.ends();
}

#[test]
fn signals_that_come_in_a_burst_count_as_one() {
    let stage = Stage::new();
    for _ in 0..20 {
        let child =
            stage.plyfs(&stage.read_only()).arg("-f").stderr(Stdio::piped()).spawn().unwrap();
        wait_until("it is mounted", || !stage.mounts().is_empty());
        let daemon = Daemon(Pid::from_child(&child));
        SIGNALS.into_iter().for_each(|signal| daemon.signal(signal));
        daemon.ends();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(text(&output.stderr), "");
        assert_eq!(stage.mounts(), [""; 0]);
    }
}

#[test]
fn what_was_written_before_a_signal_is_there_at_the_next_mount() {
    let stage = Stage::new();
    for (round, signal) in SIGNALS.into_iter().enumerate() {
        succeeds(&mut stage.plyfs(&stage.writable()));
        let daemon = stage.daemon();
        let directory = stage.mountpoint().join(format!("{round}"));
        fs::create_dir(&directory).unwrap();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let directory = directory.clone();
                // Writes until the mount is taken away; the number of complete files.
                thread::spawn(move || {
                    let file = |number: &usize| directory.join(format!("{writer}.{number}"));
                    let write = |number: &usize| fs::write(file(number), format!("{number}"));
                    (0..).take_while(|number| write(number).is_ok()).count()
                })
            })
            .collect();
        wait_until("files are written", || fs::read_dir(&directory).unwrap().count() > 50);
        daemon.signal(signal);
        let counts: Vec<usize> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        daemon.ends();
        succeeds(&mut stage.plyfs(&stage.writable()));
        for (writer, count) in counts.into_iter().enumerate() {
            for number in 0..count {
                let content = fs::read_to_string(directory.join(format!("{writer}.{number}")));
                assert_eq!(content.unwrap(), format!("{number}"));
            }
        }
        succeeds(&mut shell("umount $1", &[stage.mountpoint()]));
    }
}

#[test]
fn what_the_caller_ignores_stays_ignored_in_the_foreground_only() {
    let stage = Stage::new();
    let script = r#"trap "" HUP; exec "$1" -o "$2" "$3""#;
    let mut child = shell(&format!("{script} -f"), &stage.arguments()).spawn().unwrap();
    wait_until("it is mounted", || !stage.mounts().is_empty());
    assert_eq!(stage.read(), "hello");
    let daemon = Daemon(Pid::from_child(&child));
    daemon.signal(Signal::HUP);
    daemon.signal(Signal::TERM);
    daemon.ends();
    assert!(child.wait().unwrap().success());

    succeeds(&mut shell(script, &stage.arguments()));
    let daemon = stage.daemon();
    daemon.signal(Signal::HUP);
    daemon.ends();
    assert_eq!(stage.mounts(), [""; 0]);
}

#[test]
fn it_ends_when_somebody_unmounts() {
    let stage = Stage::new();
    let mountpoint = stage.mountpoint();
    let plyfs = stage.program().display().to_string();
    let commands: [&[&str]; 5] = [
        &["umount"],
        &["fusermount3", "-u"],
        &["umount", "-l"],
        &["fusermount3", "-uz"],
        &[&plyfs, "umount"],
    ];
    for command in commands {
        let daemon = stage.mount();
        succeeds(Command::new(command[0]).args(&command[1..]).arg(&mountpoint));
        daemon.ends();
        assert_eq!(stage.mounts(), [""; 0], "{command:?}");
    }
}

#[test]
fn a_lazily_unmounted_mount_lives_as_long_as_its_users() {
    let stage = Stage::new();
    let daemon = stage.mount();
    let mut file = File::open(stage.mountpoint().join("hello")).unwrap();
    succeeds(&mut shell("umount -l $1", &[stage.mountpoint()]));
    assert_eq!(stage.mounts(), [""; 0]);
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "hello");
    assert!(daemon.is_running());
    drop(file);
    daemon.ends();
}

#[test]
fn a_bind_mount_keeps_it_alive() {
    if !is_root("bind mounts") {
        return;
    }
    let stage = Stage::new();
    let daemon = stage.mount();
    let copy = stage.path("upper");
    succeeds(&mut shell("mount --bind $1 $2; umount $1", &[stage.mountpoint(), copy.clone()]));
    let output = run(Command::new("cat").arg(copy.join("hello")));
    assert_eq!(text(&output.stdout), "hello");
    assert!(daemon.is_running());
    succeeds(&mut shell("umount $1", &[copy]));
    daemon.ends();
}

#[test]
fn a_signal_unmounts_where_the_mount_was_moved_to() {
    if !is_root("moving mounts") {
        return;
    }
    let stage = Stage::new();
    let (base, target) = (stage.path("upper"), stage.path("upper/moved here"));
    // A mount cannot be moved out of a shared one.
    let script = "mount -t tmpfs t $1; mount --make-private $1; mkdir $1/from \"$2\"";
    succeeds(&mut shell(script, &[&base, &target]));
    let from = base.join("from");
    let mut command = stage.command(stage.program());
    succeeds(command.arg("-o").arg(stage.read_only()).arg(&from));
    succeeds(&mut shell("mount --move $1 \"$2\"", &[&from, &target]));
    let daemons = daemons_at(&from);
    assert_eq!(daemons.len(), 1);
    daemons[0].signal(Signal::TERM);
    daemons[0].ends();
    assert_eq!(stage.mounts().len(), 1, "{:?}", stage.mounts());
    succeeds(&mut shell("umount $1", &[base]));
}

fn daemons_at(mountpoint: &std::path::Path) -> Vec<Daemon> {
    let output =
        run(Command::new("pgrep").arg("-f").arg(format!("plyfs.* {}$", mountpoint.display())));
    let ids = text(&output.stdout);
    ids.lines().filter_map(|id| Pid::from_raw(id.parse().ok()?)).map(Daemon).collect()
}
