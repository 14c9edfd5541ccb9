//! Every mark that any program ever wrote into a layer is understood.

use std::fs;
use std::path::Path;

use rustix::fs::{FileType, major, minor};
use rustix::io::Errno;

use crate::needs_root;
use crate::support::Union;
use crate::support::posix::{
    append, errno, exists, get_xattr, kind, lstat, mode, names, owner, text, xattrs,
};

#[test]
fn every_form_of_whiteout_hides_names_of_lower_layers() {
    needs_root!();
    let top = "w device\nf .wh.file\nf d/xattr trusted.overlay.whiteout=\nf e/xattr user.overlay.whiteout=
        d d trusted.overlay.opaque=x\nd e user.overlay.opaque=x\nw mode mode=0000\nh twice to=device";
    let bottom =
        "f device\nf file\nf d/xattr text=a\nf d/stays\nf e/xattr\nf e/stays\nf mode\nf twice";
    let mut union = Union::new().lower(top).lower(bottom).mount();
    for _ in 0..2 {
        assert_eq!(names(union.path("")), ["d", "e"]);
        assert_eq!(names(union.path("d")), ["stays"]);
        assert_eq!(names(union.path("e")), ["stays"]);
        for path in ["device", "file", "d/xattr", "e/xattr", "mode", "twice", ".wh.file"] {
            assert!(!exists(union.path(path)), "{path}");
        }
        union.remount();
    }
    fs::write(union.path("d/xattr"), "new").unwrap();
    fs::write(union.path("file"), "new").unwrap();
    union.remount();
    assert_eq!(text(union.path("d/xattr")), "new");
    assert_eq!(text(union.path("file")), "new");
}

#[test]
fn names_deleted_in_any_form_can_be_made_again_and_deleted_again() {
    needs_root!();
    type Make = fn(&Path);
    let makes: [(&str, Make); 6] = [
        ("file", |path| fs::write(path, "new").unwrap()),
        ("directory", |path| fs::create_dir(path).unwrap()),
        ("symbolic link", |path| std::os::unix::fs::symlink("new", path).unwrap()),
        ("hard link", |path| fs::hard_link(path.with_file_name("stays"), path).unwrap()),
        ("renamed file", |path| {
            fs::write(path.with_file_name("tmp"), "new").unwrap();
            fs::rename(path.with_file_name("tmp"), path).unwrap();
        }),
        ("renamed directory", |path| {
            fs::create_dir(path.with_file_name("tmp")).unwrap();
            fs::rename(path.with_file_name("tmp"), path).unwrap();
        }),
    ];
    let upper = "w d/a\nf d/.wh.b\nf e/c trusted.overlay.whiteout=\nd e trusted.overlay.opaque=x
        f e/g user.overlay.whiteout=";
    let lower = "f d/a\nf d/b/inside\nf d/stays\nf e/c\nf e/stays\nf e/g/inside";
    for (what, make) in makes {
        let mut union = Union::new().upper(upper).lower(lower).mount();
        for path in ["d/a", "d/b", "e/c", "e/g"] {
            assert!(!exists(union.path(path)), "{what}: {path}");
            make(&union.path(path));
        }
        let made = union.snapshot();
        union.remount();
        let mtime = crate::support::Field::Mtime;
        let again = union.snapshot().without(&[mtime]);
        crate::support::assert_same(&made.without(&[mtime]), &again, what);
        for path in ["d/a", "d/b", "e/c", "e/g"] {
            if kind(union.path(path)) == FileType::Directory {
                assert_eq!(names(union.path(path)), [""; 0], "{what}: {path}");
                fs::remove_dir(union.path(path)).unwrap();
            } else {
                fs::remove_file(union.path(path)).unwrap();
            }
        }
        union.remount();
        assert_eq!(names(union.path("d")), ["stays"], "{what}");
        assert_eq!(names(union.path("e")), ["stays"], "{what}");
    }
}

#[test]
fn directories_with_old_whiteouts_can_be_renamed_and_removed() {
    needs_root!();
    let upper = "w d/a\nf d/.wh.b\nd e trusted.overlay.opaque=x\nf e/c trusted.overlay.whiteout=";
    for remove in [false, true] {
        let mut union = Union::new().upper(upper).lower("f d/a\nf d/b\nf e/c\nf f").mount();
        for dir in ["d", "e"] {
            if remove {
                fs::remove_dir(union.path(dir)).unwrap();
            } else {
                fs::rename(union.path(dir), union.path(format!("moved-{dir}"))).unwrap();
            }
        }
        union.remount();
        if remove {
            assert_eq!(names(union.path("")), ["f"]);
        } else {
            assert_eq!(names(union.path("")), ["f", "moved-d", "moved-e"]);
            assert_eq!(names(union.path("moved-d")), [""; 0]);
            assert_eq!(names(union.path("moved-e")), [""; 0]);
        }
    }
}

#[test]
fn whiteout_by_name_wins_over_the_name_in_the_same_layer() {
    needs_root!();
    let union = Union::new().lower("f .wh.a\nf a text=same").lower("f a text=below").mount();
    assert!(!exists(union.path("a")));
    assert_eq!(names(union.path("")), [""; 0]);
}

#[test]
fn every_form_of_opaque_mark_hides_lower_content() {
    needs_root!();
    let marks = [
        "d d trusted.overlay.opaque=y",
        "d d user.overlay.opaque=y",
        "d d user.fuseoverlayfs.opaque=y",
        "f d/.wh..wh..opq",
    ];
    for mark in marks {
        let top = format!("{mark}\nf d/top");
        let union = Union::new().lower(&top).lower("f d/bottom\nf d/sub/x\nf outside").mount();
        assert_eq!(names(union.path("d")), ["top"], "{mark}");
        assert!(!exists(union.path("d/bottom")) && !exists(union.path("d/sub")), "{mark}");
        assert!(!exists(union.path("d/.wh..wh..opq")), "{mark}");
        assert!(exists(union.path("outside")), "{mark}");
    }
}

#[test]
fn every_form_of_opaque_mark_works_in_the_upper_layer() {
    needs_root!();
    let marks = [
        "d d trusted.overlay.opaque=y",
        "d d user.overlay.opaque=y",
        "d d user.fuseoverlayfs.opaque=y",
        "f d/.wh..wh..opq",
    ];
    for mark in marks {
        let mut union = Union::new().upper(mark).lower("f d/bottom").mount();
        fs::write(union.path("d/new"), "").unwrap();
        union.remount();
        assert_eq!(names(union.path("d")), ["new"], "{mark}");
        fs::remove_dir_all(union.path("d")).unwrap();
        union.remount();
        assert!(!exists(union.path("d")), "{mark}");
    }
}

#[test]
fn opaque_mark_on_the_root_of_a_layer_hides_all_layers_below() {
    needs_root!();
    for mark in ["f .wh..wh..opq", "d . user.overlay.opaque=y", "d . trusted.overlay.opaque=y"] {
        let union = Union::new().lower("f a").lower(&format!("f b\n{mark}")).lower("f c").mount();
        assert_eq!(names(union.path("")), ["a", "b"], "{mark}");
    }
}

#[test]
fn the_first_layer_without_the_directory_ends_the_merge() {
    needs_root!();
    let union = Union::new()
        .lower("f file-between/top\nf whiteout-between/top\nd file-above/sub")
        .lower("f file-between\nw whiteout-between\nf file-above/sub/middle")
        .lower("f file-between/bottom\nf whiteout-between/bottom\nf file-above")
        .mount();
    assert_eq!(names(union.path("file-between")), ["top"]);
    assert_eq!(names(union.path("whiteout-between")), ["top"]);
    assert_eq!(names(union.path("file-above/sub")), ["middle"]);
}

#[test]
fn upper_file_hides_lower_directory_and_the_other_way_round() {
    needs_root!();
    let mut union =
        Union::new().lower("f a text=file\nf b/inside").lower("f a/inside\nf b text=file").mount();
    assert_eq!(text(union.path("a")), "file");
    assert_eq!(names(union.path("b")), ["inside"]);
    fs::remove_file(union.path("a")).unwrap();
    fs::remove_dir_all(union.path("b")).unwrap();
    union.remount();
    assert!(!exists(union.path("a")) && !exists(union.path("b")));
}

#[test]
fn redirected_directories_of_the_kernel_show_their_content() {
    needs_root!();
    for space in ["trusted", "user"] {
        let upper = format!(
            "d new {space}.overlay.redirect=/a/old\nw a/old\nf new/added\nw new/gone
             d a/renamed {space}.overlay.redirect=sibling\nw a/sibling"
        );
        let bottom = "f a/old/one text=1\nf a/old/gone\nf a/old/sub/two text=2\nf a/sibling/three";
        let mut union =
            Union::new().upper(&upper).lower("f a/old/four text=4").lower(bottom).mount();
        for _ in 0..2 {
            assert_eq!(names(union.path("")), ["a", "new"], "{space}");
            assert_eq!(names(union.path("a")), ["renamed"], "{space}");
            assert_eq!(names(union.path("new")), ["added", "four", "one", "sub"], "{space}");
            assert_eq!(names(union.path("a/renamed")), ["three"], "{space}");
            assert_eq!(text(union.path("new/sub/two")), "2");
            union.remount();
        }
        append(union.path("new/sub/two"), "+");
        fs::remove_file(union.path("new/one")).unwrap();
        union.remount();
        assert_eq!(text(union.path("new/sub/two")), "2+");
        assert_eq!(names(union.path("new")), ["added", "four", "sub"]);
    }
}

#[test]
fn redirects_in_lower_layers_and_of_nested_directories_are_followed() {
    needs_root!();
    let union = Union::new()
        .lower("f moved/top")
        .lower("d moved trusted.overlay.redirect=/from\nd moved/in trusted.overlay.redirect=/x/y")
        .lower("f from/below\nf from/in/not\nf x/y/deep\nf moved/hidden")
        .mount();
    assert_eq!(names(union.path("moved")), ["below", "in", "top"]);
    assert_eq!(names(union.path("moved/in")), ["deep"]);
}

#[test]
fn redirect_out_of_the_union_is_an_error() {
    needs_root!();
    let union = Union::new()
        .upper("d d trusted.overlay.redirect=../../../../../etc\nd e trusted.overlay.redirect=/../../etc")
        .lower("f a")
        .mount();
    for dir in ["d", "e"] {
        assert_eq!(errno(fs::metadata(union.path(dir).join("passwd"))), Errno::IO, "{dir}");
    }
    let log = union.live().log();
    for dir in ["/d", "/e"] {
        assert!(log.lines().any(|line| line.contains(dir)), "no line about {dir}:\n{log}");
    }
}

#[test]
fn origin_marks_are_never_needed() {
    needs_root!();
    let upper = "f a text=upper trusted.overlay.origin=nonsense\nd d trusted.overlay.origin=x
        f b text=b user.fuseoverlayfs.origin=/nowhere\nf c text=c user.overlay.origin=";
    let mut union = Union::new().upper(upper).lower("f a text=lower\nf d/e").mount();
    append(union.path("a"), "+");
    append(union.path("b"), "+");
    union.remount();
    assert_eq!(text(union.path("a")), "upper+");
    assert_eq!(text(union.path("b")), "b+");
    assert_eq!(names(union.path("d")), ["e"]);
}

#[test]
fn private_attributes_are_not_shown() {
    needs_root!();
    let upper =
        "f a user.overlay.origin=x trusted.overlay.origin=x trusted.overlay.impure=y user.mine=m
        d d user.fuseoverlayfs.opaque=y trusted.overlay.opaque=y user.mine=m";
    let union = Union::new().upper(upper).lower("f b user.overlay.origin=x user.mine=m").mount();
    for path in ["a", "d", "b"] {
        assert_eq!(xattrs(union.path(path)), ["user.mine"], "{path}");
        for name in ["user.overlay.origin", "trusted.overlay.opaque", "user.fuseoverlayfs.opaque"] {
            assert_eq!(get_xattr(union.path(path), name), Err(Errno::NODATA), "{path} {name}");
        }
    }
}

#[test]
fn override_stat_shows_owners_modes_and_devices() {
    needs_root!();
    for name in [
        "user.containers.override_stat",
        "user.fuseoverlayfs.override_stat",
        "security.fuseoverlayfs.override_stat",
    ] {
        let lower = format!(
            "d . {name}=1:2:0751
             f null {name}=0:0:0666:char-1-3
             f disk {name}=0:6:0660:block-8-1
             f pipe {name}=7:8:0640:pipe
             f socket {name}=7:8:0640:socket
             f setuid text=program {name}=5:6:104711
             f plain text=data {name}=5:6:0644
             d dir {name}=9:10:0700
             f dir/unmarked own=3:3 mode=0604"
        );
        let mut union = Union::new().lower(&lower).mount();
        for round in 0..2 {
            let stat = lstat(union.path("null"));
            assert_eq!(kind(union.path("null")), FileType::CharacterDevice, "{name} {round}");
            assert_eq!((major(stat.st_rdev), minor(stat.st_rdev)), (1, 3), "{name} {round}");
            let stat = lstat(union.path("disk"));
            assert_eq!(kind(union.path("disk")), FileType::BlockDevice);
            assert_eq!((major(stat.st_rdev), minor(stat.st_rdev)), (8, 1));
            assert_eq!((stat.st_uid, stat.st_gid, stat.st_mode & 0o7777), (0, 6, 0o660));
            assert_eq!(kind(union.path("pipe")), FileType::Fifo);
            assert_eq!(kind(union.path("socket")), FileType::Socket);
            assert_eq!((owner(union.path("setuid")), mode(union.path("setuid"))), ((5, 6), 0o4711));
            assert_eq!((owner(union.path("dir")), mode(union.path("dir"))), ((9, 10), 0o700));
            assert_eq!(xattrs(union.path("plain")), [""; 0]);
            assert!(text(union.path("plain")).starts_with("data"));
            union.remount();
        }
        append(union.path("plain"), "+");
        assert_eq!((owner(union.path("plain")), mode(union.path("plain"))), ((5, 6), 0o644));
        union.remount();
        assert_eq!(text(union.path("plain")), "data+");
        assert_eq!((owner(union.path("plain")), mode(union.path("plain"))), ((5, 6), 0o644));
    }
}

#[test]
fn unreadable_lower_directory_is_an_error_and_not_empty() {
    crate::isolated!(User, {
        let union =
            Union::new().lower("f d/seen").lower("d d mode=0000").unchecked_lowers().mount();
        assert!(
            fs::read_dir(union.path("d"))
                .and_then(|dir| dir.collect::<Result<Vec<_>, _>>())
                .is_err()
        );
    });
}
