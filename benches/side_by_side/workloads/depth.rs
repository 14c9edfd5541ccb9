//! What many layers cost.

use super::super::Outcome;
use super::super::row::{Row, State};
use super::super::run::Run;
use super::super::scale::Scale;
use super::super::shape::Shape::Deep;
use super::walk::{ask_for_absent, open_root, stat_all};

pub(super) fn rows() -> Vec<Row> {
    let lookup = |name, what, layers| Row::new(name, what, Deep(layers), State::Fresh, stat_all);
    vec![
        Row::new(
            "absent-40",
            "absent names, 40 layers, first time",
            Deep(40),
            State::Fresh,
            absent,
        )
        .goals(1.0, 1.0)
        .in_chart(),
        Row::new("absent-40-again", "the same again", Deep(40), State::Warm, absent_again)
            .goals(1.0, 4.0),
        lookup("lookup-40", "1,000 names, 40 layers, first time", 40),
        Row::new(
            "absent-200",
            "absent names, 200 layers, first time",
            Deep(200),
            State::Fresh,
            absent,
        )
        .goals(1.0, 1.0)
        .in_chart(),
        Row::new("absent-200-again", "the same again", Deep(200), State::Warm, absent_again)
            .goals(1.0, 4.0),
        lookup("lookup-1", "1,000 names, 1 layer, first time", 1),
        lookup("lookup-200", "1,000 names, 200 layers, first time", 200).from(Scale::Full),
        lookup("lookup-500", "1,000 names, 500 layers, first time", 500)
            .from(Scale::Quick)
            .in_chart(),
    ]
}

fn names() -> Vec<String> {
    (0..1000).map(|number| format!("d/absent-{number}")).collect()
}

fn absent(run: &mut Run) -> Outcome<()> {
    let (root, names) = (open_root(run)?, names());
    run.timed(names.len(), || ask_for_absent(&root, &names))
}

fn absent_again(run: &mut Run) -> Outcome<()> {
    let (root, names) = (open_root(run)?, names());
    run.repeated(names.len(), || ask_for_absent(&root, &names))
}
