//! Names and attributes that look like marks, or are broken ones.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;

use super::listing;
use crate::needs_root;
use crate::support::posix::{
    append, chmod, chown, errno, exists, get_xattr, kind, lstat, mkdir, mknod, mode, names, owner,
    run, set_times, set_xattr, text, try_lstat, xattrs,
};
use crate::support::{Union, tree};

#[test]
fn names_like_whiteouts_hide_what_they_name_and_nothing_else() {
    needs_root!();
    // In every shape but that of a file they are names like others.
    let union = Union::new()
        .lower_with(|dir| {
            for name in [".wh.", ".wh..", ".wh...", ".wh..wh.", ".wh..wh..wh.x", ".wh.x", ".wh.y/in"] {
                tree::make(dir, &format!("f files/{name}\nd dirs/{name}\np fifos/{name}\nc devices/{name} dev=1:3\nw whiteouts/{name}"));
            }
            fs::create_dir(dir.join("links")).unwrap();
            for name in [".wh.x", ".wh..wh..opq"] {
                symlink("/etc", dir.join("links").join(name)).unwrap();
                tree::make(dir, &format!("d opaque-dir/{name}\nc opaque-device/{name} dev=1:3\nw opaque-whiteout/{name}"));
            }
        })
        .lower("f files/x\nf files/.wh.x\nf files/stays\nf dirs/x\nf links/x\nf fifos/x\nf opaque-dir/x\nf opaque-device/x\nf opaque-whiteout/x\nf whiteouts/x")
        .mount();
    assert_eq!(names(union.path("files")), [".wh.y", "stays"]);
    for dir in
        ["dirs", "fifos", "links", "opaque-dir", "opaque-device", "whiteouts", "opaque-whiteout"]
    {
        assert!(
            names(union.path(dir)).contains(&"x".to_owned()),
            "{dir}: {:?}",
            names(union.path(dir))
        );
    }
    assert!(names(union.path("links")).contains(&".wh..wh..opq".to_owned()));
    assert!(exists(union.path(".")) && exists(union.path("files/..")));
}

#[test]
fn callers_make_no_whiteouts_in_any_way() {
    needs_root!();
    let mut union =
        Union::new().lower("f d/x text=x\nf d/y text=y\nf d/.wh.known text=mark\nf other").mount();
    let dir = union.path("d");
    assert_eq!(mknod(dir.join("w"), FileType::CharacterDevice, (0, 0)), Err(Errno::PERM));
    assert_eq!(mknod(dir.join("x"), FileType::CharacterDevice, (0, 0)), Err(Errno::EXIST));
    let flags = rustix::fs::RenameFlags::WHITEOUT;
    let renamed = rustix::fs::renameat_with(CWD, dir.join("y"), CWD, dir.join("moved"), flags);
    assert_eq!(renamed, Err(Errno::INVAL));
    fs::write(dir.join("plain"), "plain").unwrap();
    for name in
        [".wh.x", ".wh.y", ".wh..wh..opq", ".wh.", ".wh..", ".wh...", ".wh..wh..plnk", ".wh.known"]
    {
        let path = dir.join(name);
        fs::write(&path, "a user's").unwrap();
        fs::remove_file(&path).unwrap();
        fs::rename(dir.join("plain"), &path).unwrap();
        fs::hard_link(&path, dir.join("plain")).unwrap();
        fs::remove_file(&path).unwrap();
        fs::hard_link(dir.join("plain"), &path).unwrap();
        mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::rename(dir.join("fifo"), union.path("fifo")).unwrap();
        fs::remove_file(union.path("fifo")).unwrap();
    }
    let all = [
        ".wh.",
        ".wh..",
        ".wh...",
        ".wh..wh..opq",
        ".wh..wh..plnk",
        ".wh.known",
        ".wh.x",
        ".wh.y",
        "plain",
        "x",
        "y",
    ];
    for _ in 0..2 {
        assert_eq!(names(&dir), all);
        assert_eq!(
            text(dir.join("x")) + &text(dir.join("y")) + &text(dir.join(".wh.x")),
            "xyplain"
        );
        union.remount();
    }
}

#[test]
fn attributes_nobody_understands_spoil_their_own_object_alone() {
    needs_root!();
    // In this form FIFOs can have it too.
    let name = "security.fuseoverlayfs.override_stat";
    let garbage = [
        "",
        "x",
        "0",
        "0:0",
        "0:0:",
        "0:0:9",
        "-1:0:755",
        "4294967295:0:755",
        "0:4294967296:755",
        "0:0:755:what",
        "0:0:755:char",
        "0:0:755:char-99999999999-1",
        "0:0:755:block-1-2-3",
        "::",
        ":::::::",
        "0:0:777777777777777",
    ];
    let mut union = Union::new()
        .lower_with(|dir| {
            tree::make(dir, &format!("d . {name}=0:0:0755\nf good text=good {name}=7:8:0640\nf gone text=x {name}=0:0:0:char-0-0\nf sub/dir/x"));
            for (at, value) in garbage.iter().enumerate() {
                tree::make(dir, &format!("f bad{at} text=bad\nd dir{at}"));
                set_xattr(dir.join(format!("bad{at}")), name, value.as_bytes()).unwrap();
                set_xattr(dir.join(format!("dir{at}")), name, value.as_bytes()).unwrap();
            }
            set_xattr(dir.join("good"), name, b"4294967294:4294967294:0640").unwrap();
            tree::make(dir, &format!("f huge text=x\np fifo {name}=0:0:0644:file\np fifo-link {name}=0:0:0777:symlink\nd dir-file {name}=0:0:0644:file
                f file-dir text=x {name}=0:0:0755:dir\nl link-file to=/etc/passwd {SECURITY}=x", SECURITY = "trusted.x"));
            set_xattr(dir.join("huge"), name, &[b'0'; 3000]).unwrap();
        })
        .lower("f gone text=secret\nf below text=below")
        .mount();
    for (at, value) in garbage.iter().enumerate() {
        for name in ["bad", "dir"] {
            let path = union.path(format!("{name}{at}"));
            assert_eq!(try_lstat(&path).err(), Some(Errno::IO), "{value:?}");
        }
    }
    assert_eq!(try_lstat(union.path("huge")).err(), Some(Errno::IO));
    assert_eq!(
        (owner(union.path("good")), mode(union.path("good"))),
        ((u32::MAX - 1, u32::MAX - 1), 0o640)
    );
    assert_eq!(text(union.path("good")), "good");
    assert_eq!(text(union.path("below")), "below");
    assert_eq!(names(union.path("sub/dir")), ["x"]);
    assert!(!exists(union.path("gone")), "a whiteout that is kept in an attribute");
    // Opening a FIFO would wait for ever.
    let written = File::options().append(true).open(union.path("fifo"));
    let written = written.and_then(|mut file| std::io::Write::write_all(&mut file, b"+"));
    assert_eq!(errno(written), Errno::IO);
    assert_eq!(errno(fs::read_link(union.path("fifo-link"))), Errno::IO);
    assert!(fs::read(union.path("dir-file")).is_err());
    assert!(listing(union.path("file-dir")).is_err());
    append(union.path("good"), "+");
    assert_eq!(text(union.path("good")), "good+");
    assert!(union.live().log().contains("/bad0: "), "{}", union.live().log());
    let listed = names(union.path(""));
    assert!(listed.contains(&"bad0".to_owned()) && listed.contains(&"below".to_owned()));
    union.remount();
    assert_eq!(owner(union.path("good")), (u32::MAX - 1, u32::MAX - 1));
}

#[test]
fn garbage_in_marks_of_the_kernel_is_not_believed() {
    needs_root!();
    let values: Vec<Vec<u8>> = (0..40)
        .map(|length| vec![b'\xfb'; length])
        .chain([vec![0; 100], b"yy".to_vec(), b"Y".to_vec(), b"y\0".to_vec(), b"1".to_vec()])
        .collect();
    for space in ["trusted", "user"] {
        let fill = |dir: &std::path::Path| {
            for (at, value) in values.iter().enumerate() {
                tree::make(dir, &format!("f f{at} text=upper\nd d{at}"));
                for mark in [
                    "origin", "opaque", "impure", "nlink", "upper", "uuid", "protattr", "whiteout",
                    "unknown",
                ] {
                    for name in [format!("f{at}"), format!("d{at}")] {
                        set_xattr(dir.join(name), &format!("{space}.overlay.{mark}"), value)
                            .unwrap();
                    }
                }
            }
        };
        let lower: String = (0..values.len())
            .map(|at| format!("f d{at}/below text=below\nf f{at} text=lower\n"))
            .collect();
        let mut union = Union::new().upper_with(fill).lower_with(fill).lower(&lower).mount();
        for _ in 0..2 {
            for (at, value) in values.iter().enumerate() {
                assert_eq!(names(union.path(format!("d{at}"))), ["below"], "{space} {:?}", value);
                assert!(
                    text(union.path(format!("f{at}"))).starts_with("upper"),
                    "{space} {:?}",
                    value
                );
                assert_eq!(xattrs(union.path(format!("f{at}"))), [""; 0]);
                append(union.path(format!("f{at}")), "+");
                fs::rename(union.path(format!("f{at}")), union.path("moved")).unwrap();
                fs::rename(union.path("moved"), union.path(format!("f{at}"))).unwrap();
            }
            union.remount();
        }
    }
}

#[test]
fn escaped_marks_are_data() {
    needs_root!();
    let top = "d d trusted.overlay.overlay.opaque=y user.overlay.overlay.opaque=y trusted.overlay.overlay.redirect=/other
        f d/x trusted.overlay.overlay.whiteout= text=x\nf f trusted.overlay.overlay.metacopy= text=f";
    let mut union = Union::new().lower(top).lower("f d/below\nf other/secret\nf f text=no").mount();
    for _ in 0..2 {
        assert_eq!(names(union.path("d")), ["below", "x"]);
        assert_eq!(text(union.path("f")), "f");
        assert_eq!(
            xattrs(union.path("d")),
            ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque"]
        );
        assert_eq!(get_xattr(union.path("d"), "trusted.overlay.redirect").unwrap(), b"/other");
        chmod(union.path("d"), 0o700).unwrap();
        union.remount();
    }
}

#[test]
fn objects_at_the_limits_of_everything_are_shown_and_copied_up() {
    needs_root!();
    let long = "n".repeat(255);
    let mut union = Union::new()
        .upper_on(|volume| drop(run("mount", ["-t", "tmpfs", "none", volume.to_str().unwrap()])))
        .lower_with(|dir| {
            run("mount", ["-t", "tmpfs", "none", dir.to_str().unwrap()]);
            tree::make(dir, &format!("f {long} text=long\nf ids text=ids\nf sparse text=s\nf big-attribute text=a\nf future text=t\nf past text=t\nd many-attributes/sub\nf many-attributes/file text=m\nf thousand text=k"));
            chown(dir.join("ids"), u32::MAX - 1, u32::MAX - 1).unwrap();
            chmod(dir.join("ids"), 0o6755).unwrap();
            File::options().write(true).open(dir.join("sparse")).unwrap().set_len((1 << 63) - 1).unwrap();
            set_xattr(dir.join("big-attribute"), "user.big", &vec![b'v'; 65_536]).unwrap();
            let distance = 9.0e18;
            set_times(dir.join("future"), distance, distance).unwrap();
            set_times(dir.join("past"), -distance, -distance).unwrap();
            // More names than one list can have.
            for at in 0..300 {
                let name = format!("user.{at:0>245}");
                for path in ["many-attributes", "many-attributes/file"] {
                    set_xattr(dir.join(path), &name, b"").unwrap();
                }
            }
            for at in 0..1000 {
                set_xattr(dir.join("thousand"), &format!("user.{at}"), b"v").unwrap();
            }
        })
        .lower("f many-attributes/below")
        .unchecked_lowers()
        .mount();
    for _ in 0..2 {
        assert_eq!(text(union.path(&long)), "long");
        assert_eq!(owner(union.path("ids")), (u32::MAX - 1, u32::MAX - 1));
        assert_eq!(mode(union.path("ids")), 0o6755);
        assert_eq!(lstat(union.path("sparse")).st_size, i64::MAX);
        assert_eq!(get_xattr(union.path("big-attribute"), "user.big").unwrap().len(), 65_536);
        assert_eq!(lstat(union.path("future")).st_mtime, 9_000_000_000_000_000_000);
        assert_eq!(lstat(union.path("past")).st_mtime, -9_000_000_000_000_000_000);
        assert_eq!(names(union.path("many-attributes")), ["below", "file", "sub"]);
        assert_eq!(text(union.path("many-attributes/file")), "m");
        assert_eq!(xattrs(union.path("thousand")).len(), 1000);
        for name in ["ids", "big-attribute", "future", "past", "thousand", &long] {
            let path = union.path(name);
            fs::rename(&path, union.path("moved")).unwrap();
            fs::rename(union.path("moved"), &path).unwrap();
        }
        let sparse = File::options().read(true).write(true).open(union.path("sparse")).unwrap();
        sparse.write_all_at(b"s", 1 << 60).unwrap();
        let mut read = [0; 3];
        sparse.read_exact_at(&mut read, (1 << 60) - 1).unwrap();
        assert_eq!(&read, b"\0s\0");
        assert_eq!(sparse.read_at(&mut read[..2], i64::MAX as u64 - 2).unwrap(), 2);
        drop(sparse);
        // What was marked stays hidden though nobody can list the attributes of its directory.
        if !exists(union.upper("many-attributes")) {
            let copied = fs::write(union.path("many-attributes/new"), "");
            assert_eq!(errno(copied), Errno::TOOBIG, "as the kernel's overlay says");
        }
        union.remount();
    }
}

#[test]
fn a_name_with_control_characters_is_one_line_of_the_log() {
    needs_root!();
    let union = Union::new()
        .lower_with(|dir| {
            let path = dir.join("a\nplyfs: all is well\u{1b}[2J");
            fs::create_dir(&path).unwrap();
            set_xattr(&path, "trusted.overlay.redirect", b"..").unwrap();
        })
        .lower("f b")
        .mount();
    let name = names(union.path("")).swap_remove(0);
    assert_eq!(listing(union.path(name)), Err(Errno::IO));
    let log = union.live().log();
    assert!(log.lines().all(|line| !line.starts_with("plyfs: all")), "{log}");
    assert!(!log.contains('\u{1b}') && log.contains("a\\nplyfs: all is well"), "{log}");
}

#[test]
fn special_files_of_layers_are_never_opened() {
    needs_root!();
    let mut union = Union::new()
        .lower("p d/fifo mode=0666\ns d/socket mode=0666\nc d/null dev=1:3 mode=0666\nc d/absent dev=254:77\nb d/disk dev=254:77\nf d/file")
        .mount();
    assert_eq!(names(union.path("d")).len(), 6);
    for name in ["fifo", "socket", "null", "absent", "disk"] {
        let path = union.path("d").join(name);
        chmod(&path, 0o600).unwrap();
        chown(&path, 5, 6).unwrap();
        set_times(&path, 1.0, 2.0).unwrap();
        set_xattr(&path, "trusted.x", b"y").unwrap();
        fs::hard_link(&path, union.path("d/link")).unwrap();
        fs::remove_file(union.path("d/link")).unwrap();
        let kind_before = kind(&path);
        union.remount();
        assert_eq!(
            (kind(&path), owner(&path), mode(&path)),
            (kind_before, (5, 6), 0o600),
            "{name}"
        );
    }
    mkdir(union.path("new"), 0o755).unwrap();
}

#[test]
fn heavy_directory_of_a_hundred_thousand_entries() {
    needs_root!();
    let count: usize =
        std::env::var("PLYFS_TEST_ENTRIES").map_or(100_000, |text| text.parse().unwrap());
    let mut union = Union::new()
        .lower_with(|dir| {
            fs::create_dir(dir.join("big")).unwrap();
            for at in 0..count / 2 {
                File::create(dir.join(format!("big/{at}"))).unwrap();
            }
        })
        .lower_with(|dir| {
            fs::create_dir(dir.join("big")).unwrap();
            for at in count / 2 - 10..count {
                File::create(dir.join(format!("big/{at}"))).unwrap();
            }
        })
        .unchecked_lowers()
        .lifetime(std::time::Duration::from_secs(400))
        .mount();
    assert_eq!(fs::read_dir(union.path("big")).unwrap().count(), count);
    fs::remove_file(union.path("big/7")).unwrap();
    fs::write(union.path("big/new"), "new").unwrap();
    append(union.path(format!("big/{}", count - 1)), "+");
    assert!(!exists(union.path("big/absent")));
    union.remount();
    assert_eq!(fs::read_dir(union.path("big")).unwrap().count(), count);
    assert!(!exists(union.path("big/7")));
}
