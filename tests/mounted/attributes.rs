//! Modes, owners, times, access lists: who may what, and what a change of one does to the others.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, UTIME_NOW, UTIME_OMIT};
use rustix::fs::{
    CWD, FallocateFlags, FileType, OFlags, Timespec, Timestamps, fallocate, utimensat,
};
use rustix::io::Errno;

use crate::support::posix::{
    USER, append, as_ids, as_member, as_user, chmod, chown, create, errno, get_xattr, lstat, mkdir,
    mknod, mode, mtime, open_file, open_rw, owner, run, set_times, set_xattr, text, with_umask,
    xattrs,
};
use crate::support::{Scratch, Union, same_as_plain, tree};
use crate::{needs_root, not_with};

#[test]
fn umask_applies_to_everything_that_is_made() {
    needs_root!();
    for mask in [0o000, 0o022, 0o027, 0o077, 0o777] {
        same_as_plain("d d\nf d/gone", |root| {
            let dir = root.join("d");
            with_umask(mask, || {
                fs::remove_file(dir.join("gone")).unwrap();
                create(dir.join("gone"), OFlags::WRONLY, 0o666).unwrap();
                create(dir.join("file"), OFlags::WRONLY, 0o777).unwrap();
                mkdir(dir.join("dir"), 0o777).unwrap();
                mknod(dir.join("pipe"), FileType::Fifo, (0, 0)).unwrap();
                mknod(dir.join("socket"), FileType::Socket, (0, 0)).unwrap();
                mknod(dir.join("char"), FileType::CharacterDevice, (1, 3)).unwrap();
                mknod(dir.join("regular"), FileType::RegularFile, (0, 0)).unwrap();
            });
            String::new()
        });
    }
}

#[test]
fn default_access_list_replaces_the_umask() {
    needs_root!();
    not_with!("xattr_permissions");
    for mask in [0o022, 0o077] {
        same_as_plain("d d mode=0755\nd e/f mode=0700", |root| {
            run(
                "setfacl",
                [
                    "-d".as_ref(),
                    "-m".as_ref(),
                    "u::rwx,g::rwx,o::rx,u:77:rwx".as_ref(),
                    root.join("d").as_os_str(),
                ],
            );
            run(
                "setfacl",
                [
                    "-d".as_ref(),
                    "-m".as_ref(),
                    "g::rwx,o::r".as_ref(),
                    root.join("e/f").as_os_str(),
                ],
            );
            for dir in ["d", "e/f"] {
                let dir = root.join(dir);
                with_umask(mask, || {
                    create(dir.join("file"), OFlags::WRONLY, 0o666).unwrap();
                    create(dir.join("private"), OFlags::WRONLY, 0o600).unwrap();
                    mkdir(dir.join("dir"), 0o777).unwrap();
                    mkdir(dir.join("dir/below"), 0o770).unwrap();
                    mknod(dir.join("pipe"), FileType::Fifo, (0, 0)).unwrap();
                });
            }
            String::new()
        });
    }
}

#[test]
fn access_lists_change_permissions_that_are_stored_in_attributes() {
    needs_root!();
    not_with!("xattr_permissions");
    let layer = "f file mode=0640\nd dir mode=0750\nf set mode=4755";
    let steps = [
        ("setfacl", "-m u:1000:rwx file"),
        ("chmod", "0600 file"),
        ("chmod", "0664 file"),
        ("setfacl", "-m m::r,o::x dir"),
        ("chmod", "0710 dir"),
        ("setfacl", "-m u:7:r set"),
        ("setfacl", "-b set"),
        ("setfacl", "-m u::r,g::-,o::- file"),
    ];
    let seen = |root: &Path| {
        ["file", "dir", "set"].map(|name| {
            let path = root.join(name);
            let list = run("getfacl", ["-cnp".as_ref(), path.as_os_str()]);
            format!("{name} {:o}\n{list}", mode(path))
        })
    };
    let plain = Scratch::new();
    for option in ["xattr_permissions=1", "xattr_permissions=2"] {
        let plain = plain.dir(option);
        tree::make(&plain, layer);
        let mut union = Union::new().lower(layer).option(option).mount();
        for (program, words) in steps {
            let (words, name) = words.rsplit_once(' ').unwrap();
            for root in [&plain, &union.path("")] {
                let path = root.join(name);
                run(program, words.split(' ').map(OsStr::new).chain([path.as_os_str()]));
            }
            assert_eq!(seen(&union.path("")), seen(&plain), "{option}: {program} {words} {name}");
        }
        union.remount();
        assert_eq!(seen(&union.path("")), seen(&plain), "{option}, mounted again");
    }
}

#[test]
fn access_lists_are_kept_changed_and_obeyed() {
    needs_root!();
    not_with!("xattr_permissions");
    same_as_plain(
        "f file mode=0600 text=secret\nd dir mode=0700\nf dir/inside mode=0644",
        |root| {
            let read = || as_user(|| fs::read(root.join("file")).map_err(|e| e.to_string()));
            let mut seen = format!("{:?}", read());
            let acl = |spec: &str, path: &str| {
                run("setfacl", ["-m".as_ref(), spec.as_ref(), root.join(path).as_os_str()]);
            };
            acl(&format!("u:{USER}:r"), "file");
            seen += &format!("{:?} {:o}", read(), mode(root.join("file")));
            chmod(root.join("file"), 0o600).unwrap();
            seen += &format!("{:?} {:o}", read(), mode(root.join("file")));
            chmod(root.join("file"), 0o640).unwrap();
            seen += &format!("{:?} {:o}", read(), mode(root.join("file")));
            acl(&format!("u:{USER}:x"), "dir");
            seen += &format!("{:?}", as_user(|| fs::read(root.join("dir/inside")).is_ok()));
            run("setfacl", ["-b".as_ref(), root.join("file").as_os_str()]);
            seen + &format!("{:?}", read())
        },
    );
}

#[test]
fn set_id_bits_are_cleared_as_on_a_plain_filesystem() {
    needs_root!();
    type Change = fn(&Path) -> Result<(), Errno>;
    let changes: [(&str, Change); 8] = [
        ("write", |path| {
            open_file(path, OFlags::RDWR)?.write_at(b"x", 0).map(drop).map_err(to_errno)
        }),
        ("append", |path| {
            let mut file = open_file(path, OFlags::WRONLY | OFlags::APPEND)?;
            file.write_all(b"x").map_err(to_errno)
        }),
        ("truncate", |path| open_file(path, OFlags::RDWR)?.set_len(1).map_err(to_errno)),
        ("open-truncate", |path| open_file(path, OFlags::WRONLY | OFlags::TRUNC).map(drop)),
        ("fallocate", |path| {
            fallocate(open_file(path, OFlags::RDWR)?, FallocateFlags::empty(), 0, 100)
        }),
        ("chown", |path| chown(path, u32::MAX, USER)),
        ("chown-nothing", |path| chown(path, u32::MAX, u32::MAX)),
        ("chmod", |path| chmod(path, mode(path))),
    ];
    let modes = [0o6777, 0o4711, 0o2777, 0o2767, 0o6666, 0o0777, 0o4640];
    for owner in [0, USER] {
        let mut tree = String::new();
        for (what, _) in changes {
            for mode in modes {
                tree += &format!("f {what}-{mode:o} text=abc mode={mode:o} own={owner}:{USER}\n");
            }
        }
        for (uid, gid) in [(0, 0), (USER, USER), (USER + 1, USER + 1)] {
            same_as_plain(&tree, |root| {
                let mut seen = format!("files of {owner} changed by {uid}\n");
                for (what, change) in changes {
                    // To FUSE, the kernel tells this in the same words as a write by a stranger.
                    if what == "chown-nothing" && uid != 0 && uid != owner {
                        continue;
                    }
                    for bits in modes {
                        let path = root.join(format!("{what}-{bits:o}"));
                        let result = as_ids(uid, gid, || change(&path));
                        seen += &format!("{what} {bits:o}: {result:?} {:o}\n", mode(&path));
                    }
                }
                seen
            });
        }
    }
}

fn to_errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).expect("an error of the system")
}

#[test]
fn file_capabilities_are_dropped_when_the_file_is_written() {
    needs_root!();
    same_as_plain("f program text=abc mode=0755\nf other text=abc mode=0755", |root| {
        let program = root.join("program");
        run("setcap", ["cap_net_raw+ep".as_ref(), program.as_os_str()]);
        let before = get_xattr(&program, "security.capability").is_ok();
        append(&program, "x");
        format!("{before} {:?}", get_xattr(&program, "security.capability"))
    });
}

#[test]
fn lower_file_capabilities_are_dropped_when_the_file_is_written() {
    needs_root!();
    let mut union = Union::new()
        .lower_with(|dir| {
            for name in ["written", "owned"] {
                fs::write(dir.join(name), "abc").unwrap();
                run("setcap", ["cap_net_raw+ep".as_ref(), dir.join(name).as_os_str()]);
            }
        })
        .mount();
    assert!(get_xattr(union.path("written"), "security.capability").is_ok());
    append(union.path("written"), "x");
    chown(union.path("owned"), 5, 5).unwrap();
    for _ in 0..2 {
        for name in ["written", "owned"] {
            assert_eq!(get_xattr(union.path(name), "security.capability"), Err(Errno::NODATA));
        }
        union.remount();
    }
}

#[test]
fn write_by_root_to_a_file_with_capabilities_keeps_its_set_id_bits() {
    needs_root!();
    same_as_plain("f program text=abc mode=06755\nf other text=abc mode=06755", |root| {
        for name in ["program", "other"] {
            run("setcap", ["cap_net_raw+ep".as_ref(), root.join(name).as_os_str()]);
        }
        append(root.join("program"), "x");
        let by_root = mode(root.join("program"));
        chmod(root.join("other"), 0o6777).unwrap();
        as_user(|| append(root.join("other"), "x"));
        format!("{by_root:o} {:o}", mode(root.join("other")))
    });
}

#[test]
fn set_group_id_directories_pass_their_group_on() {
    needs_root!();
    not_with!("xattr_permissions");
    same_as_plain("d d mode=02777 own=0:77\nd plain mode=0777 own=0:77", |root| {
        for dir in ["d", "plain"] {
            let dir = root.join(dir);
            let make = |who: &str| {
                mkdir(dir.join(format!("{who}-dir")), 0o755).unwrap();
                mkdir(dir.join(format!("{who}-dir/below")), 0o755).unwrap();
                create(dir.join(format!("{who}-file")), OFlags::WRONLY, 0o644).unwrap();
                create(dir.join(format!("{who}-setgid")), OFlags::WRONLY, 0o2755).unwrap();
                mknod(dir.join(format!("{who}-pipe")), FileType::Fifo, (0, 0)).unwrap();
                std::os::unix::fs::symlink("x", dir.join(format!("{who}-link"))).unwrap();
            };
            make("root");
            as_user(|| make("user"));
        }
        String::new()
    });
}

#[test]
fn rights_are_checked_as_on_a_plain_filesystem() {
    needs_root!();
    let tree = format!(
        "f private mode=0600 text=x\nf readable mode=0644 text=x\nf mine mode=0600 own={USER}:{USER}
         d closed mode=0700\nf closed/inside mode=0666\nd sticky mode=01777\nf sticky/other own=9:9
         f sticky/mine own={USER}:{USER}\nd open mode=0777\nf open/other own=9:9\nd readonly mode=0755
         f readonly/x mode=0666\nf setgid mode=0770 own={USER}:9"
    );
    same_as_plain(&tree, |root| {
        as_user(|| {
            let at = |name: &str| root.join(name);
            let io = |result: std::io::Result<()>| result.map_err(|error| error.to_string());
            let results = [
                io(fs::read(at("private")).map(drop)),
                io(fs::read(at("readable")).map(drop)),
                io(fs::write(at("readable"), "y")),
                io(fs::write(at("mine"), "y")),
                io(fs::metadata(at("closed/inside")).map(drop)),
                io(fs::write(at("closed/new"), "y")),
                io(fs::remove_file(at("sticky/other"))),
                io(fs::rename(at("sticky/other"), at("sticky/away"))),
                io(fs::remove_file(at("sticky/mine"))),
                io(fs::write(at("sticky/new"), "y")),
                io(fs::remove_file(at("open/other"))),
                io(fs::remove_file(at("readonly/x"))),
                io(fs::write(at("readonly/x"), "y")),
                io(fs::create_dir(at("readonly/new"))),
                io(fs::read_dir(at("closed")).map(drop)),
                chmod(at("readable"), 0o777).map_err(|e| e.to_string()),
                chmod(at("mine"), 0o6777).map_err(|e| e.to_string()),
                chmod(at("setgid"), 0o2770).map_err(|e| e.to_string()),
                chown(at("mine"), 0, 0).map_err(|e| e.to_string()),
                chown(at("readable"), USER, USER).map_err(|e| e.to_string()),
                chown(at("mine"), USER, USER).map_err(|e| e.to_string()),
                set_times(at("readable"), 1.0, 1.0).map_err(|e| e.to_string()),
                set_times(at("mine"), 1.0, 1.0).map_err(|e| e.to_string()),
                set_xattr(at("readable"), "user.x", b"").map_err(|e| e.to_string()),
                set_xattr(at("mine"), "user.x", b"").map_err(|e| e.to_string()),
                set_xattr(at("mine"), "trusted.x", b"").map_err(|e| e.to_string()),
                mknod(at("open/device"), FileType::CharacterDevice, (1, 3))
                    .map_err(|e| e.to_string()),
                mknod(at("open/pipe"), FileType::Fifo, (0, 0)).map_err(|e| e.to_string()),
                io(fs::hard_link(at("mine"), at("open/linked"))),
            ];
            results.map(|result| format!("{result:?}")).join("\n")
        })
    });
}

#[test]
fn new_file_may_be_written_through_its_descriptor_whatever_its_mode() {
    needs_root!();
    same_as_plain("d d mode=0777", |root| {
        as_user(|| {
            for mode in [0o000, 0o200, 0o400, 0o444] {
                let path = root.join(format!("d/{mode:o}"));
                let mut file = create(&path, OFlags::RDWR | OFlags::EXCL, mode).unwrap();
                file.write_all(b"content").unwrap();
                file.set_len(4).unwrap();
            }
        });
        String::new()
    });
}

#[test]
fn times_before_1970_and_after_2446_are_as_on_the_filesystem_below() {
    needs_root!();
    not_with!("writeback=1");
    let times = [
        -1.2,
        -0.5,
        -1e9,
        -2_147_483_648.0,
        -5e9,
        0.0,
        2_147_483_648.25,
        4_294_967_296.0,
        15_032_385_535.0,
        15_032_385_536.0,
        1e11,
        1.5,
    ];
    let tree: String = (0..times.len()).map(|n| format!("f {n}\n")).collect();
    same_as_plain(&(tree + "d dir\nl link to=0"), |root| {
        let mut seen = String::new();
        for (number, &time) in times.iter().enumerate() {
            for name in [number.to_string(), "dir".into(), "link".into()] {
                let path = root.join(name);
                let result = set_times(&path, time, time);
                let stat = lstat(&path);
                seen += &format!(
                    "{time}: {result:?} {:?} {} {}\n",
                    mtime(&path),
                    stat.st_atime,
                    stat.st_atime_nsec
                );
            }
        }
        seen
    });
}

#[test]
fn lower_file_from_before_1970_is_shown_and_copied_up_with_its_time() {
    needs_root!();
    let mut union =
        Union::new().lower("f a text=a mtime=-1.2\nd d mtime=-1000000000.5\nf d/b").mount();
    assert_eq!(mtime(union.path("a")), (-2, 800_000_000));
    assert_eq!(mtime(union.path("d")), (-1_000_000_001, 500_000_000));
    chmod(union.path("a"), 0o600).unwrap();
    chmod(union.path("d"), 0o700).unwrap();
    chmod(union.path("d/b"), 0o600).unwrap();
    for _ in 0..2 {
        assert_eq!(mtime(union.path("a")), (-2, 800_000_000));
        assert_eq!(mtime(union.path("d")), (-1_000_000_001, 500_000_000));
        union.remount();
    }
}

#[test]
fn one_time_can_be_set_without_the_other() {
    needs_root!();
    let union = Union::new().lower("f a mtime=1000.5").mount();
    set_times(union.path("a"), 500.0, 1000.5).unwrap();
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let set = |last_access, last_modification| {
        let times = Timestamps { last_access, last_modification };
        utimensat(CWD, union.path("a"), &times, AtFlags::empty()).unwrap();
    };
    set(Timespec { tv_sec: 600, tv_nsec: 1 }, omit);
    assert_eq!(mtime(union.path("a")), (1000, 500_000_000));
    assert_eq!(lstat(union.path("a")).st_atime, 600);
    let before = lstat(union.path("a")).st_ctime;
    set(omit, Timespec { tv_sec: 0, tv_nsec: UTIME_NOW });
    assert!(mtime(union.path("a")).0 >= before);
    assert_eq!(lstat(union.path("a")).st_atime, 600);
}

#[test]
fn changes_in_a_directory_show_in_its_time_and_copy_up_alone_does_not() {
    needs_root!();
    let tree = "d d mtime=1000\nf d/a mtime=1000\nf d/b\nf d/c\nd d/e mtime=1000\nd f mtime=1000";
    let mut union = Union::new().lower(tree).mount();
    chmod(union.path("d/a"), 0o600).unwrap();
    set_times(union.path("d/e"), 1.0, 1000.0).unwrap();
    append(union.path("d/b"), "x");
    chmod(union.path("d"), 0o711).unwrap();
    assert_eq!(mtime(union.path("d")), (1000, 0), "nothing came or went in the directory");
    assert_eq!(mtime(union.path("d/a")), (1000, 0));
    union.remount();
    assert_eq!(mtime(union.path("d")), (1000, 0));
    let changes: [fn(&Path); 5] = [
        |root| fs::write(root.join("d/new"), "").unwrap(),
        |root| fs::remove_file(root.join("d/c")).unwrap(),
        |root| fs::rename(root.join("d/a"), root.join("d/z")).unwrap(),
        |root| fs::create_dir(root.join("d/dir")).unwrap(),
        |root| fs::hard_link(root.join("d/z"), root.join("d/y")).unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        set_times(union.path("d"), 1000.0, 1000.0).unwrap();
        change(&union.path(""));
        assert!(mtime(union.path("d")).0 > 1000, "change {number}");
    }
    fs::rename(union.path("d/b"), union.path("f/b")).unwrap();
    assert!(mtime(union.path("f")).0 > 1000);
    union.remount();
    assert!(mtime(union.path("d")).0 > 1000 && mtime(union.path("f")).0 > 1000);
}

#[test]
fn writing_and_truncating_change_the_times_of_a_file() {
    needs_root!();
    let union = Union::new()
        .lower("f a text=abc mtime=1000\nf b text=abc mtime=1000\nf c mtime=1000")
        .mount();
    append(union.path("a"), "x");
    open_rw(union.path("b")).set_len(1).unwrap();
    let before = lstat(union.path("c"));
    chmod(union.path("c"), 0o600).unwrap();
    assert!(mtime(union.path("a")).0 > 1000 && mtime(union.path("b")).0 > 1000);
    assert_eq!(mtime(union.path("c")), (1000, 0));
    let after = lstat(union.path("c"));
    assert!((after.st_ctime, after.st_ctime_nsec) > (before.st_ctime, before.st_ctime_nsec));
}

#[test]
fn symbolic_links_have_owners_and_times_of_their_own() {
    needs_root!();
    not_with!("xattr_permissions");
    same_as_plain("l link to=target\nf target own=1:1\nl dangling to=nowhere", |root| {
        chown(root.join("link"), 5, 6).unwrap();
        chown(root.join("dangling"), 7, 8).unwrap();
        set_times(root.join("link"), 1.0, 2.0).unwrap();
        format!("{:?} {:?}", mtime(root.join("link")), owner(root.join("target")))
    });
}

#[test]
fn mode_of_a_symbolic_link_cannot_be_changed_and_its_target_is() {
    needs_root!();
    let union = Union::new().lower("l link to=target\nf target text=x mode=0644").mount();
    chmod(union.path("link"), 0o600).unwrap();
    assert_eq!(mode(union.path("target")), 0o600);
    assert_eq!(text(union.path("link")), "x");
}

#[test]
fn truncating_beyond_the_largest_size_is_an_error() {
    needs_root!();
    let union = Union::new().lower("f a text=a").mount();
    assert_eq!(errno(open_rw(union.path("a")).set_len(i64::MAX as u64)), Errno::FBIG);
    assert_eq!(text(union.path("a")), "a");
}

#[test]
fn default_access_list_of_the_work_directory_stays_there() {
    needs_root!();
    let lower = "d d mode=0777\nf d/a mode=0640 own=5:6 text=a\nd e mode=0750\nf e/b mode=0600";
    let layers = Union::new().lower(lower);
    let work = layers.path().join("work");
    run("setfacl", ["-d".as_ref(), "-m".as_ref(), "u:1000:rwx".as_ref(), work.as_os_str()]);
    let mut union = layers.mount();
    append(union.path("d/a"), "+");
    append(union.path("e/b"), "+");
    as_user(|| {
        with_umask(0o022, || {
            create(union.path("d/new"), OFlags::WRONLY, 0o666).unwrap();
            mkdir(union.path("d/dir"), 0o777).unwrap();
            mknod(union.path("d/pipe"), FileType::Fifo, (0, 0)).unwrap();
        });
    });
    let modes = [
        ("d", 0o777),
        ("d/a", 0o640),
        ("e", 0o750),
        ("e/b", 0o600),
        ("d/new", 0o644),
        ("d/dir", 0o755),
        ("d/pipe", 0o644),
    ];
    for _ in 0..2 {
        for (name, expected) in modes {
            assert_eq!(mode(union.path(name)), expected, "{name}");
            for path in [union.path(name), union.upper(name)] {
                let lists = xattrs(&path).into_iter().filter(|name| name.contains("posix_acl"));
                assert_eq!(lists.collect::<Vec<_>>(), [""; 0], "{}", path.display());
            }
        }
        assert_eq!(owner(union.path("d/new")), (USER, USER));
        union.remount();
    }
}

#[test]
fn set_group_id_bits_go_with_changes_by_strangers_to_the_group() {
    needs_root!();
    not_with!("xattr_permissions");
    let tree = format!(
        "f stranger mode=02755 own={USER}:9 text=x\nf member mode=02755 own={USER}:77 text=x
         f write-stranger mode=02646 own=0:9 text=x\nf write-member mode=02666 own=0:77 text=x
         f chmod-stranger mode=0755 own={USER}:9\nf chmod-member mode=0755 own={USER}:77
         d stranger-dir mode=02755 own={USER}:9\nd member-dir mode=02755 own={USER}:77"
    );
    // u::rwx g::rwx o::rwx
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for tag in [1_u16, 4, 0x20] {
        acl.extend([tag.to_le_bytes(), 7_u16.to_le_bytes()].concat());
        acl.extend(u32::MAX.to_le_bytes());
    }
    same_as_plain(&tree, |root| {
        as_member(USER, USER, &[77], || {
            for name in ["stranger", "member", "stranger-dir", "member-dir"] {
                set_xattr(root.join(name), "system.posix_acl_access", &acl).unwrap();
            }
            for name in ["write-stranger", "write-member"] {
                append(root.join(name), "y");
            }
            for name in ["chmod-stranger", "chmod-member"] {
                chmod(root.join(name), 0o2755).unwrap();
            }
        });
        String::new()
    });
}
