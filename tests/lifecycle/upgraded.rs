//! `plyfs upgrade`: a mount that goes on with another program.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::Signal;

use crate::rights::in_user_namespace;
use crate::stage::{Daemon, Stage, USER, Visitor, fails, is_root, run, succeeds, text, wait_until};
use crate::supervised::{kill, options, serving, supervisor, unmounts, work};

const TIMES: usize = 10;

/// A stage with a program of its own, which can be replaced.
fn stage() -> Stage {
    let mut stage = Stage::new();
    stage.own_program();
    stage
}

/// Puts another file in the place of the program, as an installation does.
fn install(stage: &Stage, write: impl FnOnce(&PathBuf)) {
    let new = stage.path("plyfs.new");
    write(&new);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, stage.program()).unwrap();
}

fn install_again(stage: &Stage) {
    install(stage, |new| {
        fs::copy(env!("CARGO_BIN_EXE_plyfs"), new).unwrap();
    });
}

fn upgrade(stage: &Stage) -> Command {
    // The program that asks may be any.
    let mut command = stage.command(env!("CARGO_BIN_EXE_plyfs"));
    command.arg("upgrade").arg(stage.mountpoint());
    command
}

fn upgrades(stage: &Stage) {
    let output = run(&mut upgrade(stage));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).trim(), env!("CARGO_PKG_VERSION"));
}

/// Whether the process runs the file that lies at the path of the program.
fn runs_what_is_installed(stage: &Stage, daemon: Daemon) -> bool {
    let inode = |path: PathBuf| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    inode(daemon.proc("exe")) == inode(stage.program().to_owned())
}

#[test]
fn writers_go_on_through_ten_upgrades() {
    if !is_root("replacing programs of root") {
        return;
    }
    let stage = stage();
    fs::create_dir(stage.path("lower/over")).unwrap();
    succeeds(&mut stage.plyfs(&options(&stage, ",volatile")));
    let root = stage.mountpoint();
    mount_bind(stage.path("work"), root.join("over")).unwrap();
    let _visitor = Visitor::in_directory(&stage, &root);
    let mut open = File::options().read(true).write(true).open(root.join("hello")).unwrap();
    let stop = AtomicBool::new(false);
    let rounds: Vec<usize> = thread::scope(|scope| {
        let stop = &stop;
        let dirs = (0..3).map(|worker| root.join(format!("of{worker}")));
        let workers: Vec<_> = dirs.map(|dir| scope.spawn(move || work(&dir, stop))).collect();
        for time in 0..TIMES {
            let before = serving(&stage).unwrap();
            install_again(&stage);
            assert!(!runs_what_is_installed(&stage, before));
            upgrades(&stage);
            let after = serving(&stage).unwrap();
            assert_ne!(after, before);
            assert!(runs_what_is_installed(&stage, after), "{time}");
            open.write_all_at(time.to_string().as_bytes(), 5 + time as u64).unwrap();
            // What is mounted there stays.
            assert!(root.join("over/plyfs").exists(), "{time}");
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut text = String::new();
    open.seek(SeekFrom::Start(0)).unwrap();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello0123456789");
    for (worker, rounds) in rounds.into_iter().enumerate() {
        let left = fs::read_dir(root.join(format!("of{worker}"))).unwrap().count();
        assert_eq!(left, 2 * rounds.min(5));
    }
    drop((open, _visitor));
    unmount(root.join("over"), UnmountFlags::empty()).unwrap();
    unmounts(&stage);
}

#[test]
fn a_program_that_cannot_go_on_leaves_the_old_one_serving() {
    if !is_root("replacing programs of root") {
        return;
    }
    let log = |stage: &Stage| fs::read_to_string(stage.path("log")).unwrap_or_default();
    let script = |text: &'static str| move |new: &PathBuf| fs::write(new, text).unwrap();
    // Whether the daemon is another one afterwards, what is said, and the program.
    type Case = (bool, &'static str, Box<dyn FnOnce(&PathBuf)>);
    let cases: Vec<Case> = vec![
        (false, "Exec format error", Box::new(script("no program"))),
        (false, "exit status 7", Box::new(script("#!/bin/sh\nexit 7\n"))),
        (false, "killed by signal 6", Box::new(script("#!/bin/sh\nkill -ABRT $$\n"))),
        (
            false,
            "of another form",
            Box::new(script("#!/bin/sh\nprintf '\\003of another form' >&0\n")),
        ),
        (
            true,
            "exit status 8",
            Box::new(script("#!/bin/sh\nprintf '\\001' >&0; head -c 6 >/dev/null; exit 8\n")),
        ),
    ];
    let stage = stage();
    let mut mount = stage.plyfs(&options(&stage, ""));
    succeeds(mount.env("PLYFS_LOG_FILE", stage.path("log")));
    let open = File::open(stage.mountpoint().join("hello")).unwrap();
    for (number, (replaced, expected, program)) in cases.into_iter().enumerate() {
        let before = serving(&stage).unwrap();
        install(&stage, program);
        let line = fails(&mut upgrade(&stage));
        assert!(line.contains("not upgraded") && line.contains(expected), "{line}");
        assert_eq!(log(&stage).matches("not upgraded").count(), number + 1, "{}", log(&stage));
        assert_eq!(serving(&stage) != Some(before), replaced, "{expected}");
        let mut byte = [0];
        open.read_exact_at(&mut byte, 0).unwrap();
        fs::write(stage.mountpoint().join(format!("new{number}")), "").unwrap();
        assert_eq!(fs::read_dir(stage.mountpoint()).unwrap().count(), number + 2);
    }
    fs::remove_file(stage.program()).unwrap();
    let line = fails(&mut upgrade(&stage));
    assert!(line.contains("No such file or directory"), "{line}");
    // The program that is running, whose file is gone, still begins again.
    kill(&stage);
    assert_eq!(stage.read(), "hello");
    install_again(&stage);
    upgrades(&stage);
    assert!(runs_what_is_installed(&stage, serving(&stage).unwrap()));
    drop(open);
    unmounts(&stage);
}

#[test]
fn after_an_upgrade_a_death_is_followed_by_the_new_program_too() {
    if !is_root("replacing programs of root") {
        return;
    }
    let stage = stage();
    succeeds(&mut stage.plyfs(&options(&stage, "")));
    install_again(&stage);
    kill(&stage);
    assert_eq!(stage.read(), "hello");
    // Nobody has asked for it.
    assert!(!runs_what_is_installed(&stage, serving(&stage).unwrap()));
    upgrades(&stage);
    for _ in 0..2 {
        kill(&stage);
        fs::write(stage.mountpoint().join("new"), "").unwrap();
        assert!(runs_what_is_installed(&stage, serving(&stage).unwrap()));
    }
    supervisor(&stage).signal(Signal::TERM);
    wait_until("all have ended", || stage.daemons().is_empty());
    assert_eq!(stage.mounts(), [""; 0]);
}

#[test]
fn an_ordinary_users_mount_is_upgraded_too() {
    let Some(stage) = Stage::of_user() else { return };
    succeeds(&mut stage.plyfs(&options(&stage, "")));
    let mut upgrade = stage.command(stage.program());
    let output = run(upgrade.arg("upgrade").arg(stage.mountpoint()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(stage.read(), "hello");
    succeeds(stage.command("fusermount3").arg("-u").arg(stage.mountpoint()));
    wait_until("all have ended", || stage.daemons().is_empty());
}

#[test]
fn others_and_other_mounts_are_refused() {
    if !is_root("asking as others") {
        return;
    }
    let stage = Stage::new();
    let line = fails(&mut upgrade(&stage));
    assert!(line.contains("not mounted"), "{line}");
    stage.mount();
    let line = fails(&mut upgrade(&stage));
    assert!(line.contains("mounted without supervise"), "{line}");
    unmount(stage.mountpoint(), UnmountFlags::empty()).unwrap();
    wait_until("it has ended", || stage.daemons().is_empty());
    succeeds(&mut stage.plyfs(&options(&stage, "")));
    fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let before = serving(&stage);
    let user = USER.to_string();
    let words = ["--reuid", &user, "--regid", &user, "--clear-groups"];
    let program = stage.path("plyfs");
    fs::copy(env!("CARGO_BIN_EXE_plyfs"), &program).unwrap();
    let mut asked = stage.command("setpriv");
    let line = fails(asked.args(words).arg(program).arg("upgrade").arg(stage.mountpoint()));
    assert!(line.contains("only root and the user who mounted it"), "{line}");
    assert_eq!(serving(&stage), before);
    unmounts(&stage);
}

#[test]
fn a_mount_in_a_user_namespace_is_upgraded_too() {
    let Some(stage) = Stage::of_user() else { return };
    let script = r#""$1" -o "$2,supervise" "$3"; exec 5< "$3/hello"
        for time in 1 2 3; do
            cp "$1" "$1.new"; mv "$1.new" "$1"; "$1" upgrade "$3" >/dev/null
            cat "$3/hello"; echo $time > "$3/new"
        done
        cat <&5; exec 5<&-; cat "$3/new"; umount "$3""#;
    assert_eq!(in_user_namespace(&stage, script), "hellohellohellohello3\n");
    wait_until("all have ended", || stage.daemons().is_empty());
}
