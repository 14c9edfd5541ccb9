//! A mountpoint that has another mount by the time the first one's daemon ends: it must be left
//! alone. fuse-overlayfs 2.0 detaches it.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::stage::{Daemon, Stage, shell, succeeds};

/// The daemon that is not `first`, once `first` has ended.
fn remaining(stage: &Stage, first: Daemon) -> Daemon {
    first.ends();
    stage.daemon()
}

#[test]
fn mounting_again_at_once_after_an_unmount() {
    let stage = Stage::new();
    // The second takes over the upper too, from a daemon that may not have ended yet.
    for _ in 0..20 {
        succeeds(&mut stage.plyfs(&stage.writable()));
        let first = stage.daemon();
        succeeds(&mut shell("umount $1", &[stage.mountpoint()]));
        succeeds(&mut stage.plyfs(&stage.writable()));
        let second = remaining(&stage, first);
        assert_eq!(stage.mounts().len(), 1);
        assert_eq!(stage.read(), "hello");
        second.signal(Signal::TERM);
        second.ends();
    }
}

#[test]
fn a_signal_to_the_first_while_it_is_replaced() {
    let stage = Stage::new();
    for _ in 0..20 {
        let first = stage.mount();
        let visitor = fs::File::open(stage.mountpoint().join("hello")).unwrap();
        succeeds(&mut shell("umount -l $1", &[stage.mountpoint()]));
        succeeds(&mut stage.plyfs(&stage.read_only()));
        // It still serves the visitor, so its own filesystem lives: only its mount is gone.
        first.signal(Signal::TERM);
        drop(visitor);
        let second = remaining(&stage, first);
        assert_eq!(stage.mounts().len(), 1);
        assert_eq!(stage.read(), "hello");
        second.signal(Signal::TERM);
        second.ends();
    }
}

#[test]
fn a_signal_to_the_first_beneath_the_second() {
    let stage = Stage::new();
    let first = stage.mount();
    succeeds(&mut stage.plyfs(&stage.read_only()));
    first.signal(Signal::TERM);
    let second = remaining(&stage, first);
    assert_eq!(stage.read(), "hello");
    second.signal(Signal::TERM);
    second.ends();
    // What is left of the first can only be reached now.
    assert_eq!(stage.mounts().len(), 1);
    succeeds(Command::new(stage.program()).arg("umount").arg(stage.mountpoint()));
}

#[test]
fn a_mountpoint_that_is_renamed_and_replaced() {
    let stage = Stage::new();
    let first = stage.mount();
    succeeds(&mut shell("umount -l $1; mv $1 $1.old; mkdir $1", &[stage.mountpoint()]));
    first.ends();
    assert_eq!(fs::read_dir(stage.mountpoint()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(stage.path("mnt.old")).unwrap().count(), 0);
}
