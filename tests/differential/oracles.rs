//! Who is right where the kernel's overlay and a plain directory disagree.
//!
//! Where all three agree there is nothing to ask. Else the first row that is about the question
//! decides; without one the case has failed.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::io::Errno;

use crate::answer::{Answer, Question, error_name, succeeded};
use crate::cases::case::Check;
use crate::cases::op::{Op, Target};
use crate::setup::Setup;
use crate::support::Field;

/// A question, and where it was asked.
pub struct Asked<'a> {
    /// The operation that answered; none for the tree.
    pub op: Option<&'a Op>,
    /// The object in the tree.
    pub place: &'a Path,
    pub question: &'a Question,
    pub looks: Looks,
    /// The kernel no longer judges: its answers are those of the plain directory.
    pub kernel_is_lost: bool,
}

/// Who looks at what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// Each at its own union.
    EachAtItsOwn,
    /// The kernel at what plyfs wrote; the answers of plyfs are those before.
    KernelAtPlyfs,
    /// plyfs at what the kernel wrote; the answers of the kernel are those before.
    PlyfsAtKernel,
}

/// The answer of each side; none if it does not know the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers<'a> {
    pub plyfs: Option<&'a str>,
    pub kernel: Option<&'a str>,
    pub plain: Option<&'a str>,
}

struct Row {
    about: fn(&Asked, &Answers) -> bool,
    right: fn(&Asked, &Answers) -> bool,
    /// Shown with a failure.
    why: &'static str,
}

fn like_either(_: &Asked, answers: &Answers) -> bool {
    answers.plyfs == answers.kernel || answers.plyfs == answers.plain
}

fn like_plain(_: &Asked, answers: &Answers) -> bool {
    answers.plyfs == answers.plain
}

/// What the kernel left is shown as it may be.
fn like_plain_at_first(asked: &Asked, answers: &Answers) -> bool {
    asked.looks != Looks::EachAtItsOwn || like_plain(asked, answers)
}

fn of_no_interest(_: &Asked, _: &Answers) -> bool {
    true
}

const TABLE: &[Row] = &[
    Row {
        about: |asked, _| asked.is_mark("user.overlay."),
        right: of_no_interest,
        why: "plyfs writes marks for every reader; the kernel hides those of one",
    },
    Row {
        about: |asked, _| asked.looks == Looks::KernelAtPlyfs && asked.is_field(Field::Nlink),
        right: of_no_interest,
        why: "plyfs counts deleted lower names where the kernel does not look",
    },
    Row {
        about: |asked, _| asked.is_field(Field::Nlink),
        right: |asked, answers| asked.kernel_is_lost || like_either(asked, answers),
        why: "names that a lower file has outside of the union count; a copy of the union has none",
    },
    Row {
        about: |asked, _| asked.is_of_held(),
        right: like_plain,
        why: "the kernel's descriptors of lower objects do not follow all that happens to them",
    },
    Row {
        about: |asked, _| asked.is_field(Field::Mtime),
        right: like_plain,
        why: "the kernel changes the times of directories in which a rename fails, and of a file with \
              capabilities when it copies the data of a metacopy",
    },
    Row {
        about: |asked, _| *asked.question == Question::OtherNumbers,
        right: like_plain_at_first,
        why: "the kernel lists links of copied-up files with other numbers than stat(2) tells",
    },
];

impl Asked<'_> {
    fn is_mark(&self, prefix: &str) -> bool {
        matches!(self.question, Question::Attribute(name) if name.starts_with(prefix))
    }

    /// Whether the operation was about an object by its descriptor.
    fn is_of_held(&self) -> bool {
        self.op.is_some_and(|op| op.targets().iter().any(|it| matches!(it, Target::Held(_))))
    }

    fn is_field(&self, field: Field) -> bool {
        *self.question == Question::Field(field)
    }
}

/// Whether the kernel is no longer fit to judge, so that from here on the plain directory is right:
///
/// * It can neither move every directory nor write redirects of more than 256 bytes.
/// * Without an index, a new link to a lower file is another object to it: with a size of its own, and not
///   to be renamed onto the other name.
/// * What has lost its name after it was opened (`moved`) it copies up to where that was, over whatever
///   is there now, or not at all.
pub fn kernel_is_lost(
    setup: Setup,
    op: &Op,
    moved: &BTreeSet<u8>,
    plyfs: &Answer,
    kernel: &Answer,
) -> bool {
    let gave_up =
        |errno| error_of(kernel) == error_name(errno) && error_of(plyfs) != error_name(errno);
    let is_moved = |target: &&Target| matches!(target, Target::Held(slot) if moved.contains(slot));
    let copies_up_nothing = op.mutates() && op.targets().iter().any(is_moved);
    let has_no_index = setup == Setup::UserNamespace;
    let comes_apart = has_no_index && matches!(op, Op::Link(..)) && succeeded(kernel);
    gave_up(Errno::XDEV) || copies_up_nothing || comes_apart
}

/// Whether an operation was refused because it would have to move something to another filesystem.
pub fn is_crossed(answer: &Answer) -> bool {
    error_of(answer) == error_name(Errno::XDEV)
}

fn error_of(answer: &Answer) -> &str {
    &answer[&Question::Error]
}

pub fn judge(asked: &Asked, answers: &Answers) -> Check {
    if answers.plyfs == answers.kernel && answers.plyfs == answers.plain {
        return Ok(());
    }
    let row = TABLE.iter().find(|row| (row.about)(asked, answers));
    if row.is_some_and(|row| (row.right)(asked, answers)) {
        return Ok(());
    }
    let place = if asked.op.is_none() { format!("{:?}: ", asked.place) } else { String::new() };
    let rule = row.map_or("no rule says who is right", |row| row.why);
    Err(format!("{place}{:?}: {answers:?} ({rule})", asked.question))
}
