//! Those who work in the mount: they get no right there that a plain directory would not give them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::fs::{FileType, IFlags, ioctl_getflags};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl};

use super::canary::Canary;
use crate::needs_root;
use crate::support::posix::{
    USER, append, as_user, chmod, chown, errno, get_xattr, kind, mknod, mode, names, owner, run,
    set_times, set_xattr, text, xattrs,
};
use crate::support::privilege::{ordinary_user, skip};
use crate::support::{Scratch, Union, same_as_plain, tree};

/// `FS_IOC32_SETFLAGS`: what 64-bit programs call `FS_IOC_SETFLAGS`, with a narrower number.
const SET_FLAGS_32: u32 = 0x4004_6602;

fn set_flags_32(file: impl AsFd, flags: IFlags) -> Result<(), Errno> {
    // SAFETY: the call reads four bytes, as its number says.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(file, Setter::<SET_FLAGS_32, u32>::new(flags.bits()))
    }
}

#[test]
fn inode_flags_cannot_be_set_past_the_checks_of_the_kernel() {
    needs_root!();
    let union = Union::new().lower("f shared text=x mode=0644").mount();
    let path = union.path("shared");
    fs::write(&path, "in the upper layer").unwrap();
    for flags in [IFlags::IMMUTABLE, IFlags::APPEND, IFlags::NOATIME] {
        let set = as_user(|| set_flags_32(File::open(&path).unwrap(), flags));
        assert_eq!(set, Err(Errno::NOTTY), "a stranger sets {flags:?}");
        let now = ioctl_getflags(File::open(union.upper("shared")).unwrap()).unwrap();
        assert!(!now.intersects(flags), "{now:?}");
    }
}

/// Names of attributes that mean something to the union or its peers.
const MARKS: [(&str, &str); 10] = [
    ("user.overlay.opaque", "y"),
    ("user.overlay.whiteout", "y"),
    ("user.overlay.redirect", "/secret"),
    ("user.overlay.metacopy", ""),
    ("user.overlay.origin", "x"),
    ("user.overlay.nlink", "U+1000"),
    ("user.overlay.plyfs.ino", "1"),
    ("user.fuseoverlayfs.opaque", "y"),
    ("user.fuseoverlayfs.override_stat", "0:0:4777"),
    ("user.containers.override_stat", "0:0:4777"),
];

#[test]
fn attributes_set_by_callers_never_become_marks() {
    needs_root!();
    let lower = format!(
        "d . own={USER}:{USER} mode=0755\nd d own={USER}:{USER}\nf d/below text=below own={USER}:{USER}
         f f text=lower own={USER}:{USER}\nf .secret/x"
    );
    let mut union =
        Union::new().lower(&lower).upper_with(|upper| chown(upper, USER, USER).unwrap()).mount();
    let set = |path: &Path, name: &str, value: &str| {
        as_user(|| set_xattr(path, name, value.as_bytes())).unwrap();
        assert_eq!(get_xattr(path, name).unwrap(), value.as_bytes(), "{name}");
    };
    for (name, value) in MARKS {
        for path in ["", "d", "f"] {
            set(&union.path(path), name, value);
        }
    }
    for _ in 0..2 {
        assert_eq!((owner(union.path("f")), mode(union.path("f"))), ((USER, USER), 0o644));
        assert_eq!(text(union.path("f")), "lower");
        assert_eq!(text(union.path("d/below")), "below");
        assert_eq!(kind(union.path("f")), FileType::RegularFile);
        let mut names: Vec<_> = MARKS.iter().map(|(name, _)| name.to_string()).collect();
        names.sort();
        for path in ["", "d", "f"] {
            assert_eq!(xattrs(union.path(path)), names, "{path}");
        }
        union.remount();
    }
}

#[test]
fn allow_root_keeps_others_out_of_what_root_has_seen() {
    needs_root!();
    let union = Union::new().lower("f d/open text=open mode=0666").option("allow_root").mount();
    // Names, attributes and content are in the kernel's caches from here on.
    assert_eq!(names(union.path("d")), ["open"]);
    assert_eq!(text(union.path("d/open")), "open");
    as_user(|| {
        assert_eq!(errno(fs::read(union.path("d/open"))), Errno::ACCESS);
        assert_eq!(errno(fs::read_dir(union.path("d"))), Errno::ACCESS);
        assert_eq!(errno(fs::symlink_metadata(union.path("d/open"))), Errno::ACCESS);
        assert_eq!(errno(fs::write(union.path("d/open"), "")), Errno::ACCESS);
    });
}

#[test]
fn rights_of_others_are_those_of_a_plain_directory() {
    needs_root!();
    let tree = "d private mode=0700 own=7:7\nf private/file text=x mode=0666 own=7:7\nd sticky mode=01777\nf sticky/foreign text=x mode=0666
        f sticky/own own=1234:1234\nf group mode=0660 own=7:55\nf program mode=04755\nf readable text=x mode=0644 user.x=y\nl link to=readable\nd dir mode=0755";
    same_as_plain(tree, |root| {
        let at = |name: &str| root.join(name);
        let mut seen = String::new();
        let mut note = |what: &str, result: std::io::Result<()>| {
            let error = result.err().map(|error| Errno::from_io_error(&error).unwrap());
            seen += &format!("{what}: {error:?}\n");
        };
        let tries: Vec<(&str, std::io::Result<()>)> = as_user(|| {
            let set = |path: &str, name: &str, value: &[u8]| {
                set_xattr(at(path), name, value).map_err(std::io::Error::from)
            };
            vec![
                ("enter", fs::read(at("private/file")).map(drop)),
                ("list", fs::read_dir(at("private")).map(drop)),
                ("delete in sticky", fs::remove_file(at("sticky/foreign"))),
                ("replace in sticky", fs::rename(at("sticky/own"), at("sticky/foreign"))),
                ("delete own in sticky", fs::remove_file(at("sticky/own"))),
                ("another group", fs::read(at("group")).map(drop)),
                ("chmod", chmod(at("readable"), 0o777).map_err(Into::into)),
                ("chown", chown(at("readable"), USER, USER).map_err(Into::into)),
                ("truncate", File::options().write(true).truncate(true).open(at("readable")).map(drop)),
                ("utimes", set_times(at("readable"), 1.0, 1.0).map_err(Into::into)),
                ("create", fs::write(at("dir/new"), "")),
                ("mkdir", fs::create_dir(at("dir/new"))),
                ("rename", fs::rename(at("readable"), at("dir/stolen"))),
                ("unlink", fs::remove_file(at("link"))),
                ("mknod", mknod(at("sticky/device"), FileType::CharacterDevice, (1, 3)).map_err(Into::into)),
                ("mknod of 0:0", mknod(at("dir/device"), FileType::CharacterDevice, (0, 0)).map_err(Into::into)),
                ("user attribute", set("readable", "user.y", b"z")),
                ("trusted attribute", set("sticky/foreign", "trusted.y", b"z")),
                ("marks of root", set("sticky/foreign", "trusted.overlay.opaque", b"y")),
                ("security attribute", set("sticky/foreign", "security.fuseoverlayfs.override_stat", b"0:0:4755")),
                ("capabilities", set("sticky/foreign", "security.capability", b"\x01\0\0\x02\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0")),
                ("access list", set("sticky/foreign", "system.posix_acl_access", b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x07\0\xff\xff\xff\xff\x20\0\x07\0\xff\xff\xff\xff")),
                ("immutable", rustix::fs::ioctl_setflags(File::open(at("readable")).unwrap(), IFlags::IMMUTABLE).map_err(Into::into)),
            ]
        });
        for (what, result) in tries {
            note(what, result);
        }
        // A supplementary group counts.
        let member = run(
            "setpriv",
            ["--reuid=1234", "--regid=1234", "--groups=55", "cat", at("group").to_str().unwrap()],
        );
        seen + &member
    });
}

#[test]
fn without_attributes_or_access_lists_nobody_gets_more_rights() {
    needs_root!();
    for option in ["noacl", "noxattrs"] {
        let union = Union::new()
            .lower("f foreign text=x mode=0644\nf own own=1234:1234")
            .option(option)
            .mount();
        as_user(|| {
            let everything = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x07\0\xff\xff\xff\xff\x20\0\x07\0\xff\xff\xff\xff";
            assert!(
                set_xattr(union.path("foreign"), "system.posix_acl_access", everything).is_err(),
                "{option}"
            );
            assert!(fs::write(union.path("foreign"), "").is_err(), "{option}");
        });
        assert_eq!(mode(union.path("foreign")), 0o644, "{option}");
    }
}

#[test]
fn who_is_locked_into_the_mount_does_not_reach_the_host() {
    needs_root!();
    let canary = Canary::new();
    let busybox = run("sh", ["-c", "command -v busybox"]);
    let union = Union::new()
        .lower_with(|dir| {
            tree::make(dir, "d bin\nd proc\nd sub");
            fs::copy(busybox.trim(), dir.join("bin/busybox")).unwrap();
            symlink(canary.path("secret"), dir.join("absolute")).unwrap();
            let up = format!("{}{}", "../".repeat(40), canary.path("secret").display());
            symlink(up, dir.join("sub/relative")).unwrap();
        })
        .mount();
    let point = union.path("");
    let inside = |script: &str| {
        let output = Command::new("chroot")
            .arg(&point)
            .args(["/bin/busybox", "sh", "-c", script])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let links = "for n in /absolute /sub/relative /../absolute; do /bin/busybox cat $n; done";
    assert_eq!(inside(links), "");
    assert_eq!(inside("cd /../..; /bin/busybox ls"), "absolute\nbin\nproc\nsub\n");
    assert_eq!(
        inside(
            "cd /sub; /bin/busybox chroot . /bin/busybox true; cd ../../../..; /bin/busybox pwd"
        ),
        "/\n"
    );
    canary.assert_untouched(union.live().pid(), "from within");
    let descriptors = format!("/proc/{}/fd", union.live().pid().as_raw_nonzero());
    as_user(|| assert_eq!(errno(fs::read_dir(&descriptors)), Errno::ACCESS));
}

#[test]
fn mounts_in_layers_do_not_shine_through() {
    needs_root!();
    let canary = Canary::new();
    let union = Union::new()
        .lower_with(|dir| {
            tree::make(
                dir,
                "f d/covered text=covered\nf e/covered text=covered\nf file text=covered",
            );
            run(
                "mount",
                ["--bind".as_ref(), canary.path("").as_os_str(), dir.join("d").as_os_str()],
            );
            run("mount", ["-t", "proc", "proc", dir.join("e").to_str().unwrap()]);
            run(
                "mount",
                [
                    "--bind".as_ref(),
                    canary.path("secret").as_os_str(),
                    dir.join("file").as_os_str(),
                ],
            );
        })
        .upper_with(|upper| {
            tree::make(upper, "f u/covered text=covered");
            run(
                "mount",
                ["--bind".as_ref(), canary.path("").as_os_str(), upper.join("u").as_os_str()],
            );
        })
        .unchecked_lowers()
        .mount();
    for dir in ["d", "e", "u"] {
        assert_eq!(names(union.path(dir)), ["covered"], "{dir}");
        append(union.path(dir).join("covered"), "+");
        fs::write(union.path(dir).join("new"), "").unwrap();
    }
    assert_eq!(text(union.path("file")), "covered");
    canary.assert_untouched(union.live().pid(), "mounts in layers");
}

#[test]
fn a_lower_layer_that_is_the_upper_one_by_another_path_is_refused() {
    needs_root!();
    for name in ["upper", "work"] {
        let builder = Union::new().lower("f a");
        let other = builder.path().join("other");
        fs::create_dir(&other).unwrap();
        run("mount", ["--bind".as_ref(), builder.path().join(name).as_os_str(), other.as_os_str()]);
        let refusal =
            builder.lower_at(&other).unchecked_lowers().try_mount().err().expect("refused");
        assert!(refusal.message.contains("overlap"), "{}", refusal.message);
    }
}

#[test]
fn an_ordinary_users_mount_is_his_alone() {
    needs_root!();
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if conf.lines().any(|line| line.trim() == "user_allow_other") {
        return skip(
            "an_ordinary_users_mount_is_his_alone",
            "/etc/fuse.conf lets users share their mounts",
        );
    }
    let (uid, gid) = ordinary_user();
    let scratch = Scratch::new();
    let program = scratch.path().join("plyfs");
    fs::copy(crate::support::mount::program(), &program).unwrap();
    tree::make(
        scratch.path(),
        "f lower/a text=a mode=0666\nf lower/su text=x mode=04755\nd upper\nd work\nd merged",
    );
    for name in ["upper", "work", "merged"] {
        chown(scratch.path().join(name), uid, gid).unwrap();
    }
    let point = scratch.path().join("merged");
    let as_owner = |program: &Path, arguments: &[&str]| {
        Command::new("setpriv")
            .arg(format!("--reuid={uid}"))
            .arg(format!("--regid={gid}"))
            .arg("--clear-groups")
            .arg(program)
            .args(arguments)
            .current_dir(scratch.path())
            .output()
            .unwrap()
    };
    let mounted = as_owner(
        &program,
        &["-o", "lowerdir=lower,upperdir=upper,workdir=work,suid,dev", "merged"],
    );
    assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    // Root is no exception.
    assert_eq!(errno(fs::read(point.join("a"))), Errno::ACCESS);
    as_user(|| assert_eq!(errno(fs::read_dir(&point)), Errno::ACCESS));
    let line = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = line.lines().find(|line| line.contains(point.to_str().unwrap())).unwrap();
    assert!(line.contains("nosuid,nodev") && !line.contains("allow_other"), "{line}");
    let point_text = point.to_str().unwrap();
    for tool in [
        ["fusermount3", "-u", point_text],
        ["fusermount3", "-uz", point_text],
        [program.to_str().unwrap(), "umount", point_text],
    ] {
        assert!(!succeeds_as(USER, &tool), "{tool:?} by another user");
    }
    // What belongs to others is neither changed nor owned.
    let changed = as_owner(Path::new("chmod"), &["777", "merged/a"]);
    assert!(!changed.status.success());
    let content = as_owner(Path::new("cat"), &["merged/a"]);
    assert_eq!(content.stdout, b"a");
    assert!(as_owner(Path::new("fusermount3"), &["-u", "merged"]).status.success());
}

fn succeeds_as(uid: u32, command: &[&str]) -> bool {
    Command::new("setpriv")
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={uid}"))
        .arg("--clear-groups")
        .args(command)
        .output()
        .unwrap()
        .status
        .success()
}
