//! Redirects and metacopy files that lead out of the union, in circles, or nowhere.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::time::Duration;

use rustix::io::Errno;

use super::canary::{Canary, assert_opened_beneath};
use super::listing;
use crate::needs_root;
use crate::support::posix::{append, errno, exists, lstat, names, run, set_xattr, text, try_lstat};
use crate::support::{Union, tree};

/// Ways out of the union, as a redirect would put them. `OUTSIDE` is the path of a directory of the host.
fn hostile_redirects(outside: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "/.",
        "/..",
        "../..",
        "../../../../../../etc",
        "/../../etc",
        "a/b",
        "/a/../../b",
        "/d/.",
        "/d/..",
        "./d",
        "/d/",
        "//d",
        "a\0b",
        "/a\0b",
        "\0",
        "link/sub",
        "secret/",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    all.push(b"n".repeat(256));
    all.push([b"/".to_vec(), b"n".repeat(256)].concat());
    all.push(b"/..".repeat(1200));
    all.push(format!("..{outside}").into_bytes());
    all
}

#[test]
fn redirects_that_are_none_are_errors_of_their_directory_alone() {
    needs_root!();
    let canary = Canary::new();
    let outside = canary.path("").display().to_string();
    for space in ["trusted", "user"] {
        for in_upper in [false, true] {
            let redirects = hostile_redirects(&outside);
            let fill = |dir: &std::path::Path| {
                for (at, redirect) in redirects.iter().enumerate() {
                    let path = dir.join(format!("d{at}"));
                    fs::create_dir(&path).unwrap();
                    set_xattr(&path, &format!("{space}.overlay.redirect"), redirect).unwrap();
                }
                tree::make(dir, "f good/file text=good");
            };
            let lower = "f good/below text=below\nf d/x\nf d0/x\nf a/b/x\nf b/x";
            let builder = if in_upper {
                Union::new().upper_with(fill)
            } else {
                Union::new().lower_with(fill)
            };
            let union = builder.lower(lower).mount();
            for (at, redirect) in redirects.iter().enumerate() {
                let found = listing(union.path(format!("d{at}")));
                assert_eq!(found, Err(Errno::IO), "{}", redirect.escape_ascii());
            }
            assert_eq!(names(union.path("good")), ["below", "file"]);
            let log = union.live().log();
            let layer = match in_upper {
                true => "upper layer: ".to_owned(),
                false => format!("lower layer {}: ", union.scratch().join("lower0").display()),
            };
            for at in 0..redirects.len() {
                let name = format!("/d{at}: ");
                let named = |line: &str| line.contains(&layer) && line.contains(&name);
                assert!(log.lines().any(named), "{name}{log}");
            }
            canary.assert_untouched(union.live().pid(), "hostile redirects");
        }
    }
}

#[test]
fn redirects_longer_than_any_path_are_followed_or_errors() {
    needs_root!();
    let union = Union::new()
        .lower_with(|dir| {
            // Where attributes may be as long as the kernel allows.
            run("mount", ["-t", "tmpfs", "none", dir.to_str().unwrap()]);
            let redirects = [b"/..".repeat(20_000), b"/d".repeat(30_000), b"/".repeat(65_536)];
            for (at, redirect) in redirects.iter().enumerate() {
                let path = dir.join(format!("d{at}"));
                fs::create_dir(&path).unwrap();
                set_xattr(&path, "trusted.overlay.redirect", redirect).unwrap();
            }
        })
        .lower("f d/d/x\nf d0/x\nf d1/x\nf d2/x")
        .mount();
    let found = ["d0", "d1", "d2"].map(|name| listing(union.path(name)));
    assert_eq!(found, [Err(Errno::IO), Ok(Vec::new()), Err(Errno::IO)]);
    assert_eq!(names(union.path("d/d")), ["x"]);
}

#[test]
fn redirects_through_and_to_other_things_show_nothing_of_the_host() {
    needs_root!();
    let canary = Canary::new();
    let scratch = crate::support::Scratch::new();
    let trace = scratch.path().join("trace");
    let outside = canary.path("");
    let upper = "d to-link trusted.overlay.redirect=/link\nd through-link trusted.overlay.redirect=/link/sub
        d to-file trusted.overlay.redirect=/file\nd through-file trusted.overlay.redirect=/file/sub
        d to-fifo trusted.overlay.redirect=/fifo\nd nowhere trusted.overlay.redirect=/absent
        d bytes trusted.overlay.redirect=\"/\\xff\\xfe\"\nd deleted trusted.overlay.redirect=/gone
        d itself trusted.overlay.redirect=/itself\nd sibling trusted.overlay.redirect=link";
    let union = Union::new()
        .upper(upper)
        .lower("w gone")
        .lower_with(|dir| {
            tree::make(dir, "f file text=file\np fifo\nf gone/x\nf itself/x");
            symlink(&outside, dir.join("link")).unwrap();
            fs::create_dir(dir.join(crate::support::posix::name(b"\xff\xfe"))).unwrap();
            fs::write(dir.join(crate::support::posix::name(b"\xff\xfe")).join("inside"), "")
                .unwrap();
        })
        .wrapper(&[
            "strace",
            "-D",
            "-f",
            "-qq",
            "-s",
            "300",
            "-e",
            "trace=open,openat,openat2,creat,open_by_handle_at",
            "-o",
            trace.to_str().unwrap(),
        ])
        .mount();
    for name in [
        "to-link",
        "through-link",
        "to-file",
        "through-file",
        "to-fifo",
        "nowhere",
        "deleted",
        "sibling",
    ] {
        assert_eq!(names(union.path(name)), [""; 0], "{name}");
        fs::write(union.path(name).join("new"), "new").unwrap();
        assert_eq!(names(union.path(name)), ["new"], "{name}");
    }
    assert_eq!(names(union.path("itself")), ["x"]);
    assert_eq!(names(union.path("bytes")), ["inside"]);
    canary.assert_untouched(union.live().pid(), "redirects through links");
    assert_opened_beneath(&trace);
}

#[test]
fn heavy_redirects_that_lead_through_each_other_come_to_an_end() {
    needs_root!();
    // In each layer the directories on the way are redirected along the same way, into the layer below.
    const LAYERS: usize = 14;
    let way = "/w".repeat(12);
    let mut builder = Union::new();
    for _ in 0..LAYERS {
        builder = builder.lower_with(|dir| {
            tree::make(dir, &format!("d {}\nd start\nf good/file", &way[1..]));
            let mut path = dir.to_owned();
            for _ in 0..12 {
                path.push("w");
                set_xattr(&path, "trusted.overlay.redirect", way.as_bytes()).unwrap();
            }
            set_xattr(dir.join("start"), "trusted.overlay.redirect", way.as_bytes()).unwrap();
        });
    }
    let union = builder.unchecked_lowers().lifetime(Duration::from_secs(100)).mount();
    assert_eq!(listing(union.path("start")), Err(Errno::IO));
    assert!(union.live().log().contains("redirects lead through more than"));
    assert_eq!(names(union.path("good")), ["file"]);
}

#[test]
fn a_redirect_in_every_layer_is_followed() {
    needs_root!();
    let mut builder = Union::new();
    for layer in 0..40 {
        let redirect =
            if layer % 2 == 0 { format!("/n{}", layer + 1) } else { format!("n{}", layer + 1) };
        builder = builder.lower(&format!(
            "f n{layer}/file{layer}\nd n{layer} trusted.overlay.redirect={redirect}"
        ));
    }
    let union = builder.lower("f n40/last").mount();
    assert_eq!(names(union.path("n0")).len(), 41);
}

/// A file without data that says where else it is.
fn metacopy(dir: &std::path::Path, name: &str, redirect: Option<&[u8]>, mark: &[u8], size: u64) {
    tree::make(dir, &format!("f {name}"));
    let file = fs::File::options().write(true).open(dir.join(name)).unwrap();
    file.set_len(size).unwrap();
    set_xattr(dir.join(name), "trusted.overlay.metacopy", mark).unwrap();
    if let Some(redirect) = redirect {
        set_xattr(dir.join(name), "trusted.overlay.redirect", redirect).unwrap();
    }
}

#[test]
fn metacopy_files_without_data_are_errors_and_lead_nowhere() {
    needs_root!();
    let canary = Canary::new();
    let outside = canary.path("").display().to_string();
    let outside_file = canary.path("secret").display().to_string();
    let mut redirects = hostile_redirects(&outside);
    for text in [
        "/directory",
        "/link",
        "/link/secret",
        "/fifo",
        "/gone",
        "/absent",
        "link",
        "fifo",
        "/m0",
        &outside_file,
        "/outside",
    ] {
        redirects.push(text.as_bytes().to_vec());
    }
    for in_upper in [false, true] {
        let fill = |dir: &std::path::Path| {
            for (at, redirect) in redirects.iter().enumerate() {
                metacopy(dir, &format!("m{at}"), Some(redirect), b"", 6);
            }
            metacopy(dir, "loop", Some(b"/loop"), b"", 6);
            metacopy(dir, "huge", Some(b"/data"), b"", 1 << 43);
            metacopy(
                dir,
                "digest",
                Some(b"/data"),
                b"\0\x24\x01\x01 and thirty-two bytes of a digest",
                4,
            );
            metacopy(dir, "garbage", Some(b"/data"), &[0xff; 4000], 4);
        };
        let builder =
            if in_upper { Union::new().upper_with(fill) } else { Union::new().lower_with(fill) };
        let union = builder
            .lower("w gone")
            .lower_with(|dir| {
                tree::make(dir, "d directory\np fifo\nf gone text=secret\nf data text=data");
                symlink(&outside, dir.join("link")).unwrap();
                symlink(canary.path("secret"), dir.join("outside")).unwrap();
            })
            .unchecked_lowers()
            .mount();
        for (at, redirect) in redirects.iter().enumerate() {
            let path = union.path(format!("m{at}"));
            let why = format!("upper: {in_upper}, {}", redirect.escape_ascii());
            assert_eq!(errno(fs::read(&path)), Errno::IO, "{why}");
            let written = fs::File::options()
                .append(true)
                .open(&path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, b"+"));
            assert_eq!(errno(written), Errno::IO, "{why}");
            fs::remove_file(&path).unwrap_or_else(|error| panic!("{why}: {error}"));
            assert!(!exists(&path));
        }
        assert_eq!(errno(fs::read(union.path("loop"))), Errno::IO);
        for name in ["digest", "garbage"] {
            assert_eq!(text(union.path(name)), "data");
        }
        assert_eq!(lstat(union.path("huge")).st_size, 1 << 43);
        let mut start = [0; 100];
        let count = fs::File::open(union.path("huge")).unwrap().read_at(&mut start, 0).unwrap();
        assert_eq!(&start[..count], b"data", "upper: {in_upper}");
        append(union.path("digest"), "+");
        assert_eq!(text(union.path("digest")), "data+");
        canary.assert_untouched(union.live().pid(), "metacopy");
    }
}

#[test]
fn files_in_data_only_layers_are_data_and_nothing_else() {
    needs_root!();
    let canary = Canary::new();
    let mut union = Union::new()
        .lower_with(|dir| {
            for name in ["self", "plain", "link", "through", "fifo", "dir", "missing"] {
                let redirect = format!("/objects/{name}");
                metacopy(dir, name, Some(redirect.as_bytes()), b"", 4);
            }
        })
        .data_layer("d objects\nf objects/plain text=data")
        .mount();
    union.unmount();
    let data = union.scratch().join("data0/objects");
    metacopy(&data, "self", Some(b"/objects/self"), b"", 4);
    fs::write(data.join("self"), "mine").unwrap();
    symlink(canary.path("secret"), data.join("link")).unwrap();
    symlink(canary.path(""), data.join("through")).unwrap();
    tree::make(&data, "p fifo\nd dir");
    union.start();
    assert_eq!(text(union.path("self")), "mine");
    assert_eq!(text(union.path("plain")), "data");
    for name in ["link", "through", "fifo", "dir", "missing"] {
        assert_eq!(errno(fs::read(union.path(name))), Errno::IO, "{name}");
    }
    assert_eq!(try_lstat(union.path("objects")).err(), Some(Errno::NOENT));
    canary.assert_untouched(union.live().pid(), "data-only layers");
}
