//! What a program finds around it.

use std::fs;

use crate::needs_root;
use crate::stage::{CALLERS, Caller, Stage};

#[test]
fn devices_are_those_of_every_container() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        let names = stage.shell(
            &["--rm"],
            "cd /dev; ls | sort | sed 's/^/ /' | { while read x; do echo -n \"$x \"; done; }",
        );
        assert_eq!(
            names,
            "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "
        );
        let used = stage.shell(
            &["--rm"],
            "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c; \
             echo shared > /dev/shm/x; cat /dev/shm/x; readlink /dev/stdout",
        );
        assert_eq!(used, "3\n5\nshared\n/proc/self/fd/1\n", "{caller:?}");
        let full = stage.script(&["--rm"], "echo x > /dev/full");
        assert_eq!(full.status.code(), Some(1));
        // Others can neither be made nor used.
        assert_eq!(stage.script(&["--rm"], "mknod /d c 1 3 2>/dev/null").status.code(), Some(1));
    }
}

#[test]
fn a_device_of_the_image_is_not_to_be_used() {
    needs_root!();
    let stage = Stage::with(Caller::Root, |root| {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let device = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, root.join("null"), kind, mode, device).unwrap();
    });
    assert_eq!(stage.shell(&["--rm"], "stat -c %F /null"), "character special file\n");
    assert_ne!(stage.script(&["--rm"], "echo x > /null").status.code(), Some(0));
}

#[test]
fn proc_is_of_the_container_and_guarded() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        // Number 1 is plyfs, 2 the program.
        assert_eq!(
            stage.shell(&["--rm"], "echo $$ /proc/[0-9]*"),
            "2 /proc/1 /proc/2\n",
            "{caller:?}"
        );
        assert_eq!(stage.shell(&["--rm"], "cat /proc/keys /proc/timer_list | wc -c"), "0\n");
        for written in ["/proc/sys/kernel/hostname", "/proc/irq/default_smp_affinity", "/sys/x"] {
            let output = stage.script(&["--rm"], &format!("echo x > {written}"));
            assert_eq!(output.status.code(), Some(1), "{caller:?}: {written}");
            let line = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(line.contains("Read-only") || line.contains("nonexistent"), "{line}");
        }
        // What runs outside, and what it knows, is not to be seen.
        for secret in [
            "cat /proc/1/environ",
            "readlink /proc/1/exe",
            "ls /proc/1/root/",
            "readlink /proc/1/fd/0",
        ] {
            assert_ne!(
                stage.script(&["--rm"], secret).status.code(),
                Some(0),
                "{caller:?}: {secret}"
            );
        }
    }
}

#[test]
fn capabilities_are_bounded() {
    needs_root!();
    // docker's default without CAP_MKNOD: 0, 1, 3 to 8, 10, 13, 18, 29, 31.
    const KEPT: &str = "00000000a00425fb";
    for caller in CALLERS {
        let stage = Stage::new(caller);
        let sets = stage.shell(&["--rm"], "grep Cap /proc/self/status");
        let none = "0000000000000000";
        let expected = format!(
            "CapInh:\t{none}\nCapPrm:\t{KEPT}\nCapEff:\t{KEPT}\nCapBnd:\t{KEPT}\nCapAmb:\t{none}\n"
        );
        assert_eq!(sets, expected, "{caller:?}");
        assert_ne!(stage.script(&["--rm"], "mount -t tmpfs x /bin").status.code(), Some(0));
        assert_ne!(stage.script(&["--rm"], "umount /proc").status.code(), Some(0));
        assert_ne!(stage.script(&["--rm"], "hostname other").status.code(), Some(0));
    }
    let stage = Stage::new(Caller::Mapped);
    let sets =
        stage.shell(&["--rm", "-u", "ann"], "grep -e CapPrm -e CapEff -e Groups /proc/self/status");
    assert_eq!(sets, "Groups:\t50 \nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n");
}

#[test]
fn files_of_the_host_are_copies_that_go_with_the_container() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        let before = fs::read("/etc/hosts").unwrap();
        let hosts = stage.shell(
            &["--name", "web"],
            "cat /etc/hosts; echo '1.2.3.4 mine' >> /etc/hosts; grep -c mine /etc/hosts; readlink /etc/mtab; hostname",
        );
        assert!(hosts.contains("127.0.1.1 web\n"), "{hosts}");
        assert!(hosts.ends_with("1\n/proc/mounts\nweb\n"), "{hosts}");
        assert_eq!(fs::read("/etc/hosts").unwrap(), before);
        assert_eq!(fs::read_dir(stage.in_layer("web", "")).unwrap().count(), 0);
    }
}

#[test]
fn a_read_only_container_changes_volumes_and_memory_only() {
    needs_root!();
    let stage = Stage::new(Caller::Mapped);
    let volume = format!("{}:/data", stage.directory("data").display());
    let script = "touch /data/x /dev/shm/x && ! touch /x";
    stage.shell(&["--rm", "--read-only", "-v", &volume], script);
    assert!(stage.path("data/x").exists());
}

#[test]
fn a_directory_can_be_the_root() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        let root = stage.directory("image");
        let root = root.to_str().unwrap();
        for directory in ["dev", "etc", "proc", "sys"] {
            stage.directory(&format!("image/{directory}"));
        }
        let words = ["--rootfs", root, "sh", "-c", "echo $$; cat /etc/hostname; touch /changed"];
        let output = stage.command("run", &words).output().unwrap();
        assert_eq!(crate::stage::text(&output), "2\nplyfs\n", "{caller:?}: {output:?}");
        assert!(stage.path("image/changed").exists());
        stage.nothing_is_left();
    }
}
