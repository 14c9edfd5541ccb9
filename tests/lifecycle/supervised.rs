//! `supervise`: a daemon that is killed, and another that goes on.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::Signal;

use crate::rights::in_user_namespace;
use crate::stage::{Daemon, Stage, fails, is_root, run, succeeds, wait_until};

/// How often a daemon is killed.
const TIMES: usize = 10;

pub fn options(stage: &Stage, more: &str) -> String {
    format!("{},supervise{more}", stage.writable())
}

/// The process that serves, a child of the other.
pub fn serving(stage: &Stage) -> Option<Daemon> {
    let all = stage.daemons();
    let is_child = |daemon: &&Daemon| {
        let parent = daemon.stat().and_then(|fields| fields[1].parse::<i32>().ok());
        all.iter().any(|other| Some(other.0.as_raw_nonzero().get()) == parent)
    };
    all.iter().find(is_child).copied()
}

pub fn supervisor(stage: &Stage) -> Daemon {
    let serving = serving(stage);
    stage.daemons().into_iter().find(|daemon| Some(*daemon) != serving).unwrap()
}

/// Kills the daemon and waits until it is gone.
pub fn kill(stage: &Stage) {
    wait_until("a daemon is there", || serving(stage).is_some());
    let daemon = serving(stage).unwrap();
    daemon.signal(Signal::KILL);
    daemon.ends();
}

pub fn unmounts(stage: &Stage) {
    unmount(stage.mountpoint(), UnmountFlags::empty()).unwrap();
    wait_until("all have ended", || stage.daemons().is_empty());
    assert_eq!(stage.mounts(), [""; 0]);
}

fn is_stale<T>(result: io::Result<T>) -> bool {
    let error = result.map(|_| ()).unwrap_err().raw_os_error();
    error == Some(Errno::STALE.raw_os_error()) || error == Some(Errno::IO.raw_os_error())
}

#[test]
fn what_is_open_goes_on_with_the_next_daemon() {
    if !is_root("killing daemons of root") {
        return;
    }
    for more in ["", ",volatile", ",writeback=1", ",io=plain"] {
        let stage = Stage::new();
        fs::create_dir(stage.path("lower/dir")).unwrap();
        fs::write(stage.path("lower/dir/old"), "old").unwrap();
        fs::hard_link(stage.path("lower/dir/old"), stage.path("lower/dir/link")).unwrap();
        fs::write(stage.path("lower/lib"), vec![7; 1 << 20]).unwrap();
        for number in 0..200 {
            fs::write(stage.path("lower/dir").join(number.to_string()), "").unwrap();
        }
        succeeds(&mut stage.plyfs(&options(&stage, more)));
        let root = stage.mountpoint();
        mount_bind(stage.path("upper"), root.join("dir")).unwrap();
        unmount(root.join("dir"), UnmountFlags::empty()).unwrap();
        let dir = File::open(root.join("dir")).unwrap();
        let lower = File::options().read(true).write(true).open(root.join("hello")).unwrap();
        let library = File::open(root.join("lib")).unwrap();
        let made = File::options().read(true).append(true).create(true).open(root.join("made"));
        let made = made.unwrap();
        let number = fs::metadata(root.join("dir/old")).unwrap().ino();
        fs::create_dir(root.join("over")).unwrap();
        mount_bind(stage.path("work"), root.join("over")).unwrap();
        for time in 0..TIMES {
            kill(&stage);
            lower.write_all_at(time.to_string().as_bytes(), 5 + time as u64).unwrap();
            io::Write::write_all(&mut &made, time.to_string().as_bytes()).unwrap();
            let mut byte = [0; 4];
            library.read_exact_at(&mut byte, time as u64 * 70_000).unwrap();
            assert_eq!(byte, [7; 4]);
            let old = openat(dir.as_fd(), "old", OFlags::RDONLY, Mode::empty()).unwrap();
            let old = File::from(old).metadata().unwrap();
            assert_eq!((old.ino(), old.nlink()), (number, 2), "{more}: {time}");
            fs::write(root.join(format!("new{time}")), "new").unwrap();
            fs::rename(root.join(format!("new{time}")), root.join(format!("dir/{time}"))).unwrap();
            assert_eq!(fs::read_dir(root.join("dir")).unwrap().count(), 202, "{more}: {time}");
            assert_eq!(fs::read_dir(&root).unwrap().count(), 5, "{more}: {time}");
            // What is mounted there stays: the names lead to the same objects.
            assert!(root.join("over/plyfs").exists(), "{more}: {time}");
        }
        let text: String = (0..TIMES).map(|time| time.to_string()).collect();
        unmount(root.join("over"), UnmountFlags::empty()).unwrap();
        drop((dir, lower, library, made));
        unmounts(&stage);
        assert_eq!(fs::read_to_string(stage.path("upper/made")).unwrap(), text);
        assert_eq!(fs::read_to_string(stage.path("upper/hello")).unwrap(), format!("hello{text}"));
        assert_eq!(fs::read_to_string(stage.path("lower/hello")).unwrap(), "hello");
    }
}

#[test]
fn a_deleted_file_is_stale_and_no_other_file_takes_its_place() {
    if !is_root("killing daemons of root") {
        return;
    }
    let stage = Stage::new();
    succeeds(&mut stage.plyfs(&options(&stage, "")));
    let root = stage.mountpoint();
    let open = |name: String| {
        File::options().read(true).write(true).create(true).truncate(true).open(root.join(name))
    };
    let mut deleted = Vec::new();
    for time in 0..3 {
        for number in 0..50 {
            let file = open(format!("gone{number}")).unwrap();
            file.write_all_at(b"gone", 0).unwrap();
            fs::remove_file(root.join(format!("gone{number}"))).unwrap();
            deleted.push(file);
        }
        kill(&stage);
        // Their inodes are free in the upper layer, which gives the numbers to these.
        for number in 0..100 {
            fs::write(root.join(format!("new{time}-{number}")), "new").unwrap();
        }
        for file in &deleted {
            assert!(is_stale(file.write_all_at(b"GONE", 0)));
            assert!(is_stale(file.sync_all().and_then(|()| file.metadata())));
        }
        for number in 0..100 {
            let text = fs::read_to_string(root.join(format!("new{time}-{number}"))).unwrap();
            assert_eq!(text, "new");
        }
    }
    // Of those that the living daemon deletes, nothing is stale.
    let open: Vec<_> = (0..50).map(|number| open(format!("new2-{number}")).unwrap()).collect();
    for (number, file) in open.iter().enumerate() {
        fs::remove_file(root.join(format!("new2-{number}"))).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    }
    drop((open, deleted));
    unmounts(&stage);
}

/// Makes, changes, moves and deletes files of its own until it is told to stop; how many rounds it did.
pub fn work(dir: &Path, stop: &AtomicBool) -> usize {
    fs::create_dir(dir).unwrap();
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = |prefix: &str, round| dir.join(format!("{prefix}{round}"));
        let text = round.to_string();
        fs::write(name("a", round), &text).unwrap();
        File::open(name("a", round)).unwrap().sync_all().unwrap();
        fs::hard_link(name("a", round), name("b", round)).unwrap();
        fs::rename(name("a", round), name("c", round)).unwrap();
        fs::create_dir(name("d", round)).unwrap();
        std::os::unix::fs::symlink(&text, name("d", round).join("link")).unwrap();
        assert_eq!(fs::read_to_string(name("b", round)).unwrap(), text);
        assert_eq!(fs::metadata(name("c", round)).unwrap().nlink(), 2);
        fs::remove_file(name("b", round)).unwrap();
        if round >= 5 {
            let old = round - 5;
            assert_eq!(fs::read_to_string(name("c", old)).unwrap(), old.to_string());
            fs::remove_file(name("c", old)).unwrap();
            fs::remove_file(name("d", old).join("link")).unwrap();
            fs::remove_dir(name("d", old)).unwrap();
        }
        round += 1;
    }
    round
}

#[test]
fn nobody_gets_an_error_while_daemons_are_killed() {
    if !is_root("killing daemons of root") {
        return;
    }
    let stage = Stage::new();
    succeeds(&mut stage.plyfs(&options(&stage, "")));
    let stop = AtomicBool::new(false);
    let rounds: Vec<usize> = thread::scope(|scope| {
        let dirs = (0..4).map(|worker| stage.mountpoint().join(format!("of{worker}")));
        let stop = &stop;
        let workers: Vec<_> = dirs.map(|dir| scope.spawn(move || work(&dir, stop))).collect();
        for _ in 0..TIMES {
            kill(&stage);
            // Until the next one has answered something.
            fs::metadata(stage.mountpoint().join("hello")).unwrap();
            fs::write(stage.mountpoint().join("tick"), "").unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for (worker, rounds) in rounds.into_iter().enumerate() {
        let dir = stage.mountpoint().join(format!("of{worker}"));
        let left = rounds.min(5);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2 * left);
        for round in rounds - left..rounds {
            assert_eq!(
                fs::read_to_string(dir.join(format!("c{round}"))).unwrap(),
                round.to_string()
            );
        }
    }
    unmounts(&stage);
}

#[test]
fn an_ordinary_users_mount_goes_on_too() {
    let Some(stage) = Stage::of_user() else { return };
    succeeds(&mut stage.plyfs(&options(&stage, "")));
    for _ in 0..3 {
        kill(&stage);
        assert_eq!(stage.read(), "hello");
        succeeds(stage.command("touch").arg(stage.mountpoint().join("new")));
    }
    succeeds(stage.command("fusermount3").arg("-u").arg(stage.mountpoint()));
    wait_until("all have ended", || stage.daemons().is_empty());
}

#[test]
fn a_mount_in_a_user_namespace_goes_on_too() {
    let Some(stage) = Stage::of_user() else { return };
    let script = r#""$1" -o "$2,supervise" "$3"; exec 5< "$3/hello"
        for time in 1 2 3; do
            daemon=$(pgrep -n -f -- "$2,supervise"); kill -KILL $daemon
            while kill -0 $daemon 2>/dev/null; do sleep 0.01; done
            cat "$3/hello"; echo $time > "$3/new"
        done
        cat <&5; exec 5<&-; cat "$3/new"; umount "$3""#;
    assert_eq!(in_user_namespace(&stage, script), "hellohellohellohello3\n");
    wait_until("all have ended", || stage.daemons().is_empty());
}

#[test]
fn signals_to_the_supervisor_unmount() {
    if !is_root("killing daemons of root") {
        return;
    }
    for killed in [false, true] {
        let stage = Stage::new();
        succeeds(&mut stage.plyfs(&options(&stage, "")));
        if killed {
            kill(&stage);
            assert_eq!(stage.read(), "hello");
        }
        supervisor(&stage).signal(Signal::TERM);
        wait_until("all have ended", || stage.daemons().is_empty());
        assert_eq!(stage.mounts(), [""; 0]);
    }
}

#[test]
fn a_daemon_without_its_supervisor_serves_on() {
    if !is_root("killing daemons of root") {
        return;
    }
    let stage = Stage::new();
    succeeds(&mut stage.plyfs(&options(&stage, "")));
    let supervisor = supervisor(&stage);
    supervisor.signal(Signal::KILL);
    supervisor.ends();
    assert_eq!(stage.read(), "hello");
    unmounts(&stage);
}

#[test]
fn nobody_goes_on_where_the_layers_are_others() {
    if !is_root("killing daemons of root") {
        return;
    }
    let stage = Stage::new();
    succeeds(&mut stage.plyfs(&options(&stage, "")));
    fs::rename(stage.path("lower"), stage.path("moved")).unwrap();
    fs::create_dir(stage.path("lower")).unwrap();
    kill(&stage);
    wait_until("all have ended", || stage.daemons().is_empty());
    let gone = fs::read(stage.mountpoint().join("other")).unwrap_err();
    assert!(crate::stage::is_not_connected(&gone), "{gone}");
    unmount(stage.mountpoint(), UnmountFlags::empty()).unwrap();
}

#[test]
fn what_the_next_daemon_would_not_know_is_refused() {
    let stage = Stage::new();
    for other in ["timeout=1", "io=passthrough", "ino32_t"] {
        let line = fails(&mut stage.plyfs(&options(&stage, &format!(",{other}"))));
        assert!(line.contains("option supervise: does not go with"), "{line}");
    }
    fs::create_dir(stage.path("lower/mnt")).unwrap();
    let options = options(&stage, "");
    let line =
        fails(stage.command(stage.program()).arg("-o").arg(options).arg(stage.path("lower/mnt")));
    assert!(line.contains("must not lie in each other"), "{line}");
    let missing = format!("lowerdir={},supervise", stage.path("missing").display());
    let line = fails(&mut stage.plyfs(&missing));
    assert!(line.contains("does not exist"), "{line}");
    let usual = run(&mut stage.plyfs(&stage.read_only()));
    assert!(usual.status.success());
}
