//! Names of one file stay names of one file: through copy-up, renames, removal and remounts.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

use crate::support::posix::{
    append, chmod, errno, exists, get_xattr, ino, lstat, mode, names, set_xattr, text,
};
use crate::support::{Field, Snapshot, Union, same_as_plain};
use crate::{isolated, needs_root, not_with};

const LINKED: &str = "f a text=old\nh d/b to=a\nh c to=a\nf other";

#[test]
fn append_to_one_lower_link_shows_in_all_and_survives_remount() {
    needs_root!();
    append_shows_in_all_links();
}

#[test]
fn append_to_one_lower_link_shows_in_all_as_an_ordinary_user() {
    isolated!(User, append_shows_in_all_links());
}

#[test]
fn append_to_one_lower_link_shows_in_all_in_a_user_namespace() {
    isolated!(UserNamespace, append_shows_in_all_links());
}

fn append_shows_in_all_links() {
    let mut union = Union::new().lower(LINKED).mount();
    assert_linked(&union, &["a", "d/b", "c"], "old");
    append(union.path("a"), "+1");
    assert_linked(&union, &["a", "d/b", "c"], "old+1");
    union.remount();
    assert_linked(&union, &["a", "d/b", "c"], "old+1");
    append(union.path("d/b"), "+2");
    assert_linked(&union, &["c", "d/b", "a"], "old+1+2");
    union.remount();
    append(union.path("c"), "+3");
    union.remount();
    assert_linked(&union, &["a", "d/b", "c"], "old+1+2+3");
    assert_eq!(text(union.path("other")), "");
}

#[test]
fn link_counts_go_down_as_lower_names_are_removed() {
    needs_root!();
    for change in [false, true] {
        let mut union = Union::new().lower(LINKED).mount();
        fs::remove_file(union.path("a")).unwrap();
        assert_linked(&union, &["d/b", "c"], "old");
        if change {
            append(union.path("c"), "+");
        }
        let now = if change { "old+" } else { "old" };
        union.remount();
        assert_linked(&union, &["d/b", "c"], now);
        fs::remove_file(union.path("c")).unwrap();
        assert_linked(&union, &["d/b"], now);
        union.remount();
        assert_linked(&union, &["d/b"], now);
        fs::remove_file(union.path("d/b")).unwrap();
        union.remount();
        assert_eq!(names(union.path("")), ["d", "other"]);
        assert_eq!(names(union.path("d")), [""; 0]);
    }
}

#[test]
fn new_link_to_a_lower_file_is_a_link_to_all_its_names() {
    needs_root!();
    let mut union = Union::new().lower(LINKED).mount();
    fs::hard_link(union.path("c"), union.path("d/new")).unwrap();
    assert_linked(&union, &["a", "d/b", "c", "d/new"], "old");
    union.remount();
    assert_linked(&union, &["a", "d/b", "c", "d/new"], "old");
    append(union.path("a"), "+");
    fs::remove_file(union.path("c")).unwrap();
    union.remount();
    assert_linked(&union, &["a", "d/b", "d/new"], "old+");
}

#[test]
fn link_to_a_lower_file_with_one_name_survives_remount() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a").mount();
    fs::hard_link(union.path("a"), union.path("b")).unwrap();
    append(union.path("b"), "+");
    union.remount();
    assert_linked(&union, &["a", "b"], "a+");
}

#[test]
fn renamed_lower_links_stay_linked() {
    needs_root!();
    let mut union = Union::new().lower(LINKED).mount();
    fs::rename(union.path("a"), union.path("d/moved")).unwrap();
    append(union.path("c"), "+");
    assert_linked(&union, &["d/moved", "d/b", "c"], "old+");
    union.remount();
    assert_linked(&union, &["d/moved", "d/b", "c"], "old+");
    assert!(!exists(union.path("a")));
}

#[test]
fn rename_of_two_links_to_one_file_does_nothing() {
    needs_root!();
    for change in [false, true] {
        let mut union = Union::new().lower(LINKED).mount();
        if change {
            append(union.path("a"), "+");
        }
        fs::rename(union.path("a"), union.path("c")).unwrap();
        fs::rename(union.path("a"), union.path("d/b")).unwrap();
        let now = if change { "old+" } else { "old" };
        assert_linked(&union, &["a", "d/b", "c"], now);
        union.remount();
        assert_linked(&union, &["a", "d/b", "c"], now);
    }
}

#[test]
fn attributes_set_by_one_name_show_by_the_others() {
    needs_root!();
    let mut union = Union::new().lower(LINKED).mount();
    chmod(union.path("a"), 0o600).unwrap();
    set_xattr(union.path("d/b"), "user.x", b"y").unwrap();
    for _ in 0..2 {
        for name in ["a", "d/b", "c"] {
            assert_eq!(mode(union.path(name)), 0o600, "{name}");
            assert_eq!(get_xattr(union.path(name), "user.x"), Ok(b"y".to_vec()), "{name}");
        }
        assert_linked(&union, &["a", "d/b", "c"], "old");
        union.remount();
    }
}

#[test]
fn recreated_name_is_no_longer_linked() {
    needs_root!();
    let mut union = Union::new().lower(LINKED).mount();
    fs::remove_file(union.path("a")).unwrap();
    fs::write(union.path("a"), "new").unwrap();
    append(union.path("c"), "+");
    union.remount();
    assert_linked(&union, &["a"], "new");
    assert_linked(&union, &["d/b", "c"], "old+");
}

#[test]
fn open_lower_link_sees_what_is_written_by_another_name() {
    needs_root!();
    not_with!("io=passthrough");
    use std::io::Read;
    let union = Union::new().lower(LINKED).mount();
    let mut reader = fs::File::open(union.path("a")).unwrap();
    append(union.path("d/b"), "+");
    let mut seen = String::new();
    reader.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "old+");
}

#[test]
fn linked_symbolic_links_and_fifos_stay_linked() {
    needs_root!();
    let mut union = Union::new().lower("l a to=x\nh b to=a\np p\nh q to=p").mount();
    crate::support::posix::chown(union.path("a"), 5, 6).unwrap();
    chmod(union.path("q"), 0o600).unwrap();
    union.remount();
    for (first, second) in [("a", "b"), ("p", "q")] {
        let (one, two) = (lstat(union.path(first)), lstat(union.path(second)));
        assert_eq!((one.st_ino, one.st_nlink), (two.st_ino, 2));
        assert_eq!((one.st_mode, one.st_uid), (two.st_mode, two.st_uid));
    }
}

#[test]
fn links_of_two_lower_layers_do_not_mix() {
    needs_root!();
    let mut union = Union::new()
        .lower("f a text=top\nh b to=a")
        .lower("f b text=low\nh c to=b\nh d to=b")
        .mount();
    append(union.path("b"), "+");
    append(union.path("c"), "-");
    union.remount();
    assert_eq!(
        ["a", "b", "c", "d"].map(|name| text(union.path(name))),
        ["top+", "top+", "low-", "low-"]
    );
}

#[test]
fn link_onto_a_deleted_name_replaces_the_whiteout() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a\nf b text=b").mount();
    fs::remove_file(union.path("b")).unwrap();
    fs::hard_link(union.path("a"), union.path("b")).unwrap();
    union.remount();
    assert_linked(&union, &["a", "b"], "a");
    fs::remove_file(union.path("b")).unwrap();
    union.remount();
    assert_eq!(names(union.path("")), ["a"]);
}

#[test]
fn errors_and_results_of_link_are_those_of_posix() {
    needs_root!();
    let tree = "f file text=x\nh second to=file\nd dir\nl link to=file\np pipe";
    same_as_plain(tree, |root: &Path| {
        let link = |from: &str, to: &str| {
            let result = fs::hard_link(root.join(from), root.join(to));
            result.map_or_else(|error| format!("{error}"), |()| "ok".into())
        };
        [
            link("file", "second"),
            link("dir", "dir2"),
            link("absent", "x"),
            link("file", "absent/x"),
            link("link", "dir/link"),
            link("pipe", "dir/pipe"),
            link("file", "dir/file"),
            link("second", "dir/file"),
        ]
        .join("\n")
    });
}

#[test]
fn unlinked_name_of_an_open_file_leaves_the_others() {
    needs_root!();
    use std::io::Write;
    let mut union = Union::new().lower(LINKED).mount();
    let mut file = fs::OpenOptions::new().append(true).open(union.path("a")).unwrap();
    fs::remove_file(union.path("a")).unwrap();
    file.write_all(b"+").unwrap();
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_nlink, 2);
    drop(file);
    assert_linked(&union, &["d/b", "c"], "old+");
    union.remount();
    assert_linked(&union, &["d/b", "c"], "old+");
    assert_eq!(errno(fs::metadata(union.path("a"))), Errno::NOENT);
}

#[test]
fn data_of_lower_links_goes_with_their_last_name() {
    needs_root!();
    // What was changed by which name, and in which order the names are looked up and removed.
    for (changed, order) in
        [("a", ["a", "b"]), ("a", ["b", "a"]), ("b", ["a", "b"]), ("b", ["b", "a"])]
    {
        let mut union = Union::new().lower("f a text=old\nh b to=a").mount();
        append(union.path(changed), "+");
        union.remount();
        for name in order {
            assert_eq!(text(union.path(name)), "old+");
        }
        for name in order {
            fs::remove_file(union.path(name)).unwrap();
        }
        union.remount();
        assert_eq!(names(union.path("")), [""; 0]);
        let work = Snapshot::of(&union.work(""));
        for path in work.paths() {
            let content = work.field(path.to_str().unwrap(), Field::Content);
            assert_ne!(content, Some("old+"), "{changed}, {order:?}: {path:?} is left");
        }
    }
}

#[test]
fn data_appended_by_a_deleted_name_is_in_the_upper_layer_by_the_name_that_is_left() {
    needs_root!();
    for first in ["a", "b"] {
        let mut union = Union::new().lower("f a text=old\nh b to=a").mount();
        let second = if first == "a" { "b" } else { "a" };
        append(union.path(first), "+1");
        fs::remove_file(union.path(first)).unwrap();
        append(union.path(second), "+2");
        assert_linked(&union, &[second], "old+1+2");
        assert_eq!(text(union.upper(second)), "old+1+2", "{second} in the upper layer");
        union.remount();
        assert_eq!(names(union.path("")), [second]);
        assert_linked(&union, &[second], "old+1+2");
    }
}

/// These names, and as far as st_nlink tells no others, are one file.
fn assert_linked(union: &Union, paths: &[&str], content: &str) {
    let first = ino(union.path(paths[0]));
    for path in paths {
        let stat = lstat(union.path(path));
        assert_eq!(text(union.path(path)), content, "content of {path}");
        assert_eq!(
            stat.st_nlink as usize,
            paths.len(),
            "links of {path} of {paths:?} with {content}"
        );
        assert_eq!(stat.st_ino, first, "inode of {path}");
    }
}
