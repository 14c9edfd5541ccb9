//! Differential test: random operations through a real mount of plyfs, through a mount of the kernel's
//! overlay, and on a plain directory, all on the same disk.
//!
//! The layers are the same for both unions; those below the upper one were made by further random
//! operations through one of the two. The plain directory is a copy of what the kernel shows at the
//! start. Every answer and the whole trees are compared; then all is mounted again and compared; then
//! each of the two mounts what the other left on disk. Which of the two judges counts where they
//! disagree stands in `oracles`.
//!
//! Cases, their number and their seed: `tests/cases`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use crate::setup::Setup;

#[path = "../mounted/support/mod.rs"]
mod support;

mod answer;
#[path = "../cases/mod.rs"]
mod cases;
mod committed;
mod comparison;
mod identity;
mod oracles;
mod reading;
mod regressions;
mod run;
mod setup;
mod sides;
mod system_calls;

fn random_cases(setup: Setup, default_cases: u64) {
    cases::random::random_cases(setup, setup.profile(), default_cases, |case| setup.run(case));
}

#[test]
fn a_union() {
    not_with!("writeback=1", "xattr_permissions");
    isolated!(Root, random_cases(Setup::Default, 50));
}

#[test]
fn a_union_with_redirects() {
    not_with!("writeback=1", "xattr_permissions");
    isolated!(Root, random_cases(Setup::Redirects, 50));
}

#[test]
fn a_union_that_refuses_to_rename_lower_directories() {
    not_with!("writeback=1", "xattr_permissions");
    isolated!(Root, random_cases(Setup::Refusal, 50));
}

#[test]
fn a_union_in_a_user_namespace() {
    not_with!("xattr_permissions");
    isolated!(UserNamespace, random_cases(Setup::UserNamespace, 50));
}

fn committed_cases(setup: Setup, default_cases: u64) {
    let run = |case: &cases::case::Case| setup.run_committed(case);
    cases::random::random_cases(setup, setup.profile(), default_cases, run);
}

#[test]
fn a_committed_layer() {
    not_with!("packed", "writeback=1", "xattr_permissions");
    isolated!(Root, committed_cases(Setup::Default, 25));
}

#[test]
fn a_committed_layer_with_redirects() {
    not_with!("packed", "writeback=1", "xattr_permissions");
    isolated!(Root, committed_cases(Setup::Redirects, 25));
}
