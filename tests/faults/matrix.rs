//! Every call of an operation fails once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Mutex;

use plyfs::overlay::Config;
use rustix::io::Errno;

use crate::ground::Ground;
use crate::layers::{Lowers, Uppers};
use crate::reference::Reference;
use crate::scenario::Scenario;
use crate::state::State;
use crate::syscalls::{Answer, Call, watch};
use crate::trial::{ERRORS, Fault, Trial, name};
use crate::union::{self, Union};

/// Where several tests share a process, its descriptors can be counted by one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// One way to carry a scenario out.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    pub scenario: &'a Scenario,
    pub lowers: &'a Lowers,
    pub ground: Ground,
    /// Whether everything has been looked at before.
    pub warm: bool,
}

/// How thorough a run is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// Each call that changes something comes to two errors, each other one to one; they change from call to call.
    /// The very same call of a scenario is not tried again on other grounds.
    Some,
    /// Each call comes to every error in every way.
    All,
}

impl Scenario {
    /// Fails every call, on every ground, and panics with all that was not right.
    pub fn fail_everywhere(&self) {
        let _alone = ALONE.lock();
        rustix::process::umask(rustix::fs::Mode::empty());
        let all = std::env::var("PLYFS_FAULTS").is_ok_and(|value| value == "all");
        let effort = if all { Effort::All } else { Effort::Some };
        let lowers = Lowers::new(self);
        let mut tried = BTreeSet::new();
        // By the call that failed and what was wrong then: the ways in which it came to that.
        let mut wrong: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        let mut cases = 0;
        for &ground in self.grounds {
            for warm in [true, false] {
                if effort == Effort::Some && !warm && ground != self.grounds[0] {
                    continue;
                }
                let run = Run { scenario: self, lowers: &lowers, ground, warm };
                let reference = Reference::of(&run);
                for (nth, call) in reference.calls.iter().enumerate() {
                    for fault in faults(&reference, nth, effort, &tried) {
                        cases += 1;
                        let Err(why) = Trial::new(run, &reference, fault).carry_out() else {
                            continue;
                        };
                        let errno = name(fault.errno);
                        let looked = if warm { "warm" } else { "cold" };
                        let way = format!("{ground:?}:{looked}:{nth}={errno}");
                        let why = why.replace(errno, "that error");
                        wrong.entry((call.shown.clone(), why)).or_default().push(way);
                    }
                }
                tried.extend(reference.calls.into_iter().map(|call| call.shown));
            }
        }
        println!("{cases} cases");
        let mut report = lowers.changes();
        for ((call, why), ways) in wrong {
            writeln!(report, "  {call} fails ({}):\n{why}", ways.join(" ")).unwrap();
        }
        assert!(report.is_empty(), "\n{report}");
    }
}

/// What the call `nth` of `reference` is to come to, where some ways have been `tried` already.
fn faults(
    reference: &Reference,
    nth: usize,
    effort: Effort,
    tried: &BTreeSet<String>,
) -> Vec<Fault> {
    let call = &reference.calls[nth];
    let turn = |retry: bool| {
        let errno = ERRORS[(nth + reference.calls.len() + 3 * usize::from(retry)) % ERRORS.len()];
        Fault { nth, errno, retry }
    };
    match effort {
        Effort::All => ERRORS
            .into_iter()
            .flat_map(|errno| [true, false].map(|retry| Fault { nth, errno, retry }))
            .collect(),
        Effort::Some if tried.contains(&call.shown) => Vec::new(),
        Effort::Some if call.changes => vec![turn(true), turn(false)],
        Effort::Some => vec![turn(nth.is_multiple_of(2))],
    }
}

impl Run<'_> {
    /// Fresh layers, the open union, and what it shows before the operation.
    pub fn begin(&self) -> (Uppers, Union, State) {
        let layers = Uppers::new(self.scenario);
        if let Some(earlier) = self.scenario.earlier {
            let union = self.open(&layers);
            earlier(&union).expect("the earlier operation");
            union.close();
        }
        let mut union = self.open(&layers);
        union.nodes = self.scenario.nodes.iter().map(|path| union.find(path)).collect();
        if let Some(before) = self.scenario.before {
            before(&union).expect("the operation before");
        }
        let mut entered = Vec::new();
        let old = if self.warm {
            State::of(&union.overlay, &union.nodes, Some(&mut entered))
        } else {
            State::default()
        };
        union.hold(entered);
        (layers, union, old)
    }

    /// Opens the union.
    pub fn open(&self, layers: &Uppers) -> Union {
        let config = Config {
            lower: self.lowers.paths(),
            upper: Some(layers.paths()),
            redirect: self.scenario.redirect,
            ..Config::default()
        };
        Union::open(&self.ground.configure(config), self.ground)
    }

    /// Carries the operation out; `fail` says which calls fail.
    pub fn act(
        &self,
        union: &Union,
        mut fail: impl FnMut(&Call) -> Option<Errno>,
    ) -> union::Answer<String> {
        let answer = |call: &Call| match self.ground.answer(call) {
            Answer::Go => fail(call).map_or(Answer::Go, Answer::Fail),
            denied => denied,
        };
        watch(answer, || (self.scenario.act)(union))
    }
}
