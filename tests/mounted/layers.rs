//! Layers of every number and place.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

use crate::support::posix::{
    append, as_user, chmod, chown, errno, exists, is_whiteout, mkdir, mknod, names, run, set_times,
    set_xattr, text,
};
use crate::support::{Field, Snapshot, Union, assert_same, same_as_plain, tree};
use crate::{isolated, needs_root};

#[test]
fn five_hundred_lower_layers_are_merged() {
    needs_root!();
    let mut builder = Union::new();
    for number in 0..500 {
        builder = builder.lower(&format!(
            "f d/file{number} text={number}\nf d/top text={number}\nf own{number}/f"
        ));
    }
    let mut union = builder.mount();
    assert_eq!(names(union.path("d")).len(), 501);
    assert_eq!(text(union.path("d/top")), "0");
    assert_eq!(text(union.path("d/file499")), "499");
    append(union.path("d/file499"), "+");
    fs::remove_file(union.path("d/file250")).unwrap();
    fs::rename(union.path("own400"), union.path("moved")).unwrap();
    union.remount();
    assert_eq!(text(union.path("d/file499")), "499+");
    assert_eq!(names(union.path("d")).len(), 500);
    assert_eq!(names(union.path("moved")), ["f"]);
}

#[test]
fn union_without_upper_layer_can_only_be_read() {
    needs_root!();
    let lower = "f a text=a\nd d\nf d/b\nf gone\nl link to=a\np pipe";
    let union = Union::new().lower("w gone\nf d/c").lower(lower).read_only().mount();
    assert_eq!(names(union.path("")), ["a", "d", "link", "pipe"]);
    assert_eq!(names(union.path("d")), ["b", "c"]);
    assert_eq!(text(union.path("link")), "a");
    let io = |result: std::io::Result<()>| errno(result);
    let path = |name: &str| union.path(name);
    for (what, error) in [
        ("write", io(fs::write(path("a"), "x"))),
        ("append", io(fs::File::options().append(true).open(path("a")).map(drop))),
        ("create", io(fs::write(path("new"), "x"))),
        ("mkdir", io(fs::create_dir(path("new")))),
        ("unlink", io(fs::remove_file(path("a")))),
        ("rmdir", io(fs::remove_dir(path("d")))),
        ("rename", io(fs::rename(path("a"), path("b")))),
        ("link", io(fs::hard_link(path("a"), path("b")))),
        ("symlink", io(std::os::unix::fs::symlink("x", path("b")))),
    ] {
        assert_eq!(error, Errno::ROFS, "{what}");
    }
    for (what, result) in [
        ("mkdir", mkdir(path("new"), 0o755)),
        ("mknod", mknod(path("new"), rustix::fs::FileType::Fifo, (0, 0))),
        ("chmod", chmod(path("a"), 0o600)),
        ("chown", chown(path("a"), 1, 1)),
        ("utimens", set_times(path("a"), 1.0, 1.0)),
        ("setxattr", set_xattr(path("a"), "user.x", b"")),
    ] {
        assert_eq!(result, Err(Errno::ROFS), "{what}");
    }
}

#[test]
fn one_lower_layer_alone_is_shown() {
    needs_root!();
    let union = Union::new().lower("f a/b text=x\nw a/gone").read_only().mount();
    assert_eq!(text(union.path("a/b")), "x");
    assert_eq!(names(union.path("a")), ["b"]);
    assert_eq!(errno(fs::write(union.path("a/b"), "")), Errno::ROFS);
}

#[test]
fn option_ro_refuses_changes_though_there_is_an_upper_layer() {
    needs_root!();
    let union = Union::new().option("ro").upper("f b text=b").lower("f a text=a").mount();
    assert_eq!(names(union.path("")), ["a", "b"]);
    assert_eq!(errno(fs::write(union.path("b"), "x")), Errno::ROFS);
    assert_eq!(errno(fs::remove_file(union.path("a"))), Errno::ROFS);
}

#[test]
fn relative_and_symbolic_layer_paths_are_followed() {
    needs_root!();
    let prepare = |dir: &Path| {
        tree::make(
            dir,
            "d cwd\nl cwd/short to=../real/one\nf real/one/a text=one\nf real/two/b text=two
            d real/up\nd real/work\nl cwd/up to=../real/up",
        );
    };
    let builder = Union::new().directory("cwd");
    prepare(builder.path());
    // The parent of what a link leads to, which a textual clean-up of `short/..` would miss.
    let mut union = builder
        .lower_option("short:short/../two")
        .upper_option("upperdir=up,workdir=../real/work")
        .mount();
    assert_eq!(names(union.path("")), ["a", "b"]);
    append(union.path("b"), "+");
    union.remount();
    assert_eq!(text(union.path("b")), "two+");
    assert_eq!(text(union.scratch().join("real/up/b")), "two+");
}

#[test]
fn colons_commas_and_backslashes_in_paths_are_escaped() {
    needs_root!();
    let builder = Union::new();
    let odd = builder.path().join("a:b\\c d");
    tree::make(&odd, "f a text=a");
    let union = builder.lower_at(&odd).lower("f b text=b").mount();
    assert_eq!(names(union.path("")), ["a", "b"]);
    fs::write(union.path("a"), "new").unwrap();
    assert_eq!(text(union.upper("a")), "new");
}

#[test]
fn mountpoint_may_lie_inside_a_layer() {
    needs_root!();
    for inside in ["lower0/sub/merged", "upper/merged"] {
        let union =
            Union::new().lower("f a text=a\nf sub/b text=b").unchecked_lowers().on(inside).mount();
        assert_eq!(text(union.path("sub/b")), "b");
        append(union.path("a"), "+");
        assert_eq!(text(union.path("a")), "a+");
        let hidden = inside.split_once('/').unwrap().1;
        assert_eq!(
            names(union.path(hidden)),
            [""; 0],
            "the directory under the mount, not the mount"
        );
        fs::write(union.path(hidden).join("x"), "").unwrap();
        run("find", [union.path(""), "-type".into(), "f".into()]);
    }
}

#[test]
fn mountpoint_may_lie_inside_a_lower_layer_of_an_ordinary_user() {
    isolated!(User, {
        let lower = "f a text=a\nf sub/merged/b text=b";
        let mut union =
            Union::new().lower(lower).unchecked_lowers().on("lower0/sub/merged").mount();
        assert_eq!(text(union.path("sub/merged/b")), "b", "the directory under the mount");
        append(union.path("sub/merged/b"), "+");
        assert_eq!(names(union.path("sub")), ["merged"]);
        union.unmount();
        assert_eq!(text(union.upper("sub/merged/b")), "b+");
        assert_eq!(text(union.lower(0, "sub/merged/b")), "b");
    });
}

#[test]
fn mountpoint_may_be_a_layer_itself() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a\nd d").unchecked_lowers().on("lower0").mount();
    assert_eq!(names(union.path("")), ["a", "d"]);
    append(union.path("a"), "+");
    fs::write(union.path("d/new"), "").unwrap();
    assert_eq!(text(union.path("a")), "a+");
    union.unmount();
    assert_eq!(text(union.path("a")), "a");
    assert_eq!(text(union.upper("a")), "a+");
}

#[test]
fn layers_are_found_though_their_paths_are_moved_away() {
    needs_root!();
    let union = Union::new().lower("f a text=a\nf d/b text=b").unchecked_lowers().mount();
    for name in ["lower0", "upper", "work"] {
        fs::rename(union.scratch().join(name), union.scratch().join(format!("{name}-moved")))
            .unwrap();
    }
    append(union.path("d/b"), "+");
    fs::remove_file(union.path("a")).unwrap();
    assert_eq!(text(union.path("d/b")), "b+");
    assert_eq!(text(union.scratch().join("upper-moved/d/b")), "b+");
    assert!(is_whiteout(union.scratch().join("upper-moved/a")));
}

#[test]
fn layers_on_several_filesystems_are_merged() {
    needs_root!();
    let source = crate::support::Scratch::new();
    tree::make(
        source.path(),
        "f d/image text=image mode=0640 own=5:6 user.x=y\nf d/b text=image\nl d/link to=x
        h d/hard to=d/image\nc d/null dev=1:3",
    );
    let images = crate::support::Scratch::new();
    let squashfs = images.path().join("squashfs");
    let erofs = images.path().join("erofs");
    run("mksquashfs", [source.path(), &squashfs, Path::new("-quiet")]);
    run("mkfs.erofs", [Path::new("--quiet"), &erofs, source.path()]);
    for image in [&squashfs, &erofs] {
        if !can_mount(image) {
            crate::support::privilege::skip(
                "layers_on_several_filesystems_are_merged",
                &format!("no {}", image.display()),
            );
            continue;
        }
        let mut union = Union::new()
            .lower_with(|dir| {
                run("mount", ["-t", "tmpfs", "none", dir.to_str().unwrap()]);
                tree::make(dir, "f d/a text=tmpfs\nw d/b");
            })
            .lower_with(|dir| {
                run("mount", [Path::new("-o"), Path::new("loop,ro"), image, dir]);
            })
            .lower("f d/c text=disk")
            .mount();
        assert_eq!(names(union.path("d")), ["a", "c", "hard", "image", "link", "null"]);
        for name in ["a", "c", "image"] {
            append(union.path("d").join(name), "+");
        }
        union.remount();
        assert_eq!(
            ["a", "c", "image", "hard"].map(|name| text(union.path("d").join(name))),
            ["tmpfs+", "disk+", "image+", "image+"]
        );
        fs::rename(union.path("d"), union.path("e")).unwrap();
        union.remount();
        assert_eq!(names(union.path("e")), ["a", "c", "hard", "image", "link", "null"]);
    }
}

fn can_mount(image: &Path) -> bool {
    let scratch = crate::support::Scratch::new();
    let mut command = std::process::Command::new("mount");
    command.args(["-o", "loop,ro"]).arg(image).arg(scratch.path());
    command.output().unwrap().status.success()
}

#[test]
fn upper_layer_works_on_other_filesystems() {
    needs_root!();
    for kind in ["tmpfs", "xfs", "btrfs", "ext4"] {
        let images = crate::support::Scratch::new();
        let image = images.path().join("image");
        if kind != "tmpfs" {
            fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
            let force = if kind == "ext4" { "-F" } else { "-f" };
            run(&format!("mkfs.{kind}"), ["-q".as_ref(), force.as_ref(), image.as_os_str()]);
            if !can_mount(&image) {
                crate::support::privilege::skip(
                    "upper_layer_works_on_other_filesystems",
                    &format!("no {kind}"),
                );
                continue;
            }
        }
        let mut union = Union::new()
            .upper_on(|volume| {
                if kind == "tmpfs" {
                    run("mount", ["-t", "tmpfs", "none", volume.to_str().unwrap()]);
                } else {
                    run("mount", [Path::new("-o"), Path::new("loop"), &image, volume]);
                }
            })
            .lower("f d/a text=a user.x=y\nh d/b to=d/a\nf gone\nf e/old\np d/pipe\nf e/f/deep text=deep")
            .mount();
        append(union.path("d/a"), "+");
        fs::remove_file(union.path("gone")).unwrap();
        fs::rename(union.path("e"), union.path("f")).unwrap();
        fs::create_dir(union.path("e")).unwrap();
        chmod(union.path("d/pipe"), 0o600).unwrap();
        let before = union.snapshot();
        union.remount();
        assert_same(&before, &union.snapshot(), kind);
        assert_eq!(text(union.path("d/b")), "a+");
        assert_eq!(names(union.path("e")), [""; 0]);
        assert_eq!(names(union.path("")), ["d", "e", "f"]);
    }
}

#[test]
fn union_on_a_union_works() {
    needs_root!();
    let outer = Union::new().lower("f layer/a text=a\nf layer/d/b text=b\nf layer/gone").mount();
    let inner_upper = outer.path("inner");
    fs::create_dir(&inner_upper).unwrap();
    fs::create_dir(outer.path("work")).unwrap();
    let mut inner = Union::new()
        .lower_at(outer.path("layer"))
        .unchecked_lowers()
        .upper_option(&format!(
            "upperdir={},workdir={}",
            inner_upper.display(),
            outer.path("work").display()
        ))
        .mount();
    append(inner.path("a"), "+");
    fs::remove_file(inner.path("gone")).unwrap();
    fs::remove_dir_all(inner.path("d")).unwrap();
    fs::create_dir(inner.path("d")).unwrap();
    fs::write(inner.path("d/new"), "new").unwrap();
    for _ in 0..2 {
        assert_eq!(names(inner.path("")), ["a", "d"]);
        assert_eq!(names(inner.path("d")), ["new"]);
        assert_eq!(text(inner.path("a")), "a+");
        inner.remount();
    }
    inner.unmount();
    assert_eq!(names(outer.path("layer")), ["a", "d", "gone"]);
}

#[test]
fn everything_at_once_is_as_on_a_plain_filesystem() {
    needs_root!();
    let tree = "f a/one text=1\nf a/two text=2\nd a/b\nf a/b/three text=3 mode=0600\nh a/hard to=a/one
        l a/link to=b/three\np a/pipe\nd c mode=02775 own=0:7\nf c/four text=4\nd e\nf top text=top";
    same_as_plain(tree, |root| {
        let at = |name: &str| root.join(name);
        fs::rename(at("a/b"), at("c/b")).unwrap();
        append(at("c/b/three"), "+");
        fs::hard_link(at("a/two"), at("c/two")).unwrap();
        fs::remove_file(at("a/two")).unwrap();
        fs::create_dir(at("a/b")).unwrap();
        fs::write(at("a/b/new"), "new").unwrap();
        fs::rename(at("a"), at("e/a")).unwrap();
        fs::write(at("a"), "now a file").unwrap();
        fs::rename(at("e/a/one"), at("top")).unwrap();
        chmod(at("e/a/hard"), 0o604).unwrap();
        fs::remove_dir_all(at("c/b")).unwrap();
        as_user(|| fs::write(at("top"), "x").is_err().to_string())
    });
}

#[test]
fn read_only_union_shows_the_same_as_the_writable_one() {
    needs_root!();
    let layers =
        ["w a\nf .wh.b\no c\nf c/new\nf d/e", "f a\nf b\nf c/old\nl d/link to=e\nh d/f to=a"];
    let writable = Union::new().lower(layers[0]).lower(layers[1]).mount();
    let read_only = Union::new().lower(layers[0]).lower(layers[1]).read_only().mount();
    let look = |union: &Union| Snapshot::of(&union.path("")).without(&[Field::Mtime]);
    assert_same(&look(&writable), &look(&read_only), "writable and read-only");
    assert!(!exists(read_only.path("b")));
}
