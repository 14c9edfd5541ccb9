//! Mount options that change what is seen or stored.

use std::fs;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::support::posix::{
    append, as_ids, chmod, chown, errno, get_xattr, kind, lstat, mknod, mode, names, owner, run,
    set_xattr, text,
};
use crate::support::{Union, privilege};
use crate::{needs_root, not_with};

#[test]
fn files_of_who_mounted_belong_to_root_where_the_id_mapping_does_not_know_him() {
    needs_root!();
    let mut union = Union::new()
        .option("uidmapping=0:1000:100,gidmapping=0:1000:100")
        .lower("d d mode=0777 own=0:0")
        .mount();
    fs::create_dir(union.path("d/prepared")).unwrap();
    std::os::unix::fs::symlink("x", union.path("d/link")).unwrap();
    let stranger = as_ids(5000, 5000, || fs::write(union.path("d/file"), "x"));
    assert_eq!(errno(stranger), Errno::OVERFLOW);
    for _ in 0..2 {
        for name in ["prepared", "link"] {
            assert_eq!(owner(union.path("d").join(name)), (1000, 1000), "{name}");
            assert_eq!(owner(union.upper("d").join(name)), (0, 0), "{name}");
        }
        assert_eq!(names(union.path("d")), ["link", "prepared"]);
        union.remount();
    }
}

#[test]
fn new_files_belong_to_their_maker_under_an_id_mapping() {
    needs_root!();
    not_with!("xattr_permissions");
    let maps = ["uidmapping=0:1000:1:1:100000:65536", ":0:1000:1:1:100000:65536"];
    for map in [maps[0].to_owned(), format!("uidmapping={}", maps[1])] {
        let gid = map.replace("uidmapping", "gidmapping");
        let mut union = Union::new()
            .option(&map)
            .option(&gid)
            .lower("f root own=0:0 mode=0644\nf other own=5:6 mode=0644\nd d mode=0777 own=0:0")
            .mount();
        assert_eq!(owner(union.path("root")), (1000, 1000));
        assert_eq!(owner(union.path("other")), (100_004, 100_005));
        as_ids(1000, 1000, || {
            fs::write(union.path("d/file"), "x").unwrap();
            fs::create_dir(union.path("d/dir")).unwrap();
            mknod(union.path("d/pipe"), FileType::Fifo, (0, 0)).unwrap();
            std::os::unix::fs::symlink("x", union.path("d/link")).unwrap();
            append(union.path("root"), "x");
        });
        chown(union.path("other"), 100_009, 100_010).unwrap();
        for _ in 0..2 {
            for name in ["file", "dir", "pipe", "link"] {
                assert_eq!(owner(union.path("d").join(name)), (1000, 1000), "{name}");
                assert_eq!(owner(union.upper("d").join(name)), (0, 0), "{name}");
            }
            assert_eq!(owner(union.path("root")), (1000, 1000));
            assert_eq!(owner(union.path("other")), (100_009, 100_010));
            assert_eq!(owner(union.upper("other")), (10, 11));
            union.remount();
        }
    }
}

#[test]
fn access_lists_are_mapped_like_owners() {
    needs_root!();
    let union = Union::new()
        .option("uidmapping=0:1000:1:1:100000:65536")
        .option("gidmapping=0:1000:1:1:100000:65536")
        .lower_with(|dir| {
            fs::write(dir.join("a"), "").unwrap();
            run("setfacl", ["-m".as_ref(), "u:5:rw,g:6:r".as_ref(), dir.join("a").as_os_str()]);
        })
        .mount();
    let shown = run("getfacl", ["-cn".as_ref(), union.path("a").as_os_str()]);
    assert!(shown.contains("user:100004:rw-") && shown.contains("group:100005:r--"), "{shown}");
    run("setfacl", ["-m".as_ref(), "u:100006:r".as_ref(), union.path("a").as_os_str()]);
    let stored = run("getfacl", ["-cn".as_ref(), union.upper("a").as_os_str()]);
    assert!(stored.contains("user:7:r--") && stored.contains("user:5:rw-"), "{stored}");
}

/// `cap_net_raw=ep` for the root of the user namespaces whose root is `id`; of all of them for `None`.
fn capability(id: Option<u32>) -> Vec<u8> {
    let mut value = vec![1, 0, 0, if id.is_some() { 3 } else { 2 }, 0, 0x20];
    value.resize(20, 0);
    value.extend(id.into_iter().flat_map(u32::to_le_bytes));
    value
}

#[test]
fn roots_of_file_capabilities_are_mapped_like_owners() {
    needs_root!();
    const NAME: &str = "security.capability";
    let mut union = Union::new()
        .option("uidmapping=0:1000:1:1:100000:65536")
        .lower_with(|dir| {
            for (file, id) in [("roots", None), ("others", Some(5)), ("nobodys", Some(70_000))] {
                fs::write(dir.join(file), "").unwrap();
                set_xattr(dir.join(file), NAME, &capability(id)).unwrap();
            }
            fs::write(dir.join("plain"), "").unwrap();
        })
        .mount();
    let set = |file, id| set_xattr(union.path(file), NAME, &capability(id));
    set("plain", Some(1000)).unwrap();
    assert_eq!(set("plain", Some(5000)), Err(Errno::INVAL));
    chmod(union.path("others"), 0o600).unwrap();
    assert_eq!(get_xattr(union.upper("plain"), NAME).unwrap(), capability(None));
    assert_eq!(get_xattr(union.upper("others"), NAME).unwrap(), capability(Some(5)));
    for _ in 0..2 {
        for (file, id) in
            [("roots", 1000), ("plain", 1000), ("others", 100_004), ("nobodys", 65534)]
        {
            let shown = get_xattr(union.path(file), NAME);
            assert_eq!(shown.as_deref(), Ok(&*capability(Some(id))), "{file}");
        }
        union.remount();
    }
}

#[test]
fn owners_that_the_id_mapping_does_not_know_are_nobodys_and_never_stored() {
    needs_root!();
    not_with!("xattr_permissions");
    let union = Union::new()
        .option("uidmapping=0:1000:10:50:2000:5,gidmapping=0:1000:10:50:2000:5")
        .lower("f f own=20:30 mode=0644\nf known own=54:3")
        .mount();
    assert_eq!(owner(union.path("f")), (65534, 65534));
    assert_eq!(owner(union.path("known")), (2004, 1003));
    for (uid, gid) in [(20, 1000), (1000, 20), (1010, 1000), (2005, 1000), (65534, 1000)] {
        assert_eq!(chown(union.path("known"), uid, gid), Err(Errno::INVAL), "{uid}:{gid}");
        assert_eq!(chown(union.path("f"), uid, gid), Err(Errno::INVAL), "{uid}:{gid}");
    }
    assert!(
        !std::process::Command::new("setfacl")
            .args(["-m", "u:20:r"])
            .arg(union.path("f"))
            .status()
            .unwrap()
            .success(),
        "an access list for user 20"
    );
    chmod(union.path("f"), 0o640).unwrap();
    assert_eq!((owner(union.upper("f")), mode(union.upper("f"))), ((20, 30), 0o640));
    chown(union.path("f"), 2000, 1009).unwrap();
    assert_eq!(owner(union.upper("f")), (50, 9));
}

#[test]
fn squashed_owners_are_shown_for_everything() {
    needs_root!();
    for (options, expected) in
        [(vec!["squash_to_root"], (0, 0)), (vec!["squash_to_uid=77", "squash_to_gid=88"], (77, 88))]
    {
        let mut builder = Union::new().lower("f a own=5:6\nd d own=7:8\nl l to=a");
        for option in options {
            builder = builder.option(option);
        }
        let union = builder.mount();
        fs::write(union.path("new"), "").unwrap();
        chown(union.path("a"), 9, 9).unwrap();
        for name in ["a", "d", "l", "new"] {
            assert_eq!(owner(union.path(name)), expected, "{name}");
        }
    }
}

#[test]
fn copies_keep_the_owners_that_are_squashed_where_they_can() {
    needs_root!();
    not_with!("xattr_permissions");
    let without_the_right = ["setpriv", "--bounding-set", "-chown", "--inh-caps", "-chown"];
    for (wrapper, kept) in [(&[][..], true), (&without_the_right[..], false)] {
        let union = Union::new()
            .option("squash_to_uid=77,squash_to_gid=88")
            .lower("f a own=5:6 mode=0640\nd d own=7:8\nf d/f own=9:10")
            .wrapper(wrapper)
            .mount();
        append(union.path("a"), "more");
        fs::write(union.path("d/new"), "").unwrap();
        for (name, stored) in [("a", (5, 6)), ("d", (7, 8)), ("d/new", (0, 0))] {
            assert_eq!(owner(union.path(name)), (77, 88), "{name}");
            assert_eq!(owner(union.upper(name)), if kept { stored } else { (0, 0) }, "{name}");
        }
        assert_eq!(mode(union.upper("a")), 0o640);
    }
}

#[test]
fn link_counts_of_directories_are_constant_with_static_nlink() {
    needs_root!();
    let union = Union::new().option("static_nlink").lower("d d/a\nd d/b\nf d/f").mount();
    assert_eq!(lstat(union.path("d")).st_nlink, 1);
    fs::create_dir(union.path("d/c")).unwrap();
    assert_eq!(lstat(union.path("d")).st_nlink, 1);
}

#[test]
fn owners_modes_and_devices_are_kept_in_attributes_with_xattr_permissions() {
    needs_root!();
    for (option, name) in [
        ("xattr_permissions=1", "security.fuseoverlayfs.override_stat"),
        ("xattr_permissions=2", "user.containers.override_stat"),
    ] {
        let mut union =
            Union::new().option(option).lower("f low text=low own=1:2 mode=0640").mount();
        fs::write(union.path("file"), "x").unwrap();
        chown(union.path("file"), 5, 6).unwrap();
        chmod(union.path("file"), 0o4711).unwrap();
        fs::create_dir(union.path("dir")).unwrap();
        chmod(union.path("dir"), 0o700).unwrap();
        mknod(union.path("null"), FileType::CharacterDevice, (1, 3)).unwrap();
        mknod(union.path("pipe"), FileType::Fifo, (0, 0)).unwrap();
        std::os::unix::fs::symlink("file", union.path("link")).unwrap();
        append(union.path("low"), "+");
        for _ in 0..2 {
            assert_eq!((owner(union.path("file")), mode(union.path("file"))), ((5, 6), 0o4711));
            assert_eq!(mode(union.path("dir")), 0o700);
            assert_eq!(kind(union.path("null")), FileType::CharacterDevice);
            assert_eq!(lstat(union.path("null")).st_rdev, rustix::fs::makedev(1, 3));
            assert_eq!(kind(union.path("pipe")), FileType::Fifo);
            assert_eq!(
                (kind(union.path("link")), text(union.path("link"))),
                (FileType::Symlink, "x".into())
            );
            assert_eq!((owner(union.path("low")), mode(union.path("low"))), ((1, 2), 0o640));
            assert_eq!(text(union.path("low")), "low+");
            for file in ["file", "dir", "null", ""] {
                assert!(get_xattr(union.upper(file), name).is_ok(), "{option}: {file:?} has none");
            }
            union.remount();
        }
    }
}

#[test]
fn xattr_permissions_let_an_ordinary_user_keep_owners_and_devices() {
    crate::isolated!(User, {
        let mut union = Union::new().option("xattr_permissions=2").lower("f low text=low").mount();
        mknod(union.path("pipe"), FileType::Fifo, (0, 0)).unwrap();
        chmod(union.path("low"), 0o600).unwrap();
        union.remount();
        assert_eq!(kind(union.path("pipe")), FileType::Fifo);
        assert_eq!(mode(union.path("low")), 0o600);
        let (uid, _) = privilege::ordinary_user();
        assert_eq!(lstat(union.path("low")).st_uid, uid);
    });
}

#[test]
fn volatile_mark_is_left_and_refused_later_as_the_kernel_does() {
    needs_root!();
    not_with!("volatile");
    let mut union = Union::new().lower("f a text=a").mount();
    union.unmount();
    fs::create_dir_all(union.work("work/incompat/volatile")).unwrap();
    let refusal = union.try_start().expect_err("the upper layer may be damaged");
    assert!(refusal.message.contains("volatile"), "{}", refusal.message);
    union.switch(crate::support::Program::Plyfs, &["volatile"]);
    assert_eq!(names(union.path("")), ["a"]);
}

#[test]
fn timeouts_of_zero_show_changes_of_layers_at_once() {
    not_with!("packed");
    needs_root!();
    let union = Union::new().option("timeout=0").lower("f a text=a").unchecked_lowers().mount();
    assert_eq!(names(union.path("")), ["a"]);
    assert_eq!(text(union.path("a")), "a");
    chmod(union.lower(0, "a"), 0o600).unwrap();
    assert_eq!(mode(union.path("a")), 0o600);
}
