//! The program dies at every step of an import, and what others do meanwhile.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use plyfs::sys::fault;

use crate::program::{Program, TestImage, archive, gzip};
use crate::server::{Server, Shelf};

/// The fault points of the store.
fn points() -> impl Iterator<Item = &'static str> {
    let of_the_store = |point: &&str| point.starts_with("import.") || point.starts_with("tags.");
    fault::POINTS.iter().copied().filter(of_the_store)
}

#[test]
fn a_load_that_dies_anywhere_leaves_a_sound_store() {
    for point in points() {
        let program = Program::new();
        // The store is made before: its own files come by the same points.
        program.says("image ls");
        program.write("image.tar", &archive(&TestImage::small().docker("app")));
        let mut load = program.command("image load image.tar");
        let died = load.env("PLYFS_FAULT", point).output().unwrap();
        assert_eq!(died.status.signal(), Some(9), "{point} was not reached");
        let verified = program.says("store verify --full");
        assert!(verified.ends_with("no problems\n"), "{point}: {verified}");
        let tagged = program.says("image ls -q").lines().count();
        assert_eq!(tagged, usize::from(point == "tags.published"), "{point}");
        // What was left behind goes, and the same works again.
        program.says("store gc");
        if tagged == 0 {
            assert_eq!(program.stored(), [""; 0], "{point}");
        }
        assert_eq!(program.says("image load image.tar"), "Loaded image: app:latest\n", "{point}");
        assert!(program.says("store verify --full").ends_with("no problems\n"), "{point}");
        program.says("image rm app");
        program.says("store gc");
        assert_eq!(program.stored(), [""; 0], "{point}");
    }
}

#[test]
fn a_pull_that_dies_anywhere_leaves_a_sound_store() {
    let shelf = Shelf::new(&TestImage::small().oci("x", gzip, "+gzip"), "1");
    let server = Server::new(move |asked| shelf.answer(asked));
    let pull = format!("image pull -q {}", server.name("x:1"));
    for point in points() {
        let program = Program::new();
        program.says("image ls");
        let died = program.command(&pull).env("PLYFS_FAULT", point).output().unwrap();
        assert_eq!(died.status.signal(), Some(9), "{point} was not reached");
        assert!(program.says("store verify --full").ends_with("no problems\n"), "{point}");
        program.says("store gc");
        let tagged = program.says("image ls -q").lines().count();
        assert_eq!(tagged, usize::from(point == "tags.published"), "{point}");
        assert_eq!(program.stored().is_empty(), tagged == 0, "{point}");
        program.says(&pull);
        assert!(program.says("store verify --full").ends_with("no problems\n"), "{point}");
    }
}

#[test]
fn a_retry_without_gc_works() {
    for point in points() {
        let program = Program::new();
        program.says("image ls");
        program.write("image.tar", &archive(&TestImage::small().docker("app")));
        program.command("image load image.tar").env("PLYFS_FAULT", point).output().unwrap();
        assert_eq!(program.says("image load image.tar"), "Loaded image: app:latest\n", "{point}");
        assert!(program.says("store verify --full").ends_with("no problems\n"), "{point}");
    }
}

#[test]
fn many_may_load_the_same_image_at_once_while_garbage_is_collected() {
    let program = Program::new();
    let image = TestImage::small();
    program.write("image.tar", &archive(&image.docker("app")));
    let loads: Vec<_> = (0..4)
        .map(|at| {
            let words = format!("image load -q -t app:{at} image.tar");
            let mut load = program.command(&words);
            load.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            (load.spawn().unwrap(), program.command("store gc").spawn().unwrap())
        })
        .collect();
    for (at, (load, mut gc)) in loads.into_iter().enumerate() {
        let output = load.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("Loaded image: app:{at}\n"));
        assert!(gc.wait().unwrap().success());
    }
    assert_eq!(program.says("image ls -q").lines().count(), 4);
    let verified = program.says("store verify --full");
    assert!(verified.starts_with("1 image, 2 layers, 3 contents: no problems"), "{verified}");
}
