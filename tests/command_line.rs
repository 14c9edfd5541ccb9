//! Command lines that are wrong, and what the program says about itself, through the real program.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

fn plyfs_as(name: &str, args: &[impl AsRef<OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
    command.arg0(name).args(args).env_remove("RUST_LOG").env_remove("PLYFS_LOG");
    command.output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Asserts that the arguments are refused with exactly this line, without its `plyfs: `.
fn refused(name: &str, args: &[impl AsRef<OsStr>], line: &str) {
    let output = plyfs_as(name, args);
    assert_eq!(stderr(&output), format!("plyfs: {line}\n"));
    assert_eq!(stdout(&output), "", "{line}");
    assert_eq!(output.status.code(), Some(2), "{line}");
}

#[test]
fn wrong_arguments_are_one_line() {
    let table: &[(&[&str], &str)] = &[
        (&[], "no mountpoint given; usage: plyfs -o lowerdir=DIR[:DIR...] MOUNTPOINT"),
        (&["mount"], "no mountpoint given; usage: plyfs -o lowerdir=DIR[:DIR...] MOUNTPOINT"),
        (&["-o", "lowerdir=a", ""], "the mountpoint is empty; name a directory"),
        (&["a", "b", "c"], "unexpected argument 'c' found; try `plyfs --help`"),
        (&["mount", "a", "b", "c"], "unexpected argument 'c' found; try `plyfs --help`"),
        (&["-x", "/m"], "unexpected argument '-x' found; try `plyfs --help`"),
        (
            &["--foregroun", "/m"],
            "unexpected argument '--foregroun' found; did you mean --foreground?",
        ),
        (
            &["-o"],
            "a value is required for '-o <OPTIONS>' but none was supplied; try `plyfs --help`",
        ),
        (&["image"], "a command is missing; try `plyfs --help`"),
        (&["store"], "a command is missing; try `plyfs --help`"),
        (&["imgae"], "`imgae` is no command, and no layers are named; try `plyfs --help`"),
        (
            &["image", "load", "-i", "a", "b"],
            "--input <FILE> does not go with [FILE]; try `plyfs --help`",
        ),
        (
            &["diff", "--format", "xml", "u"],
            "invalid value 'xml' for '--format <FORMAT>'; expected one of table, json",
        ),
        (&["umount"], "missing <MOUNTPOINT|NAME>; try `plyfs --help`"),
        (&["umount", "a", "b"], "unexpected argument 'b' found; try `plyfs --help`"),
        (&["umount", "-f", "a"], "unexpected argument '-f' found; try `plyfs --help`"),
        (
            &["a\nb", "c", "d\u{1b}[0m"],
            "unexpected argument 'd\\u{1b}[0m' found; try `plyfs --help`",
        ),
    ];
    for (args, line) in table {
        refused("plyfs", args, line);
    }
}

#[test]
fn wrong_mount_options_are_one_line_that_names_the_option() {
    let missing_work = "option workdir: missing; upperdir also needs workdir=DIR, \
                        an empty directory on the filesystem of upperdir";
    let missing_lower = "option lowerdir: missing; name the layers, top first: \
                         -o lowerdir=DIR[:DIR...]";
    let empty_layer = "option lowerdir: a layer has an empty path; \
                       write DIR:DIR, and `\\:` for a colon in a name";
    let mixed = "option lowerdir: after the first `::` every layer is data-only; \
                 separate all of them by `::`";
    let seconds = "option timeout: `soon` is not valid; expected a number of seconds, 0 or more";
    let plugins = "option plugins: plugins are not supported; \
                   leave the option out and name directories in lowerdir";
    let quote = "option context: `\"a:b,c` is not valid; \
                 expected a double quote at both ends or none";
    let triple = "option uidmapping: 0:1000: expected ON-DISK:SHOWN:LENGTH, three numbers a range";
    let overlap = "option gidmapping: 0:5:10:9:50:1: ranges 0:5:10 and 9:50:1 overlap";
    let table: &[(&str, &str)] = &[
        ("", missing_lower),
        ("upperdir=u,workdir=w", missing_lower),
        ("lowerdir", "option lowerdir: needs a value: lowerdir=DIR[:DIR...][::DIR...]"),
        ("lowerdir=a:", empty_layer),
        ("lowerdir=a::b:c", mixed),
        ("lowerdir=a,upperdir=u", missing_work),
        ("lowerdir=a,upperdir=,workdir=w", "option upperdir: the path is empty"),
        ("lowerdir=a,timeout=soon", seconds),
        ("lowerdir=a,threaded=yes", "option threaded: `yes` is not valid; expected 0 or 1"),
        ("lowerdir=a,volatile=1", "option volatile: takes no value; write `volatile`"),
        ("lowerdir=a,xino=1", "option xino: `1` is not valid; expected on, off or auto"),
        ("lowerdir=a,uidmapping=0:1000", triple),
        ("lowerdir=a,gidmapping=0:5:10:9:50:1", overlap),
        ("lowerdir=a,plugins=x", plugins),
        ("lowerdir=a,context=\"a:b,c", quote),
    ];
    for (options, line) in table {
        refused("plyfs", &["-o", options, "/m"], line);
        refused("plyfs", &["mount", "none", "/m", "-o", options], line);
        refused("fuse-overlayfs", &["-o", options, "/m"], line);
        refused("mount.plyfs", &["none", "/m", "-o", options], line);
    }
}

#[test]
fn what_is_not_there_is_named() {
    let table: &[(&[&str], i32, &str)] = &[
        (&["diff", "./no/upper"], 3, "no container and no upper layer `./no/upper`"),
        (&["image", "load", "/dev/null", "--store"], 1, "/dev/null: this is no image: "),
    ];
    let store = tempfile::tempdir().unwrap();
    for (args, status, beginning) in table {
        let args = args
            .iter()
            .map(OsStr::new)
            .chain(args.contains(&"--store").then_some(store.path().as_os_str()));
        let output = plyfs_as("plyfs", &args.collect::<Vec<_>>());
        let line = stderr(&output);
        assert!(line.starts_with(&format!("plyfs: {beginning}")), "{line}");
        assert_eq!((line.lines().count(), output.status.code()), (1, Some(*status)), "{line}");
    }
}

#[test]
fn bytes_that_are_not_text_are_refused_where_text_is_expected() {
    let options = OsStr::from_bytes(b"lowerdir=a,io=\xff");
    let line = "option io: `\u{fffd}` is not valid; \
                expected auto, zeroopen, passthrough or plain";
    refused("plyfs", &[OsStr::new("-o"), options, OsStr::new("/m")], line);
}

#[test]
fn unknown_options_warn_once_and_sloppy_helpers_do_not() {
    let warning = "plyfs: warning: unknown mount option ignored: zz\n";
    // A mount helper only checks the command line with -f, as mount(8) -f asks.
    let check = |flags: &str| {
        let options = "rw,zz=1,lowerdir=a,,zz,lazytime,x-a=b";
        plyfs_as("/sbin/mount.plyfs", &["none", "/m", flags, "-o", options])
    };
    let output = check("-fnv");
    assert_eq!((stdout(&output), stderr(&output)), ("", warning));
    assert!(output.status.success());
    let output = check("-sf");
    assert_eq!((stdout(&output), stderr(&output)), ("", ""));
    assert!(output.status.success());
}

#[test]
fn version_is_told_by_name() {
    let version = env!("CARGO_PKG_VERSION");
    let own = format!("plyfs {version}\n");
    for flag in ["-V", "--version"] {
        assert_eq!(stdout(&plyfs_as("plyfs", &[flag])), own);
        assert_eq!(stdout(&plyfs_as("mount.plyfs", &[flag])), own);
        let alias = format!("fuse-overlayfs: version {version} (plyfs)\n{own}");
        let output = plyfs_as("/usr/bin/fuse-overlayfs", &[flag]);
        assert_eq!(stdout(&output), alias);
        assert!(output.status.success());
    }
}

#[test]
fn help_goes_to_standard_output() {
    for name in ["plyfs", "mount.plyfs", "fuse-overlayfs"] {
        for flag in ["-h", "--help"] {
            let output = plyfs_as(name, &[flag]);
            assert!(output.status.success());
            assert_eq!(stderr(&output), "");
            assert!(stdout(&output).contains(&format!("Usage: {name} [SOURCE] MOUNTPOINT -o ")));
            let lists_options = stdout(&output).contains("\n  threaded=0|1\n");
            assert_eq!(lists_options, flag == "--help");
        }
    }
}
