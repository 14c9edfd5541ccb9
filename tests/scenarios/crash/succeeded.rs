//! With `supervise`, the daemon that goes on for one that was killed dies too, at every step of every change. The next one
//! carries the change out: the caller, who has waited all the while, is told so, and the union is as after it.

use std::fs;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::{Reference, Scenario, assert_sound, bare};
use crate::support::{Union, assert_same};

/// Longer than a daemon takes to begin on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

impl Scenario {
    pub(super) fn is_carried_out_by_the_next(&self) {
        let reference = Reference::of(self);
        for point in self.points {
            let fault = |nth| format!("{point}:{nth}");
            let times = (1..).take_while(|nth| self.survives(&fault(*nth), 1, &reference));
            assert!(times.count() > 0, "{point}: nobody died");
            // And who is to carry it out dies there too, if he comes there again.
            assert!(self.survives(&fault(1), 2, &reference), "{point}: nobody died");
        }
    }

    /// Makes the change with daemons that die at `fault`, `deaths` of them; false if none comes there.
    fn survives(&self, fault: &str, deaths: usize, reference: &Reference) -> bool {
        let mut union = self.mount_with(fault, |builder| {
            let left = builder.path().join("deaths");
            fs::write(&left, "x".repeat(deaths)).unwrap();
            let left = left.to_str().unwrap().to_owned();
            let builder = builder.option("supervise").environment("PLYFS_FAULT_DEATHS", &left);
            builder.environment("PLYFS_LOG", "info")
        });
        let old = union.snapshot();
        kill_daemon(&union);
        let started = SystemTime::now();
        let answer = (self.change)(&union.path(""));
        let is_unknown = self.is_exchange() && is_io(&answer);
        assert!(answer.is_ok() || is_unknown, "{fault}: {answer:?}\n{}", union.live().log());
        if fs::read(union.scratch().join("deaths")).unwrap().len() == deaths {
            return false;
        }
        let found = union.snapshot();
        let is_old = reference.is_old(&old, &found, started, fault);
        assert!(!is_old || is_unknown, "{fault}: answered, and not done");
        union.unmount();
        assert_sound(&union, fault);
        reference.assert_no_leftovers(&union, fault);
        union.start();
        assert_same(&bare(&found), &bare(&union.snapshot()), "after the next mount");
        true
    }

    /// Nobody can know whether two names have changed places.
    fn is_exchange(&self) -> bool {
        self.points.contains(&"rename.exchanged") && !self.points.contains(&"rename.published")
    }
}

fn is_io(answer: &io::Result<()>) -> bool {
    let error = answer.as_ref().err().and_then(io::Error::raw_os_error);
    error == Some(Errno::IO.raw_os_error())
}

/// Kills who serves, and waits for the next.
fn kill_daemon(union: &Union) {
    wait_until("is supervised", || union.live().log().contains(": supervised"), union);
    let first = daemon(union).unwrap();
    kill_process(first, Signal::KILL).unwrap();
    wait_until("goes on", || daemon(union).is_some_and(|next| next != first), union);
}

fn wait_until(what: &str, condition: impl Fn() -> bool, union: &Union) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "it never {what}:\n{}", union.live().log());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The child of the supervisor.
fn daemon(union: &Union) -> Option<Pid> {
    let pid = union.live().pid().as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    Pid::from_raw(children.split_whitespace().next()?.parse().unwrap())
}
