//! Reference-model property test of the overlay core, without FUSE.
//!
//! A random stack of layers is put on disk, then random operations run both on a plain POSIX tree
//! in memory and on the filesystem under test. Every answer, and the whole tree after it, must be
//! the same; lower layers stay as they were; closing and reopening changes nothing.
//!
//! Cases, their number and their seed: `tests/cases`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use crate::cases::op::Redirect;
use crate::setup::Setup;

#[path = "../cases/mod.rs"]
mod cases;
mod compare;
mod driver;
mod kernel;
#[path = "../mounted/support/mode.rs"]
#[allow(dead_code, reason = "nothing is skipped here")]
mod mode;
mod regressions;
mod run;
mod setup;
mod snapshot;
mod subject;
mod union;

fn random_cases(setup: Setup, default_cases: u64) {
    cases::random::random_cases(setup, setup.profile(), default_cases, |case| setup.run(case));
}

#[test]
fn the_model_agrees_with_the_kernel() {
    random_cases(Setup::Host, 200);
}

#[test]
fn the_initial_tree_agrees_with_kernel_overlayfs() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount what the kernel writes as root");
        return;
    }
    random_cases(Setup::KernelOverlay, 120);
}

#[test]
fn a_union() {
    random_cases(Setup::Union(Redirect::Copy), 250);
}

#[test]
fn a_union_with_redirects() {
    random_cases(Setup::Union(Redirect::Mark), 250);
}

#[test]
fn a_union_that_refuses_to_rename_lower_directories() {
    random_cases(Setup::Union(Redirect::Refuse), 80);
}

#[test]
fn a_union_with_its_upper_layer_in_memory() {
    random_cases(Setup::UpperInMemory(Redirect::Copy), 200);
}

#[test]
fn a_union_with_its_upper_layer_in_memory_and_redirects() {
    random_cases(Setup::UpperInMemory(Redirect::Mark), 200);
}

#[test]
fn a_union_without_an_upper_layer() {
    random_cases(Setup::ReadOnly, 80);
}

#[test]
fn a_union_that_writes_dot_files() {
    random_cases(Setup::DotFiles, 120);
}

#[test]
fn a_union_that_stores_attributes() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: an ordinary user cannot store attributes of symbolic links");
        return;
    }
    random_cases(Setup::StoredAttributes, 120);
}
