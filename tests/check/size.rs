//! Large and deep layers.

use std::fs;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, mkdirat, mknodat, openat};

use crate::needs_root;
use crate::support::Union;
use crate::support::posix::{long_name, run};

/// The bottom of a tree that no path leads to in one call.
#[test]
fn depth_beyond_path_max_is_checked_and_repaired() {
    needs_root!();
    let union = Union::new().lower("f a").layers();
    let name = long_name(200);
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(rustix::fs::CWD, union.upper(""), flags, Mode::empty()).unwrap();
    for _ in 0..300 {
        mkdirat(&at, &name, Mode::from_raw_mode(0o755)).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    let void = openat(&at, ".wh.", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600));
    drop(void.unwrap());
    let checked = union.check(&["--repair"]);
    assert_eq!((checked.status, checked.findings.len()), (1, 1), "{}", checked.error);
    assert_eq!(checked.findings[0][0], "void-whiteout");
    assert_eq!(
        rustix::fs::statat(at.as_fd(), ".wh.", rustix::fs::AtFlags::empty()).err(),
        Some(rustix::io::Errno::NOENT)
    );
    run("rm", ["-rf".as_ref(), union.upper(name).as_os_str()]);
}

/// Memory does not grow with the number of files: 100,000 of them in less than what their names would take.
#[test]
fn many_files_need_little_memory() {
    needs_root!();
    let union = Union::new().lower("f a").layers();
    for dir in 0..2 {
        let dir = union.upper(format!("d{dir}"));
        fs::create_dir(&dir).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = openat(rustix::fs::CWD, &dir, flags, Mode::empty()).unwrap();
        let kind = rustix::fs::FileType::CharacterDevice;
        mknodat(&at, "first", kind, Mode::empty(), 0).unwrap();
        let prefix = long_name(120);
        for number in 0..50_000 {
            let name = format!("{prefix}{number}");
            rustix::fs::linkat(&at, "first", &at, name, rustix::fs::AtFlags::empty()).unwrap();
        }
    }
    let script = "ulimit -v 49152; exec \"$0\" check \"$1\"";
    let program = crate::support::mount::program();
    let output = run(
        "sh",
        ["-c".as_ref(), script.as_ref(), program.as_os_str(), union.upper("").as_os_str()],
    );
    assert!(output.contains("clean; 100005 objects"), "{output}");
}
