use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::*;
use crate::mount::request::MountRequest;

fn request(argv: &[&str]) -> Result<MountRequest, CliError> {
    let argv: Vec<&OsStr> = argv.iter().map(OsStr::new).collect();
    request_of(&argv)
}

fn request_of(argv: &[&OsStr]) -> Result<MountRequest, CliError> {
    let called_as = CalledAs::from_argv0(Some(argv[0]));
    let matches = called_as.command().try_get_matches_from(argv)?;
    match parsed(called_as, &matches)? {
        Subcommands::Mount(args) => args.request(called_as),
        _ => panic!("not a mount: {argv:?}"),
    }
}

#[test]
fn clap_finds_no_fault_with_the_definition() {
    for called_as in [CalledAs::Plyfs, CalledAs::MountHelper, CalledAs::FuseOverlayfs] {
        called_as.command().debug_assert();
    }
}

#[test]
fn options_stand_before_between_or_after_the_paths() {
    let forms: &[&[&str]] = &[
        &["plyfs", "-o", "lowerdir=a,ro", "none", "/mnt"],
        &["plyfs", "none", "-o", "lowerdir=a,ro", "/mnt"],
        &["plyfs", "none", "/mnt", "-o", "lowerdir=a,ro"],
        &["plyfs", "none", "-olowerdir=a", "/mnt", "-oro"],
        &["plyfs", "none", "-o", "lowerdir=a", "-r", "--", "/mnt"],
        &["plyfs", "mount", "none", "/mnt", "-o", "lowerdir=a,ro"],
        &["plyfs", "mount", "-rolowerdir=a", "none", "/mnt"],
        &["mount.plyfs", "none", "/mnt", "-o", "lowerdir=a,ro"],
        &["mount.plyfs", "none", "/mnt", "-sfnvr", "-o", "lowerdir=a", "-t", "plyfs"],
    ];
    for form in forms {
        let request = request(form).unwrap();
        assert_eq!(request.source.as_deref(), Some(OsStr::new("none")), "{form:?}");
        assert_eq!(request.mountpoint, Path::new("/mnt"), "{form:?}");
        assert_eq!(request.options.lower, [Path::new("a")], "{form:?}");
        assert_eq!(request.options.vfs.read_only, Some(true), "{form:?}");
        assert_eq!(request.type_name, "fuse.plyfs", "{form:?}");
        assert!(!request.foreground && !request.debug, "{form:?}");
    }
}

#[test]
fn a_single_path_is_the_mountpoint() {
    let request = request(&["plyfs", "-o", "lowerdir=a", "/mnt"]).unwrap();
    assert_eq!((request.source, request.mountpoint.as_path()), (None, Path::new("/mnt")));
}

#[test]
fn names_of_commands_are_paths_where_no_command_can_stand() {
    let pairs = |argv: &[&str]| {
        let request = request(argv).unwrap();
        (request.source, request.mountpoint)
    };
    let one = |mountpoint: &str| (None, mountpoint.into());
    let two = |source: &str, mountpoint: &str| (Some(source.into()), mountpoint.into());
    assert_eq!(pairs(&["plyfs", "-o", "lowerdir=a", "umount"]), one("umount"));
    assert_eq!(pairs(&["plyfs", "./umount", "-o", "lowerdir=a"]), one("./umount"));
    assert_eq!(pairs(&["plyfs", "none", "umount", "-o", "lowerdir=a"]), two("none", "umount"));
    assert_eq!(pairs(&["plyfs", "-olowerdir=a", "--", "mount", "-x"]), two("mount", "-x"));
    assert_eq!(pairs(&["plyfs", "help", "-o", "lowerdir=a"]), one("help"));
    let argv = ["plyfs", "mount", "mount", "generate", "-o", "lowerdir=a"];
    assert_eq!(pairs(&argv), two("mount", "generate"));
    for name in ["fuse-overlayfs", "mount.fuse.plyfs"] {
        assert_eq!(pairs(&[name, "umount", "-o", "lowerdir=a"]), one("umount"));
        assert_eq!(pairs(&[name, "mount", "m", "-o", "lowerdir=a"]), two("mount", "m"));
    }
}

#[test]
fn flags_add_to_the_options() {
    let request = |flags: &[&str]| {
        request(&[&["plyfs", "-o", "lowerdir=a,max_threads=8", "/mnt"], flags].concat()).unwrap()
    };
    assert!(request(&["-f", "-f"]).foreground);
    assert!(request(&["--foreground"]).foreground);
    for debug in [&["-d"][..], &["--debug"], &["-o", "debug"]] {
        let request = request(debug);
        assert!(request.debug && request.foreground, "{debug:?}");
    }
    assert_eq!(request(&["-s"]).options.threads, Some(1));
    assert_eq!(request(&["-n", "-v"]).options.threads, Some(8));
    assert_eq!(request(&["-r"]).options.vfs.read_only, Some(true));
    assert_eq!(request(&["-w", "-o", "ro"]).options.vfs.read_only, Some(false));
}

#[test]
fn foreground_and_single_mean_something_else_to_mount_helpers() {
    let argv = ["mount.plyfs", "none", "/mnt", "-o", "lowerdir=a", "-f", "-s"];
    let request = request(&argv).unwrap();
    assert!(!request.foreground);
    assert_eq!(request.options.threads, None);
}

#[test]
fn the_name_decides_the_type() {
    let request = request(&["/usr/bin/fuse-overlayfs", "-o", "lowerdir=a", "/mnt"]).unwrap();
    assert_eq!(request.type_name, "fuse.fuse-overlayfs");
    assert_eq!(request.program(), "fuse-overlayfs");
}

#[test]
fn paths_need_not_be_text() {
    let bytes = [&b"plyfs"[..], b"\xff", b"/m\xfe", b"-olowerdir=\xfd:b"];
    let argv: Vec<&OsStr> = bytes.iter().map(|bytes| OsStr::from_bytes(bytes)).collect();
    let request = request_of(&argv).unwrap();
    assert_eq!(request.source.as_deref(), Some(argv[1]));
    assert_eq!(request.mountpoint, Path::new(argv[2]));
    assert_eq!(request.options.lower[0], Path::new(OsStr::from_bytes(b"\xfd")));
}
