//! SIGTERM while many programs are at work: what they had finished is there after the next mount, what they had
//! deleted is not, and only what each was doing at that moment may be half done.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};

use crate::needs_root;
use crate::support::scratch::mounts;
use crate::support::{Union, tree};

/// Records of the file that is appended to.
const RECORD: &[u8] = b"one record of thirty-two bytes.\n";

/// Files in the tree that is deleted meanwhile.
const DELETED: usize = 20_000;

/// How far each worker must have come before the signal.
const PROGRESS: usize = 100;

/// One thing that a worker has finished for good.
enum Done {
    Written(PathBuf),
    Appended(usize),
    Deleted(PathBuf),
}

#[test]
fn heavy_sigterm_under_load_loses_nothing_that_was_finished() {
    needs_root!();
    let mut union = Union::new()
        .lower_with(|dir| {
            tree::make(dir, "f log text=\"\"\nd in-flight\nd finished\nd other-directory");
            fs::write(dir.join("large"), vec![b'l'; 64 << 20]).unwrap();
            make_tree(&dir.join("tree"));
        })
        .unchecked_lowers()
        .lifetime(Duration::from_secs(100))
        .mount();

    let (sender, receiver) = channel();
    let root = union.path("");
    let mut workers = vec![
        start(&root, &sender, write_files),
        start(&root, &sender, append_records),
        start(&root, &sender, overwrite_large_file),
    ];
    let mut done = Vec::new();
    wait_for(&receiver, &mut done, |done| matches!(done, Done::Written(_)));
    wait_for(&receiver, &mut done, |done| matches!(done, Done::Appended(_)));
    // Last, as only this comes to an end by itself, which may be before a slow disk has synced the others' work.
    workers.push(start(&root, &sender, delete_tree));
    drop(sender);
    wait_for(&receiver, &mut done, |done| matches!(done, Done::Deleted(_)));
    terminate(&mut union);
    for worker in workers {
        worker.join().unwrap();
    }
    done.extend(receiver);

    union.start();
    check(&union, &done);
}

fn make_tree(dir: &Path) {
    for number in 0..DELETED {
        let sub = dir.join((number % 100).to_string());
        if number < 100 {
            fs::create_dir_all(&sub).unwrap();
        }
        File::create(sub.join(number.to_string())).unwrap();
    }
}

/// Runs `work`, which ends with an error when the mount goes away.
fn start(
    root: &Path,
    sender: &Sender<Done>,
    work: fn(&Path, &Sender<Done>) -> io::Result<()>,
) -> thread::JoinHandle<()> {
    let (root, sender) = (root.to_owned(), sender.clone());
    thread::spawn(move || {
        let error = work(&root, &sender).expect_err("the work ended before the daemon did");
        eprintln!("stopped by: {error}");
    })
}

fn write_files(root: &Path, done: &Sender<Done>) -> io::Result<()> {
    for number in 0_usize.. {
        let name = number.to_string();
        let (written, finished) = (root.join("in-flight").join(&name), PathBuf::from(&name));
        fs::write(&written, content(&name))?;
        fs::rename(&written, root.join("finished").join(&name))?;
        done.send(Done::Written(finished)).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Some 40 KiB that tell which file they belong to.
fn content(name: &str) -> Vec<u8> {
    format!("{name}\n").into_bytes().repeat(8192)
}

fn append_records(root: &Path, done: &Sender<Done>) -> io::Result<()> {
    let mut log = File::options().append(true).open(root.join("log"))?;
    for count in 1.. {
        log.write_all(RECORD)?;
        log.sync_data()?;
        done.send(Done::Appended(count)).map_err(io::Error::other)?;
    }
    Ok(())
}

fn overwrite_large_file(root: &Path, _: &Sender<Done>) -> io::Result<()> {
    let file = File::options().write(true).open(root.join("large"))?;
    let block = vec![b'L'; 1 << 20];
    for number in 0_u64.. {
        file.write_all_at(&block, (number % 64) << 20)?;
    }
    Ok(())
}

fn delete_tree(root: &Path, done: &Sender<Done>) -> io::Result<()> {
    let mut rm = Command::new("rm");
    // Without its errors, one for every file that is left when the mount goes away.
    rm.args(["-rfv", "tree"]).current_dir(root).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut rm = rm.spawn()?;
    for line in BufReader::new(rm.stdout.take().unwrap()).lines() {
        // removed 'tree/1/101', removed directory 'tree/1'
        if let Some(path) = line?.strip_prefix("removed '").and_then(|rest| rest.strip_suffix('\''))
        {
            done.send(Done::Deleted(path.into())).map_err(io::Error::other)?;
        }
    }
    let status = rm.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("rm: {status}"))) }
}

/// Takes what is done until enough of it `counts`.
fn wait_for(receiver: &Receiver<Done>, done: &mut Vec<Done>, counts: fn(&Done) -> bool) {
    let mut count = done.iter().filter(|done| counts(done)).count();
    while count < PROGRESS {
        let next = receiver.recv().expect("somebody is still at work");
        count += usize::from(counts(&next));
        done.push(next);
    }
}

fn terminate(union: &mut Union) {
    union.live().signal(Signal::TERM);
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::Pid(union.live().pid()), how).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "how the daemon ended on SIGTERM");
    let point = union.path("");
    let point = Path::new(point.to_str().unwrap().trim_end_matches('/'));
    assert!(mounts().iter().all(|mount| mount.point != point), "a dead mount is left");
    union.kill();
}

fn check(union: &Union, done: &[Done]) {
    let mut finished = BTreeSet::new();
    let mut records = 0;
    for done in done {
        match done {
            Done::Written(name) => {
                let content = content(name.to_str().unwrap());
                let path = union.path("finished").join(name);
                assert!(fs::read(&path).unwrap() == content, "{} is not whole", path.display());
                finished.insert(name.clone());
            }
            Done::Appended(count) => records = *count,
            Done::Deleted(path) => {
                assert!(!union.path(path).exists(), "{} came back", path.display());
            }
        }
    }
    check_in_flight(union, &finished);
    let log = fs::read(union.path("log")).unwrap();
    assert!(log.len() >= records * RECORD.len(), "{} bytes of {records} records", log.len());
    let whole = log.len() - log.len() % RECORD.len();
    assert!(log[..whole].chunks(RECORD.len()).all(|record| record == RECORD), "damaged records");
    let large = fs::read(union.path("large")).unwrap();
    assert_eq!(large.len(), 64 << 20);
    assert!(large.iter().all(|byte| matches!(byte, b'l' | b'L')), "foreign bytes");
    assert!(fs::read(union.lower(0, "large")).unwrap().iter().all(|byte| *byte == b'l'));
    let lower = fs::read_dir(union.lower(0, "tree/7")).unwrap().count();
    assert_eq!(lower, DELETED / 100, "files of the lower layer");
}

/// At most one file may be unfinished, and it holds nothing but the start of its content.
fn check_in_flight(union: &Union, finished: &BTreeSet<PathBuf>) {
    let names = |dir: &str| -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(union.path(dir)).unwrap();
        entries.map(|entry| PathBuf::from(entry.unwrap().file_name())).collect()
    };
    let unreported: Vec<_> = names("finished").difference(finished).cloned().collect();
    let in_flight: Vec<_> = names("in-flight").into_iter().collect();
    assert!(unreported.len() + in_flight.len() <= 1, "{unreported:?} and {in_flight:?}");
    for name in unreported {
        let whole = content(name.to_str().unwrap());
        assert!(fs::read(union.path("finished").join(name)).unwrap() == whole);
    }
    for name in in_flight {
        let part = fs::read(union.path("in-flight").join(&name)).unwrap();
        assert!(
            content(name.to_str().unwrap()).starts_with(&part),
            "{} is damaged",
            name.display()
        );
    }
}
