//! One call fails once: is everything right then?

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use plyfs::overlay::NodeId;
use rustix::io::Errno;

use crate::layers::Uppers;
use crate::matrix::Run;
use crate::reference::{Made, Reference};
use crate::state::{Record, State};
use crate::union::{Answer, ROOT, Union};

/// What a call can come to.
pub const ERRORS: [Errno; 6] =
    [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::INTR, Errno::MFILE, Errno::ACCESS];

/// Which call fails, how, and what happens then.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The index of the call among those of the operation.
    pub nth: usize,
    pub errno: Errno,
    /// Whether the operation is made again in the same mount; else the union is opened again first.
    pub retry: bool,
}

/// An operation of which one call fails.
pub struct Trial<'a> {
    run: Run<'a>,
    reference: &'a Reference,
    fault: Fault,
    /// What is not right, line by line.
    wrong: String,
}

impl<'a> Trial<'a> {
    pub fn new(run: Run<'a>, reference: &'a Reference, fault: Fault) -> Self {
        Self { run, reference, fault, wrong: String::new() }
    }

    /// What was not right, in lines.
    pub fn carry_out(mut self) -> Result<(), String> {
        let before = descriptors();
        let ended = catch_unwind(AssertUnwindSafe(|| self.check()));
        match ended {
            Err(panic) => self.note(format!("panic: {}", message(&*panic))),
            Ok(()) if descriptors() != before => {
                self.note(format!("{before} descriptors before, {} after", descriptors()));
            }
            Ok(()) => {}
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(self.wrong) }
    }

    fn note(&mut self, what: impl AsRef<str>) {
        writeln!(self.wrong, "    {}", what.as_ref()).unwrap();
    }

    fn call(&self) -> &'a Made {
        &self.reference.calls[self.fault.nth]
    }

    fn check(&mut self) {
        let (layers, union, _) = self.run.begin();
        let result = self.act(&union);
        let mut live = State::of(&union.overlay, &union.nodes, None);
        let done = self.check_result(&live, &result);
        if self.fault.retry {
            if !done {
                self.act_again(&union, "made again");
            }
            live = State::of(&union.overlay, &[], None);
            self.probe(&union, &live);
            live = State::of(&union.overlay, &[], None);
        }
        let stay = union.close();
        if stay != 1 {
            self.note(format!("{stay} nodes stay when all are forgotten"));
        }
        self.open_again(&layers, &live.named(), done);
        for (path, count) in layers.work() {
            let wanted = self.reference.work.get(&path).copied().unwrap_or(0);
            if count > wanted {
                self.note(format!(
                    "in the work directory: {count} of {}, not {wanted}",
                    path.display()
                ));
            }
        }
    }

    fn act(&mut self, union: &Union) -> Answer<String> {
        let Fault { nth, errno, .. } = self.fault;
        let mut count = 0;
        let result = self.run.act(union, |_| {
            count += 1;
            (count == nth + 1).then_some(errno)
        });
        if count <= nth {
            self.note("the call was not reached");
        }
        result
    }

    /// Whether the operation has been done: it is, or it is not, and the caller was told.
    fn check_result(&mut self, live: &State, result: &Answer<String>) -> bool {
        let from_old = self.difference(live, &self.reference.old);
        let from_new = self.difference(live, &self.reference.new);
        match result {
            Ok(reply) if *reply != self.reference.reply => {
                self.note(format!(
                    "the caller got {reply:?} instead of {:?}",
                    self.reference.reply
                ));
            }
            Err(error) if *error != self.fault.errno => {
                self.note(format!("the caller got {}", name(*error)));
            }
            _ => {}
        }
        let done = result.is_ok() || !from_old.is_empty();
        if result.is_ok() && self.call().must_tell() && self.fault.errno != Errno::INTR {
            self.note("the caller did not get to know");
        }
        if result.is_ok() && !from_new.is_empty() {
            self.note(format!("success, but is / should be:\n{from_new}"));
        } else if done && !from_new.is_empty() {
            self.note(format!(
                "an error, but is / was:\n{from_old}     and is / would be:\n{from_new}"
            ));
        } else if result.is_err() && done && !self.only_answer_is_missing() {
            self.note("an error, but all is done");
        }
        done
    }

    /// The differences that count between what is and what should be.
    fn difference(&self, is: &State, should_be: &State) -> String {
        let strip = |state: &State| {
            let state = without_dir_times(state);
            let state = match self.run.scenario.strips {
                true => state.without(&["mode"], |_, _| true),
                false => state,
            };
            match self.call().removes_a_leftover() {
                // The file has lost its name, but for that of the leftover.
                true => state.without(&["nlink"], |path, _| is_held(path)),
                false => state,
            }
        };
        strip(is).difference(&strip(should_be))
    }

    /// Attributes that have been changed and cannot be read back: no answer can be given without them.
    fn only_answer_is_missing(&self) -> bool {
        let mut rest = self.reference.calls[self.fault.nth..].iter();
        rest.all(|call| !call.changes)
            && self.reference.reply.starts_with("mode ")
            && self.call().shown.contains("stat")
    }

    /// Carries the operation out again, without a fault.
    fn act_again(&mut self, union: &Union, when: &str) {
        match self.run.act(union, |_| None) {
            Ok(_) => {
                let found = State::of(&union.overlay, &union.nodes, None);
                let should_be = without_dir_times(&self.reference.new);
                let difference = without_dir_times(&found).difference(&should_be);
                if !difference.is_empty() {
                    self.note(format!("{when}, is / should be:\n{difference}"));
                }
            }
            Err(error) => self.note(format!("{when}: {}", name(error))),
        }
    }

    /// A name can be made and removed in every directory: nothing is locked, nothing is in the way.
    fn probe(&mut self, union: &Union, state: &State) {
        for (path, record) in &state.entries {
            if record.get("kind").is_some_and(|kind| kind == "Directory") {
                let dir = union.find(path.to_str().unwrap());
                if let Err(error) = make_and_remove(union, dir) {
                    self.note(format!("in {path:?} nothing can be made: {}", name(error)));
                }
            }
        }
    }

    fn open_again(&mut self, layers: &Uppers, expected: &State, done: bool) {
        let mut again = self.run.open(layers);
        let found = State::of(&again.overlay, &[], None);
        // A name that is gone stays gone, also where its link count could not be stored.
        let uncounted: &[&str] = if done && self.call().counts_links() { &["nlink"] } else { &[] };
        let strip = |state: &State| without_dir_times(state).without(uncounted, |_, _| true);
        let difference = strip(&found).difference(&strip(expected));
        if !difference.is_empty() {
            self.note(format!("opened again, is / was (done: {done}):\n{difference}"));
        } else if !found.renumbered(expected).is_empty() {
            self.note(format!(
                "opened again, other inode numbers: {:?}",
                found.renumbered(expected)
            ));
        } else if !self.fault.retry && !done && self.run.scenario.before.is_none() {
            again.nodes = self.run.scenario.nodes.iter().map(|path| again.find(path)).collect();
            self.act_again(&again, "opened again and made again");
        }
        again.close();
    }
}

impl Made {
    /// Whether an error of this call may never be kept from the caller: his data is not where he wants it.
    fn must_tell(&self) -> bool {
        let told = ["fsync(", "fdatasync(", "pwrite64(", "pread64(", "ftruncate(", "fallocate("];
        told.iter().any(|call| self.shown.starts_with(call))
    }

    /// Whether it stores, or helps to store, a link count.
    fn counts_links(&self) -> bool {
        self.shown.contains("nlink") || self.shown.starts_with("name_to_handle_at")
    }

    /// Whether it removes what is of no use any more.
    fn removes_a_leftover(&self) -> bool {
        let place = ["/plyfs/stage/", "/work/index/"].iter().any(|at| self.shown.contains(at));
        place && self.shown.starts_with("unlinkat(")
    }
}

/// The time of a directory tells of changes in it also when they are undone.
fn without_dir_times(state: &State) -> State {
    let is_dir = |record: &Record| record.get("kind").is_some_and(|kind| kind == "Directory");
    state.without(&["mtime"], |_, record| is_dir(record))
}

fn is_held(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with('@'))
}

fn make_and_remove(union: &Union, dir: NodeId) -> Answer<()> {
    let name = std::ffi::OsStr::new("probe");
    let made = union.overlay.create(ROOT, dir, name, 0o600, 0)?;
    union.hold([made.node]);
    union.overlay.unlink(dir, name)
}

/// The name of an error.
pub fn name(errno: Errno) -> &'static str {
    let names = ["EIO", "ENOSPC", "EDQUOT", "EINTR", "EMFILE", "EACCES"];
    match ERRORS.iter().position(|it| *it == errno) {
        Some(at) => names[at],
        None if errno == Errno::EXIST => "EEXIST",
        None if errno == Errno::NOENT => "ENOENT",
        None => "another error",
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()
}
