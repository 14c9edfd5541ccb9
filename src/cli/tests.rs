use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::mount::Plan;
use super::*;
use crate::container::{Changes, ImageMount};
use crate::mount::request::MountRequest;

fn request(argv: &[&str]) -> Result<MountRequest, CliError> {
    let argv: Vec<&OsStr> = argv.iter().map(OsStr::new).collect();
    request_of(&argv)
}

fn request_of(argv: &[&OsStr]) -> Result<MountRequest, CliError> {
    let called_as = CalledAs::from_argv0(Some(argv[0]));
    let matches = called_as.command().try_get_matches_from(argv)?;
    match parsed(called_as, &matches)? {
        Subcommands::Mount(args) => match args.plan(called_as)? {
            Plan::Layers(request) => Ok(request),
            Plan::Image(..) => panic!("an image: {argv:?}"),
        },
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
fn a_line_that_begins_with_options_is_read_without_commands_to_the_same_end() {
    let lines: &[&[&str]] = &[
        &["-o", "lowerdir=a,upperdir=b,workdir=c,,volatile", "/mnt"],
        &["-olowerdir=a", "none", "/mnt", "-o", "ro", "-f"],
        &["-o", "lowerdir=a", "image", "ls"],
        &["-o", "lowerdir=a", "-o", "-x", "-rr", "--name", "box", "--", "/mnt"],
    ];
    for called_as in [CalledAs::Plyfs, CalledAs::MountHelper, CalledAs::FuseOverlayfs] {
        for line in lines {
            let args: Vec<OsString> = line.iter().map(OsString::from).collect();
            let argv = [OsString::from("plyfs")].into_iter().chain(args.clone());
            let matches = called_as.command().try_get_matches_from(argv).unwrap();
            let Subcommands::Mount(whole) = parsed(called_as, &matches).unwrap() else {
                panic!("not a mount: {line:?}");
            };
            let short = options_first(called_as, &args).unwrap();
            assert_eq!(format!("{short:?}"), format!("{whole:?}"), "{line:?}");
        }
        for line in [&["-o", "x", "--help"][..], &["-o"], &["-o", "x", "--wrong"], &["ps"], &[]] {
            let args: Vec<OsString> = line.iter().map(OsString::from).collect();
            assert!(options_first(called_as, &args).is_none(), "{line:?}");
        }
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
fn the_store_may_stand_before_the_command() {
    for (before, after) in [
        ("--store /s image ls", "image --store /s ls"),
        ("--store=/s ps -a", "ps --store=/s -a"),
        ("--store /s run app ls", "run --store /s app ls"),
        // No command: an image is mounted.
        ("--store /s app /mnt", "--store /s app /mnt"),
        ("--store", "--store"),
    ] {
        let mut args: Vec<OsString> = before.split(' ').map(OsString::from).collect();
        put_store_behind_command(&mut args);
        assert_eq!(args, after.split(' ').collect::<Vec<_>>());
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

fn image(argv: &[&str]) -> Result<ImageMount, CliError> {
    let called_as = CalledAs::from_argv0(Some(OsStr::new(argv[0])));
    let matches = called_as.command().try_get_matches_from(argv)?;
    match parsed(called_as, &matches)? {
        Subcommands::Mount(args) => match args.plan(called_as)? {
            Plan::Image(_, wanted) => Ok(wanted),
            Plan::Layers(request) => panic!("no image: {request:?}"),
        },
        _ => panic!("not a mount: {argv:?}"),
    }
}

#[test]
fn a_source_is_an_image_where_no_layers_are_named() {
    let new = Changes::Container(None);
    let web = Changes::Container(Some("web".into()));
    let upper = Changes::Upper("u".into());
    let forms: &[(&[&str], Option<&str>, &Changes)] = &[
        (&["plyfs", "mount", "app", "/m"], Some("app"), &new),
        (&["plyfs", "app:1", "/m", "-o", "volatile"], Some("app:1"), &new),
        (&["mount.plyfs", "app", "/m", "-o", "rw"], Some("app"), &new),
        (&["plyfs", "mount", "app", "/m", "-o", "ro"], Some("app"), &Changes::None),
        (&["plyfs", "mount", "-r", "app", "/m"], Some("app"), &Changes::None),
        (&["plyfs", "mount", "--name", "web", "app", "/m"], Some("app"), &web),
        (&["plyfs", "mount", "--name", "web", "-r", "app", "/m"], Some("app"), &web),
        (&["plyfs", "mount", "--name", "web", "/m"], None, &web),
        (&["plyfs", "mount", "--upper", "u", "app", "/m"], Some("app"), &upper),
        (&["mount.plyfs", "app", "/m", "-o", "container=web,store=/s"], Some("app"), &web),
        (&["plyfs", "app", "/m", "-o", "container=a", "--name", "web"], Some("app"), &web),
        (&["plyfs", "none", "/m", "-o", "container=web"], None, &web),
    ];
    for (argv, source, changes) in forms {
        let wanted = image(argv).unwrap();
        assert_eq!((wanted.image.as_deref(), &wanted.changes), (*source, *changes), "{argv:?}");
        assert_eq!(wanted.request.mountpoint, Path::new("/m"), "{argv:?}");
    }
}

#[test]
fn a_line_of_fstab_can_be_remounted() {
    let options = "remount,ro,container=web,store=/s";
    assert!(request(&["mount.plyfs", "app", "/m", "-o", options]).unwrap().options.vfs.remount);
}

#[test]
fn what_is_for_images_does_not_go_with_layers() {
    let missing = "option lowerdir: missing";
    for (argv, line) in [
        (&["plyfs", "none", "/m"][..], missing),
        (&["plyfs", "/m"], missing),
        (&["fuse-overlayfs", "app", "/m"], missing),
        (&["plyfs", "app", "/m", "-o", "upperdir=u,workdir=w"], missing),
        (&["plyfs", "-o", "lowerdir=a", "/m", "--name", "web"], "--name does not go with lowerdir"),
        (&["plyfs", "-o", "lowerdir=a", "/m", "--store", "s"], "--store does not go with lowerdir"),
        (&["plyfs", "/m", "--upper", "u"], "--upper: no image is named"),
        (&["plyfs", "-o", "lowerdir=a,container=web", "/m"], "container does not go with lowerdir"),
        (
            &["plyfs", "app", "/m", "--upper", "u", "--name", "web"],
            "--name does not go with --upper",
        ),
    ] {
        let refused = image(argv).unwrap_err().to_string();
        assert!(refused.starts_with(line), "{argv:?}: {refused}");
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
