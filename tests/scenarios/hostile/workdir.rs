//! An upper layer and a workdir that somebody else has prepared: nothing outside of them is created, changed or
//! removed, and the mount works or says what is wrong.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::canary::Canary;
use super::listing;
use crate::needs_root;
use crate::support::posix::{append, chmod, exists, get_xattr, ino, lstat, names, set_xattr, text};
use crate::support::{Builder, Union, tree};

fn with_workdir(fill: impl FnOnce(&Path)) -> Builder {
    let builder = Union::new().lower("f a text=a\nf d/b text=b\nf h text=h\nh h2 to=h");
    fill(&builder.path().join("work"));
    builder
}

/// Uses everything for which something is kept in the workdir.
fn use_it(union: &Union) {
    append(union.path("a"), "+");
    append(union.path("h"), "+");
    fs::remove_file(union.path("h2")).unwrap();
    fs::remove_file(union.path("d/b")).unwrap();
    fs::rename(union.path("d"), union.path("e")).unwrap();
    chmod(union.path("e"), 0o700).unwrap();
}

#[test]
fn links_in_the_workdir_are_not_followed() {
    needs_root!();
    for name in [
        "plyfs",
        "plyfs/stage",
        "plyfs/nlink",
        "plyfs/ino",
        "plyfs/whiteout",
        "index",
        "work",
        "work/incompat",
    ] {
        for target in ["", "empty", "sub", "secret", "absent"] {
            let canary = Canary::new();
            let built = with_workdir(|work| {
                fs::create_dir_all(work.join(name).parent().unwrap()).unwrap();
                symlink(canary.path(target), work.join(name)).unwrap();
            });
            match built.try_mount() {
                Ok(union) => {
                    let what = format!("work/{name} -> {target}");
                    let pid = union.live().pid();
                    if name != "index" && name != "plyfs/nlink" && name != "plyfs/ino" {
                        use_it(&union);
                    }
                    canary.assert_untouched(pid, &what);
                    assert!(!exists(canary.path("absent")), "{what}");
                }
                Err(refusal) => assert!(
                    refusal.message.starts_with("plyfs: workdir: "),
                    "{name}: {}",
                    refusal.message
                ),
            }
            drop(canary);
        }
    }
}

#[test]
fn links_in_the_upper_layer_lead_nowhere() {
    needs_root!();
    let canary = Canary::new();
    let outside = canary.path("");
    let mut union = Union::new()
        .upper_with(|upper| {
            symlink(&outside, upper.join("d")).unwrap();
            symlink(canary.path("secret"), upper.join("f")).unwrap();
            symlink(&outside, upper.join("e")).unwrap();
        })
        .lower("f d/secret text=lower\nf f text=lower\nf x/y text=y")
        .mount();
    assert_eq!(listing(union.upper("")).unwrap(), ["d", "e", "f"]);
    fs::rename(union.path("x"), union.path("moved")).unwrap();
    assert_eq!(fs::read_link(union.path("d")).unwrap(), outside);
    fs::remove_file(union.path("d")).unwrap();
    fs::create_dir(union.path("d")).unwrap();
    fs::write(union.path("d/new"), "new").unwrap();
    assert_eq!(names(union.path("d")), ["new"]);
    fs::remove_file(union.path("e")).unwrap();
    canary.assert_untouched(union.live().pid(), "links in the upper layer");
    union.remount();
    assert_eq!(names(union.path("")), ["d", "f", "moved"]);
}

#[test]
fn garbage_in_the_index_is_passed_over() {
    needs_root!();
    let mut union = Union::new().lower("f h text=h\nh h2 to=h\nf other text=other").mount();
    append(union.path("h"), "+");
    fs::remove_file(union.path("h")).unwrap();
    union.unmount();
    let entry = names(union.work("index")).pop().unwrap();
    let links = [
        "U+99999999999",
        "U-2147483648",
        "L+2147483647",
        "L-2147483648",
        "U",
        "",
        "X+1",
        "\u{e4}",
        "U+0x10",
    ];
    for value in links {
        set_xattr(union.work("index").join(&entry), "trusted.overlay.nlink", value.as_bytes())
            .unwrap();
        union.start();
        assert_eq!(text(union.path("h2")), "h+", "{value}");
        assert!(lstat(union.path("h2")).st_nlink < 4, "{value}");
        append(union.path("other"), "+");
        union.unmount();
        assert!(!union_log(&union).contains("panicked"), "{value}");
    }
    for (name, text) in [("zz", "x"), ("00fb", "x"), (".wh.", "x")] {
        fs::write(union.work("index").join(name), text).unwrap();
    }
    fs::create_dir_all(union.work("plyfs/nlink")).unwrap();
    fs::create_dir_all(union.work("plyfs/ino")).unwrap();
    let other = format!("{}ff", &entry[..entry.len() - 2]);
    symlink("-99999999999", union.work("plyfs/nlink").join(&other)).unwrap();
    fs::write(union.work("plyfs/nlink").join(format!("{}fe", &entry[..entry.len() - 2])), "")
        .unwrap();
    for (name, number) in
        [("1", "0"), ("2", "x"), ("x", "3"), ("4", "-5"), ("5", "99999999999999999999999")]
    {
        symlink(number, union.work("plyfs/ino").join(name)).unwrap();
    }
    fs::write(union.work("plyfs/ino/6"), "").unwrap();
    fs::create_dir(union.work("plyfs/ino/7")).unwrap();
    union.start();
    assert_eq!(text(union.path("h2")), "h+");
    assert_eq!(names(union.path("")), ["h2", "other"]);
    union.unmount();
    // What the index has of another type stands for nothing.
    fs::remove_file(union.work("index").join(&entry)).unwrap();
    fs::create_dir(union.work("index").join(&entry)).unwrap();
    union.start();
    assert_eq!(
        fs::read(union.path("h2")).map_err(|e| Errno::from_io_error(&e).unwrap()),
        Err(Errno::IO)
    );
    assert!(union_log(&union).contains("is no copy of what it stands for"));
    assert!(text(union.path("other")).starts_with("other"));
}

fn union_log(union: &Union) -> String {
    fs::read_to_string(union.scratch().join("log")).unwrap()
}

#[test]
fn garbage_inode_numbers_are_passed_over() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a\nf b text=b\nd d").mount();
    for name in ["a", "b"] {
        append(union.path(name), "+");
    }
    union.unmount();
    for value in [
        "0",
        "1",
        "2",
        "-1",
        "x",
        "18446744073709551615",
        "99999999999999999999999999",
        "",
        "\u{0}",
        "9223372036854775808",
    ] {
        for name in ["a", "b"] {
            set_xattr(union.upper(name), "trusted.overlay.plyfs.ino", value.as_bytes()).unwrap();
        }
        union.start();
        assert_eq!(names(union.path("")), ["a", "b", "d"], "{value:?}");
        assert_eq!(text(union.path("a")) + &text(union.path("b")), "a+b+", "{value:?}");
        assert_ne!(ino(union.path("a")), 0, "{value:?}");
        fs::rename(union.path("a"), union.path("d/a")).unwrap();
        fs::rename(union.path("d/a"), union.path("a")).unwrap();
        union.unmount();
    }
    assert_eq!(
        get_xattr(union.upper("a"), "trusted.overlay.plyfs.ino").unwrap(),
        b"9223372036854775808"
    );
}

#[test]
fn a_tree_of_any_depth_is_removed_from_the_stage() {
    needs_root!();
    let deep = |at: &Path| {
        fs::create_dir_all(at).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut dir = rustix::fs::open(at, flags, Mode::empty()).unwrap();
        for _ in 0..1_000 {
            mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
        }
    };
    let mut union = with_workdir(|work| deep(&work.join("plyfs/stage/0")))
        .upper_with(|upper| {
            tree::make(upper, "f .wh.hidden");
            deep(&upper.join("hidden"));
        })
        // Fewer than one descriptor for each level.
        .wrapper(&["prlimit", "--nofile=256"])
        .mount();
    assert_eq!(names(union.work("plyfs/stage")), [""; 0]);
    // What a mark hides in the same directory goes the same way when the name is used.
    fs::write(union.path("hidden"), "new").unwrap();
    assert_eq!(names(union.work("plyfs/stage")), [""; 0]);
    union.remount();
    assert_eq!(text(union.path("hidden")), "new");
}

#[test]
fn what_takes_the_place_of_our_files_is_refused_or_replaced() {
    needs_root!();
    for name in ["plyfs", "plyfs/stage", "plyfs/whiteout", "index", "plyfs/nlink", "plyfs/ino"] {
        for text in ["f NAME text=x", "p NAME", "c NAME dev=1:3", "w NAME", "f NAME/full/of text=x"]
        {
            let line = text.replace("NAME", name);
            match with_workdir(|work| tree::make(work, &line)).try_mount() {
                Ok(mut union) => {
                    if let Err(error) = fs::remove_file(union.path("a")) {
                        panic!("{line}: {error}");
                    }
                    assert_eq!(
                        rustix::fs::FileType::from_raw_mode(lstat(union.upper("a")).st_mode),
                        FileType::CharacterDevice,
                        "{line}"
                    );
                    union.unmount();
                }
                Err(refusal) => {
                    assert!(
                        refusal.message.starts_with("plyfs: workdir: cannot prepare "),
                        "{line}: {}",
                        refusal.message
                    );
                    assert_eq!(refusal.message.lines().count(), 1);
                }
            }
        }
    }
}
