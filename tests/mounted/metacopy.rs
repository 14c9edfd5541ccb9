//! Metacopy files: attributes in one layer, data in one below.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::Errno;

use crate::support::posix::{
    append, chmod, chown, errno, exists, get_xattr, lstat, mode, names, set_times, set_xattr, text,
    xattrs,
};
use crate::support::{Program, Union, assert_same, tree};
use crate::{isolated, needs_root, not_with};

#[test]
fn metacopy_files_of_the_kernel_show_the_data_below() {
    needs_root!();
    for space in ["trusted", "user"] {
        let mut union = Union::new()
            .upper_with(|upper| {
                metacopy(upper, space, "same", None, 5, 0o600);
                metacopy(upper, space, "moved", Some("/dir/original"), 5, 0o644);
                tree::make(upper, "w dir/original");
            })
            .lower("f same text=first mode=0644\nf dir/original text=other user.a=b")
            .mount();
        for _ in 0..2 {
            assert_eq!(text(union.path("same")), "first", "{space}");
            assert_eq!(mode(union.path("same")), 0o600);
            assert_eq!(lstat(union.path("same")).st_size, 5);
            assert_eq!(text(union.path("moved")), "other", "{space}");
            assert_eq!(xattrs(union.path("same")), [""; 0]);
            union.remount();
        }
        append(union.path("same"), "+");
        fs::OpenOptions::new().write(true).open(union.path("moved")).unwrap().set_len(2).unwrap();
        union.remount();
        assert_eq!(text(union.path("same")), "first+", "{space}");
        assert_eq!(text(union.path("moved")), "ot", "{space}");
        assert_eq!(
            get_xattr(union.upper("same"), &format!("{space}.overlay.metacopy")),
            Err(Errno::NODATA)
        );
        assert_eq!(mode(union.path("same")), 0o600);
    }
}

#[test]
fn metacopy_files_in_several_layers_lead_to_the_data() {
    needs_root!();
    let union = Union::new()
        .lower_with(|dir| metacopy(dir, "trusted", "a", None, 4, 0o600))
        .lower_with(|dir| metacopy(dir, "trusted", "a", Some("/b"), 4, 0o640))
        .lower("f b text=data\nf a text=wrong")
        .mount();
    assert_eq!(text(union.path("a")), "data");
    assert_eq!(mode(union.path("a")), 0o600);
    assert_eq!(text(union.path("b")), "data");
}

#[test]
fn metacopy_without_data_is_an_error_and_never_zeros() {
    needs_root!();
    let union = Union::new()
        .upper_with(|upper| metacopy(upper, "trusted", "a", None, 4, 0o644))
        .lower("f other\nd directory")
        .lower_with(|dir| metacopy(dir, "trusted", "b", Some("/directory"), 4, 0o644))
        .mount();
    assert_eq!(errno(fs::read(union.path("a"))), Errno::IO);
    assert_eq!(errno(fs::read(union.path("b"))), Errno::IO);
    let written = fs::OpenOptions::new().append(true).open(union.path("a"));
    let result = written.and_then(|mut file| std::io::Write::write_all(&mut file, b"x"));
    assert_eq!(errno(result), Errno::IO);
}

#[test]
fn data_only_layers_give_data_and_no_names() {
    needs_root!();
    let mut union = Union::new()
        .lower_with(|dir| {
            metacopy(dir, "trusted", "app/bin", Some("/objects/1"), 4, 0o755);
            metacopy(dir, "trusted", "app/lib", Some("/objects/2"), 4, 0o644);
        })
        .data_layer("f objects/1 text=one!\n")
        .data_layer("f objects/1 text=not!\nf objects/2 text=two!")
        .mount();
    assert_eq!(names(union.path("")), ["app"]);
    assert_eq!(text(union.path("app/bin")), "one!");
    assert_eq!(mode(union.path("app/bin")), 0o755);
    append(union.path("app/lib"), "+");
    union.remount();
    assert_eq!(text(union.path("app/lib")), "two!+");
    assert!(!exists(union.path("objects/1")));
}

/// A lower file of some size, changed in attributes only.
const LARGE: usize = 1 << 20;

fn large(dir: &Path) {
    fs::write(dir.join("f"), vec![b'x'; LARGE]).unwrap();
}

/// A name, and what it does to a file.
type Change = (&'static str, fn(&Path));

fn has_no_data(path: &Path) -> bool {
    let stat = lstat(path);
    stat.st_size == LARGE as i64 && stat.st_blocks * 512 < stat.st_size / 2
}

#[test]
fn changes_of_attributes_copy_no_data_with_metacopy() {
    needs_root!();
    not_with!("volatile", "xattr_permissions");
    let changes: [Change; 4] = [
        ("chown", |path| chown(path, 5, 6).unwrap()),
        ("chmod", |path| chmod(path, 0o604).unwrap()),
        ("setxattr", |path| set_xattr(path, "user.a", b"b").unwrap()),
        ("utimens", |path| set_times(path, 5.0, 6.0).unwrap()),
    ];
    for (what, change) in changes {
        let mut union =
            Union::new().option("metacopy=on").lower("f other").lower_with(large).mount();
        let blocks = lstat(union.path("f")).st_blocks;
        change(&union.path("f"));
        assert!(has_no_data(&union.upper("f")), "{what}");
        let changed = union.snapshot();
        for _ in 0..2 {
            assert_same(&changed, &union.snapshot(), what);
            assert!(fs::read(union.path("f")).unwrap() == vec![b'x'; LARGE], "{what}");
            assert_eq!(lstat(union.path("f")).st_blocks, blocks, "{what}");
            union.remount();
        }
        union.switch(Program::Kernel, &["metacopy=on"]);
        assert_same(&changed, &union.snapshot(), &format!("{what}, the kernel"));
    }
}

#[test]
fn the_data_of_a_metacopy_comes_with_the_first_change_of_it() {
    needs_root!();
    let changes: [Change; 5] = [
        ("append", |path| append(path, "+")),
        ("truncate", |path| open(path).set_len(7).unwrap()),
        ("link", |path| fs::hard_link(path, path.with_file_name("link")).unwrap()),
        ("rename", |path| {
            fs::rename(path, path.with_file_name("g")).unwrap();
            fs::rename(path.with_file_name("g"), path).unwrap();
        }),
        ("write", |path| {
            open(path).write_all_at(b"yz", 1000).unwrap();
        }),
    ];
    for (what, change) in changes {
        let lower = Union::new().option("metacopy=on").lower_with(large);
        let mut union = lower.mount();
        let plain = union.scratch().join("plain");
        fs::create_dir(&plain).unwrap();
        large(&plain);
        chmod(union.path("f"), 0o604).unwrap();
        for root in [union.path(""), plain.clone()] {
            change(&root.join("f"));
        }
        let expected = fs::read(plain.join("f")).unwrap();
        for _ in 0..2 {
            assert!(fs::read(union.path("f")).unwrap() == expected, "{what}");
            assert_eq!(mode(union.path("f")), 0o604, "{what}");
            let mark = get_xattr(union.upper("f"), "trusted.overlay.metacopy");
            assert_eq!(mark, Err(Errno::NODATA), "{what}");
            union.remount();
        }
    }
}

fn open(path: &Path) -> fs::File {
    fs::File::options().write(true).open(path).unwrap()
}

#[test]
fn syncing_a_metacopy_does_not_turn_its_data_into_zeros() {
    needs_root!();
    for option in ["metacopy=on", "metacopy=off"] {
        let mut union = Union::new()
            .option(option)
            .upper_with(|upper| metacopy(upper, "trusted", "f", None, 4, 0o600))
            .lower("f f text=data")
            .mount();
        fs::File::open(union.path("f")).unwrap().sync_all().unwrap();
        assert_eq!(text(union.path("f")), "data", "{option}");
        union.remount();
        assert_eq!(text(union.path("f")), "data", "{option}");
    }
}

#[test]
fn a_deleted_metacopy_that_is_open_keeps_its_data() {
    needs_root!();
    let union = Union::new().option("metacopy=on").lower_with(large).mount();
    let file = fs::File::options().read(true).write(true).open(union.path("f")).unwrap();
    chmod(union.path("f"), 0o604).unwrap();
    fs::remove_file(union.path("f")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, LARGE as u64 - 1).unwrap();
    assert_eq!(&byte, b"x");
    (&file).write_all(b"y").unwrap();
    file.read_exact_at(&mut byte, LARGE as u64 / 2).unwrap();
    assert_eq!(&byte, b"x");
    assert!(!exists(union.path("f")));
}

#[test]
fn a_file_with_several_names_is_copied_with_its_data() {
    needs_root!();
    let mut union = Union::new()
        .option("metacopy=on")
        .lower_with(|dir| {
            large(dir);
            fs::hard_link(dir.join("f"), dir.join("g")).unwrap();
        })
        .mount();
    chmod(union.path("f"), 0o604).unwrap();
    for _ in 0..2 {
        for name in ["f", "g"] {
            assert_eq!(mode(union.path(name)), 0o604);
            assert!(fs::read(union.path(name)).unwrap() == vec![b'x'; LARGE]);
        }
        union.remount();
    }
}

#[test]
fn metacopies_in_a_user_namespace() {
    isolated!(UserNamespace, {
        let mut union = Union::new().option("metacopy=on").lower_with(large).mount();
        for permissions in [0o600, 0o000, 0o644] {
            chmod(union.path("f"), permissions).unwrap();
            assert!(has_no_data(&union.upper("f")));
            assert!(fs::read(union.path("f")).unwrap() == vec![b'x'; LARGE]);
            union.remount();
        }
    });
}

#[test]
fn metacopies_of_an_ordinary_user() {
    isolated!(User, {
        let mut union = Union::new().option("metacopy=on").lower_with(large).mount();
        let open = fs::File::open(union.path("f")).unwrap();
        chmod(union.path("f"), 0o600).unwrap();
        assert!(has_no_data(&union.upper("f")));
        assert!(fs::read(union.path("f")).unwrap() == vec![b'x'; LARGE]);
        chmod(union.path("f"), 0o000).unwrap();
        let mut byte = [0];
        open.read_exact_at(&mut byte, 5).unwrap();
        assert_eq!(&byte, b"x");
        drop(open);
        union.remount();
        chmod(union.path("f"), 0o644).unwrap();
        assert!(fs::read(union.path("f")).unwrap() == vec![b'x'; LARGE]);
    });
}

/// Writes a file without data as the kernel does with `metacopy=on`.
fn metacopy(layer: &Path, space: &str, name: &str, redirect: Option<&str>, size: u64, mode: u32) {
    tree::make(layer, &format!("f {name} mode={mode:o}"));
    let path = layer.join(name);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size).unwrap();
    set_xattr(&path, &format!("{space}.overlay.metacopy"), b"").unwrap();
    if let Some(redirect) = redirect {
        set_xattr(&path, &format!("{space}.overlay.redirect"), redirect.as_bytes()).unwrap();
    }
}
