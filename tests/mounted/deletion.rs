//! Deleted things stay deleted, and leave the least that says so.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::support::posix::{
    append, errno, exists, is_opaque, is_whiteout, kind, mknod, names, text,
};
use crate::support::{Snapshot, Union, same_as_plain};
use crate::{isolated, needs_root, not_with};

#[test]
fn directory_made_over_deleted_lower_directory_stays_empty_after_remount() {
    needs_root!();
    for dir in ["d", "p/d"] {
        let lower = "f d/old text=x\nf d/sub/deep\nf p/d/old\nf p/d/sub/deep";
        let mut union = Union::new().lower(lower).mount();
        fs::remove_dir_all(union.path(dir)).unwrap();
        fs::create_dir(union.path(dir)).unwrap();
        assert_eq!(names(union.path(dir)), [""; 0]);
        union.remount();
        assert_eq!(names(union.path(dir)), [""; 0]);
        assert!(is_opaque(union.upper(dir)));
        fs::create_dir(union.path(dir).join("sub")).unwrap();
        union.remount();
        assert_eq!(names(union.path(dir).join("sub")), [""; 0]);
    }
}

#[test]
fn directory_renamed_onto_deleted_lower_directory_keeps_only_its_own_content() {
    needs_root!();
    for dir in ["d", "p/d"] {
        let mut union = Union::new().lower("f d/old\nf p/d/old").mount();
        fs::create_dir(union.path("new")).unwrap();
        fs::write(union.path("new/mine"), "mine").unwrap();
        fs::remove_dir_all(union.path(dir)).unwrap();
        fs::rename(union.path("new"), union.path(dir)).unwrap();
        assert_eq!(names(union.path(dir)), ["mine"]);
        union.remount();
        assert_eq!(names(union.path(dir)), ["mine"]);
        assert!(is_opaque(union.upper(dir)));
        assert!(!exists(union.upper("new")), "an upper name needs no whiteout");
    }
}

#[test]
fn directory_renamed_onto_emptied_lower_directory_keeps_only_its_own_content() {
    needs_root!();
    let mut union = Union::new().lower("f d/old").mount();
    fs::create_dir(union.path("new")).unwrap();
    fs::write(union.path("new/mine"), "mine").unwrap();
    fs::remove_file(union.path("d/old")).unwrap();
    fs::rename(union.path("new"), union.path("d")).unwrap();
    assert_eq!(names(union.path("d")), ["mine"]);
    union.remount();
    assert_eq!(names(union.path("d")), ["mine"]);
}

#[test]
fn file_renamed_over_lower_file_and_removed_does_not_bring_the_lower_file_back() {
    needs_root!();
    for file in ["f", "d/f"] {
        let mut union = Union::new().lower("f f text=lower\nf d/f text=lower").mount();
        fs::write(union.path("tmp"), "new").unwrap();
        fs::rename(union.path("tmp"), union.path(file)).unwrap();
        fs::remove_file(union.path(file)).unwrap();
        assert!(!exists(union.path(file)));
        union.remount();
        assert!(!exists(union.path(file)));
        assert!(is_whiteout(union.upper(file)));
    }
}

#[test]
fn new_directory_over_deleted_one_hides_all_lower_layers_but_not_what_is_new() {
    needs_root!();
    let mut union = Union::new().lower("f a/b/one").lower("f a/b/two\nf a/c/three").mount();
    fs::remove_dir_all(union.path("a")).unwrap();
    fs::create_dir_all(union.path("a/b")).unwrap();
    fs::write(union.path("a/b/new"), "new").unwrap();
    for _ in 0..2 {
        assert_eq!(names(union.path("a")), ["b"]);
        assert_eq!(names(union.path("a/b")), ["new"]);
        union.remount();
    }
}

#[test]
fn deleting_lower_things_leaves_one_whiteout_and_copies_nothing() {
    needs_root!();
    let lower = "f d/f text=content\nl d/l to=f\np d/p\nf d/e/deep/er\nc d/c dev=1:3\nf d/keep";
    let union = Union::new().lower(lower).mount();
    for file in ["d/f", "d/l", "d/p", "d/c"] {
        fs::remove_file(union.path(file)).unwrap();
    }
    fs::remove_dir_all(union.path("d/e")).unwrap();
    assert_eq!(names(union.path("d")), ["keep"]);
    assert_eq!(names(union.upper("d")), ["c", "e", "f", "l", "p"]);
    for name in names(union.upper("d")) {
        assert!(is_whiteout(union.upper("d").join(name)));
    }
    assert_work_is_empty(&union);
}

#[test]
fn renaming_over_a_lower_file_does_not_copy_it_up() {
    needs_root!();
    let mut union = Union::new()
        .lower_with(|dir| {
            fs::File::create(dir.join("big")).unwrap().set_len(1 << 40).unwrap();
        })
        .unchecked_lowers()
        .mount();
    fs::write(union.path("small"), "small").unwrap();
    fs::rename(union.path("small"), union.path("big")).unwrap();
    union.remount();
    assert_eq!(text(union.path("big")), "small");
    assert_eq!(names(union.upper("")), ["big"]);
}

#[test]
fn renaming_a_lower_file_away_leaves_a_whiteout() {
    needs_root!();
    let mut union = Union::new().lower("f a text=content mode=0640 own=3:4").mount();
    fs::rename(union.path("a"), union.path("b")).unwrap();
    union.remount();
    assert_eq!(names(union.path("")), ["b"]);
    assert_eq!(text(union.path("b")), "content");
    assert!(is_whiteout(union.upper("a")));
}

#[test]
fn removing_an_upper_name_leaves_nothing_and_a_copied_up_name_a_whiteout() {
    needs_root!();
    let mut union = Union::new().lower("f lower text=a\nd dir").mount();
    fs::write(union.path("new"), "").unwrap();
    fs::create_dir(union.path("newdir")).unwrap();
    append(union.path("lower"), "b");
    fs::write(union.path("dir/x"), "").unwrap();
    fs::remove_file(union.path("new")).unwrap();
    fs::remove_dir(union.path("newdir")).unwrap();
    fs::remove_file(union.path("lower")).unwrap();
    fs::remove_dir_all(union.path("dir")).unwrap();
    union.remount();
    assert_eq!(names(union.path("")), [""; 0]);
    assert_eq!(names(union.upper("")), ["dir", "lower"]);
    assert!(is_whiteout(union.upper("lower")) && is_whiteout(union.upper("dir")));
}

#[test]
fn opaque_directory_holds_no_whiteouts() {
    needs_root!();
    let union = Union::new().lower("f d/a\nf d/b\nf d/sub/c").mount();
    fs::remove_dir_all(union.path("d")).unwrap();
    fs::create_dir_all(union.path("d/sub")).unwrap();
    for name in ["d/a", "d/new", "d/sub/c"] {
        fs::write(union.path(name), "").unwrap();
        fs::remove_file(union.path(name)).unwrap();
    }
    fs::write(union.path("d/b"), "").unwrap();
    fs::rename(union.path("d/b"), union.path("d/moved")).unwrap();
    fs::remove_dir(union.path("d/sub")).unwrap();
    assert_eq!(names(union.upper("d")), ["moved"]);
}

#[test]
fn every_kind_of_thing_can_replace_a_deleted_one() {
    needs_root!();
    let lower = "f f text=lower\nd d\nf d/inside\nl l to=d\np p";
    type Make = fn(&Path);
    let make: [(&str, Make); 4] = [
        ("file", |path| fs::write(path, "new").unwrap()),
        ("directory", |path| fs::create_dir(path).unwrap()),
        ("link", |path| std::os::unix::fs::symlink("new", path).unwrap()),
        ("fifo", |path| mknod(path, FileType::Fifo, (0, 0)).unwrap()),
    ];
    for (what, make) in make {
        let mut union = Union::new().lower(lower).mount();
        let all = ["f", "d", "l", "p"];
        let mut kinds = Vec::new();
        for name in all {
            let path = union.path(name);
            if kind(&path) == FileType::Directory {
                fs::remove_dir_all(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            make(&path);
            kinds.push(kind(&path));
        }
        let before = union.snapshot();
        union.remount();
        crate::support::assert_same(&before, &union.snapshot(), what);
        assert_eq!(all.map(|name| kind(union.path(name))).to_vec(), kinds);
        for name in all {
            if what == "directory" {
                fs::remove_dir(union.path(name)).unwrap();
            } else {
                fs::remove_file(union.path(name)).unwrap();
            }
        }
        union.remount();
        assert_eq!(names(union.path("")), [""; 0], "{what}: the lower things are back");
    }
}

#[test]
fn removed_whole_tree_stays_removed() {
    needs_root!();
    let mut union = Union::new().lower("f a/b/c\nf d\nl e to=d").lower("f a/x\nf g/h").mount();
    for name in names(union.path("")) {
        let path = union.path(name);
        if kind(&path) == FileType::Directory {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    union.remount();
    assert_eq!(names(union.path("")), [""; 0]);
}

#[test]
fn merged_directory_is_removed_once_it_looks_empty() {
    needs_root!();
    let mut union = Union::new()
        .upper("f d/upper\nw d/gone")
        .lower("f d/one")
        .lower("f d/two\nf d/gone")
        .mount();
    assert_eq!(errno(fs::remove_dir(union.path("d"))), Errno::NOTEMPTY);
    for name in ["upper", "one", "two"] {
        assert_eq!(errno(fs::remove_dir(union.path("d"))), Errno::NOTEMPTY);
        fs::remove_file(union.path("d").join(name)).unwrap();
    }
    fs::remove_dir(union.path("d")).unwrap();
    union.remount();
    assert!(!exists(union.path("d")));
    assert!(is_whiteout(union.upper("d")));
}

#[test]
fn directory_emptied_by_whiteouts_of_a_lower_layer_can_be_removed() {
    needs_root!();
    let mut union = Union::new().lower("w d/a\nw d/b").lower("f d/a\nf d/b").mount();
    assert_eq!(names(union.path("d")), [""; 0]);
    fs::remove_dir(union.path("d")).unwrap();
    union.remount();
    assert!(!exists(union.path("d")));
}

#[test]
fn opaque_upper_directory_with_old_whiteouts_can_be_removed() {
    needs_root!();
    let mut union = Union::new().upper("o d\nw d/a\nf d/.wh.b").lower("f d/a").mount();
    assert_eq!(names(union.path("d")), [""; 0]);
    fs::remove_dir(union.path("d")).unwrap();
    union.remount();
    assert!(!exists(union.path("d")));
}

#[test]
fn errors_of_removal_are_those_of_posix() {
    needs_root!();
    same_as_plain("f file\nf dir/inside\nd empty\nl link to=dir", |root: &Path| {
        let result = |result: std::io::Result<()>| match result {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        [
            result(fs::remove_file(root.join("dir"))),
            result(fs::remove_dir(root.join("file"))),
            result(fs::remove_dir(root.join("dir"))),
            result(fs::remove_dir(root.join("link"))),
            result(fs::remove_file(root.join("absent"))),
            result(fs::remove_dir(root.join("absent"))),
            result(fs::remove_file(root.join("file/below"))),
            result(fs::remove_dir(root.join("empty"))),
            result(fs::remove_dir(root.join("empty"))),
            result(fs::create_dir(root.join("dir"))),
            result(fs::create_dir(root.join("file"))),
            result(fs::remove_file(root.join("link"))),
            result(fs::remove_dir(root.join("dir/."))),
        ]
        .join("\n")
    });
}

#[test]
fn ordinary_user_deletes_with_kernel_whiteouts() {
    not_with!("xattr_permissions");
    isolated!(User, delete_and_recreate_in_kernel_form());
}

#[test]
fn root_of_a_user_namespace_deletes_with_kernel_whiteouts() {
    not_with!("xattr_permissions");
    isolated!(UserNamespace, delete_and_recreate_in_kernel_form());
}

fn delete_and_recreate_in_kernel_form() {
    let mut union = Union::new().lower("f gone\nf d/old").mount();
    fs::remove_file(union.path("gone")).unwrap();
    fs::remove_dir_all(union.path("d")).unwrap();
    fs::create_dir(union.path("d")).unwrap();
    union.remount();
    assert_eq!(names(union.path("")), ["d"]);
    assert_eq!(names(union.path("d")), [""; 0]);
    assert!(is_whiteout(union.upper("gone")));
    assert_eq!(crate::support::posix::xattrs(union.upper("d")), ["user.overlay.opaque"]);
}

#[test]
fn fallback_whiteouts_are_written_when_asked_for() {
    needs_root!();
    let mut union = Union::new()
        .environment("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1")
        .lower("f gone text=x\nf d/old\nf d/sub/old")
        .mount();
    fs::remove_file(union.path("gone")).unwrap();
    fs::remove_dir_all(union.path("d")).unwrap();
    fs::create_dir(union.path("d")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(union.path("")), ["d"]);
        assert_eq!(names(union.path("d")), [""; 0]);
        assert!(!exists(union.path("gone")) && !exists(union.path(".wh.gone")));
        assert_eq!(errno(fs::write(union.path(".wh.mine"), "")), Errno::INVAL);
        union.remount();
    }
    assert_eq!(kind(union.upper(".wh.gone")), FileType::RegularFile);
    assert!(!exists(union.upper("gone")));
    fs::write(union.path("gone"), "again").unwrap();
    union.remount();
    assert_eq!(text(union.path("gone")), "again");
}

fn assert_work_is_empty(union: &Union) {
    let left: Vec<PathBuf> = Snapshot::of(&union.work(""))
        .paths()
        .into_iter()
        .filter(|path| kind(union.work(path)) == FileType::RegularFile)
        .filter(|path| fs::metadata(union.work(path)).unwrap().len() > 0)
        .map(Path::to_owned)
        .collect();
    assert_eq!(left, [""; 0].map(PathBuf::from), "data is left in the work directory");
}

#[test]
fn deletion_in_an_upper_directory_that_vanished_is_an_error_and_no_endless_loop() {
    not_with!("timeout");
    needs_root!();
    let union = Union::new().lower("f d/f text=f\nf other text=o").mount();
    fs::write(union.path("d/x"), "").unwrap();
    fs::remove_dir_all(union.upper("d")).unwrap();
    assert!(fs::remove_file(union.path("d/f")).is_err());
    append(union.path("other"), "+");
    assert_eq!(text(union.path("other")), "o+");
    assert_eq!(text(union.lower(0, "d/f")), "f");
}
