//! Runs random cases, and minimises the first failure.

use std::fmt::Debug;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::cases::case::{Case, Check};
use crate::cases::generate;
use crate::cases::profile::Profile;
use crate::cases::shrink::CaseTree;

/// Runs cases for `setup` as `run` says; panics with the code of the minimised first failure.
pub fn random_cases<S: Debug>(
    setup: S,
    profile: Profile,
    default_cases: u64,
    run: impl Fn(&Case) -> Check,
) {
    // Each operation brings its umask along; that of the process must not interfere.
    rustix::process::umask(rustix::fs::Mode::empty());
    let number = |name| std::env::var(name).ok().map(|it| it.parse::<u64>().unwrap());
    let cases = number("PLYFS_CASES").unwrap_or(default_cases);
    let seed = number("PLYFS_SEED").unwrap_or_else(|| {
        std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into()
    });
    println!("{setup:?}: {cases} cases from PLYFS_SEED={seed}");
    for case in 0..cases {
        let bytes: Vec<u8> = [seed, case, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let tree = CaseTree::new(generate::case(profile, &mut rng), profile.layers.0);
        let config = Config {
            max_shrink_iters: 5000,
            // Of a run that is killed for its length, nobody would see anything.
            max_shrink_time: 180_000,
            failure_persistence: None,
            ..Config::default()
        };
        let result = TestRunner::new_with_rng(config, rng)
            .run_one(tree, |case| run(&case).map_err(TestCaseError::fail));
        if let Err(TestError::Fail(why, minimal)) = result {
            let code = minimal.code(&setup);
            panic!("case {case} of PLYFS_SEED={seed}: {why}\n{code}");
        }
    }
}
