//! The FUSE protocol on top of the union: each message is decoded, the overlay is called, and its result is the reply.
//!
//! Nothing is decided here but what the protocol itself asks for. Opens are not seen (the first one is
//! answered with `ENOSYS`) unless `io=plain`, `io=passthrough` or `timeout=` asks for them; names, attributes and
//! absence are cached by the kernel for as long as it likes, since every change goes through this mount.

mod aliases;
mod collected_times;
pub mod connection;
mod convert;
mod direct_io;
mod ioctl;
mod labels;
mod lost_writes;
mod messages;
mod negotiate;
pub mod passthrough;
mod policy;
mod readers;
mod reply;
mod resumed;
pub mod statistics;
pub mod upgrade;

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{Generation, INodeNo, Notifier};

use crate::overlay::{Census, NodeId, Overlay};
use collected_times::CollectedTimes;
use convert::node;
use lost_writes::LostWrites;
use passthrough::Passthrough;
use readers::Turn;
use resumed::Resumed;
use statistics::{Message, Reporter, Statistics, Timed};
use upgrade::Upgrades;

pub use negotiate::Agreed;
pub use policy::{Pages, Policy};
pub use readers::Readers;

/// As good as for ever, and small enough for every computation in the kernel.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const GENERATION: Generation = Generation(0);

/// The union as a FUSE filesystem. Copies are one and the same.
#[derive(Clone)]
pub struct Adapter {
    overlay: Arc<Overlay>,
    statistics: Arc<Statistics>,
    notifier: Arc<OnceLock<Notifier>>,
    lost_writes: Arc<LostWrites>,
    collected_times: Arc<CollectedTimes>,
    readers: Arc<Readers>,
    /// Whether files have labels of SELinux.
    labels: bool,
    policy: Policy,
    /// There is something as soon as the kernel has been asked.
    agreed: Arc<OnceLock<Agreed>>,
    /// If the kernel reads and writes regular files by itself.
    passthrough: Option<Arc<Passthrough>>,
    /// If another process has answered before.
    resumed: Option<Arc<Resumed>>,
    /// If another process can go on.
    upgrades: Option<Arc<Upgrades>>,
}

/// The time from when a message has been read until it has been answered.
struct Served<'a> {
    // Dropped first: whose turn is over may have to wait.
    _timed: Timed<'a>,
    turn: Turn<'a>,
}

thread_local! {
    /// The memory that this thread reads files into.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives back the memory that this thread reads files into.
fn release_read_buffer() {
    READ_BUFFER.with_borrow_mut(|buffer| *buffer = Vec::new());
}

impl Adapter {
    /// Offers `overlay` as `policy` says.
    pub fn new(mut overlay: Overlay, policy: Policy) -> Self {
        let notifier = Arc::default();
        let readers = Readers::new(policy.threads);
        let delayed = readers.clone();
        overlay.tell_delays(move |delay| delayed.expect_delay(delay));
        Self {
            overlay: Arc::new(overlay),
            statistics: Arc::new(Statistics::new()),
            lost_writes: Arc::new(LostWrites::new(Arc::clone(&notifier))),
            collected_times: Arc::default(),
            notifier,
            readers,
            labels: labels::are_used(),
            policy,
            agreed: Arc::default(),
            passthrough: policy.passthrough.then(Arc::default),
            resumed: None,
            upgrades: None,
        }
    }

    /// Lets users have another program go on.
    pub fn upgradable(mut self, upgrades: Upgrades) -> Self {
        self.upgrades = Some(Arc::new(upgrades));
        self
    }

    /// Goes on for another process, which agreed on `agreed` with the kernel; `census` tells where everything is.
    pub fn resume(mut self, agreed: Agreed, census: Census) -> Self {
        self.agreed.get_or_init(|| agreed);
        self.resumed = Some(Arc::new(Resumed::new(census)));
        self
    }

    /// What was agreed on with the kernel.
    pub fn agreed(&self) -> Agreed {
        self.agreed.get().copied().unwrap_or_default()
    }

    /// The way to tell the kernel what it does not expect, to be put there when the session is open.
    pub fn notifier(&self) -> Arc<OnceLock<Notifier>> {
        self.notifier.clone()
    }

    /// The threads that answer for this mount.
    pub fn readers(&self) -> Arc<Readers> {
        self.readers.clone()
    }

    /// Whether the kernel has been asked to read and write files by itself.
    pub fn uses_passthrough(&self) -> bool {
        self.passthrough.is_some()
    }

    /// The node behind an id of the kernel, which is made known to the union if it was to another process.
    fn node(&self, ino: INodeNo) -> NodeId {
        self.revive(ino);
        self.known(ino)
    }

    fn known(&self, ino: INodeNo) -> NodeId {
        self.passthrough.as_ref().map_or_else(|| node(ino), |files| files.aliases.node(ino))
    }

    /// The id of the kernel that a node is found by.
    fn newest(&self, node: NodeId) -> INodeNo {
        match &self.passthrough {
            Some(files) => files.aliases.newest(node, || self.overlay.identity(node).ok()),
            None => INodeNo(node.0),
        }
    }

    /// Whether attributes may change without the kernel's knowing.
    fn changes_unseen(&self, ino: INodeNo) -> bool {
        self.passthrough.as_ref().is_some_and(|files| {
            files.is_mappable(ino) || files.aliases.has_several(self.node(ino))
        })
    }

    /// To be held while `message` is answered, and no longer: the thread may wait when it is dropped.
    fn begin(&self, message: Message) -> Served<'_> {
        Served { turn: self.readers.begin(), _timed: self.statistics.time(message) }
    }

    /// Tells about this mount while it is served.
    pub fn reporter(&self) -> Reporter {
        Reporter { overlay: self.overlay.clone(), statistics: self.statistics.clone() }
    }
}
