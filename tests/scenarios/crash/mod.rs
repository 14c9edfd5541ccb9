//! The daemon dies at every step of every change. After the next mount the union is as before the change or as
//! after it, nothing in between, and nothing that was deleted comes back.

mod changes;
mod succeeded;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use plyfs::sys::fault;
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};

use self::changes::SCENARIOS;
use crate::support::{Builder, Field, Snapshot, Union, assert_same};

/// Starts a program that dies at the fault point named in the file `fault`, if one is.
const DYING: &[&str] = &["sh", "-c", "PLYFS_FAULT=$(cat fault) exec \"$@\"", "sh"];

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

/// The fault points of mounts; those of rewrites and of the store are tested with them.
fn points() -> impl Iterator<Item = &'static &'static str> {
    let others = ["convert.", "import.", "tags.", "container."];
    fault::POINTS.iter().filter(move |point| !others.iter().any(|other| point.starts_with(other)))
}

/// Otherwise a step could be added that no test ever interrupts.
#[test]
fn every_fault_point_is_tested() {
    let tested: BTreeSet<_> = SCENARIOS.iter().flat_map(|scenario| scenario.points).collect();
    assert_eq!(tested, points().collect(), "points of the scenarios, and of the program");
}

impl Scenario {
    fn die_everywhere(&self) {
        let reference = Reference::of(self);
        let mut hit = Vec::new();
        for point in points() {
            let times = (1..).take_while(|nth| self.dies(&format!("{point}:{nth}"), &reference));
            if times.count() > 0 {
                hit.push(*point);
            }
        }
        assert_eq!(hit, self.points, "the fault points that were reached, and those declared");
    }

    /// The union before the change, mounted so that the daemon dies at `fault` if that is not empty.
    fn mount(&self, fault: &str) -> Union {
        self.mount_with(fault, |builder| builder)
    }

    /// The same with what `more` adds.
    fn mount_with(&self, fault: &str, more: impl FnOnce(Builder) -> Builder) -> Union {
        let builder = Union::new().lower(self.lowers[0]).lower(self.lowers[1]).upper(self.upper);
        let builder = more(builder.wrapper(DYING));
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
        assert_sound(&union, fault);
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
        assert_sound(&union, fault);
        reference.assert_no_leftovers(&union, fault);
        true
    }
}

/// Panics if a check of the layers finds a problem: what the next mount clears away is none.
fn assert_sound(union: &Union, fault: &str) {
    let checked = union.check(&[]);
    assert_eq!(checked.status, 0, "{fault}: check: {}{}", checked.found(), checked.error);
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
