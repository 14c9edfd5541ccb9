//! Extended attributes and the flags of lsattr.

use std::path::Path;

use rustix::fs::{
    IFlags, XattrFlags, ioctl_getflags, ioctl_setflags, lgetxattr, llistxattr, llistxattr_query,
    lsetxattr,
};
use rustix::io::Errno;

use crate::support::posix::{
    as_user, errno, exists, get_xattr, lstat, open_file, open_rw, remove_xattr, run, set_xattr,
    text, xattrs,
};
use crate::support::{Union, same_as_plain};
use crate::{needs_root, not_with};

#[test]
fn list_and_value_fit_into_buffers_of_their_exact_size() {
    needs_root!();
    let union = Union::new().lower("f a user.one=1 user.three=333 trusted.two=22\nf b").mount();
    let path = union.path("a");
    let size = llistxattr_query(&path).unwrap();
    assert_eq!(size, "user.one\0user.three\0trusted.two\0".len());
    assert_eq!(llistxattr(&path, &mut vec![0; size][..]), Ok(size));
    assert_eq!(llistxattr(&path, &mut vec![0; size - 1][..]), Err(Errno::RANGE));
    assert_eq!(lgetxattr(&path, "user.three", &mut [0; 3][..]), Ok(3));
    assert_eq!(lgetxattr(&path, "user.three", &mut [0; 2][..]), Err(Errno::RANGE));
    assert_eq!(llistxattr_query(union.path("b")), Ok(0));
}

#[test]
fn attributes_are_set_replaced_and_removed_as_on_a_plain_filesystem() {
    needs_root!();
    let tree =
        "f a user.x=old user.gone=1\nd d user.x=old\nl link to=a trusted.x=old\np pipe trusted.x=1";
    same_as_plain(tree, |root: &Path| {
        let mut seen = String::new();
        for name in ["a", "d", "link", "pipe"] {
            let path = root.join(name);
            let set =
                |name, value: &[u8], flags| format!("{:?}\n", lsetxattr(&path, name, value, flags));
            seen += &set("user.x", b"new", XattrFlags::empty());
            seen += &set("user.x", b"", XattrFlags::CREATE);
            seen += &set("user.none", b"", XattrFlags::REPLACE);
            seen += &set("user.big", &[b'x'; 3000], XattrFlags::CREATE);
            seen += &set("user.empty", b"", XattrFlags::empty());
            seen += &set("trusted.x", b"\0binary\xff", XattrFlags::empty());
            seen += &set("security.x", b"s", XattrFlags::empty());
            seen += &set("nonsense", b"s", XattrFlags::empty());
            seen += &set("system.nonsense", b"s", XattrFlags::empty());
            seen += &format!("{:?}\n", remove_xattr(&path, "user.gone"));
            seen += &format!("{:?}\n", remove_xattr(&path, "user.gone"));
            seen += &format!("{:?}\n", get_xattr(&path, "user.gone"));
            seen += &format!("{:?}\n", xattrs(&path));
        }
        seen
    });
}

#[test]
fn attributes_that_cannot_be_are_refused_as_on_a_plain_filesystem_and_not_logged() {
    needs_root!();
    let ask = |root: &Path| {
        let mut seen = String::new();
        for name in
            ["user.", "trusted.", "security.", "user.none", "nonsense", "system.x", "none.x"]
        {
            seen += &format!("{name}: {:?}", get_xattr(root.join("a"), name));
            seen += &format!(" {:?}\n", remove_xattr(root.join("a"), name));
        }
        seen
    };
    same_as_plain("f a user.one=1", ask);
    let union = Union::new().lower("f a").mount();
    ask(&union.path(""));
    assert_eq!(union.live().log(), "");
}

#[test]
fn trusted_attributes_are_listed_to_root_alone() {
    needs_root!();
    same_as_plain("f a user.one=1 trusted.two=2\nd d trusted.three=3", |root: &Path| {
        let list = || ["a", "d"].map(|path| xattrs(root.join(path)));
        format!("{:?}\n{:?}\n", list(), as_user(list))
    });
}

#[test]
fn attributes_of_overlays_set_inside_are_escaped_and_shown_as_set() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a trusted.overlay.overlay.low=1\nd d").mount();
    for path in ["a", "d"] {
        set_xattr(union.path(path), "trusted.overlay.opaque", b"y").unwrap();
        set_xattr(union.path(path), "trusted.overlay.x", b"1").unwrap();
        set_xattr(union.path(path), "user.overlay.x", b"2").unwrap();
    }
    for _ in 0..2 {
        for path in ["a", "d"] {
            let shown = xattrs(union.path(path));
            for name in ["trusted.overlay.opaque", "trusted.overlay.x", "user.overlay.x"] {
                assert!(shown.iter().any(|n| n == name), "{name} is not in {shown:?} of {path}");
            }
            assert_eq!(get_xattr(union.path(path), "trusted.overlay.x"), Ok(b"1".to_vec()));
            assert_eq!(get_xattr(union.path(path), "user.overlay.x"), Ok(b"2".to_vec()));
            assert_eq!(
                get_xattr(union.upper(path), "trusted.overlay.overlay.x"),
                Ok(b"1".to_vec())
            );
            assert_eq!(get_xattr(union.upper(path), "user.overlay.overlay.x"), Ok(b"2".to_vec()));
        }
        assert_eq!(get_xattr(union.path("a"), "trusted.overlay.low"), Ok(b"1".to_vec()));
        assert_eq!(
            get_xattr(union.upper("d"), "trusted.overlay.overlay.opaque"),
            Ok(b"y".to_vec())
        );
        union.remount();
    }
    remove_xattr(union.path("a"), "trusted.overlay.x").unwrap();
    assert_eq!(get_xattr(union.path("a"), "trusted.overlay.x"), Err(Errno::NODATA));
    assert_eq!(get_xattr(union.upper("a"), "trusted.overlay.overlay.x"), Err(Errno::NODATA));
}

/// A capability as setcap(8) writes it: `cap_net_raw=ep`.
const NET_RAW: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn attributes_set_on_files_that_were_known_to_have_none_are_seen() {
    needs_root!();
    let lower =
        "f a text=a\nf b text=b\nf c text=c user.x=c\nd d\nl link to=a\nf hard\nh other to=hard";
    let mut union = Union::new().lower(lower).mount();
    let capability = |name: &str| get_xattr(union.path(name), "security.capability");
    for name in ["a", "b", "d", "link", "hard", "other"] {
        assert_eq!(capability(name), Err(Errno::NODATA), "{name}");
        assert_eq!(xattrs(union.path(name)), Vec::<String>::new(), "{name}");
    }
    set_xattr(union.path("a"), "security.capability", NET_RAW).unwrap();
    assert_eq!(capability("a"), Ok(NET_RAW.to_vec()));
    assert_eq!(xattrs(union.path("a")), ["security.capability"]);
    set_xattr(union.path("d"), "user.x", b"d").unwrap();
    assert_eq!(xattrs(union.path("d")), ["user.x"]);
    set_xattr(union.path("link"), "trusted.x", b"l").unwrap();
    assert_eq!(xattrs(union.path("link")), ["trusted.x"]);
    set_xattr(union.path("hard"), "security.capability", NET_RAW).unwrap();
    assert_eq!(capability("other"), Ok(NET_RAW.to_vec()), "by another name");
    std::fs::rename(union.path("c"), union.path("b")).unwrap();
    assert_eq!(xattrs(union.path("b")), ["user.x"], "of what was renamed over it");
    remove_xattr(union.path("a"), "security.capability").unwrap();
    assert_eq!(capability("a"), Err(Errno::NODATA));
    set_xattr(union.path("a"), "security.capability", NET_RAW).unwrap();
    union.remount();
    assert_eq!(get_xattr(union.path("a"), "security.capability"), Ok(NET_RAW.to_vec()));
    assert_eq!(xattrs(union.path("b")), ["user.x"]);
}

#[test]
fn attributes_set_while_others_ask_for_them_are_seen_at_once() {
    needs_root!();
    let files: Vec<String> = (0..200).map(|n| format!("f {n}")).collect();
    let union = Union::new().lower(&files.join("\n")).mount();
    for n in 0..200 {
        let path = union.path(n.to_string());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let known = llistxattr(&path, &mut [0; 64][..]).unwrap();
                    assert!([0, "security.capability\0".len()].contains(&known), "{known}");
                });
            }
            set_xattr(&path, "security.capability", NET_RAW).unwrap();
            assert_eq!(get_xattr(&path, "security.capability"), Ok(NET_RAW.to_vec()), "{n}");
            assert_eq!(xattrs(&path), ["security.capability"], "{n}");
        });
    }
}

#[test]
fn inode_flags_are_read_and_set() {
    needs_root!();
    let mut union = Union::new().lower("f a text=a\nf d/b\nf c").mount();
    let flags = |path: &str| {
        ioctl_getflags(open_file(union.path(path), rustix::fs::OFlags::RDONLY).unwrap()).unwrap()
    };
    assert!(!flags("a").contains(IFlags::NODUMP));
    let _ = flags("d");
    let file = open_rw(union.path("a"));
    ioctl_setflags(&file, ioctl_getflags(&file).unwrap() | IFlags::NODUMP).unwrap();
    drop(file);
    assert!(flags("a").contains(IFlags::NODUMP));
    union.remount();
    let file = open_rw(union.path("a"));
    assert!(ioctl_getflags(&file).unwrap().contains(IFlags::NODUMP));
    assert!(ioctl_getflags(open_rw(union.upper("a"))).unwrap().contains(IFlags::NODUMP));
    assert_eq!(text(union.path("a")), "a");
    assert!(!exists(union.upper("c")), "reading flags copies nothing");
}

#[test]
fn lsattr_and_chattr_work() {
    needs_root!();
    not_with!("writeback=1");
    let union = Union::new().lower("f a\nd d").mount();
    for path in ["a", "d"] {
        lstat(union.path(path));
        run("lsattr", ["-d".as_ref(), union.path(path).as_os_str()]);
        run("chattr", ["+d".as_ref(), union.path(path).as_os_str()]);
        let shown = run("lsattr", ["-d".as_ref(), union.path(path).as_os_str()]);
        assert!(shown.split(' ').next().unwrap().contains('d'), "{shown}");
        let change = |path| {
            let stat = lstat(path);
            (stat.st_ctime, stat.st_ctime_nsec)
        };
        assert_eq!(change(union.path(path)), change(union.upper(path)), "{path}");
    }
}

#[test]
fn immutable_file_refuses_changes() {
    needs_root!();
    not_with!("writeback=1");
    let union = Union::new().lower("f a text=a").mount();
    run("chattr", ["+i".as_ref(), union.path("a").as_os_str()]);
    let opened = std::fs::OpenOptions::new().append(true).open(union.path("a"));
    let result = opened.and_then(|mut file| std::io::Write::write_all(&mut file, b"x"));
    let removal = std::fs::remove_file(union.path("a"));
    run("chattr", ["-i".as_ref(), union.path("a").as_os_str()]);
    assert_eq!((errno(result), errno(removal)), (Errno::PERM, Errno::PERM));
    assert_eq!(text(union.path("a")), "a");
}
