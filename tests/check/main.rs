//! `plyfs check` and `plyfs convert` from outside: defects made by hand or by the program that makes them, judged by
//! what real mounts show.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../mounted/support/mod.rs"]
mod support;

mod attributes;
mod below;
mod convert;
mod names;
mod refusals;
mod size;
mod work;

/// Otherwise a rule could be added that nothing ever breaks.
#[test]
fn every_rule_is_tested() {
    let tests = [
        include_str!("attributes.rs"),
        include_str!("below.rs"),
        include_str!("names.rs"),
        include_str!("work.rs"),
    ];
    for rule in plyfs::check::rule::ALL {
        let expected = format!("{} upper", rule.word);
        let in_work = format!("{} work", rule.word);
        let tested = tests.iter().any(|test| test.contains(&expected) || test.contains(&in_work));
        assert!(tested, "{} is tested", rule.word);
    }
}
