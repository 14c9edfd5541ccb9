//! The daemon dies at every step of every change. After the next mount the union is as before the change or as
//! after it, nothing in between, and nothing that was deleted comes back.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use plyfs::sys::fault::POINTS;
use rustix::fs::{FileType, RenameFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};

use crate::needs_root;
use crate::support::mount::program;
use crate::support::posix::{chmod, mknod, rename_with, set_xattr};
use crate::support::{Builder, Field, Program, Snapshot, Union, assert_same};

/// One system call that changes the union, and the layers it works on.
struct Scenario {
    lowers: [&'static str; 2],
    upper: &'static str,
    options: &'static [&'static str],
    change: fn(&Path) -> io::Result<()>,
    /// The fault points it comes by.
    points: &'static [&'static str],
}

/// Declares each scenario as a test of its own, and the table of all of them.
macro_rules! scenarios {
    ($($name:ident: $scenario:expr;)*) => {
        $(
            #[test]
            fn $name() {
                needs_root!();
                const SCENARIO: Scenario = $scenario;
                SCENARIO.die_everywhere();
            }
        )*
        const SCENARIOS: &[Scenario] = &[$($scenario),*];
    };
}

const NOTHING: Scenario =
    Scenario { lowers: [LOWER, BOTTOM], upper: "", options: &[], change: |_| Ok(()), points: &[] };

const LOWER: &str = r#"
f a/b/c/file text="lower content" mode=4711 own=3:4 mtime=1000000000.5 user.note=kept
f d/file text="lower" mode=0640 mtime=1000000001
f d/other text="other" mtime=1000000002
l d/link to=file mtime=1000000003
p d/fifo mode=0620 mtime=1000000004
f tree/one text=1 mtime=1000000005
f tree/sub/two text=2 mtime=1000000006
f links/first text="two names" mtime=1000000007
h links/second to=links/first
"#;

const BOTTOM: &str = r#"
f d/file text="must never be seen"
f d/below text="bottom" mtime=1000000008
f tree/sub/three text=3 mtime=1000000009
f gone/old text="deleted long ago"
"#;

scenarios! {
    write_to_a_lower_file: Scenario {
        change: |root| write(&root.join("d/file"), b"changed"),
        points: &[],
        ..NOTHING
    };
    append_deep_in_lower_directories: Scenario {
        change: |root| append(&root.join("a/b/c/file")),
        points: &[],
        ..NOTHING
    };
    change_the_mode_of_a_lower_file: Scenario {
        change: |root| Ok(chmod(root.join("d/file"), 0o600)?),
        points: &[],
        ..NOTHING
    };
    change_the_mode_with_metacopy: Scenario {
        options: &["metacopy=on"],
        change: |root| Ok(chmod(root.join("d/file"), 0o600)?),
        points: &[],
        ..NOTHING
    };
    change_the_mode_of_a_lower_directory: Scenario {
        change: |root| Ok(chmod(root.join("tree/sub"), 0o700)?),
        points: &[],
        ..NOTHING
    };
    set_an_attribute_of_a_lower_file: Scenario {
        change: |root| Ok(set_xattr(root.join("d/file"), "user.new", b"1")?),
        points: &[],
        ..NOTHING
    };
    truncate_a_lower_file: Scenario {
        change: |root| fs::File::options().write(true).open(root.join("d/file"))?.set_len(2),
        points: &[],
        ..NOTHING
    };
    write_to_a_name_of_a_hard_link: Scenario {
        change: |root| append(&root.join("links/second")),
        points: &[],
        ..NOTHING
    };
    create_a_file: Scenario {
        change: |root| fs::write(root.join("d/new"), ""),
        points: &[],
        ..NOTHING
    };
    create_a_file_where_one_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| fs::write(root.join("d/file"), ""),
        points: &[],
        ..NOTHING
    };
    make_a_fifo_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| Ok(mknod(root.join("d/file"), FileType::Fifo, (0, 0))?),
        points: &[],
        ..NOTHING
    };
    make_a_symlink_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| symlink("elsewhere", root.join("d/file")),
        points: &[],
        ..NOTHING
    };
    make_a_directory: Scenario {
        change: |root| fs::create_dir(root.join("d/new")),
        points: &[],
        ..NOTHING
    };
    make_a_directory_where_one_was_deleted: Scenario {
        upper: "w gone",
        change: |root| fs::create_dir(root.join("gone")),
        points: &[],
        ..NOTHING
    };
    link_a_lower_file: Scenario {
        change: |root| fs::hard_link(root.join("d/file"), root.join("d/linked")),
        points: &[],
        ..NOTHING
    };
    link_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| fs::hard_link(root.join("d/other"), root.join("d/file")),
        points: &[],
        ..NOTHING
    };
    delete_a_lower_file: Scenario {
        change: |root| fs::remove_file(root.join("d/file")),
        points: &[],
        ..NOTHING
    };
    delete_a_changed_file: Scenario {
        upper: "f d/file text=upper",
        change: |root| fs::remove_file(root.join("d/file")),
        points: &[],
        ..NOTHING
    };
    delete_a_new_file: Scenario {
        upper: "f d/new text=upper",
        change: |root| fs::remove_file(root.join("d/new")),
        points: &[],
        ..NOTHING
    };
    delete_one_name_of_a_hard_link: Scenario {
        change: |root| fs::remove_file(root.join("links/first")),
        points: &[],
        ..NOTHING
    };
    delete_an_emptied_lower_directory: Scenario {
        upper: "w gone/old",
        change: |root| fs::remove_dir(root.join("gone")),
        points: &[],
        ..NOTHING
    };
    delete_a_new_directory: Scenario {
        upper: "d d/new",
        change: |root| fs::remove_dir(root.join("d/new")),
        points: &[],
        ..NOTHING
    };
    delete_a_directory_made_anew: Scenario {
        upper: "o gone",
        change: |root| fs::remove_dir(root.join("gone")),
        points: &[],
        ..NOTHING
    };
    rename_a_lower_file: Scenario {
        change: |root| fs::rename(root.join("d/file"), root.join("d/renamed")),
        points: &[],
        ..NOTHING
    };
    rename_a_lower_file_to_another_directory: Scenario {
        change: |root| fs::rename(root.join("a/b/c/file"), root.join("tree/moved")),
        points: &[],
        ..NOTHING
    };
    rename_over_a_lower_file: Scenario {
        upper: "f d/new text=new",
        change: |root| fs::rename(root.join("d/new"), root.join("d/file")),
        points: &[],
        ..NOTHING
    };
    rename_a_lower_file_over_a_lower_file: Scenario {
        change: |root| fs::rename(root.join("d/file"), root.join("d/other")),
        points: &[],
        ..NOTHING
    };
    rename_to_a_deleted_name: Scenario {
        upper: "w d/file\nf d/new text=new",
        change: |root| fs::rename(root.join("d/new"), root.join("d/file")),
        points: &[],
        ..NOTHING
    };
    rename_a_fifo: Scenario {
        change: |root| fs::rename(root.join("d/fifo"), root.join("d/renamed")),
        points: &[],
        ..NOTHING
    };
    rename_a_lower_directory: Scenario {
        change: |root| fs::rename(root.join("tree"), root.join("renamed")),
        points: &[],
        ..NOTHING
    };
    rename_a_lower_directory_with_redirect: Scenario {
        options: &["redirect_dir=on"],
        change: |root| fs::rename(root.join("tree"), root.join("renamed")),
        points: &[],
        ..NOTHING
    };
    rename_a_new_directory: Scenario {
        upper: "f new/inside text=x",
        change: |root| fs::rename(root.join("new"), root.join("d/renamed")),
        points: &[],
        ..NOTHING
    };
    rename_a_directory_to_a_deleted_name: Scenario {
        upper: "w gone\nf new/inside text=x",
        change: |root| fs::rename(root.join("new"), root.join("gone")),
        points: &[],
        ..NOTHING
    };
    rename_a_directory_over_an_emptied_one: Scenario {
        upper: "w gone/old\nf new/inside text=x",
        change: |root| fs::rename(root.join("new"), root.join("gone")),
        points: &[],
        ..NOTHING
    };
    exchange_two_lower_files: Scenario {
        change: |root| exchange(&root.join("d/file"), &root.join("d/other")),
        points: &[],
        ..NOTHING
    };
    exchange_a_lower_file_and_a_directory: Scenario {
        change: |root| exchange(&root.join("d/file"), &root.join("tree")),
        points: &[],
        ..NOTHING
    };
}

/// Otherwise a step could be added that no test ever interrupts.
#[test]
fn every_fault_point_is_tested() {
    let tested: BTreeSet<_> = SCENARIOS.iter().flat_map(|scenario| scenario.points).collect();
    assert_eq!(tested, POINTS.iter().collect(), "points of the scenarios, and of the program");
}

impl Scenario {
    fn die_everywhere(&self) {
        let reference = Reference::of(self);
        let mut hit = Vec::new();
        for point in POINTS {
            let times = (1..).take_while(|nth| self.dies(&format!("{point}:{nth}"), &reference));
            if times.count() > 0 {
                hit.push(*point);
            }
        }
        assert_eq!(hit, self.points, "the fault points that were reached, and those declared");
    }

    fn builder(&self) -> Builder {
        let builder = Union::new().lower(self.lowers[0]).lower(self.lowers[1]).upper(self.upper);
        self.options.iter().fold(builder, |builder, option| builder.option(*option))
    }

    /// Makes the change with a daemon that dies at `fault`; false if it never comes there.
    fn dies(&self, fault: &str, reference: &Reference) -> bool {
        let builder = self.builder();
        let program = dying_program(builder.path(), fault);
        let mut union = builder.program(Program::Peer(program)).mount();
        let old = union.snapshot();
        let started = SystemTime::now();
        if (self.change)(&union.path("")).is_ok() {
            return false;
        }
        clear_away(&mut union, fault);
        union.switch(Program::Plyfs, self.options);
        let found = union.snapshot();
        if reference.is_old(&old, &found, started, fault) {
            (self.change)(&union.path(""))
                .unwrap_or_else(|error| panic!("{fault}: again: {error}"));
            assert_same(
                &bare(&reference.new),
                &bare(&union.snapshot()),
                "made again after a crash",
            );
        }
        union.unmount();
        reference.assert_no_leftovers(&union, fault);
        true
    }
}

/// Clears away a mount whose daemon must have died of itself.
fn clear_away(union: &mut Union, fault: &str) {
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::Pid(union.live().pid()), how).unwrap().unwrap();
    let signal = status.terminating_signal();
    assert_eq!(signal, Some(Signal::KILL.as_raw()), "{fault}: how the daemon ended");
    union.kill();
}

/// How the change goes when nobody dies.
struct Reference {
    new: Snapshot,
    started: SystemTime,
    /// What lies in the work directory after the change and one more mount.
    work: BTreeSet<PathBuf>,
}

impl Reference {
    fn of(scenario: &Scenario) -> Self {
        let mut union = scenario.builder().mount();
        let started = SystemTime::now();
        (scenario.change)(&union.path("")).unwrap();
        let new = union.snapshot();
        union.remount();
        assert_same(&new, &union.snapshot(), "after a remount without any fault");
        union.unmount();
        let work = work_paths(&union);
        Self { new, started, work }
    }

    /// Panics if the tree is neither the old nor the new one.
    fn is_old(&self, old: &Snapshot, found: &Snapshot, started: SystemTime, fault: &str) -> bool {
        let from_old = bare(old).difference(&bare(found));
        let from_new = bare(&self.new).difference(&bare(found));
        assert!(
            from_old.is_empty() || from_new.is_empty(),
            "{fault}: neither the old tree:\n{from_old}\nnor the new one:\n{from_new}"
        );
        for path in found.paths() {
            let path = path.to_str().unwrap();
            let mtime = |tree: &Snapshot| tree.field(path, Field::Mtime).map(str::to_owned);
            let touched = is_since(mtime(&self.new), self.started);
            let (was, is) = (mtime(old), mtime(found));
            assert!(
                is == was || is == mtime(&self.new) || touched && is_since(is.clone(), started),
                "{fault}: {path}: modified at {was:?} before the change, and after it at {is:?}"
            );
        }
        from_old.is_empty()
    }

    fn assert_no_leftovers(&self, union: &Union, fault: &str) {
        let found = work_paths(union);
        let more: Vec<_> = found.difference(&self.work).collect();
        assert!(more.is_empty(), "{fault}: left in the work directory: {more:?}");
    }
}

/// What can be compared between two runs.
fn bare(tree: &Snapshot) -> Snapshot {
    tree.clone().without(&[Field::Mtime])
}

fn work_paths(union: &Union) -> BTreeSet<PathBuf> {
    Snapshot::of(&union.work("")).paths().into_iter().map(Path::to_owned).collect()
}

/// Is this time stamp of a snapshot not before `start`? Timestamps are as coarse as a clock tick.
fn is_since(stamp: Option<String>, start: SystemTime) -> bool {
    let tick = Duration::from_millis(20);
    let start = (start - tick).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    stamp.is_some_and(|stamp| stamp.parse::<f64>().unwrap() >= start.as_secs_f64())
}

/// The program under test, told to die at `fault`.
fn dying_program(dir: &Path, fault: &str) -> PathBuf {
    let path = dir.join("dying");
    let script = format!("#!/bin/sh\nPLYFS_FAULT={fault} exec '{}' \"$@\"\n", program().display());
    fs::write(&path, script).unwrap();
    chmod(&path, 0o755).unwrap();
    path
}

/// Overwrites the start of a file and waits until the union has it.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    file.write_all_at(text, 0)?;
    file.sync_all()
}

fn append(path: &Path) -> io::Result<()> {
    let mut file = fs::File::options().append(true).open(path)?;
    file.write_all(b" and more")?;
    file.sync_all()
}

fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    Ok(rename_with(a, b, RenameFlags::EXCHANGE)?)
}
