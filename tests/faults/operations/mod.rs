//! Every operation, in every situation that makes it work in another way.

mod attributes;
mod create;
mod data;
mod read;
mod remove;
mod rename;

/// Declares each scenario as a test of its own.
macro_rules! scenarios {
    ($($name:ident: $scenario:expr;)*) => {
        $(
            #[test]
            fn $name() {
                if !rustix::process::geteuid().is_root() {
                    println!("skipped: only root can make the layers");
                    return;
                }
                const SCENARIO: crate::scenario::Scenario = $scenario;
                SCENARIO.fail_everywhere();
            }
        )*
    };
}
use scenarios;
