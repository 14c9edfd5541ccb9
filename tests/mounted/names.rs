//! Names and paths of every shape.

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, statat};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::needs_root;
use crate::support::Union;
use crate::support::posix::{
    append, errno, exists, long_name, name, names, raw_names, text, try_lstat,
};

fn odd_names() -> Vec<OsString> {
    vec![
        name(long_name(255).as_bytes()),
        name(&[0xff; 255]),
        name(b"not \xc3\x28 text \xff\xfe"),
        name(b"new\nline"),
        name(b" blank "),
        name(b"-dash"),
        name(b"co:lon,com\\ma=\"quote\""),
        name(b"..."),
        name(b".hidden"),
        name(b"\x01\x7f"),
        name(b"wh."),
        name(b".wh"),
    ]
}

#[test]
fn odd_names_can_be_made_read_changed_renamed_and_removed() {
    needs_root!();
    let mut union = Union::new()
        .lower_with(|dir| {
            for name in odd_names() {
                fs::write(dir.join(&name), "lower").unwrap();
                fs::create_dir(dir.join("d")).ok();
                fs::create_dir(dir.join("d").join(&name)).unwrap();
                fs::write(dir.join("d").join(&name).join(&name), "deep").unwrap();
            }
        })
        .mount();
    let mut all: Vec<OsString> = odd_names();
    all.push("d".into());
    all.sort();
    assert_eq!(raw_names(union.path("")), all);
    fs::create_dir(union.path("new")).unwrap();
    for name in odd_names() {
        append(union.path(&name), "+");
        append(union.path("d").join(&name).join(&name), "+");
        fs::write(union.path("new").join(&name), "new").unwrap();
    }
    union.remount();
    for name in odd_names() {
        assert_eq!(text(union.path(&name)), "lower+");
        assert_eq!(text(union.path("d").join(&name).join(&name)), "deep+");
        assert_eq!(text(union.path("new").join(&name)), "new");
        fs::rename(union.path("new").join(&name), union.path(&name)).unwrap();
        fs::remove_file(union.path("d").join(&name).join(&name)).unwrap();
        fs::remove_dir(union.path("d").join(&name)).unwrap();
    }
    union.remount();
    assert_eq!(names(union.path("d")), [""; 0]);
    assert_eq!(names(union.path("new")), [""; 0]);
    for name in odd_names() {
        assert_eq!(text(union.path(&name)), "new");
        fs::remove_file(union.path(&name)).unwrap();
    }
    union.remount();
    assert_eq!(names(union.path("")), ["d", "new"]);
}

#[test]
fn name_of_256_bytes_is_too_long() {
    needs_root!();
    let union = Union::new().lower("f a\nd d").mount();
    let long = long_name(256);
    let too_long = Err(Errno::NAMETOOLONG);
    assert_eq!(try_lstat(union.path(&long)).map(drop), too_long);
    assert_eq!(try_lstat(union.path("d").join(&long)).map(drop), too_long);
    for result in [
        fs::write(union.path(&long), ""),
        fs::create_dir(union.path(&long)),
        std::os::unix::fs::symlink("x", union.path(&long)),
        fs::rename(union.path("a"), union.path(&long)),
        fs::hard_link(union.path("a"), union.path("d").join(&long)),
        fs::remove_file(union.path(&long)),
        fs::remove_dir(union.path(&long)),
    ] {
        assert_eq!(errno(result), Errno::NAMETOOLONG);
    }
}

#[test]
fn user_files_named_like_whiteouts_are_files() {
    needs_root!();
    let mut union = Union::new().lower("f x text=x\nf d/y").mount();
    fs::write(union.path(".wh.x"), "mine").unwrap();
    fs::write(union.path("d/.wh..wh..opq"), "mine").unwrap();
    fs::create_dir(union.path(".wh.dir")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(union.path("")), [".wh.dir", ".wh.x", "d", "x"]);
        assert_eq!(names(union.path("d")), [".wh..wh..opq", "y"]);
        assert_eq!(text(union.path(".wh.x")), "mine");
        assert_eq!(text(union.path("x")), "x");
        union.remount();
    }
    fs::remove_file(union.path(".wh.x")).unwrap();
    assert_eq!(names(union.path("")), [".wh.dir", "d", "x"]);
}

#[test]
fn paths_deeper_than_path_max_are_read_changed_and_removed() {
    needs_root!();
    let part = long_name(200);
    let mut union = Union::new()
        .lower_with(|dir| {
            let dir = descend(openat_dir(CWD, dir.as_os_str()), &part, true);
            write(&dir, "lower", "text");
        })
        .mount();
    for round in ["one", "two"] {
        let dir = descend(openat_dir(CWD, union.path("").as_os_str()), &part, false);
        write(&dir, "lower", round);
        write(&dir, round, "new");
        mkdirat(&dir, "sub", Mode::from_raw_mode(0o755)).unwrap();
        write(&openat_dir(&dir, "sub".as_ref()), "deep", round);
        renameat(&dir, "sub", &dir, format!("sub-{round}")).unwrap();
        drop(dir);
        union.remount();
        let dir = descend(openat_dir(CWD, union.path("").as_os_str()), &part, false);
        assert_eq!(read(&dir, "lower"), round);
        assert_eq!(read(&openat_dir(&dir, format!("sub-{round}").as_ref()), "deep"), round);
        unlinkat(&dir, round, AtFlags::empty()).unwrap();
        assert_eq!(statat(&dir, round, AtFlags::empty()).map(drop), Err(Errno::NOENT));
    }
    fs::rename(union.path(&part), union.path("moved")).unwrap();
    union.remount();
    fs::remove_dir_all(union.path("moved")).unwrap();
    union.remount();
    assert_eq!(names(union.path("")), [""; 0]);
}

#[test]
fn long_and_odd_symbolic_link_targets_are_kept() {
    needs_root!();
    let targets =
        ["x".repeat(4095), "with\nnewline".into(), "../..//./x".into(), "/absolute".into()];
    let mut union = Union::new()
        .lower_with(|dir| {
            for (number, target) in targets.iter().enumerate() {
                std::os::unix::fs::symlink(target, dir.join(number.to_string())).unwrap();
            }
        })
        .mount();
    for (number, target) in targets.iter().enumerate() {
        std::os::unix::fs::symlink(target, union.path(format!("new{number}"))).unwrap();
        fs::rename(union.path(number.to_string()), union.path(format!("moved{number}"))).unwrap();
    }
    union.remount();
    for (number, target) in targets.iter().enumerate() {
        for name in ["new", "moved"] {
            let link = fs::read_link(union.path(format!("{name}{number}"))).unwrap();
            assert_eq!(link.to_str(), Some(target.as_str()));
        }
    }
    assert!(!exists(union.path("0")));
}

/// Thirty directories down: more than PATH_MAX bytes.
fn descend(mut dir: OwnedFd, part: &str, make: bool) -> OwnedFd {
    for _ in 0..30 {
        if make {
            mkdirat(&dir, part, Mode::from_raw_mode(0o755)).unwrap();
        }
        dir = openat_dir(&dir, part.as_ref());
    }
    dir
}

fn openat_dir(dir: impl std::os::fd::AsFd, name: &std::ffi::OsStr) -> OwnedFd {
    openat(dir, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn write(dir: &OwnedFd, name: &str, text: &str) {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::from_raw_mode(0o644)).unwrap();
    assert_eq!(rustix::io::write(&file, text.as_bytes()), Ok(text.len()));
}

fn read(dir: &OwnedFd, name: &str) -> String {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    std::io::read_to_string(fs::File::from(file)).unwrap()
}
