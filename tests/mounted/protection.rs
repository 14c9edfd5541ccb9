//! Immutable and append-only files and directories (chattr +i, +a).

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use crate::support::mount::kernel_under_test;
use crate::support::posix::{
    append, chmod, errno, exists, get_xattr, mkdir, names, open_file, remove_xattr, rename_with,
    run, set_times, set_xattr, text,
};
use crate::support::{Program, Union};
use crate::{needs_root, not_with};

const MARK: &str = "trusted.overlay.protattr";

/// Flags that are taken away in the end, so that the layers can be.
struct Flagged(Vec<PathBuf>);

impl Flagged {
    fn set<const N: usize>(flags: &str, paths: [PathBuf; N]) -> Self {
        for path in &paths {
            chattr(flags, path);
        }
        Self(paths.into())
    }
}

impl Drop for Flagged {
    fn drop(&mut self) {
        for path in &self.0 {
            chattr("-ia", path);
        }
    }
}

fn chattr(flags: &str, path: &Path) {
    run("chattr", [flags.as_ref(), path.as_os_str()]);
}

/// Which of the two flags lsattr(1) shows.
fn flags(path: impl AsRef<Path>) -> String {
    let shown = run("lsattr", ["-d".as_ref(), path.as_ref().as_os_str()]);
    let flags = shown.split(' ').next().unwrap_or_default();
    flags.chars().filter(|flag| "ia".contains(*flag)).collect()
}

/// What each kind of change of `dir`, in which are `file` and `sub`, and of `file` results in.
fn changes(dir: &Path) -> Vec<(&'static str, Result<(), Errno>)> {
    let at = |name| dir.join(name);
    let done = |result: std::io::Result<()>| match result {
        Ok(()) => Ok(()),
        failed => Err(errno(failed)),
    };
    let write = |flags| {
        let file = open_file(at("file"), flags)?;
        done((&file).write_all(b"x").and_then(|()| file.sync_all()))
    };
    let rename = |from: PathBuf, to: PathBuf| rename_with(&from, &to, RenameFlags::empty());
    let outside = dir.parent().unwrap().join("other");
    vec![
        ("append", write(OFlags::WRONLY | OFlags::APPEND)),
        ("overwrite", write(OFlags::WRONLY)),
        ("cut", open_file(at("file"), OFlags::WRONLY).and_then(|file| done(file.set_len(0)))),
        ("punch", {
            let mode =
                rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            open_file(at("file"), OFlags::RDWR)
                .and_then(|file| rustix::fs::fallocate(file, mode, 0, 1))
        }),
        ("chmod", chmod(at("file"), 0o600)),
        ("times", set_times(at("file"), 1.0, 2.0)),
        ("set attribute", set_xattr(at("file"), "user.x", b"1")),
        ("remove attribute", remove_xattr(at("file"), "user.there")),
        ("link", done(std::fs::hard_link(at("file"), &outside))),
        ("chmod of the directory", chmod(dir, 0o700)),
        ("create", done(std::fs::write(at("new"), "x"))),
        ("mkdir", mkdir(at("made"), 0o755)),
        ("link in", done(std::fs::hard_link(dir.parent().unwrap().join("free"), at("linked")))),
        ("move in", rename(dir.parent().unwrap().join("moved"), at("moved"))),
        ("move out", rename(at("file"), outside.clone())),
        ("replace", rename(dir.parent().unwrap().join("free"), at("file"))),
        ("unlink", done(std::fs::remove_file(at("file")))),
        ("rmdir", done(std::fs::remove_dir(at("sub")))),
    ]
}

/// A union of which the directory `d` and the file in it are flagged in the lower layer.
const TREE: &str = "d d\nf d/file text=old user.there=1\nd d/sub\nf free\nf moved\nd plain\n\
                    f plain/file text=old user.there=1\nd plain/sub";

#[test]
fn flagged_lower_things_refuse_what_they_refuse_on_a_plain_filesystem() {
    needs_root!();
    not_with!("packed", "writeback=1");
    for flag in ["+i", "+a"] {
        let mut union = Union::new().lower(TREE).layers();
        let plain = union.scratch().join("plain-copy");
        run("cp", ["-a".as_ref(), union.lower(0, "").as_os_str(), plain.as_os_str()]);
        let lower = [union.lower(0, "d"), union.lower(0, "d/file")];
        let _flagged = Flagged::set(flag, lower);
        let _plain = Flagged::set(flag, [plain.join("d"), plain.join("d/file")]);
        union.start();
        assert_eq!(changes(&union.path("d")), changes(&plain.join("d")), "{flag}");
        assert_eq!(names(union.path("d")), names(plain.join("d")), "{flag}");
        assert_eq!(text(union.path("d/file")), text(plain.join("d/file")), "{flag}");
        union.remount();
        assert_eq!(flags(union.path("d")), flag[1..], "{flag}");
        assert_eq!(flags(union.path("d/file")), flag[1..], "{flag}");
    }
}

#[test]
fn flags_set_in_the_union_hold_as_on_a_plain_filesystem_and_stay() {
    needs_root!();
    not_with!("packed", "writeback=1");
    for flag in ["+i", "+a"] {
        let mut union = Union::new().lower(TREE).upper("f above").mount();
        let plain = union.scratch().join("plain-copy");
        run("cp", ["-a".as_ref(), union.lower(0, "").as_os_str(), plain.as_os_str()]);
        let _plain = Flagged::set(flag, [plain.join("d"), plain.join("d/file")]);
        chattr(flag, &union.path("d/file"));
        chattr(flag, &union.path("d"));
        union.remount();
        assert_eq!(changes(&union.path("d")), changes(&plain.join("d")), "{flag}");
        assert_eq!(names(union.path("d")), names(plain.join("d")), "{flag}");
        assert_eq!(flags(union.path("d")), flag[1..]);
        assert_eq!(get_xattr(union.upper("d"), MARK).unwrap(), flag.as_bytes()[1..]);
        assert_eq!(flags(union.upper("d")), "", "the inode itself is free");
        assert_eq!(get_xattr(union.path("d"), MARK), Err(Errno::NODATA));
        for path in ["d", "d/file"] {
            chattr("-ia", &union.path(path));
            assert_eq!(get_xattr(union.upper(path), MARK), Err(Errno::NODATA), "{path}");
        }
        std::fs::remove_dir_all(union.path("d")).unwrap();
    }
}

#[test]
fn the_union_does_its_own_work_in_immutable_directories() {
    needs_root!();
    not_with!("packed");
    let mut union = Union::new()
        .lower("d d\nf d/changed text=a\nf d/other text=b\nd d/sub\nf d/sub/deep text=c\nf free")
        .layers();
    let _flagged = Flagged::set("+i", [union.lower(0, "d")]);
    union.start();
    append(union.path("d/changed"), "+");
    append(union.path("d/sub/deep"), "+");
    std::fs::write(union.path("d/sub/new"), "n").unwrap();
    chmod(union.path("d/other"), 0o600).unwrap();
    assert_eq!(errno(std::fs::remove_file(union.path("d/other"))), Errno::PERM);
    union.remount();
    assert_eq!(flags(union.path("d")), "i");
    assert_eq!(text(union.path("d/changed")), "a+");
    assert_eq!(text(union.path("d/sub/deep")), "c+");
    chattr("-i", &union.path("d"));
    std::fs::remove_file(union.path("d/other")).unwrap();
    std::fs::write(union.path("d/other"), "again").unwrap();
    assert_eq!(flags(union.lower(0, "d")), "i");
    assert_eq!(flags(union.upper("d")), "");
}

#[test]
fn flags_are_those_that_the_kernel_reads_and_writes() {
    needs_root!();
    not_with!("packed", "volatile");
    if kernel_under_test() {
        return;
    }
    for [first, second] in [[Program::Plyfs, Program::Kernel], [Program::Kernel, Program::Plyfs]] {
        let tree = "d i\nf i/f text=a\nd a\nf a/f text=a\nf file\nf log text=1";
        let mut union = Union::new().lower(tree).layers();
        // One that is copied up from a lower layer, with what is in it.
        let _flagged = Flagged::set("+a", [union.lower(0, "log")]);
        union.switch(first.clone(), &[]);
        append(union.path("log"), "2");
        chattr("+i", &union.path("i"));
        chattr("+a", &union.path("a"));
        chattr("+ai", &union.path("file"));
        union.switch(second.clone(), &[]);
        let shown = ["i", "a", "file", "log"].map(|path| flags(union.path(path)));
        assert_eq!(shown, ["i", "a", "ia", "a"], "{first:?}, {second:?}");
        assert_eq!(errno(std::fs::write(union.path("i/new"), "x")), Errno::PERM);
        assert_eq!(errno(std::fs::remove_file(union.path("file"))), Errno::PERM);
        assert_eq!(errno(std::fs::remove_file(union.path("a/f"))), Errno::PERM);
        std::fs::write(union.path("a/new"), "x").unwrap();
        append(union.path("i/f"), "+");
        append(union.path("log"), "3");
        assert_eq!(text(union.path("log")), "123");
        for path in ["i", "a", "file", "log"] {
            chattr("-ia", &union.path(path));
        }
        union.switch(first, &[]);
        assert_eq!(["i", "a", "file", "log"].map(|path| flags(union.path(path))), [""; 4]);
        for path in ["i/f", "a/new", "a/f", "file", "log"] {
            std::fs::remove_file(union.path(path)).unwrap();
            assert!(!exists(union.path(path)));
        }
    }
}

#[test]
fn an_append_only_log_is_written_by_who_keeps_it_open() {
    needs_root!();
    not_with!("packed");
    let union = Union::new().lower("f log text=1").mount();
    let file = open_file(union.path("log"), OFlags::RDWR | OFlags::APPEND).unwrap();
    chattr("+a", &union.path("log"));
    (&file).write_all(b"2").unwrap();
    (&file).write_all(b"3").unwrap();
    drop(file);
    assert_eq!(text(union.path("log")), "123");
    chattr("-a", &union.path("log"));
    open_file(union.path("log"), OFlags::WRONLY).unwrap().write_all_at(b"x", 0).unwrap();
    assert_eq!(text(union.path("log")), "x23");
}
