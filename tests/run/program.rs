//! What is run: arguments, environment, user, directory, and how it ends.

use std::io::Write;
use std::process::Stdio;

use crate::needs_root;
use crate::stage::{CALLERS, Caller, Stage, text};

#[test]
fn a_program_prints_and_ends_as_it_likes() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        let output = stage.script(&["--rm"], "echo out; echo err >&2; exit 7");
        assert_eq!(output.status.code(), Some(7), "{caller:?}: {output:?}");
        assert_eq!((text(&output).as_str(), &output.stderr[..]), ("out\n", &b"err\n"[..]));
        let killed = stage.script(&["--rm"], "kill -9 $$");
        assert_eq!(killed.status.code(), Some(137), "{killed:?}");
        stage.nothing_is_left();
    }
}

#[test]
fn what_does_not_run_says_why_with_the_status_of_docker() {
    needs_root!();
    let stage = Stage::new(Caller::Mapped);
    let cases = [
        (
            &["--rm", "busybox", "nosuch"][..],
            127,
            "plyfs: nosuch: not found in the container's PATH",
        ),
        (
            &["--rm", "busybox", "/no/such"],
            127,
            "plyfs: /no/such: no such program in the container",
        ),
        (
            &["--rm", "busybox", "/etc/passwd"],
            126,
            "plyfs: /etc/passwd: Permission denied (os error 13)",
        ),
        (&["--rm", "busybox", "/etc"], 126, "plyfs: /etc: Permission denied (os error 13)"),
        (&["--rm", "busybox"], 125, "plyfs: the image has no command; name a program to run"),
        (
            &["--rm", "-u", "bob", "busybox", "id"],
            125,
            "plyfs: user `bob`: not in /etc/passwd of the image",
        ),
        (
            &["--rm", "-e", "=x", "busybox", "id"],
            125,
            "plyfs: option --env: `=x`: the name of the variable is missing",
        ),
        (
            &["--rm", "-e", "", "busybox", "id"],
            125,
            "plyfs: option --env: ``: the name of the variable is missing",
        ),
        (
            &["--rm", "--hostname", "", "busybox", "id"],
            125,
            "plyfs: option --hostname: ``: expected 1 to 64 bytes without spaces",
        ),
        (
            &["--rm", "--hostname", "a\nb", "busybox", "id"],
            125,
            "plyfs: option --hostname: `a\\nb`: expected 1 to 64 bytes without spaces",
        ),
        (
            &["--no-such-option", "busybox"],
            125,
            "plyfs: unexpected argument '--no-such-option' found; did you mean --volume?",
        ),
    ];
    for (words, status, line) in cases {
        let (got, said) = stage.fails(words);
        assert_eq!(got, status, "{words:?}: {said}");
        if !line.contains("did you mean") {
            assert_eq!(said, line, "{words:?}");
        }
    }
    let (status, line) = stage.fails(&["nosuch", "id"]);
    assert_eq!((status, line.contains("no image `nosuch`")), (125, true), "{line}");
    assert_eq!(stage.containers(), Vec::<String>::new());
    stage.nothing_is_left();
}

#[test]
fn standard_input_is_read_when_it_is_asked_for() {
    needs_root!();
    let stage = Stage::new(Caller::Single);
    for (options, read) in [(&["--rm", "-i"][..], "[typed]\n"), (&["--rm"][..], "[]\n")] {
        let words = [options, &["busybox", "sh", "-c", "read x; echo [$x]"]].concat();
        let mut command = stage.command("run", &words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Without -i nobody may be there to read it.
        drop(child.stdin.take().unwrap().write_all(b"typed\n"));
        assert_eq!(text(&child.wait_with_output().unwrap()), read);
    }
}

#[test]
fn environment_directory_and_user_are_as_the_caller_wishes() {
    needs_root!();
    let stage = Stage::new(Caller::Mapped);
    let run = |options: &[&str], script: &str| stage.shell(&[options, &["--rm"]].concat(), script);
    assert_eq!(run(&["-e", "A=1", "-e", "B="], "echo $A-$B-$HOME"), "1--/root\n");
    assert_eq!(run(&["-e", "HOME=/x"], "echo $HOME"), "/x\n");
    assert_eq!(
        run(&["--hostname", "box"], "hostname; echo $HOSTNAME; cat /etc/hostname"),
        "box\n".repeat(3)
    );
    assert_eq!(run(&["-w", "/made/for/this"], "pwd"), "/made/for/this\n");
    assert_eq!(
        run(&["-u", "ann"], "id; echo $HOME"),
        "uid=7(ann) gid=8(ann) groups=50(staff)\n/home/ann\n"
    );
    assert_eq!(run(&["-u", "1234:77"], "id -u; id -g; id -G"), "1234\n77\n77\n");
    assert_eq!(stage.says("run", &["--rm", "--entrypoint", "echo", "busybox", "-n", "x"]), "x");
    let signals = run(&[], "grep -e SigBlk -e SigIgn /proc/self/status");
    let hexadecimal = |line: &str| u64::from_str_radix(&line[8..], 16).unwrap();
    let sets: Vec<u64> = signals.lines().map(hexadecimal).collect();
    let pipe_and_file_size = 1 << 12 | 1 << 24;
    assert_eq!((sets[0], sets[1] & pipe_and_file_size), (0, 0), "{signals}");
    assert_eq!(run(&[], "ls /proc/self/fd | wc -l"), "4\n");
}

#[test]
fn ids_are_those_that_the_caller_has() {
    needs_root!();
    let single = Stage::new(Caller::Single);
    assert_eq!(single.shell(&["--rm"], "id -u; cat /proc/self/uid_map | wc -l"), "0\n1\n");
    let (status, line) = single.fails(&["--rm", "-u", "7", "busybox", "id"]);
    assert_eq!(status, 125);
    assert!(line.starts_with("plyfs: user 7: the container has no such id; "), "{line}");

    let mapped = Stage::new(Caller::Mapped);
    let owners = "touch /f && chown 7:65000 /f && stat -c %u:%g /f";
    assert_eq!(mapped.shell(&["--name", "one"], owners), "7:65000\n");
    let path = mapped.in_layer("one", "f");
    let mut value = [0; 64];
    let length =
        rustix::fs::getxattr(&path, "user.containers.override_stat", &mut value[..]).unwrap();
    assert!(value[..length].starts_with(b"7:65000:"), "{:?}", &value[..length]);

    let root = Stage::new(Caller::Root);
    assert_eq!(root.shell(&["--rm"], owners), "7:65000\n");
}

#[test]
fn root_of_a_user_namespace_and_root_without_rights_run_programs() {
    needs_root!();
    let callers: [&[&str]; 3] = [
        &["unshare", "-Urm"],
        &["unshare", "-Ur"],
        // As in a container.
        &["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all"],
    ];
    for how in callers {
        let stage = Stage::new(Caller::Root);
        let script =
            "id -u; touch /f; stat -c %u:%g /f /bin/busybox; rm /bin/ls; test -c /dev/ptmx";
        let output = stage.called_by(how, script);
        assert_eq!(text(&output), "0\n0:0\n0:0\n", "{how:?}: {output:?}");
        assert_eq!(output.status.code(), Some(0), "{how:?}: {output:?}");
        stage.nothing_is_left();
    }
}

#[test]
fn a_mount_that_fails_leaves_nothing() {
    needs_root!();
    let stage = Stage::new(Caller::Root);
    let output = stage.called_by(&["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"], "true");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("plyfs: lowerdir: 2 layers need a limit"), "{said}");
    assert_eq!((output.status.code(), said.lines().count()), (Some(125), 1), "{said}");
    assert_eq!(stage.containers(), Vec::<String>::new());
    stage.nothing_is_left();
}

#[test]
fn links_are_roots_in_the_container_and_in_what_is_committed() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        let made = "ln -s a /lnk && mv /bin/tty /bin/moved && touch /f";
        let owners = "stat -c %u:%g /lnk /bin/moved /f";
        let script = format!("{made} && {owners}");
        assert_eq!(stage.shell(&["-u", "0", "--name", "c"], &script), "0:0\n0:0\n0:0\n");
        stage.says("commit", &["c", "new"]);
        let words = ["--rm", "new", "sh", "-c", owners];
        assert_eq!(stage.says("run", &words), "0:0\n0:0\n0:0\n", "{caller:?}");
    }
}

#[test]
fn a_container_stays_with_its_layer_unless_it_is_to_go() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        stage.shell(&["--name", "kept"], "echo changed > /file; rm /bin/false");
        stage.shell(&["--rm", "--name", "gone"], "echo changed > /file");
        assert_eq!(stage.containers(), ["kept"]);
        assert_eq!(std::fs::read_to_string(stage.in_layer("kept", "file")).unwrap(), "changed\n");
        // Nothing of the host's and no place for a mount is in the layer.
        let mut names: Vec<_> = std::fs::read_dir(stage.in_layer("kept", ""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["bin", "file"], "{caller:?}");
        let (status, line) = stage.fails(&["--name", "kept", "busybox", "true"]);
        assert_eq!(status, 125);
        assert!(line.contains("container kept exists already"), "{line}");
        assert_eq!(stage.says("ps", &["-a", "-q"]), "kept\n");
        stage.says("rm", &["kept"]);
        stage.nothing_is_left();
    }
}
