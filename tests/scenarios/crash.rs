//! The daemon dies at every step of every change. After the next mount the union is as before the change or as
//! after it, nothing in between, and nothing that was deleted comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use plyfs::sys::fault::POINTS;
use rustix::fs::{FileType, RenameFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};

use crate::needs_root;
use crate::support::posix::{chmod, mknod, rename_with, set_xattr};
use crate::support::{Field, Snapshot, Union, assert_same};

/// One system call that changes the union, and the layers it works on.
struct Scenario {
    lowers: [&'static str; 2],
    upper: &'static str,
    options: &'static [&'static str],
    /// What an earlier mount did.
    earlier: Option<fn(&Path) -> io::Result<()>>,
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

const NOTHING: Scenario = Scenario {
    lowers: [LOWER, BOTTOM],
    upper: "",
    options: &[],
    earlier: None,
    change: |_| Ok(()),
    points: &[],
};

/// Starts a program that dies at the fault point named in the file `fault`, if one is.
const DYING: &[&str] = &["sh", "-c", "PLYFS_FAULT=$(cat fault) exec \"$@\"", "sh"];

/// The way of a lower file, in a lower directory, to the upper layer.
const COPY_UP: &[&str] =
    &["copy-up.staged", "copy-up.synced", "copy-up.published", "copy-up.directory-published"];

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
        points: COPY_UP,
        ..NOTHING
    };
    append_deep_in_lower_directories: Scenario {
        change: |root| append(&root.join("a/b/c/file")),
        points: COPY_UP,
        ..NOTHING
    };
    change_the_mode_of_a_lower_file: Scenario {
        change: |root| Ok(chmod(root.join("d/file"), 0o600)?),
        points: COPY_UP,
        ..NOTHING
    };
    change_the_mode_with_metacopy: Scenario {
        options: &["metacopy=on"],
        change: |root| Ok(chmod(root.join("d/file"), 0o600)?),
        points: COPY_UP,
        ..NOTHING
    };
    change_the_mode_of_a_lower_directory: Scenario {
        change: |root| Ok(chmod(root.join("tree/sub"), 0o700)?),
        points: &["copy-up.staged", "copy-up.directory-published"],
        ..NOTHING
    };
    set_an_attribute_of_a_lower_file: Scenario {
        change: |root| Ok(set_xattr(root.join("d/file"), "user.new", b"1")?),
        points: COPY_UP,
        ..NOTHING
    };
    truncate_a_lower_file: Scenario {
        change: |root| fs::File::options().write(true).open(root.join("d/file"))?.set_len(2),
        points: COPY_UP,
        ..NOTHING
    };
    write_to_a_name_of_a_hard_link: Scenario {
        change: |root| append(&root.join("links/second")),
        points: &["copy-up.staged", "copy-up.synced", "copy-up.indexed", "copy-up.published", "copy-up.directory-published"],
        ..NOTHING
    };
    create_a_file: Scenario {
        change: |root| fs::write(root.join("d/new"), ""),
        points: &["copy-up.staged", "copy-up.directory-published"],
        ..NOTHING
    };
    create_a_file_where_one_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| fs::write(root.join("d/file"), ""),
        points: &["create.staged", "create.published"],
        ..NOTHING
    };
    make_a_fifo_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| Ok(mknod(root.join("d/file"), FileType::Fifo, (0, 0))?),
        points: &["create.staged", "create.published"],
        ..NOTHING
    };
    make_a_symlink_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| symlink("elsewhere", root.join("d/file")),
        points: &["create.staged", "create.published"],
        ..NOTHING
    };
    make_a_directory: Scenario {
        change: |root| fs::create_dir(root.join("d/new")),
        points: &["copy-up.staged", "copy-up.directory-published"],
        ..NOTHING
    };
    make_a_directory_where_one_was_deleted: Scenario {
        upper: "w gone",
        change: |root| fs::create_dir(root.join("gone")),
        points: &["mkdir.staged", "mkdir.exchanged", "mkdir.published"],
        ..NOTHING
    };
    link_a_lower_file: Scenario {
        change: |root| fs::hard_link(root.join("d/file"), root.join("d/linked")),
        points: &["copy-up.staged", "copy-up.synced", "copy-up.published", "copy-up.directory-published", "link.published"],
        ..NOTHING
    };
    link_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| fs::hard_link(root.join("d/other"), root.join("d/file")),
        points: &["copy-up.staged", "copy-up.synced", "copy-up.published", "link.staged", "link.published"],
        ..NOTHING
    };
    delete_a_lower_file: Scenario {
        change: |root| fs::remove_file(root.join("d/file")),
        points: &["copy-up.staged", "copy-up.directory-published", "unlink.published"],
        ..NOTHING
    };
    delete_a_changed_file: Scenario {
        upper: "f d/file text=upper mtime=1000000020",
        change: |root| fs::remove_file(root.join("d/file")),
        points: &["unlink.whiteout-staged", "unlink.published"],
        ..NOTHING
    };
    delete_a_new_file: Scenario {
        upper: "f d/new text=upper mtime=1000000020",
        change: |root| fs::remove_file(root.join("d/new")),
        points: &["unlink.published"],
        ..NOTHING
    };
    delete_one_name_of_a_hard_link: Scenario {
        change: |root| fs::remove_file(root.join("links/first")),
        points: &["copy-up.staged", "copy-up.directory-published", "unlink.published"],
        ..NOTHING
    };
    delete_an_emptied_lower_directory: Scenario {
        upper: "w gone/old",
        change: |root| fs::remove_dir(root.join("gone")),
        points: &["rmdir.whiteout-staged", "rmdir.moved-away"],
        ..NOTHING
    };
    delete_a_new_directory: Scenario {
        upper: "d d/new",
        change: |root| fs::remove_dir(root.join("d/new")),
        points: &["rmdir.moved-away"],
        ..NOTHING
    };
    delete_a_directory_made_anew: Scenario {
        upper: "o gone",
        change: |root| fs::remove_dir(root.join("gone")),
        points: &["rmdir.whiteout-staged", "rmdir.moved-away"],
        ..NOTHING
    };
    rename_a_lower_file: Scenario {
        change: |root| fs::rename(root.join("d/file"), root.join("d/renamed")),
        points: &["copy-up.staged", "copy-up.synced", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_lower_file_to_another_directory: Scenario {
        change: |root| fs::rename(root.join("a/b/c/file"), root.join("tree/moved")),
        points: &["copy-up.staged", "copy-up.synced", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_over_a_lower_file: Scenario {
        upper: "f d/new text=new mtime=1000000020",
        change: |root| fs::rename(root.join("d/new"), root.join("d/file")),
        points: &["rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_lower_file_over_a_lower_file: Scenario {
        change: |root| fs::rename(root.join("d/file"), root.join("d/other")),
        points: &["copy-up.staged", "copy-up.synced", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_to_a_deleted_name: Scenario {
        upper: "w d/file\nf d/new text=new mtime=1000000020",
        change: |root| fs::rename(root.join("d/new"), root.join("d/file")),
        points: &["rename.prepared", "rename.published", "rename.exchanged"],
        ..NOTHING
    };
    rename_a_fifo: Scenario {
        change: |root| fs::rename(root.join("d/fifo"), root.join("d/renamed")),
        points: &["copy-up.staged", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_lower_directory: Scenario {
        change: |root| fs::rename(root.join("tree"), root.join("renamed")),
        points: &["copy-up.staged", "copy-up.synced", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_lower_directory_with_redirect: Scenario {
        options: &["redirect_dir=on"],
        change: |root| fs::rename(root.join("tree"), root.join("renamed")),
        points: &["copy-up.staged", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_new_directory: Scenario {
        upper: "f new/inside text=x mtime=1000000021",
        change: |root| fs::rename(root.join("new"), root.join("d/renamed")),
        points: &["copy-up.staged", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_directory_to_a_deleted_name: Scenario {
        upper: "w gone\nf new/inside text=x mtime=1000000021",
        change: |root| fs::rename(root.join("new"), root.join("gone")),
        points: &["rename.prepared", "rename.opaque-set", "rename.published", "rename.exchanged"],
        ..NOTHING
    };
    rename_a_directory_over_an_emptied_one: Scenario {
        upper: "w gone/old\nf new/inside text=x mtime=1000000021",
        change: |root| fs::rename(root.join("new"), root.join("gone")),
        points: &["rename.prepared", "rename.target-cleared", "rename.opaque-set", "rename.published"],
        ..NOTHING
    };
    write_to_a_metacopy: Scenario {
        options: &["metacopy=on"],
        earlier: Some(|root| Ok(chmod(root.join("d/file"), 0o600)?)),
        change: |root| write(&root.join("d/file"), b"changed"),
        points: &[],
        ..NOTHING
    };
    truncate_a_metacopy: Scenario {
        options: &["metacopy=on"],
        earlier: Some(|root| Ok(chmod(root.join("d/file"), 0o600)?)),
        change: |root| fs::File::options().write(true).open(root.join("d/file"))?.set_len(2),
        points: &[],
        ..NOTHING
    };
    rename_a_redirected_directory: Scenario {
        options: &["redirect_dir=on"],
        earlier: Some(|root| fs::rename(root.join("tree"), root.join("renamed"))),
        change: |root| fs::rename(root.join("renamed"), root.join("d/again")),
        points: &[],
        ..NOTHING
    };
    delete_the_changed_name_of_a_hard_link: Scenario {
        earlier: Some(change_a_hard_link),
        change: |root| fs::remove_file(root.join("links/second")),
        points: &[],
        ..NOTHING
    };
    delete_the_other_name_of_a_changed_hard_link: Scenario {
        earlier: Some(change_a_hard_link),
        change: |root| fs::remove_file(root.join("links/first")),
        points: &[],
        ..NOTHING
    };
    delete_the_last_name_of_a_changed_hard_link: Scenario {
        earlier: Some(|root| {
            change_a_hard_link(root)?;
            fs::remove_file(root.join("links/first"))
        }),
        change: |root| fs::remove_file(root.join("links/second")),
        points: &[],
        ..NOTHING
    };
    rename_the_other_name_of_a_changed_hard_link: Scenario {
        earlier: Some(change_a_hard_link),
        change: |root| fs::rename(root.join("links/first"), root.join("links/third")),
        points: &[],
        ..NOTHING
    };
    link_the_other_name_of_a_changed_hard_link: Scenario {
        earlier: Some(change_a_hard_link),
        change: |root| fs::hard_link(root.join("links/first"), root.join("links/third")),
        points: &[],
        ..NOTHING
    };
    rename_over_a_name_of_a_changed_hard_link: Scenario {
        earlier: Some(change_a_hard_link),
        change: |root| fs::rename(root.join("d/file"), root.join("links/first")),
        points: &[],
        ..NOTHING
    };
    exchange_two_lower_files: Scenario {
        change: |root| exchange(&root.join("d/file"), &root.join("d/other")),
        points: &["copy-up.staged", "copy-up.synced", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.exchanged"],
        ..NOTHING
    };
    exchange_a_lower_file_and_a_directory: Scenario {
        change: |root| exchange(&root.join("d/file"), &root.join("tree")),
        points: &["copy-up.staged", "copy-up.synced", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.opaque-set", "rename.exchanged"],
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

    /// The union before the change, mounted so that the daemon dies at `fault` if that is not empty.
    fn mount(&self, fault: &str) -> Union {
        let builder = Union::new().lower(self.lowers[0]).lower(self.lowers[1]).upper(self.upper);
        let builder = builder.wrapper(DYING);
        let builder = self.options.iter().fold(builder, |builder, option| builder.option(*option));
        wish(builder.path(), if self.earlier.is_none() { fault } else { "" });
        let mut union = builder.mount();
        if let Some(earlier) = self.earlier {
            earlier(&union.path("")).unwrap();
            wish(union.scratch(), fault);
            union.remount();
        }
        union
    }

    /// Makes the change with a daemon that dies at `fault`; false if it never comes there.
    fn dies(&self, fault: &str, reference: &Reference) -> bool {
        let mut union = self.mount(fault);
        let old = union.snapshot();
        let started = SystemTime::now();
        if (self.change)(&union.path("")).is_ok() {
            return false;
        }
        clear_away(&mut union, fault);
        wish(union.scratch(), "");
        union.start();
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

/// Where the program to be started in `dir` shall die.
fn wish(dir: &Path, fault: &str) {
    fs::write(dir.join("fault"), fault).unwrap();
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
    work: BTreeMap<String, usize>,
}

impl Reference {
    fn of(scenario: &Scenario) -> Self {
        let mut union = scenario.mount("");
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
        assert_links_are_counted(found, fault);
        // Not of directories: what is published in one changes its time, and setting that back is a second step, as in
        // the kernel.
        let is_file = |path: &str| found.field(path, Field::Kind) != Some("Directory");
        for path in
            found.paths().iter().filter_map(|path| path.to_str()).filter(|path| is_file(path))
        {
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
        for (path, count) in work_paths(union) {
            let expected = self.work.get(&path).copied().unwrap_or(0);
            assert!(
                count <= expected,
                "{fault}: in the work directory: {count} of {path}, not {expected}"
            );
        }
    }
}

/// What must be as before or as after a change that was cut off.
fn bare(tree: &Snapshot) -> Snapshot {
    tree.clone().without(&[Field::Mtime, Field::Nlink])
}

/// A link count may be too high after a crash, for it is written down apart from the name. Were it too low, a file would
/// be given up while it still has a name.
fn assert_links_are_counted(tree: &Snapshot, fault: &str) {
    let paths: Vec<_> = tree.paths().into_iter().filter_map(Path::to_str).collect();
    let group = |path: &str| tree.field(path, Field::Links).unwrap_or(path).to_owned();
    for path in &paths {
        let Some(count) = tree.field(path, Field::Nlink) else { continue };
        let names = paths.iter().filter(|other| group(other) == group(path)).count();
        let enough = count.parse::<usize>().unwrap() >= names;
        assert!(enough, "{fault}: {path} has {names} names and a link count of {count}");
    }
}

/// How many entries the work directory has of each kind: names made of a file handle differ from run to run.
fn work_paths(union: &Union) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for path in Snapshot::of(&union.work("")).paths() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_handle = name.len() > 20 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let path = if is_handle { path.with_file_name("HANDLE") } else { path.to_owned() };
        *counts.entry(path.to_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

/// Is this time stamp of a snapshot not before `start`? Timestamps are as coarse as a clock tick.
fn is_since(stamp: Option<String>, start: SystemTime) -> bool {
    let tick = Duration::from_millis(20);
    let start = (start - tick).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    stamp.is_some_and(|stamp| stamp.parse::<f64>().unwrap() >= start.as_secs_f64())
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

fn change_a_hard_link(root: &Path) -> io::Result<()> {
    append(&root.join("links/second"))?;
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_030);
    fs::File::open(root.join("links/second"))?.set_modified(past)
}

fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    Ok(rename_with(a, b, RenameFlags::EXCHANGE)?)
}
