//! Real programs at work in a union: a Debian system as root, busybox in a user namespace.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::support::posix::{names, run, text};
use crate::support::{Scratch, Union};
use crate::{isolated, needs_root};

/// Installed into the union: compiler and headers, git with perl; some thousand files.
const PACKAGES: [&str; 3] = ["gcc", "libc6-dev", "git"];

const HELLO: &str = r#"#include <stdio.h>
int main(void) { return puts("compiled in the union") < 0; }
"#;

#[test]
fn heavy_debian_at_work() {
    needs_root!();
    let base = debian_base();
    let mut union = Union::new()
        .lower_with(|dir| {
            fs::create_dir(dir.join("srv")).unwrap();
            make_repository(&dir.join("srv/project"));
            fs::write(dir.join("srv/hello.c"), HELLO).unwrap();
        })
        .lower_at(&base)
        .option("dev")
        .option("suid")
        .lifetime(Duration::from_secs(400))
        .mount();

    let before = count_files(&union.path("usr"));
    with_proc(&union, || {
        let install =
            [&["apt-get", "install", "-y", "--no-install-recommends"], &PACKAGES[..]].concat();
        in_chroot(&union, &[&["env", "DEBIAN_FRONTEND=noninteractive"], &install[..]].concat());
    });
    assert!(count_files(&union.path("usr")) > before + 1000, "files installed");
    assert_eq!(
        in_chroot(&union, &["dpkg", "--verify"]),
        "",
        "files that are not as their package says"
    );
    assert_eq!(in_chroot(&union, &["dpkg", "--audit"]), "", "packages that are not whole");

    in_chroot(&union, &["tar", "-C", "/", "-cf", "/root/usr.tar", "usr/share", "usr/lib/git-core"]);
    fs::create_dir(union.path("root/unpacked")).unwrap();
    in_chroot(&union, &["tar", "-C", "/root/unpacked", "-xf", "/root/usr.tar"]);
    let compare = ["diff", "-r", "--no-dereference", "/usr/share", "/root/unpacked/usr/share"];
    assert_eq!(in_chroot(&union, &compare), "");

    in_chroot(&union, &["git", "clone", "--quiet", "/srv/project", "/root/clone"]);
    in_chroot(&union, &["gcc", "-O2", "-o", "/usr/local/bin/hello", "/srv/hello.c"]);

    for again in [false, true] {
        if again {
            union.remount();
        }
        assert_eq!(in_chroot(&union, &["git", "-C", "/srv/project", "status", "--porcelain"]), "");
        assert_eq!(in_chroot(&union, &["git", "-C", "/root/clone", "status", "--porcelain"]), "");
        assert_eq!(in_chroot(&union, &["git", "-C", "/root/clone", "fsck", "--strict"]), "");
        assert_eq!(in_chroot(&union, &["hello"]), "compiled in the union\n");
        assert_eq!(in_chroot(&union, &["dpkg", "--verify"]), "", "after a remount: {again}");
    }

    in_chroot(
        &union,
        &["rm", "-rf", "/usr/share", "/usr/include", "/root/unpacked", "/root/clone"],
    );
    fs::create_dir(union.path("usr/share")).unwrap();
    union.remount();
    assert_eq!(names(union.path("usr/share")), [""; 0], "a deleted and made again directory");
    assert!(!union.path("usr/include").exists());
    assert!(names(union.lower(1, "usr/share")).len() > 10, "the base layer");
}

#[test]
fn heavy_busybox_in_a_user_namespace() {
    isolated!(UserNamespace, busybox_at_work());
}

fn busybox_at_work() {
    let mut union = Union::new()
        .lower_with(|dir| {
            fs::create_dir_all(dir.join("srv")).unwrap();
            make_repository(&dir.join("srv/project"));
            fs::write(dir.join("srv/hello.c"), HELLO).unwrap();
        })
        .lower_with(busybox_base)
        .lifetime(Duration::from_secs(200))
        .mount();
    // Builds a tree of 1,500 files, packs and unpacks it, compares, and deletes half of it.
    let script = "set -e
        cd /root
        for d in $(seq 1 30); do
            mkdir -p tree/$d
            for f in $(seq 1 50); do echo $d/$f > tree/$d/$f; done
            chmod 711 tree/$d; ln -s $d/1 tree/link$d; ln tree/$d/1 tree/$d/hard
        done
        tar -czf tree.tar.gz tree
        mkdir unpacked
        tar -C unpacked -xzf tree.tar.gz
        diff -r tree unpacked/tree
        find tree -type f | sort | xargs sha256sum > sums
        sha256sum -c -s sums
        cp -a tree copy
        rm -rf tree
        mkdir tree
        mv copy moved
        rm -rf /srv/project/sub7";
    in_chroot(&union, &["sh", "-c", script]);

    // The host's programs, for which a busybox system has no libraries.
    let clone = union.path("root/clone");
    git(&[
        OsStr::new("clone"),
        "--quiet".as_ref(),
        union.path("srv/project").as_os_str(),
        clone.as_os_str(),
    ]);
    let hello = union.path("root/hello");
    run("gcc", [union.path("srv/hello.c").as_os_str(), "-o".as_ref(), hello.as_os_str()]);

    for again in [false, true] {
        if again {
            union.remount();
        }
        assert_eq!(run(hello.to_str().unwrap(), [""; 0]), "compiled in the union\n");
        let status =
            [OsStr::new("-C"), clone.as_os_str(), "status".as_ref(), "--porcelain".as_ref()];
        assert_eq!(git(&status), "");
        assert_eq!(names(union.path("root/tree")), [""; 0], "deleted and made again");
        assert_eq!(text(union.path("root/moved/17/23")), "17/23\n");
        in_chroot(&union, &["sh", "-c", "cd /root/unpacked && sha256sum -c -s ../sums"]);
        assert!(!union.path("srv/project/sub7").exists());
    }
}

/// A minimal Debian system with the packages downloaded and not installed. Made once and kept.
fn debian_base() -> PathBuf {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&cache).unwrap();
    let lock = File::create(cache.join("debian.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let base = cache.join("debian");
    if !base.exists() {
        let unfinished = Scratch::new();
        let root = unfinished.path().join("debian");
        run("debootstrap", [OsStr::new("--variant=minbase"), suite().as_ref(), root.as_os_str()]);
        chroot(&root, &["apt-get", "update", "-qq"]);
        let download = ["apt-get", "install", "-qq", "--download-only", "--no-install-recommends"];
        chroot(&root, &[&download, &PACKAGES[..]].concat());
        fs::rename(root, &base).unwrap();
    }
    base
}

/// The release that this machine runs; debootstrap knows it.
fn suite() -> String {
    let release = text("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.unwrap_or("stable").to_owned()
}

/// One static program, and a link to it for each of its tools.
fn busybox_base(dir: &Path) {
    for sub in ["bin", "root", "tmp", "etc"] {
        fs::create_dir(dir.join(sub)).unwrap();
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).unwrap();
    chroot(dir, &["/bin/busybox", "--install", "-s", "/bin"]);
}

/// A git repository of 400 small files in 20 directories, with three commits.
fn make_repository(dir: &Path) {
    let at = |arguments: &[&str]| {
        git(&[
            &[OsStr::new("-C"), dir.as_os_str()],
            &arguments.iter().map(OsStr::new).collect::<Vec<_>>()[..],
        ]
        .concat())
    };
    git(&[OsStr::new("init"), "--quiet".as_ref(), dir.as_os_str()]);
    for round in 0..3 {
        for number in 0..400 {
            let sub = dir.join(format!("sub{}", number % 20));
            fs::create_dir_all(&sub).unwrap();
            if number % (round + 1) == 0 {
                fs::write(
                    sub.join(format!("file{number}")),
                    format!("{round} {number}\n").repeat(50),
                )
                .unwrap();
            }
        }
        at(&["add", "--all"]);
        at(&["commit", "--quiet", "--message=round"]);
    }
}

/// git that knows a name and owns nothing of the user's configuration.
fn git(arguments: &[&OsStr]) -> String {
    let settings =
        ["-c", "user.name=plyfs", "-c", "user.email=plyfs@localhost", "-c", "safe.directory=*"];
    run("git", settings.iter().map(OsStr::new).chain(arguments.iter().copied()))
}

/// Runs a program in the union as its root; returns what it wrote.
fn in_chroot(union: &Union, words: &[&str]) -> String {
    chroot(&union.path(""), words)
}

fn chroot(root: &Path, words: &[&str]) -> String {
    let mut command = Command::new("chroot");
    command.arg(root).args(words).env_clear();
    command.env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
    let output = command.output().unwrap();
    let [written, errors] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{words:?}: {}\n{written}\n{errors}", output.status);
    written
}

fn with_proc(union: &Union, action: impl FnOnce()) {
    let proc = union.path("proc");
    run("mount", [OsStr::new("-t"), "proc".as_ref(), "proc".as_ref(), proc.as_os_str()]);
    action();
    run("umount", [&proc]);
}

fn count_files(dir: &Path) -> usize {
    run("find", [dir.as_os_str(), "-type".as_ref(), "f".as_ref()]).lines().count()
}
