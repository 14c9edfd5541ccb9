//! rename(2) of everything, with every flag, from every layer.

use std::fs;
use std::io::Write;
use std::path::Path;

use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use crate::needs_root;
use crate::support::posix::{
    append, errno, exists, get_xattr, is_whiteout, kind, names, open_rw, rename_with, text,
};
use crate::support::{Union, assert_same, same_as_plain};

/// One of each kind, with content that tells them apart.
const TREE: &str = "f a text=a mode=0640\nf b text=b user.x=y\nd full\nf full/inside text=in
d full/sub\nf full/sub/deep text=deep\nd other\nf other/thing text=thing
d empty\nd empty2\nl link to=a\np pipe mode=0600\nf full/big text=0123456789";

fn result<T>(result: Result<T, Errno>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "ok".into())
}

fn renames(root: &Path, flags: RenameFlags, pairs: &[(&str, &str)]) -> String {
    let results = pairs.iter().map(|(from, to)| {
        format!("{from} {to}: {}", result(rename_with(&root.join(from), &root.join(to), flags)))
    });
    results.collect::<Vec<_>>().join("\n")
}

#[test]
fn errors_of_rename_are_those_of_posix() {
    needs_root!();
    same_as_plain(TREE, |root| {
        renames(
            root,
            RenameFlags::empty(),
            &[
                ("a", "full"),
                ("full", "a"),
                ("empty", "full"),
                ("full", "full/sub/below"),
                ("full/sub", "full"),
                ("absent", "x"),
                ("a", "absent/x"),
                ("a", "a"),
                ("empty", "empty"),
                ("a/x", "y"),
                ("a", "b/y"),
                ("full", "link"),
                ("link", "empty"),
                ("full/.", "x"),
            ],
        )
    });
}

#[test]
fn files_and_other_things_are_renamed() {
    needs_root!();
    same_as_plain(TREE, |root| {
        renames(
            root,
            RenameFlags::empty(),
            &[
                ("a", "c"),
                ("b", "full/b"),
                ("link", "other/link"),
                ("pipe", "empty/pipe"),
                ("full/inside", "c"),
                ("c", "d"),
                ("d", "a"),
                ("full/big", "other/thing"),
                ("other/link", "a"),
            ],
        )
    });
}

#[test]
fn directories_of_every_layer_are_renamed() {
    needs_root!();
    same_as_plain(TREE, |root| {
        let first = renames(
            root,
            RenameFlags::empty(),
            &[
                ("full", "moved"),
                ("moved/sub", "other/sub"),
                ("moved", "other/sub/in"),
                ("empty", "empty2"),
            ],
        );
        append(root.join("other/sub/deep"), "+");
        fs::remove_file(root.join("other/sub/in/big")).unwrap();
        fs::create_dir(root.join("full")).unwrap();
        fs::write(root.join("full/new"), "new").unwrap();
        first + &renames(root, RenameFlags::empty(), &[("other", "back"), ("back/sub/in", "other")])
    });
}

#[test]
fn exchange_swaps_things_of_every_kind() {
    needs_root!();
    same_as_plain(TREE, |root| {
        renames(
            root,
            RenameFlags::EXCHANGE,
            &[
                ("a", "b"),
                ("a", "full"),
                ("other", "empty"),
                ("link", "pipe"),
                ("a", "absent"),
                ("absent", "a"),
                ("b", "b"),
                ("other", "a/sub"),
                ("empty", "empty/thing"),
            ],
        )
    });
}

#[test]
fn noreplace_replaces_nothing() {
    needs_root!();
    same_as_plain(TREE, |root| {
        renames(
            root,
            RenameFlags::NOREPLACE,
            &[
                ("a", "b"),
                ("a", "full"),
                ("empty", "empty2"),
                ("full", "empty"),
                ("a", "a"),
                ("a", "new"),
                ("full", "newdir"),
                ("absent", "x"),
            ],
        )
    });
}

#[test]
fn noreplace_onto_a_deleted_name_succeeds() {
    needs_root!();
    for name in ["gone", "d/gone", "earlier"] {
        let mut union =
            Union::new().upper("w earlier").lower("f gone\nf d/gone\nf earlier").mount();
        if name != "earlier" {
            fs::remove_file(union.path(name)).unwrap();
        }
        fs::write(union.path("new"), "new").unwrap();
        rename_with(&union.path("new"), &union.path(name), RenameFlags::NOREPLACE).unwrap();
        union.remount();
        assert_eq!(text(union.path(name)), "new");
        assert!(!exists(union.path("new")));
    }
}

#[test]
fn rename_with_whiteout_leaves_no_name_behind_or_is_refused_as_by_the_kernel() {
    needs_root!();
    for from in ["lower", "new"] {
        let mut union = Union::new().lower("f lower text=content").mount();
        fs::write(union.path("new"), "content").unwrap();
        let result = rename_with(&union.path(from), &union.path("to"), RenameFlags::WHITEOUT);
        for _ in 0..2 {
            let (gone, there) = if result.is_ok() { (from, "to") } else { ("to", from) };
            assert!(!exists(union.path(gone)), "{gone}");
            assert_eq!(text(union.path(there)), "content");
            union.remount();
        }
        assert!(matches!(result, Ok(()) | Err(Errno::INVAL)), "{result:?}");
    }
}

#[test]
fn merged_directory_is_renamed_with_the_content_of_all_layers() {
    needs_root!();
    let mut union = Union::new()
        .upper("f d/up text=up\nw d/gone\nd d/sub")
        .lower("f d/one text=one\no d/cut\nf d/cut/new")
        .lower("f d/two text=two\nf d/gone\nf d/sub/deep text=deep\nf d/cut/old\nl d/l to=x\np d/p")
        .mount();
    let before = union.snapshot();
    fs::rename(union.path("d"), union.path("moved")).unwrap();
    assert!(!exists(union.path("d")));
    union.remount();
    assert_eq!(names(union.path("")), ["moved"]);
    assert_eq!(names(union.path("moved")), ["cut", "l", "one", "p", "sub", "two", "up"]);
    assert_eq!(names(union.path("moved/cut")), ["new"]);
    assert_eq!(text(union.path("moved/sub/deep")), "deep");
    fs::rename(union.path("moved"), union.path("d")).unwrap();
    for _ in 0..2 {
        let again = union.snapshot();
        let root = crate::support::Field::Mtime;
        assert_same(&before.clone().without(&[root]), &again.without(&[root]), "there and back");
        union.remount();
    }
}

#[test]
fn name_of_a_renamed_lower_directory_can_be_used_again() {
    needs_root!();
    let mut union = Union::new().lower("f d/old text=old").mount();
    fs::rename(union.path("d"), union.path("e")).unwrap();
    fs::create_dir(union.path("d")).unwrap();
    fs::write(union.path("d/new"), "new").unwrap();
    for _ in 0..2 {
        assert_eq!(names(union.path("d")), ["new"]);
        assert_eq!(names(union.path("e")), ["old"]);
        union.remount();
    }
    fs::remove_dir_all(union.path("e")).unwrap();
    fs::remove_dir_all(union.path("d")).unwrap();
    union.remount();
    assert_eq!(names(union.path("")), [""; 0]);
}

#[test]
fn rename_of_lower_directory_is_refused_with_redirect_dir_off() {
    needs_root!();
    let union = Union::new().option("redirect_dir=off").lower("f d/a\nd empty").mount();
    assert_eq!(errno(fs::rename(union.path("d"), union.path("e"))), Errno::XDEV);
    assert_eq!(names(union.path("")), ["d", "empty"]);
    fs::create_dir(union.path("new")).unwrap();
    fs::rename(union.path("new"), union.path("newer")).unwrap();
    fs::rename(union.path("d/a"), union.path("newer/a")).unwrap();
    assert_eq!(names(union.path("newer")), ["a"]);
}

#[test]
fn rename_of_lower_directory_writes_a_redirect_with_redirect_dir_on() {
    needs_root!();
    let lower = "f d/a text=a\nf d/sub/deep text=deep\nf p/q/r text=r";
    let mut union = Union::new().option("redirect_dir=on").lower(lower).mount();
    fs::rename(union.path("d"), union.path("e")).unwrap();
    fs::rename(union.path("p/q"), union.path("e/q")).unwrap();
    fs::rename(union.path("e/sub"), union.path("sub")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(union.path("")), ["e", "p", "sub"]);
        assert_eq!(names(union.path("e")), ["a", "q"]);
        assert_eq!(text(union.path("sub/deep")), "deep");
        assert_eq!(text(union.path("e/q/r")), "r");
        union.remount();
    }
    assert_eq!(names(union.upper("e")), ["q", "sub"], "only what moved is in the upper layer");
    assert!(is_whiteout(union.upper("d")) && is_whiteout(union.upper("e/sub")));
    let marks = ["trusted.overlay.redirect", "user.overlay.redirect"];
    let redirects = marks.map(|name| get_xattr(union.upper("e"), name));
    assert!(redirects.iter().any(|value| matches!(value, Ok(to) if to == b"/d" || to == b"d")));
}

#[test]
fn open_file_is_written_through_its_rename() {
    needs_root!();
    let mut union = Union::new().lower("f d/a text=a").mount();
    let mut file = open_rw(union.path("d/a"));
    fs::rename(union.path("d/a"), union.path("d/b")).unwrap();
    file.write_all(b"1").unwrap();
    fs::rename(union.path("d"), union.path("e")).unwrap();
    file.write_all(b"2").unwrap();
    drop(file);
    union.remount();
    assert_eq!(text(union.path("e/b")), "12");
    assert_eq!(names(union.path("e")), ["b"]);
}

#[test]
fn replaced_open_file_keeps_its_old_content() {
    needs_root!();
    let union = Union::new().lower("f a text=old").mount();
    let old = open_rw(union.path("a"));
    fs::write(union.path("new"), "new").unwrap();
    fs::rename(union.path("new"), union.path("a")).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(rustix::io::pread(&old, &mut buffer, 0), Ok(3));
    assert_eq!(&buffer[..3], b"old");
    rustix::io::pwrite(&old, b"OLD", 0).unwrap();
    assert_eq!(text(union.path("a")), "new");
}

#[test]
fn deep_rename_keeps_cached_paths_right() {
    needs_root!();
    let mut union = Union::new().lower("f a/b/c/d/file text=x").mount();
    assert_eq!(text(union.path("a/b/c/d/file")), "x");
    fs::rename(union.path("a/b"), union.path("moved")).unwrap();
    assert_eq!(errno(fs::metadata(union.path("a/b/c/d/file"))), Errno::NOENT);
    append(union.path("moved/c/d/file"), "y");
    fs::rename(union.path("moved/c/d"), union.path("a/d")).unwrap();
    assert_eq!(text(union.path("a/d/file")), "xy");
    union.remount();
    assert_eq!(text(union.path("a/d/file")), "xy");
    assert_eq!(names(union.path("moved/c")), [""; 0]);
}

#[test]
fn rename_onto_names_hidden_by_lower_whiteouts_works() {
    needs_root!();
    let mut union = Union::new()
        .lower("w gone\nw gonedir\nf here text=here\nd dir")
        .lower("f gone\nf gonedir/x")
        .mount();
    fs::rename(union.path("here"), union.path("gone")).unwrap();
    fs::rename(union.path("dir"), union.path("gonedir")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(union.path("")), ["gone", "gonedir"]);
        assert_eq!(names(union.path("gonedir")), [""; 0]);
        assert_eq!(text(union.path("gone")), "here");
        union.remount();
    }
}

#[test]
fn lower_device_is_renamed_as_a_device() {
    needs_root!();
    let mut union = Union::new().lower("c null dev=1:3 mode=0666\nb disk dev=8:1").mount();
    fs::rename(union.path("null"), union.path("n")).unwrap();
    fs::rename(union.path("disk"), union.path("d")).unwrap();
    union.remount();
    assert_eq!(kind(union.path("n")), FileType::CharacterDevice);
    assert_eq!(kind(union.path("d")), FileType::BlockDevice);
    assert_eq!(names(union.path("")), ["d", "n"]);
}

#[test]
fn upper_file_renamed_onto_an_upper_file_leaves_a_whiteout_and_nothing_staged() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a\nf b text=b").mount();
    append(union.path("a"), "+");
    append(union.path("b"), "+");
    fs::rename(union.path("a"), union.path("b")).unwrap();
    assert!(is_whiteout(union.upper("a")));
    assert_eq!(text(union.upper("b")), "a+");
    assert_eq!(names(union.work("plyfs/stage")), [""; 0]);
    for _ in 0..2 {
        assert_eq!(names(union.path("")), ["b"]);
        assert_eq!(text(union.path("b")), "a+");
        union.remount();
    }
}
