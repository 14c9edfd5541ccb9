//! Images that mean harm.

use std::fs;
use std::os::unix::fs::symlink;

use crate::needs_root;
use crate::stage::{CALLERS, Caller, Stage};

#[test]
fn places_of_our_own_are_no_links() {
    needs_root!();
    for name in ["proc", "dev", "sys"] {
        let stage = Stage::with(Caller::Mapped, |root| symlink("/etc", root.join(name)).unwrap());
        let (status, line) = stage.fails(&["--rm", "busybox", "true"]);
        let expected = format!(
            "plyfs: /{name} in the container: a symbolic link of the image stands in the way"
        );
        assert_eq!((status, line), (125, expected));
        stage.nothing_is_left();
    }
}

#[test]
fn links_in_place_of_files_of_the_host_stay_inside() {
    needs_root!();
    for caller in CALLERS {
        let victim = "/plyfs-test-victim";
        let stage = Stage::with(caller, |root| {
            symlink("../../../../../..".to_owned() + victim, root.join("etc/hosts")).unwrap();
            symlink("/proc/1/root/etc/resolv.conf", root.join("etc/resolv.conf")).unwrap();
            fs::create_dir(root.join("etc/hostname")).unwrap();
        });
        let output = stage.script(&["--rm"], &format!("grep -c 127.0.1.1 {victim}"));
        assert_eq!(output.status.code(), Some(0), "{caller:?}: {output:?}");
        assert!(!std::path::Path::new(victim).exists());
    }
}

#[test]
fn accounts_that_are_no_files_are_refused_at_once() {
    needs_root!();
    let fifo = |root: &std::path::Path| {
        fs::remove_file(root.join("etc/passwd")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, root.join("etc/passwd"), kind, mode, 0).unwrap();
    };
    let stage = Stage::with(Caller::Mapped, fifo);
    let (status, line) = stage.fails(&["--rm", "-u", "ann", "busybox", "id"]);
    assert_eq!(status, 125);
    assert_eq!(line, "plyfs: /etc/passwd in the container: it is no regular file");

    let huge = |root: &std::path::Path| {
        let file = fs::File::create(root.join("etc/group")).unwrap();
        file.set_len(2 << 20).unwrap();
    };
    let stage = Stage::with(Caller::Root, huge);
    let (status, line) = stage.fails(&["--rm", "busybox", "id"]);
    assert_eq!(status, 125);
    assert_eq!(line, "plyfs: /etc/group in the container: it is longer than 1048576 bytes");
}

#[test]
fn a_working_directory_is_in_the_container() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::with(caller, |root| {
            symlink("../../../../../../etc", root.join("link")).unwrap();
            symlink("/proc/self/fd/3", root.join("descriptor")).unwrap();
        });
        assert_eq!(stage.shell(&["--rm", "-w", "/link"], "ls passwd; pwd"), "passwd\n/etc\n");
        for fd in 3..12 {
            let place = format!("/proc/self/fd/{fd}");
            let (status, line) = stage.fails(&["--rm", "-w", &place, "busybox", "ls"]);
            assert_eq!(status, 125, "{caller:?}: {place}: {line}");
        }
        let (status, line) = stage.fails(&["--rm", "-w", "/descriptor", "busybox", "ls"]);
        assert_eq!(status, 125, "{caller:?}: {line}");
        stage.nothing_is_left();
    }
}
