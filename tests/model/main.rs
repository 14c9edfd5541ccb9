//! Reference-model property test of the overlay core, without FUSE.
//!
//! A random stack of layers is put on disk, then random operations run both on a plain POSIX tree
//! in memory and on the filesystem under test. Every answer, and the whole tree after it, must be
//! the same; lower layers stay as they were; closing and reopening changes nothing.
//!
//! `PLYFS_MODEL_CASES` sets the number of cases of each test, `PLYFS_MODEL_SEED` repeats a run.
//! A failure prints its minimised case as code, to be kept in `regressions`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::case::{Redirect, Setup};
use crate::generate::Profile;
use crate::shrink::CaseTree;

mod acl;
mod case;
mod compare;
mod driver;
mod generate;
mod initial;
mod kernel;
mod layer;
mod materialise;
mod model;
mod op;
mod regressions;
mod shrink;
mod snapshot;
mod subject;
mod text;
mod union;

/// Runs random cases; panics with the minimised first failure.
fn random_cases(setup: Setup, default_cases: u64) {
    // The subject gets the umask of its caller with each request; its own must not interfere.
    rustix::process::umask(rustix::fs::Mode::empty());
    let number = |name| std::env::var(name).ok().map(|it| it.parse::<u64>().unwrap());
    let cases = number("PLYFS_MODEL_CASES").unwrap_or(default_cases);
    let seed = number("PLYFS_MODEL_SEED").unwrap_or_else(|| {
        std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into()
    });
    println!("{setup:?}: {cases} cases from PLYFS_MODEL_SEED={seed}");
    let profile = Profile { setup, privileged: rustix::process::geteuid().is_root() };
    for case in 0..cases {
        let bytes: Vec<u8> = [seed, case, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let tree = CaseTree::new(generate::case(profile, &mut rng));
        let config =
            Config { max_shrink_iters: 5000, failure_persistence: None, ..Config::default() };
        let result = TestRunner::new_with_rng(config, rng)
            .run_one(tree, |case| case.run().map_err(TestCaseError::fail));
        if let Err(TestError::Fail(why, minimal)) = result {
            panic!("case {case} of PLYFS_MODEL_SEED={seed}: {why}\n{minimal:?}");
        }
    }
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
