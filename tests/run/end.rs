//! How containers end, and what they leave.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::needs_root;
use crate::stage::{CALLERS, Caller, Stage, text, wait_until};

/// Starts a script that says when it is ready.
fn ready(stage: &Stage, options: &[&str], script: &str) -> Child {
    let script = format!("trap 'exit 9' USR1; echo ready; {script}");
    let words = [options, &["busybox", "sh", "-c", &script]].concat();
    let mut child = stage.command("run", &words).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

#[test]
fn signals_go_to_the_program() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
            let mut child = ready(&stage, &["--rm"], "exec sleep 100");
            kill_process(Pid::from_child(&child), signal).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(status), "{caller:?}");
        }
        let mut child = ready(&stage, &["--rm"], "while true; do usleep 1000; done");
        kill_process(Pid::from_child(&child), Signal::USR1).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(9), "{caller:?}");
        assert_eq!(stage.containers(), Vec::<String>::new());
        stage.nothing_is_left();
    }
}

#[test]
fn nothing_outlives_the_program() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        // What it has started and left ends with it; what others have left before is reaped, soon.
        let left = "sleep 100 & (true & exec sleep 0); tries=1000
            while cat /proc/[0-9]*/status 2>/dev/null | grep -q 'State:.Z'; do
                test $((tries -= 1)) -gt 0 || exit 1; usleep 10000
            done";
        let output = stage.script(&["--rm"], left);
        assert!(output.status.success(), "{output:?}");
        stage.nothing_is_left();
    }
}

#[test]
fn a_killed_caller_takes_everything_along() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        let mut child = ready(&stage, &["--name", "one"], "echo kept > /file; exec sleep 100");
        assert_eq!(stage.says("ps", &["-q"]), "one\n");
        wait_until("the file is written", || stage.in_layer("one", "file").exists());
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("all processes have ended", || stage.processes().is_empty());
        assert_eq!(stage.says("ps", &["-q"]), "");
        assert_eq!(fs::read_to_string(stage.in_layer("one", "file")).unwrap(), "kept\n");
        stage.says("rm", &["one"]);
        stage.nothing_is_left();
    }
}

#[test]
fn containers_of_one_image_do_not_meet() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        let script = "test ! -e /mine && echo $HOSTNAME > /mine && usleep 200000 && cat /mine";
        let outputs: Vec<_> = std::thread::scope(|scope| {
            let run = |n: usize| {
                let stage = &stage;
                scope.spawn(move || stage.script(&["--rm", "--name", &format!("c{n}")], script))
            };
            let threads: Vec<_> = (0..4).map(run).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (n, output) in outputs.iter().enumerate() {
            assert_eq!(text(output), format!("c{n}\n"), "{caller:?}: {output:?}");
        }
        assert_eq!(stage.containers(), Vec::<String>::new());
        stage.nothing_is_left();
    }
}

#[test]
fn garbage_collection_does_not_wait_for_a_container() {
    needs_root!();
    let stage = Stage::new(Caller::Mapped);
    let mut child = ready(
        &stage,
        &["--rm"],
        "usleep 300000; while test ! -e /go; do usleep 1000; done; cat /etc/passwd",
    );
    // The image may lose its name while it is used.
    stage.says("image", &["rm", "-f", "busybox"]);
    stage.says("store", &["gc"]);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    stage.nothing_is_left();
}

#[test]
fn an_image_that_is_not_what_the_seal_says_does_not_run() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::with(caller, |root| fs::write(root.join("etc/motd"), "sealed").unwrap());
        let seal = stage.says("image", &["seal", "busybox"]).trim_end().to_owned();
        let sealed = ["--rm", "--require-seal", &seal];
        assert_eq!(
            stage.shell(&sealed, "cat /etc/motd; echo x > /etc/new"),
            "sealed",
            "{caller:?}"
        );
        let other = format!("{}{}", if seal.starts_with('0') { 'f' } else { '0' }, &seal[1..]);
        let (status, line) = stage.fails(&["--require-seal", &other, "busybox", "true"]);
        assert_eq!(status, 125, "{caller:?}: {line}");
        assert!(line.contains("seal"), "{caller:?}: {line}");
        let hash = blake3::hash(b"sealed").to_hex();
        let object = stage.path("store/objects").join(&hash[..2]).join(&hash[2..]);
        fs::set_permissions(&object, PermissionsExt::from_mode(0o644)).unwrap();
        fs::write(&object, "Sealed").unwrap();
        let changed = "cat /etc/motd 2>&1; exit 0";
        let told = stage.shell(&sealed, changed);
        assert!(told.ends_with(": Input/output error\n"), "{caller:?}: {told}");
        assert_eq!(stage.shell(&["--rm"], changed), "Sealed", "{caller:?}");
        assert_eq!(stage.containers(), Vec::<String>::new(), "{caller:?}");
        stage.nothing_is_left();
    }
}
