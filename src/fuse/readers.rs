//! How many threads read messages.
//!
//! Few are fastest: the kernel wakes waiting readers in turn, and each that comes from another processor with cold
//! caches costs a good part of a message. But not one alone: where processors halt when they have nothing to do, and are
//! slow to wake, a message takes two to three times as long with one reader as with two.
//!
//! And who asks for a file on a layer that hangs, or for the copy of a large one, must not keep the others waiting. So
//! there are many threads, of which all but a few are held in reserve: they wait at the end of a message that they have
//! answered. When all that read are at work on something known to take long ([`Readers::expect_delay`]), or have not
//! finished anything for [`TICK`], one of the reserve is sent to read; when there are more than needed, whoever has
//! answered joins the reserve.

use std::cell::OnceCell;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use crate::overlay::Delay;

/// All threads, where the user does not say how many.
const THREADS: usize = 32;

/// After this time without an answer readers count as delayed.
const TICK: Duration = Duration::from_millis(2);

/// After so many ticks without an answer, nobody looks until the next message.
const QUIET_TICKS: u32 = 8;

/// The threads that read messages of one mount.
///
/// The library starts them and tells nothing about them. A thread is known from its first message on; those that are
/// not wait for one, and need not be counted.
pub struct Readers {
    all: usize,
    /// How many read while nothing takes long.
    usual: isize,
    /// Known threads that wait for a message or are about to. Changed under `reserve`'s lock when a thread joins or leaves
    /// it, and without by those who take a message.
    free: AtomicIsize,
    answered: AtomicU64,
    reserve: Mutex<Reserve>,
    /// Whether the thread that looks for delays sleeps until it is woken.
    unwatched: AtomicBool,
}

#[derive(Default)]
struct Reserve {
    waiting: Vec<Thread>,
    watch: Option<Thread>,
    /// Whether the session is over: everybody is to go and see for himself.
    ended: bool,
}

thread_local! {
    static MEMBER: OnceCell<Member> = const { OnceCell::new() };
}

/// What a reader has of its own. When the first of them ends, so does the session.
struct Member(Arc<Readers>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The time in which a thread is at work on a message.
pub(super) struct Turn<'a> {
    readers: &'a Readers,
    /// Whether the thread may wait afterwards.
    may_rest: bool,
}

impl Readers {
    /// At most `all` threads, or as many as are good.
    pub fn new(all: Option<u32>) -> Arc<Self> {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let all = all.map_or(THREADS, |all| all.max(1) as usize);
        let usual = processors.clamp(2, 4);
        Arc::new(Self {
            all,
            usual: usual.min(all) as isize,
            free: AtomicIsize::new(0),
            answered: AtomicU64::new(0),
            reserve: Mutex::default(),
            unwatched: AtomicBool::new(false),
        })
    }

    /// The number of threads to be started.
    pub fn count(&self) -> usize {
        self.all
    }

    /// Starts looking for delays, until the session ends.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn watch(self: &Arc<Self>) -> std::io::Result<()> {
        if self.all > self.usual as usize {
            let readers = self.clone();
            let watch = thread::Builder::new().name("watch".into());
            let watch = watch.spawn(move || readers.look_for_delays())?;
            self.reserve.lock().watch = Some(watch.thread().clone());
        }
        Ok(())
    }

    /// To be called for each message, by the thread that has read it.
    pub(super) fn begin(self: &Arc<Self>) -> Turn<'_> {
        MEMBER.with(|member| match member.get() {
            Some(_) => {
                self.free.fetch_sub(1, Ordering::SeqCst);
            }
            None => {
                member.get_or_init(|| Member(self.clone()));
            }
        });
        if self.unwatched.load(Ordering::SeqCst) && self.unwatched.swap(false, Ordering::SeqCst) {
            self.wake_watch();
        }
        Turn { readers: self, may_rest: true }
    }

    /// Sends somebody to read in the place of the caller, who is about to do something that takes long. To wake a thread
    /// costs more than a small file: for that it is enough if anybody reads.
    pub(super) fn expect_delay(&self, delay: Delay) {
        let enough = match delay {
            Delay::Short => 1,
            Delay::Long => self.usual,
        };
        if self.free.load(Ordering::SeqCst) < enough {
            self.call_up();
        }
    }

    fn call_up(&self) {
        let mut reserve = self.reserve.lock();
        if let Some(thread) = reserve.waiting.pop() {
            self.free.fetch_add(1, Ordering::SeqCst);
            thread.unpark();
        }
    }

    /// Waits in the reserve, if there are enough others.
    fn rest(&self) {
        let own = thread::current();
        {
            let mut reserve = self.reserve.lock();
            if reserve.ended || self.free.load(Ordering::SeqCst) <= self.usual {
                return;
            }
            self.free.fetch_sub(1, Ordering::SeqCst);
            reserve.waiting.push(own.clone());
        }
        super::release_read_buffer();
        while self.reserve.lock().waiting.iter().any(|thread| thread.id() == own.id()) {
            thread::park();
        }
    }

    fn wake_watch(&self) {
        if let Some(watch) = &self.reserve.lock().watch {
            watch.unpark();
        }
    }

    fn look_for_delays(&self) {
        let (mut before, mut quiet) = (0, 0);
        loop {
            thread::park_timeout(TICK);
            let reserve = self.reserve.lock();
            if reserve.ended {
                return;
            }
            let nobody_left = reserve.waiting.is_empty();
            drop(reserve);
            let answered = self.answered.load(Ordering::Relaxed);
            let moves = answered != before;
            before = answered;
            quiet = if moves { 0 } else { quiet + 1 };
            if !moves && self.all_at_work() {
                self.call_up();
            }
            if quiet > QUIET_TICKS {
                // Before the last look: who begins after it sees that nobody watches.
                self.unwatched.store(true, Ordering::SeqCst);
                if nobody_left || !self.all_at_work() {
                    thread::park();
                }
                self.unwatched.store(false, Ordering::SeqCst);
                quiet = 0;
            }
        }
    }

    fn all_at_work(&self) -> bool {
        self.free.load(Ordering::SeqCst) <= 0
    }

    /// Sends everybody to read, to see that the session is over.
    fn end(&self) {
        let mut reserve = self.reserve.lock();
        reserve.ended = true;
        let waiting = std::mem::take(&mut reserve.waiting);
        self.free.fetch_add(waiting.len() as isize, Ordering::SeqCst);
        for thread in waiting.iter().chain(&reserve.watch) {
            thread.unpark();
        }
    }
}

impl Turn<'_> {
    /// See [`Readers::expect_delay`].
    pub fn expect_delay(&self, delay: Delay) {
        self.readers.expect_delay(delay);
    }

    /// Says that the message may not be done with yet when this turn ends.
    pub fn more_may_follow(&mut self) {
        self.may_rest = false;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let readers = self.readers;
        readers.answered.fetch_add(1, Ordering::Relaxed);
        let free = readers.free.fetch_add(1, Ordering::SeqCst) + 1;
        if free > readers.usual && self.may_rest && !thread::panicking() {
            readers.rest();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    type Message = Box<dyn FnOnce() + Send>;

    /// Does what the library does with a thread.
    fn read(readers: &Arc<Readers>, messages: &Mutex<Receiver<Message>>) {
        loop {
            let Ok(message) = messages.lock().recv() else { return };
            let _turn = readers.begin();
            message();
        }
    }

    #[test]
    fn for_a_short_delay_nobody_is_woken_while_another_reads() {
        let readers = Readers::new(Some(8));
        let in_reserve = || readers.reserve.lock().waiting.len();
        readers.reserve.lock().waiting = vec![thread::current(); 2];
        readers.free.store(1, Ordering::SeqCst);
        readers.expect_delay(Delay::Short);
        assert_eq!(in_reserve(), 2);
        readers.expect_delay(Delay::Long);
        assert_eq!((in_reserve(), readers.free.load(Ordering::SeqCst)), (1, 2));
        readers.free.store(0, Ordering::SeqCst);
        readers.expect_delay(Delay::Short);
        assert_eq!((in_reserve(), readers.free.load(Ordering::SeqCst)), (0, 1));
    }

    #[test]
    fn threads_rest_until_the_others_are_delayed_and_all_end() {
        let readers = Readers::new(Some(5));
        readers.watch().unwrap();
        let (send, messages) = channel::<Message>();
        let messages = Arc::new(Mutex::new(messages));
        let threads: Vec<_> = (0..readers.count())
            .map(|_| {
                let (readers, messages) = (readers.clone(), messages.clone());
                thread::spawn(move || read(&readers, &messages))
            })
            .collect();
        // Each thread gets one, so that all are known.
        let all = Arc::new(Barrier::new(readers.count()));
        for _ in 0..readers.count() {
            let all = all.clone();
            send.send(Box::new(move || {
                all.wait();
            }))
            .unwrap();
        }
        let (release, hanging) = channel::<()>();
        let hanging = Arc::new(Mutex::new(hanging));
        let (tell, told) = channel();
        for _ in 0..readers.count() - 1 {
            let (hanging, hangs, answers) = (hanging.clone(), tell.clone(), tell.clone());
            send.send(Box::new(move || {
                hangs.send("hangs").unwrap();
                assert!(hanging.lock().recv().is_err());
            }))
            .unwrap();
            assert_eq!(told.recv(), Ok("hangs"));
            send.send(Box::new(move || answers.send("answers").unwrap())).unwrap();
            assert_eq!(told.recv(), Ok("answers"));
        }
        drop((release, send));
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
