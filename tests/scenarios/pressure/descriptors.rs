//! A daemon that may open few files, and programs that have many open.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::posix::{append, chmod, names, text};
use crate::support::{Builder, Union};
use crate::{isolated, needs_root};

/// More than every limit here.
const MANY: usize = 1100;

fn limited(limit: u32) -> Builder {
    // This process has to have more than the daemon.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let option = format!("--nofile={limit}:{limit}");
    Union::new().wrapper(&["prlimit", &option]).lifetime(Duration::from_secs(100))
}

/// Descriptors that the program has open.
fn descriptors(union: &Union) -> usize {
    fs::read_dir(format!("/proc/{}/fd", union.live().pid().as_raw_nonzero())).unwrap().count()
}

fn new_file(path: &Path, mode: u32) -> File {
    File::options().read(true).write(true).create_new(true).mode(mode).open(path).unwrap()
}

/// Deletes open files, new and changed ones, and uses them afterwards.
fn deleted_files_stay_usable(limit: u32) {
    let fill = |dir: &Path| {
        for number in 0..MANY / 2 {
            fs::write(dir.join(format!("lower-{number}")), number.to_string()).unwrap();
        }
    };
    let union = limited(limit).lower_with(fill).unchecked_lowers().mount();
    let mut open = Vec::new();
    for number in 0..MANY {
        let path = match number % 2 {
            0 => union.path(format!("lower-{}", number / 2)),
            _ => union.path(format!("new-{number}")),
        };
        let mut file = File::options().read(true).append(true).create(true).open(&path).unwrap();
        if number % 4 != 0 {
            write!(file, "+{number}").unwrap();
        }
        fs::remove_file(&path).unwrap();
        open.push(file);
    }
    assert_eq!(names(union.path("")), [""; 0]);
    for (number, file) in open.iter_mut().enumerate() {
        assert_eq!(file.metadata().unwrap().nlink(), 0, "{number}");
        write!(file, "!").unwrap();
        file.rewind().unwrap();
        let mut found = String::new();
        file.read_to_string(&mut found).unwrap();
        let lower = if number % 2 == 0 { (number / 2).to_string() } else { String::new() };
        let changed = if number % 4 == 0 { String::new() } else { format!("+{number}") };
        assert_eq!(found, format!("{lower}{changed}!"));
    }
    assert!(descriptors(&union) <= limit as usize);
    drop(open);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !names(union.work("plyfs/stage")).is_empty() {
        assert!(Instant::now() < deadline, "deleted files stay in the workdir");
    }
}

#[test]
fn deleted_open_files_stay_usable_with_few_descriptors() {
    needs_root!();
    for limit in [128, 256, 1024] {
        deleted_files_stay_usable(limit);
    }
}

#[test]
fn deleted_open_files_of_an_ordinary_user_stay_usable_with_few_descriptors() {
    isolated!(User, deleted_files_stay_usable(256));
}

/// What may not be opened again by mode is opened again all the same for those who have it open.
#[test]
fn files_of_an_ordinary_user_without_permissions_need_no_descriptors() {
    isolated!(User, {
        let mut union = limited(128).lower("f a").mount();
        let mut open = Vec::new();
        for (number, mode) in [0o444, 0o200, 0o000].into_iter().cycle().take(300).enumerate() {
            let mut file = new_file(&union.path(number.to_string()), mode);
            write!(file, "{number}").unwrap();
            open.push((file, mode));
        }
        for (number, (file, mode)) in open.iter().enumerate() {
            file.write_all_at(b"!", 9).unwrap();
            file.sync_all().unwrap();
            let mut found = vec![0; 10];
            file.read_exact_at(&mut found, 0).unwrap();
            let written = number.to_string();
            assert_eq!(&found[..written.len()], written.as_bytes());
            assert_eq!(file.metadata().unwrap().mode() & 0o777, *mode);
        }
        drop(open);
        union.remount();
        let file = File::options().write(true).open(union.path("1")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        drop(file);
        chmod(union.path("1"), 0o600).unwrap();
        assert_eq!(text(union.path("1")).as_bytes()[0], b'x');
    });
}

/// Who may search a directory finds what he knows the name of, also when he may not list it.
#[test]
fn directory_of_an_ordinary_user_that_cannot_be_listed_can_be_searched() {
    isolated!(User, {
        let mut union = Union::new().lower("f d/lower text=lower").mount();
        append(union.path("d/lower"), "+");
        fs::write(union.path("d/new"), "new").unwrap();
        chmod(union.path("d"), 0o300).unwrap();
        union.remount();
        assert_eq!(text(union.path("d/lower")), "lower+");
        assert_eq!(text(union.path("d/new")), "new");
        fs::remove_file(union.path("d/new")).unwrap();
        fs::write(union.path("d/other"), "other").unwrap();
        assert!(fs::read_dir(union.path("d")).is_err());
        assert_eq!(fs::metadata(union.upper("d")).unwrap().mode() & 0o777, 0o300);
        chmod(union.path("d"), 0o700).unwrap();
        assert_eq!(names(union.path("d")), ["lower", "other"]);
    });
}

#[test]
fn too_few_descriptors_to_work_with_are_refused_in_one_line() {
    needs_root!();
    let Err(refusal) = limited(64).lower("f a").try_mount() else { panic!("mounted") };
    assert_eq!(refusal.message.lines().count(), 1, "{}", refusal.message);
    assert!(refusal.message.contains("ulimit -n"), "{}", refusal.message);
}

/// Wide, deep, and changed everywhere.
#[test]
fn trees_are_walked_and_changed_with_128_descriptors() {
    needs_root!();
    let deep: Vec<String> = (0..150).map(|depth| format!("d{depth}")).collect();
    let deep = deep.join("/");
    let mut union = limited(128)
        .lower_with(|dir| {
            fs::create_dir_all(dir.join(&deep)).unwrap();
            fs::write(dir.join(&deep).join("bottom"), "deep").unwrap();
            for number in 0..300 {
                fs::create_dir_all(dir.join(format!("wide/{number}"))).unwrap();
                fs::write(dir.join(format!("wide/{number}/file")), number.to_string()).unwrap();
            }
        })
        .unchecked_lowers()
        .mount();
    append(union.path(&deep).join("bottom"), "er");
    for number in 0..300 {
        append(union.path(format!("wide/{number}/file")), "+");
        fs::rename(union.path(format!("wide/{number}")), union.path(format!("wide/r{number}")))
            .unwrap();
    }
    let before = union.snapshot();
    assert!(descriptors(&union) <= 128);
    union.remount();
    crate::support::assert_same(&before, &union.snapshot(), "remount");
    for number in 0..300 {
        fs::remove_dir_all(union.path(format!("wide/r{number}"))).unwrap();
    }
    assert_eq!(names(union.path("wide")), [""; 0]);
    assert!(descriptors(&union) <= 128);
}
