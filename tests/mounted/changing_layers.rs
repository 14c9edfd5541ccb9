//! Lower layers that somebody changes behind the mount: with `timeout=` it is seen in time, and without it nothing
//! worse happens than that it is not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::support::posix::{append, chmod, errno, exists, mode, names, set_xattr, text, xattrs};
use crate::support::{Builder, Union};
use crate::{isolated, needs_root, not_with};

/// Mounts so that changes are seen at once.
fn mount(builder: Builder) -> Union {
    builder.option("timeout=0").unchecked_lowers().mount()
}

/// Puts another file in the place of one, in one step.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Each of these holds whoever mounts.
const SCENES: [fn(); 12] = [
    names_come_and_go,
    marks_come_and_go,
    attributes_and_contents_change,
    a_replaced_file_stays_itself_for_who_has_it_open,
    a_file_that_is_cut_short_is_read_short,
    directories_are_replaced,
    types_change,
    a_name_gets_another_topmost_layer,
    a_reader_of_a_directory_keeps_his_place,
    changes_through_the_mount_meet_changes_behind_it,
    hard_links_lose_names,
    open_files_of_replaced_directories_can_be_changed,
];

fn names_come_and_go() {
    let union = mount(Union::new().lower("f a\nf d/old text=old").lower("f d/below\nf e/x"));
    assert_eq!(names(union.path("")), ["a", "d", "e"]);
    assert_eq!(names(union.path("d")), ["below", "old"]);
    assert!(!exists(union.path("d/new")));
    let kept = (inode(union.path("d/old")), inode(union.path("d")));
    for layer in [0, 1] {
        fs::write(union.lower(layer, "d/new"), "new").unwrap();
        assert_eq!(text(union.path("d/new")), "new");
        assert_eq!(names(union.path("d")), ["below", "new", "old"]);
        fs::remove_file(union.lower(layer, "d/new")).unwrap();
        assert!(!exists(union.path("d/new")));
        assert_eq!(names(union.path("d")), ["below", "old"]);
    }
    fs::create_dir(union.lower(1, "made")).unwrap();
    fs::write(union.lower(1, "made/x"), "x").unwrap();
    assert_eq!(text(union.path("made/x")), "x");
    fs::create_dir(union.lower(0, "e")).unwrap();
    fs::write(union.lower(0, "e/y"), "y").unwrap();
    assert_eq!(names(union.path("e")), ["x", "y"]);
    fs::remove_dir_all(union.lower(1, "e")).unwrap();
    assert_eq!(names(union.path("e")), ["y"]);
    fs::remove_dir_all(union.lower(0, "e")).unwrap();
    assert!(!exists(union.path("e")));
    assert_eq!((inode(union.path("d/old")), inode(union.path("d"))), kept);
}

fn marks_come_and_go() {
    let union =
        mount(Union::new().lower("f d/top\nd e").lower("f d/x text=x\nf d/y\nf e/z\nf f/w"));
    assert_eq!(names(union.path("d")), ["top", "x", "y"]);
    fs::write(union.lower(0, "d/.wh.x"), "").unwrap();
    assert!(!exists(union.path("d/x")));
    assert_eq!(names(union.path("d")), ["top", "y"]);
    fs::remove_file(union.lower(0, "d/.wh.x")).unwrap();
    assert_eq!(text(union.path("d/x")), "x");
    let opaque = |value: &[u8]| set_xattr(union.lower(0, "d"), "user.overlay.opaque", value);
    opaque(b"y").unwrap();
    assert_eq!(names(union.path("d")), ["top"]);
    opaque(b"n").unwrap();
    assert_eq!(names(union.path("d")), ["top", "x", "y"]);
    fs::write(union.lower(0, "d/.wh..wh..opq"), "").unwrap();
    assert!(!exists(union.path("d/y")));
    set_xattr(union.lower(0, "e"), "user.overlay.redirect", b"/f").unwrap();
    assert_eq!(names(union.path("e")), ["w"]);
}

fn attributes_and_contents_change() {
    let union = mount(Union::new().lower("f d/a text=one mode=0644"));
    let mut open = File::open(union.path("d/a")).unwrap();
    let mut read = || {
        let mut seen = String::new();
        open.seek(SeekFrom::Start(0)).unwrap();
        open.read_to_string(&mut seen).unwrap();
        seen
    };
    assert_eq!(read(), "one");
    chmod(union.lower(0, "d/a"), 0o600).unwrap();
    assert_eq!(mode(union.path("d/a")), 0o600);
    let number = inode(union.path("d/a"));
    append(union.lower(0, "d/a"), " and two");
    assert_eq!((text(union.path("d/a")), read()), ("one and two".into(), "one and two".into()));
    fs::write(union.lower(0, "d/a"), "3").unwrap();
    assert_eq!((text(union.path("d/a")), read()), ("3".into(), "3".into()));
    assert_eq!(inode(union.path("d/a")), number);
    assert_eq!(xattrs(union.path("d/a")), Vec::<String>::new());
    set_xattr(union.lower(0, "d/a"), "user.x", b"new").unwrap();
    assert_eq!(xattrs(union.path("d/a")), ["user.x"]);
}

fn a_replaced_file_stays_itself_for_who_has_it_open() {
    let union = mount(Union::new().lower("f d/a text=old\nf d/b text=other"));
    let (number, other) = (inode(union.path("d/a")), inode(union.path("d/b")));
    let open = File::open(union.path("d/a")).unwrap();
    let unread = File::open(union.path("d/a")).unwrap();
    let whole = |file: &File| {
        let mut bytes = [0; 64];
        let count = file.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    assert_eq!(whole(&open), "old");
    for new in ["the second", "3rd"] {
        replace(&union.lower(0, "d/a"), new);
        assert_eq!(text(union.path("d/a")), new);
        assert_eq!((whole(&open), whole(&unread)), ("old".into(), "old".into()));
        assert_eq!((open.metadata().unwrap().len(), open.metadata().unwrap().ino()), (3, number));
        assert_ne!(inode(union.path("d/a")), number);
    }
    fs::remove_file(union.lower(0, "d/a")).unwrap();
    assert_eq!(errno(File::open(union.path("d/a"))), Errno::NOENT);
    assert_eq!(whole(&open), "old");
    assert_eq!(inode(union.path("d/b")), other);
}

fn a_file_that_is_cut_short_is_read_short() {
    let union = mount(Union::new().lower_with(|dir| {
        fs::write(dir.join("a"), vec![b'x'; 1 << 20]).unwrap();
    }));
    let mut open = File::open(union.path("a")).unwrap();
    let mut bytes = vec![0; 1 << 16];
    open.read_exact(&mut bytes).unwrap();
    File::options().write(true).open(union.lower(0, "a")).unwrap().set_len(100_000).unwrap();
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, vec![b'x'; 100_000 - (1 << 16)]);
    assert_eq!(fs::read(union.path("a")).unwrap(), vec![b'x'; 100_000]);
}

fn directories_are_replaced() {
    let union =
        mount(Union::new().lower("f d/e/a text=a\nf d/both text=0").lower("f d/e/b\nf d/both"));
    assert_eq!(names(union.path("d/e")), ["a", "b"]);
    let inside = File::open(union.path("d/e")).unwrap();
    let number = inode(union.path("d/both"));
    // The part of the lower layer alone: the directory stays.
    fs::rename(union.lower(1, "d/e"), union.lower(1, "d/away")).unwrap();
    fs::create_dir(union.lower(1, "d/e")).unwrap();
    fs::write(union.lower(1, "d/e/c"), "c").unwrap();
    assert_eq!(names(union.path("d/e")), ["a", "c"]);
    assert_eq!(text(union.path("d/e/c")), "c");
    // And the topmost: another directory is there now, and the other is as if it had been deleted.
    fs::rename(union.lower(0, "d/e"), union.lower(0, "d/gone")).unwrap();
    fs::create_dir(union.lower(0, "d/e")).unwrap();
    fs::write(union.lower(0, "d/e/a"), "another").unwrap();
    assert_eq!(names(union.path("d/e")), ["a", "c"]);
    assert_eq!(text(union.path("d/e/a")), "another");
    assert_eq!(text(union.path("d/gone/a")), "a");
    assert_eq!(names(union.path("d")), ["away", "both", "e", "gone"]);
    let lost = rustix::fs::statat(&inside, "a", AtFlags::empty());
    assert!(matches!(lost, Err(Errno::NOENT | Errno::STALE)), "{lost:?}");
    let made = rustix::fs::openat(&inside, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
    assert!(matches!(made, Err(Errno::NOENT | Errno::STALE)), "{made:?}");
    assert_eq!(inode(union.path("d/both")), number);
    // The same a level up.
    fs::rename(union.lower(0, "d"), union.lower(0, "old")).unwrap();
    fs::create_dir_all(union.lower(0, "d/e")).unwrap();
    fs::write(union.lower(0, "d/e/n"), "n").unwrap();
    assert_eq!(names(union.path("d/e")), ["c", "n"]);
    assert_eq!(text(union.path("old/e/a")), "another");
}

fn types_change() {
    let union = mount(Union::new().lower("f a text=file\nf d/x\nl l to=a"));
    assert_eq!((text(union.path("a")), names(union.path("d"))), ("file".into(), vec!["x".into()]));
    fs::read_link(union.path("l")).unwrap();
    fs::remove_file(union.lower(0, "a")).unwrap();
    fs::create_dir(union.lower(0, "a")).unwrap();
    fs::write(union.lower(0, "a/inside"), "").unwrap();
    fs::remove_dir_all(union.lower(0, "d")).unwrap();
    fs::write(union.lower(0, "d"), "was a directory").unwrap();
    fs::remove_file(union.lower(0, "l")).unwrap();
    symlink("d", union.lower(0, "l")).unwrap();
    assert_eq!(names(union.path("a")), ["inside"]);
    assert_eq!(text(union.path("l")), "was a directory");
    for _ in 0..20 {
        fs::remove_file(union.lower(0, "l")).unwrap();
        fs::write(union.lower(0, "l"), "file").unwrap();
        assert_eq!(text(union.path("l")), "file");
        fs::remove_file(union.lower(0, "l")).unwrap();
        symlink("nowhere", union.lower(0, "l")).unwrap();
        assert_eq!(fs::read_link(union.path("l")).unwrap(), Path::new("nowhere"));
    }
}

fn a_name_gets_another_topmost_layer() {
    let union = mount(Union::new().lower("d d").lower("f d/a text=below").upper("f d/u"));
    assert_eq!(text(union.path("d/a")), "below");
    let open = File::open(union.path("d/a")).unwrap();
    fs::write(union.lower(0, "d/a"), "above").unwrap();
    assert_eq!(text(union.path("d/a")), "above");
    let mut bytes = [0; 5];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"below");
    fs::remove_file(union.lower(0, "d/a")).unwrap();
    assert_eq!(text(union.path("d/a")), "below");
    assert_eq!(names(union.path("d")), ["a", "u"]);
}

fn a_reader_of_a_directory_keeps_his_place() {
    let union = mount(Union::new().lower_with(|dir| {
        for number in 0..1000 {
            fs::write(dir.join(format!("{number:04}-stays-where-it-is")), "").unwrap();
            fs::write(dir.join(format!("{number:04}-goes")), "").unwrap();
        }
    }));
    let dir = File::open(union.path("")).unwrap();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut listing = RawDir::new(dir, &mut buffer);
    let mut seen = Vec::new();
    while let Some(entry) = listing.next() {
        seen.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        if seen.len() == 300 {
            for number in 0..1000 {
                fs::remove_file(union.lower(0, format!("{number:04}-goes"))).unwrap();
                fs::write(union.lower(0, format!("{number:04}-new")), "").unwrap();
            }
            assert!(exists(union.path("0000-new")));
        }
    }
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "a name came twice");
    for number in 0..1000 {
        let name = format!("{number:04}-stays-where-it-is");
        assert!(unique.contains(&name), "{name} did not come");
    }
    assert_eq!(names(union.path("")).len(), 2000);
}

fn changes_through_the_mount_meet_changes_behind_it() {
    let mut union = mount(Union::new().lower("f d/a text=a\nd e\nd gone").lower("d e"));
    assert_eq!((names(union.path("d")), names(union.path("e"))), (vec!["a".into()], vec![]));
    // What comes below a name is deleted with it.
    fs::write(union.path("d/new"), "upper").unwrap();
    fs::write(union.lower(0, "d/new"), "lower").unwrap();
    assert_eq!(text(union.path("d/new")), "upper");
    fs::remove_file(union.path("d/new")).unwrap();
    assert!(!exists(union.path("d/new")));
    fs::write(union.lower(1, "e/late"), "").unwrap();
    assert_eq!(errno(fs::remove_dir(union.path("e"))), Errno::NOTEMPTY);
    fs::write(union.lower(0, "d/later"), "later").unwrap();
    fs::rename(union.path("d"), union.path("moved")).unwrap();
    assert_eq!(names(union.path("moved")), ["a", "later"]);
    // A change goes to the file that is there now.
    replace(&union.lower(0, "d/a"), "from before the move");
    fs::write(union.lower(0, "top"), "one").unwrap();
    assert_eq!(text(union.path("top")), "one");
    replace(&union.lower(0, "top"), "two");
    append(union.path("top"), "+");
    assert_eq!(text(union.path("top")), "two+");
    assert_eq!(text(union.lower(0, "top")), "two");
    fs::remove_dir(union.lower(0, "gone")).unwrap();
    assert_eq!(errno(fs::write(union.path("gone/x"), "")), Errno::NOENT);
    let before = union.snapshot();
    union.remount();
    crate::support::assert_same(&before, &union.snapshot(), "mounted again");
}

fn hard_links_lose_names() {
    let union = mount(Union::new().lower_with(|dir| {
        fs::write(dir.join("a"), "linked").unwrap();
        fs::create_dir(dir.join("d")).unwrap();
        fs::hard_link(dir.join("a"), dir.join("d/b")).unwrap();
        fs::hard_link(dir.join("a"), dir.join("c")).unwrap();
    }));
    let number = inode(union.path("a"));
    assert_eq!((inode(union.path("d/b")), inode(union.path("c"))), (number, number));
    fs::remove_file(union.lower(0, "a")).unwrap();
    assert!(!exists(union.path("a")));
    assert_eq!((text(union.path("d/b")), inode(union.path("d/b"))), ("linked".into(), number));
    replace(&union.lower(0, "c"), "its own");
    assert_eq!(text(union.path("c")), "its own");
    assert_eq!((text(union.path("d/b")), inode(union.path("d/b"))), ("linked".into(), number));
    append(union.path("d/b"), "+");
    assert_eq!(
        (text(union.path("d/b")), text(union.path("c"))),
        ("linked+".into(), "its own".into())
    );
}

/// Whether the change can be made is not promised, but that it hits nothing else.
fn open_files_of_replaced_directories_can_be_changed() {
    let union = mount(Union::new().lower("f d/a text=old mode=0644\nf b text=old mode=0644"));
    let (inside, top) =
        (File::open(union.path("d/a")).unwrap(), File::open(union.path("b")).unwrap());
    fs::rename(union.lower(0, "d"), union.lower(0, "away")).unwrap();
    fs::create_dir(union.lower(0, "d")).unwrap();
    fs::write(union.lower(0, "d/a"), "new").unwrap();
    chmod(union.lower(0, "d/a"), 0o644).unwrap();
    replace(&union.lower(0, "b"), "new");
    chmod(union.lower(0, "b"), 0o644).unwrap();
    for (file, path) in [(&inside, "d/a"), (&top, "b")] {
        assert_eq!(text(union.path(path)), "new");
        let changed = rustix::fs::fchmod(file, Mode::RUSR);
        let shown = Mode::from(file.metadata().unwrap().mode() & 0o777);
        assert_eq!(shown == Mode::RUSR, changed.is_ok(), "{path}: {changed:?}");
        let mut bytes = [0; 3];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"old", "{path}");
        assert_eq!((mode(union.path(path)), text(union.path(path))), (0o644, "new".into()));
    }
}

#[test]
fn changes_of_lower_layers_are_seen_at_once_with_a_timeout_of_zero() {
    not_with!("packed", "writeback=1");
    needs_root!();
    SCENES.iter().for_each(|scene| scene());
}

#[test]
fn changes_of_lower_layers_are_seen_in_a_user_namespace() {
    not_with!("packed", "writeback=1");
    isolated!(UserNamespace, SCENES.iter().for_each(|scene| scene()));
}

#[test]
fn changes_of_lower_layers_are_seen_by_an_ordinary_user() {
    not_with!("packed", "writeback=1");
    isolated!(User, SCENES.iter().for_each(|scene| scene()));
}

#[test]
fn changes_of_lower_layers_are_seen_after_the_timeout_and_not_much_later() {
    not_with!("packed");
    needs_root!();
    let union = Union::new().option("timeout=0.5").lower("f d/a text=old\nf d/b");
    let union = union.unchecked_lowers().mount();
    assert_eq!((text(union.path("d/a")), exists(union.path("d/new"))), ("old".into(), false));
    replace(&union.lower(0, "d/a"), "new");
    fs::write(union.lower(0, "d/new"), "").unwrap();
    fs::remove_file(union.lower(0, "d/b")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let seen = || {
        let listed = names(union.path("d")) == ["a", "new"];
        listed && text(union.path("d/a")) == "new" && exists(union.path("d/new"))
    };
    while !seen() {
        assert!(Instant::now() < deadline, "not seen");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!exists(union.path("d/b")));
}

/// Replaces files and directories until `done`, each in one step.
fn keep_changing(layer: &Path, done: &AtomicBool) {
    let mut round = 0u8;
    while !done.load(Ordering::Relaxed) {
        round = round.wrapping_add(1);
        replace(&layer.join("d/a"), &char::from(b'a' + round % 26).to_string().repeat(200_000));
        let (new, old) = (layer.join("new"), layer.join(format!("old{round}")));
        fs::create_dir(&new).unwrap();
        fs::write(new.join("x"), round.to_string()).unwrap();
        fs::rename(layer.join("e"), &old).unwrap();
        fs::rename(&new, layer.join("e")).unwrap();
        fs::remove_dir_all(&old).unwrap();
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::STALE))
}

/// Reads what changes, from several threads, and returns whether every file was one file.
fn read_while_changing(union: &Union) -> bool {
    let done = AtomicBool::new(false);
    let whole = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let layer = union.lower(0, "");
        let (done, whole) = (&done, &whole);
        let writer = scope.spawn(move || keep_changing(&layer, done));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    let end = Instant::now() + Duration::from_millis(1500);
                    while Instant::now() < end {
                        match fs::read(union.path("d/a")) {
                            Ok(bytes) => {
                                let same = bytes.iter().all(|byte| *byte == bytes[0]);
                                whole.fetch_and(same && bytes.len() == 200_000, Ordering::Relaxed);
                            }
                            Err(error) => assert!(is_gone(&error), "{error}"),
                        }
                        for path in ["e/x", "e", ""] {
                            let path = union.path(path);
                            let looked = fs::symlink_metadata(&path).map(drop);
                            let listed = fs::read_dir(&path).map(|entries| entries.count());
                            let not_there = |error: &std::io::Error| {
                                is_gone(error) || Errno::from_io_error(error) == Some(Errno::NOTDIR)
                            };
                            assert!(looked.as_ref().err().is_none_or(is_gone), "{looked:?}");
                            assert!(listed.as_ref().err().is_none_or(not_there), "{listed:?}");
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert!(ended.iter().all(Result::is_ok), "a reader failed");
    });
    whole.load(Ordering::Relaxed)
}

const BUSY: &str = "f d/a text=a\nf e/x\nf f";

#[test]
fn no_file_is_a_mix_of_two_while_they_are_replaced() {
    not_with!("packed");
    needs_root!();
    let union = mount(Union::new().lower(BUSY).lower("f e/y"));
    replace(&union.lower(0, "d/a"), &"a".repeat(200_000));
    assert!(read_while_changing(&union), "a file was read that never was");
}

#[test]
fn changes_that_nobody_asked_to_see_do_not_end_the_program() {
    not_with!("timeout");
    needs_root!();
    let mut union = Union::new().lower(BUSY).lower("f e/y\nf f").unchecked_lowers().mount();
    replace(&union.lower(0, "d/a"), &"a".repeat(200_000));
    read_while_changing(&union);
    let open = File::open(union.path("d/a")).unwrap();
    fs::remove_dir_all(union.lower(0, "")).unwrap();
    let mut bytes = [0; 10];
    open.read_at(&mut bytes, 0).ok();
    for path in ["d/a", "d", "e/x", "e/y", "f"] {
        fs::read(union.path(path)).ok();
        fs::rename(union.path(path), union.path("moved")).ok();
        fs::write(union.path(path), "x").ok();
    }
    fs::write(union.path("works"), "still").unwrap();
    assert_eq!(text(union.path("works")), "still");
    drop(open);
    union.unmount();
}
