//! `volatile`: nothing is synced, and nobody takes the layer for whole after a crash of the machine.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::mount::{MountFlags, mount};

use crate::needs_root;
use crate::power::{self, Cut, cut, cut_off};
use crate::support::posix::exists;
use crate::support::{Builder, Program, Union};
use crate::volume::Kind;

const MARK: &str = "work/incompat/volatile";
const BOOT: &str = "work/incompat/volatile/boot";

fn volatile() -> Builder {
    Union::new().option("volatile").lower("f file text=lower")
}

/// Makes it look as if the machine had been started anew.
fn pretend_another_boot(union: &Union) {
    fs::remove_file(union.work(BOOT)).unwrap();
    symlink("00000000-0000-4000-8000-000000000000", union.work(BOOT)).unwrap();
}

#[test]
fn volatile_mount_leaves_the_mark_of_the_kernel_over_which_that_does_not_mount() {
    needs_root!();
    let mut union = volatile().mount();
    assert!(exists(union.work("work/incompat/volatile/dirty")));
    union.unmount();
    let overlay = |union: &Union| {
        let [lower, upper, work] = [union.lower(0, ""), union.upper(""), union.work("")]
            .map(|dir| dir.display().to_string());
        let data = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        mount(
            "overlay",
            union.path(""),
            "overlay",
            MountFlags::empty(),
            &*std::ffi::CString::new(data).unwrap(),
        )
    };
    assert!(overlay(&union).is_err(), "the kernel mounts a layer that may be damaged");
    union.switch(Program::Plyfs, &[]);
    union.unmount();
    overlay(&union).expect("synced by a mount without `volatile`");
    assert_eq!(fs::read(union.path("file")).unwrap(), b"lower");
}

#[test]
fn killed_volatile_mount_is_mounted_again_while_the_machine_runs() {
    needs_root!();
    for options in [&["volatile"][..], &[]] {
        let mut union = volatile().mount();
        fs::write(union.path("file"), "changed").unwrap();
        union.kill();
        union.switch(Program::Plyfs, options);
        assert_eq!(fs::read(union.path("file")).unwrap(), b"changed");
        assert_eq!(exists(union.work(MARK)), !options.is_empty(), "the mark, with {options:?}");
    }
}

#[test]
fn volatile_layer_is_refused_after_the_machine_was_started_anew() {
    needs_root!();
    let mut union = volatile().mount();
    for options in [&["volatile"][..], &[]] {
        union.unmount();
        pretend_another_boot(&union);
        for _ in 0..2 {
            let refusal = union.try_start().expect_err("the layer may be damaged");
            assert_eq!(refusal.message.lines().count(), 1, "{}", refusal.message);
            let work = union.work("").display().to_string();
            for part in ["workdir: ", &work, "volatile", "remove work/incompat/volatile"] {
                assert!(refusal.message.contains(part), "{part:?} is not in {}", refusal.message);
            }
        }
        fs::remove_dir_all(union.work(MARK)).unwrap();
        union.switch(Program::Plyfs, options);
    }
    assert!(!exists(union.work(MARK)));
}

/// What containers/storage does before each mount.
#[test]
fn volatile_mount_makes_its_mark_again_when_a_caller_took_it_away() {
    needs_root!();
    let mut union = volatile().mount();
    for _ in 0..2 {
        union.unmount();
        fs::remove_dir_all(union.work(MARK)).unwrap();
        union.start();
        assert!(exists(union.work(BOOT)));
    }
}

#[test]
fn mount_without_volatile_syncs_what_a_volatile_one_left() {
    needs_root!();
    let mut union =
        power::builder(Kind::Ext4).option("volatile").lower("f file text=lower").mount();
    fs::write(union.path("file"), "changed").unwrap();
    fs::write(union.path("new"), "new").unwrap();
    union.unmount();
    union.switch(Program::Plyfs, &[]);
    cut(&mut union, Kind::Ext4, Cut::AtOnce);
    assert_eq!(fs::read(union.path("file")).unwrap(), b"changed");
    assert_eq!(fs::read(union.path("new")).unwrap(), b"new");
}

/// The mark is not synced, but nothing gets onto the disk before it.
#[test]
fn mark_survives_a_power_cut_where_a_change_does() {
    needs_root!();
    for how in [Cut::AtOnce, Cut::AfterLog] {
        let mut union =
            power::builder(Kind::Ext4).option("volatile").lower("f file text=lower").mount();
        fs::create_dir(union.path("dir")).unwrap();
        cut_off(&mut union, Kind::Ext4, how);
        let survived = [union.work(MARK), union.work(BOOT), union.upper("dir")].map(exists);
        assert_eq!(survived, [how == Cut::AfterLog; 3], "{how:?}: the mark, and a change");
    }
}

#[test]
fn ordinary_users_mark_their_volatile_layers() {
    crate::isolated!(User, {
        let mut union = volatile().mount();
        union.kill();
        union.start();
        assert!(exists(union.work(BOOT)));
        union.switch(Program::Plyfs, &[]);
        assert!(!exists(union.work(MARK)));
    });
}
