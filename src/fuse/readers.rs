//! How many threads read messages.
//!
//! Few are fastest: the kernel wakes waiting readers in turn, and each that comes from another processor with cold
//! caches costs a good part of a message. But not one alone: where processors halt when they have nothing to do, and are
//! slow to wake, a message takes two to three times as long with one reader as with two.
//!
//! And who asks for a file on a layer that hangs, or for the copy of a large one, must not keep the others waiting. So
//! when all that read are at work on something known to take long ([`Readers::expect_delay`]), or have not finished
//! anything for [`TICK`], another is called up; when there are more than needed, whoever has answered joins the reserve,
//! where he waits at the end of his message until he is called up again. Only if the reserve is empty does another
//! thread begin.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use crate::overlay::Delay;

/// All threads, where the user does not say how many.
const THREADS: usize = 32;

/// After this time without an answer readers count as delayed.
const TICK: Duration = Duration::from_millis(2);

/// After so many ticks at which there was nothing to do, nobody looks until all readers are at work.
const QUIET_TICKS: u32 = 8;

/// The way to begin one more thread that reads.
type Recruit = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// The threads that read messages of one mount.
pub struct Readers {
    all: usize,
    /// How many read while nothing takes long.
    usual: isize,
    /// Threads that wait for a message or are about to. Changed under `reserve`'s lock when a thread joins or leaves
    /// it, and without by those who take a message.
    free: AtomicIsize,
    answered: AtomicU64,
    reserve: Mutex<Reserve>,
    /// The thread that looks for delays, if there is one.
    watch: OnceLock<Thread>,
    /// Whether it sleeps until it is woken.
    unwatched: AtomicBool,
    /// Whether it has been said that no thread can begin.
    told: AtomicBool,
}

#[derive(Default)]
struct Reserve {
    waiting: Vec<Thread>,
    /// Threads that have begun, or are about to.
    begun: usize,
    /// None before the session and after it.
    recruit: Option<Recruit>,
    /// Whether the session is over: everybody is to go and see for himself.
    ended: bool,
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
        // By the standard library it would take 20 system calls, which read the cgroup's share of them too.
        let processors =
            rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize);
        let all = all.map_or(THREADS, |all| all.max(1) as usize);
        let usual = processors.clamp(2, 4);
        Arc::new(Self {
            all,
            usual: usual.min(all) as isize,
            free: AtomicIsize::new(0),
            answered: AtomicU64::new(0),
            reserve: Mutex::default(),
            watch: OnceLock::new(),
            unwatched: AtomicBool::new(false),
            told: AtomicBool::new(false),
        })
    }

    /// Has the usual number of threads begin, and others whenever they are needed. `first` and `recruit` begin one each;
    /// `recruit` is dropped when the session ends.
    ///
    /// # Errors
    /// When the first thread cannot begin, or the one that looks for delays.
    pub fn start(
        self: &Arc<Self>,
        first: impl FnOnce() -> io::Result<()>,
        recruit: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<()> {
        {
            let mut reserve = self.reserve.lock();
            reserve.recruit = Some(Arc::new(recruit));
            self.enlist(&mut reserve);
        }
        first()?;
        for _ in 1..self.usual {
            self.call_up();
        }
        if self.all > self.usual as usize {
            let readers = self.clone();
            let watch = thread::Builder::new().name("watch".into());
            let watch = watch.spawn(move || readers.look_for_delays())?;
            self.watch.get_or_init(|| watch.thread().clone());
        }
        Ok(())
    }

    /// To be called for each message, by the thread that has read it.
    pub(super) fn begin(&self) -> Turn<'_> {
        let others = self.free.fetch_sub(1, Ordering::SeqCst) - 1;
        if others <= 0 && self.unwatched.load(Ordering::SeqCst) {
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

    /// Notes that a thread will read no more though the session goes on, and sends another. It stays one of all, so that
    /// this comes to an end.
    pub fn lost_one(&self) {
        self.free.fetch_sub(1, Ordering::SeqCst);
        self.call_up();
    }

    fn enlist(&self, reserve: &mut Reserve) {
        reserve.begun += 1;
        self.free.fetch_add(1, Ordering::SeqCst);
    }

    fn call_up(&self) {
        let mut reserve = self.reserve.lock();
        if let Some(thread) = reserve.waiting.pop() {
            self.free.fetch_add(1, Ordering::SeqCst);
            return thread.unpark();
        }
        if reserve.begun == self.all {
            return;
        }
        let Some(recruit) = reserve.recruit.clone() else { return };
        self.enlist(&mut reserve);
        drop(reserve);
        if let Err(error) = recruit() {
            self.free.fetch_sub(1, Ordering::SeqCst);
            self.reserve.lock().begun -= 1;
            if !self.told.swap(true, Ordering::Relaxed) {
                log::warn!("slow requests may delay others, no more threads can begin: {error}");
            }
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
        if let Some(watch) = self.watch.get()
            && self.unwatched.swap(false, Ordering::SeqCst)
        {
            watch.unpark();
        }
    }

    fn look_for_delays(&self) {
        let (mut before, mut quiet) = (self.answered.load(Ordering::Relaxed), 0);
        loop {
            thread::park_timeout(TICK);
            let Some(anybody_left) = self.anybody_left() else { return };
            let answered = self.answered.load(Ordering::Relaxed);
            let delayed = self.all_at_work() && anybody_left;
            if delayed && answered == before {
                self.call_up();
            }
            before = answered;
            quiet = if delayed { 0 } else { quiet + 1 };
            if quiet > QUIET_TICKS {
                // Before the last look: who takes the last one's place after it sees that nobody watches.
                self.unwatched.store(true, Ordering::SeqCst);
                if !(self.all_at_work() && anybody_left) {
                    thread::park();
                }
                self.unwatched.store(false, Ordering::SeqCst);
                (before, quiet) = (self.answered.load(Ordering::Relaxed), 0);
            }
        }
    }

    /// Whether anybody could be called up; `None` after the end.
    fn anybody_left(&self) -> Option<bool> {
        let reserve = self.reserve.lock();
        (!reserve.ended).then(|| !reserve.waiting.is_empty() || reserve.begun < self.all)
    }

    fn all_at_work(&self) -> bool {
        self.free.load(Ordering::SeqCst) <= 0
    }

    /// Sends everybody to read, to see that the session is over. To be called when one has seen it.
    pub fn end(&self) {
        let mut reserve = self.reserve.lock();
        reserve.ended = true;
        let waiting = std::mem::take(&mut reserve.waiting);
        let recruit = reserve.recruit.take();
        drop(reserve);
        // Without the lock: what it holds may be the last of the mount.
        drop(recruit);
        self.free.fetch_add(waiting.len() as isize, Ordering::SeqCst);
        for thread in waiting.iter().chain(self.watch.get()) {
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
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::JoinHandle;
    use std::time::Instant;

    use super::*;

    type Message = Box<dyn FnOnce() + Send>;

    /// Readers of a channel instead of a device.
    struct Stage {
        readers: Arc<Readers>,
        send: Option<Sender<Message>>,
        threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    }

    /// Does what the library does with a thread.
    fn read(readers: &Readers, messages: &Mutex<Receiver<Message>>) {
        loop {
            let Ok(message) = messages.lock().recv() else { return readers.end() };
            let _turn = readers.begin();
            message();
        }
    }

    impl Stage {
        fn new(all: u32) -> Self {
            let (send, messages) = channel::<Message>();
            let messages = Arc::new(Mutex::new(messages));
            let (readers, threads) = (Readers::new(Some(all)), Arc::new(Mutex::new(Vec::new())));
            let (of_all, list) = (readers.clone(), threads.clone());
            let recruit = move || {
                let (readers, messages) = (of_all.clone(), messages.clone());
                list.lock().push(thread::spawn(move || read(&readers, &messages)));
                Ok(())
            };
            readers.start(recruit.clone(), recruit).unwrap();
            Self { readers, send: Some(send), threads }
        }

        fn send(&self, message: impl FnOnce() + Send + 'static) {
            self.send.as_ref().unwrap().send(Box::new(message)).unwrap();
        }

        /// Has a message answered, and says whether it was.
        fn answers(&self) {
            let (tell, told) = channel();
            self.send(move || tell.send(()).unwrap());
            told.recv().unwrap();
        }

        /// Has messages begin until `count` of them hang, which end when what this returns is dropped; one that does
        /// not is answered after each.
        fn hang(&self, count: usize) -> Sender<()> {
            let (release, hanging) = channel::<()>();
            let hanging = Arc::new(Mutex::new(hanging));
            for _ in 0..count {
                let (hanging, (tell, told)) = (hanging.clone(), channel());
                self.send(move || {
                    tell.send(()).unwrap();
                    assert!(hanging.lock().recv().is_err());
                });
                told.recv().unwrap();
                self.answers();
            }
            release
        }

        fn begun(&self) -> usize {
            self.threads.lock().len()
        }

        fn wait_until(&self, is_so: impl Fn(&Readers) -> bool) {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !is_so(&self.readers) {
                assert!(Instant::now() < deadline);
                thread::yield_now();
            }
        }

        fn end(mut self) {
            drop(self.send.take());
            for thread in std::mem::take(&mut *self.threads.lock()) {
                thread.join().unwrap();
            }
            assert!(self.readers.reserve.lock().recruit.is_none());
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
    fn threads_begin_when_all_others_are_delayed_and_rest_when_they_are_not() {
        let stage = Stage::new(10);
        let usual = stage.begun();
        assert_eq!(usual as isize, stage.readers.usual);
        for _ in 0..100 {
            stage.answers();
        }
        drop(stage.hang(9));
        assert_eq!(stage.begun(), 10);
        let reserve = move |readers: &Readers| readers.reserve.lock().waiting.len() == 10 - usual;
        stage.wait_until(reserve);
        // From the reserve this time.
        drop(stage.hang(9));
        assert_eq!(stage.begun(), 10);
        stage.end();
    }

    #[test]
    fn as_few_threads_as_are_wanted_begin() {
        for all in [1, 2] {
            let stage = Stage::new(all);
            assert_eq!(stage.begun(), all as usize);
            drop(stage.hang(all as usize - 1));
            stage.end();
        }
    }

    #[test]
    fn nobody_looks_for_delays_until_all_are_at_work() {
        let stage = Stage::new(10);
        let nobody_looks = |readers: &Readers| readers.unwatched.load(Ordering::SeqCst);
        for count in [9, 3] {
            stage.wait_until(nobody_looks);
            drop(stage.hang(count));
        }
        // Nor when nobody is left.
        let hanging = stage.hang(9);
        let (tell, told) = channel::<()>();
        stage.send(move || assert!(told.recv().is_err()));
        stage.wait_until(|readers| readers.all_at_work() && nobody_looks(readers));
        drop((hanging, tell));
        stage.end();
    }

    #[test]
    fn another_takes_the_place_of_a_thread_that_is_lost() {
        let stage = Stage::new(10);
        let before = stage.begun();
        stage.readers.lost_one();
        assert_eq!(stage.begun(), before + 1);
        // Which in truth reads on.
        stage.readers.free.fetch_add(1, Ordering::SeqCst);
        stage.end();
    }

    #[test]
    fn nothing_breaks_where_no_thread_can_begin() {
        let readers = Readers::new(Some(10));
        let refused = || Err(io::Error::from(io::ErrorKind::WouldBlock));
        readers.start(|| Ok(()), refused).unwrap();
        assert_eq!(readers.free.load(Ordering::SeqCst), 1);
        assert_eq!(readers.reserve.lock().begun, 1);
        readers.end();
        assert!(readers.start(refused, refused).is_err());
    }
}
