//! Coming and going: what callers rely on when they start, stop and replace mounts.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::needs_root;
use crate::support::mount::program;
use crate::support::posix::{append, names, text};
use crate::support::scratch::{detach, mounts};
use crate::support::{Scratch, Union, tree};

fn is_mounted(point: &Path) -> bool {
    mounts().iter().any(|mount| mount.point == point)
}

#[test]
fn the_mount_answers_as_soon_as_the_program_has_returned() {
    needs_root!();
    let scratch = Scratch::new();
    tree::make(scratch.path(), "f lower/seen\nd upper\nd work\nd merged");
    for round in 0..20 {
        let merged = scratch.path().join("merged");
        let output = Command::new(program())
            .args(["-o", "lowerdir=lower,upperdir=upper,workdir=work", "merged"])
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            // Reading to the end of the pipes also proves that the background process closed them.
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(names(&merged), ["seen"], "round {round}");
        detach(&merged);
        assert!(!is_mounted(&merged));
    }
}

#[test]
fn signals_end_the_program_and_its_mount() {
    needs_root!();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut union = Union::new().lower("f a text=a").mount();
        append(union.path("a"), "+");
        let mount = union.take();
        mount.signal(signal);
        assert!(mount.wait().success(), "{signal:?}");
        assert!(!is_mounted(&union.path("")), "{signal:?} left a dead mount");
        union.start();
        assert_eq!(text(union.path("a")), "a+");
    }
}

#[test]
fn signal_takes_a_busy_mount_away_lazily() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a").mount();
    let open = fs::File::open(union.path("a")).unwrap();
    let mount = union.take();
    mount.signal(Signal::TERM);
    assert!(mount.wait().success());
    drop(open);
    assert!(!is_mounted(&union.path("")));
}

#[test]
fn program_that_ends_leaves_its_successors_mount_alone() {
    needs_root!();
    for round in 0..10 {
        let mut first = Union::new().lower("f first").mount();
        let point = first.path("");
        let held = fs::File::open(&point).unwrap();
        let mount = first.take();
        // As podman does: out of the tree, and at once the next one in its place.
        detach(&point);
        let second_layers = Scratch::new();
        tree::make(second_layers.path(), "f lower/second");
        let mut command = Command::new(program());
        command.arg("-f").arg("-o");
        command.arg(format!("lowerdir={}/lower", second_layers.path().display())).arg(&point);
        let log = second_layers.path().join("log");
        let second =
            crate::support::Mount::start(command, &point, &log, crate::support::mount::LIFETIME)
                .unwrap_or_else(|refusal| panic!("{}", refusal.message));
        if round % 2 == 0 {
            mount.signal(Signal::TERM);
        }
        drop(held);
        assert!(mount.wait().success());
        assert!(is_mounted(&point), "the first program took the second mount away");
        assert_eq!(names(&point), ["second"]);
        second.unmount();
    }
}

#[test]
fn the_same_layers_mount_again_at_once_after_an_unmount() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a").mount();
    for round in 0..10 {
        fs::write(union.path("round"), round.to_string()).unwrap();
        let gone = union.take();
        detach(&union.path(""));
        union.start();
        assert_eq!(text(union.path("round")), round.to_string());
        assert!(gone.wait().success());
    }
}

#[test]
fn upper_layer_in_use_is_refused() {
    needs_root!();
    let union = Union::new().lower("f a").mount();
    let options =
        format!("upperdir={},workdir={}", union.upper("").display(), union.work("").display());
    let refusal = Union::new().lower("f a").upper_option(&options).try_mount().err();
    let message = refusal.expect("two mounts would write one layer").message;
    assert!(message.contains("upper") || message.contains("work"), "{message}");
    assert_eq!(names(union.path("")), ["a"]);
}

#[test]
fn mount_survives_the_removal_of_its_path_while_in_use() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a").mount();
    let dir = fs::File::open(union.path("")).unwrap();
    let mount = union.take();
    detach(&union.path(""));
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, "a", flags, rustix::fs::Mode::empty()).unwrap();
    assert_eq!(std::io::read_to_string(fs::File::from(file)).unwrap(), "a");
    drop(dir);
    assert!(mount.wait().success());
}
