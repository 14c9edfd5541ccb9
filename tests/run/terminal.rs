//! Programs at a terminal, which the test sits at.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::needs_root;
use crate::stage::{CALLERS, Caller, Stage, wait_until};

/// A terminal, and the end at which the test sits.
fn terminal() -> (File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let outer = openpt(flags).unwrap();
    unlockpt(&outer).unwrap();
    let inner = ioctl_tiocgptpeer(&outer, flags).unwrap();
    let size = Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&inner, size).unwrap();
    (File::from(outer), inner)
}

fn echoes(terminal: impl AsFd) -> bool {
    tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO)
}

/// Reads until `end` has been shown.
fn shown(outer: &mut File, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let mut buffer = [0; 1024];
        let count = outer.read(&mut buffer).unwrap();
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    text
}

#[test]
fn a_program_has_a_terminal_and_the_caller_gets_his_back() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        let (mut outer, inner) = terminal();
        let script = "tty; stty size; echo $TERM; read x; echo \"<$x>\"; sleep 100";
        let mut command = stage.command("run", &["--rm", "-it", "busybox", "sh", "-c", script]);
        let end = || Stdio::from(inner.try_clone().unwrap());
        let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let greeting = shown(&mut outer, "xterm\r\n");
        assert_eq!(greeting, "/dev/pts/0\r\n31 97\r\nxterm\r\n", "{caller:?}");
        wait_until("the terminal is raw", || !echoes(&inner));
        outer.write_all(b"typed\r").unwrap();
        assert_eq!(shown(&mut outer, ">\r\n"), "typed\r\n<typed>\r\n");
        // ^C is the program's.
        outer.write_all(b"\x03").unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{caller:?}");
        assert!(echoes(&inner));
        stage.nothing_is_left();
    }
}

#[test]
fn a_signal_gives_the_terminal_back_too() {
    needs_root!();
    let stage = Stage::new(Caller::Mapped);
    let (mut outer, inner) = terminal();
    let mut command =
        stage.command("run", &["--rm", "-it", "busybox", "sh", "-c", "echo ready; exec sleep 100"]);
    let end = || Stdio::from(inner.try_clone().unwrap());
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    shown(&mut outer, "ready");
    wait_until("the terminal is raw", || !echoes(&inner));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(echoes(&inner));
    stage.nothing_is_left();
}

#[test]
fn all_of_the_output_of_a_terminal_arrives() {
    needs_root!();
    let stage = Stage::new(Caller::Root);
    let output = stage
        .script(&["--rm", "-t"], "dd if=/dev/zero bs=1000 count=1000 2>/dev/null; echo; exit 3");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout.len(), 1_000_002);
}
