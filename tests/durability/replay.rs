//! Every state in which a crash could leave the disk, without a crash: the disk is looked at before each system call of
//! the overlay that changes it, and opened again as a union with all that a filesystem may have lost by then.
//!
//! The filesystem assumed keeps changes of names and attributes in their order, as ext4, xfs and btrfs do, and the data
//! of a file only when that is synced; on ext4 and xfs also behind its data what was changed after that was written.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use plyfs::overlay::{Config, Overlay, UpperDirs};

use crate::disk::{Disk, Key, key};
use crate::facade::Facade;
use crate::promise::History;
use crate::story::{Step, Tree};
use crate::syscalls::{Answer, Call, watch};

/// The flags of sync_file_range(2) with which it waits for all data; with fewer it only begins to write.
pub const WRITE_AND_WAIT: u64 = 7;

/// The disk between two changes.
struct Instant {
    disk: Arc<Disk>,
    /// The data of files as it was last synced.
    durable: BTreeMap<Key, Arc<Vec<u8>>>,
    /// The step that is being taken.
    step: usize,
    /// The call that comes next.
    next: String,
}

/// Takes note of the disk as calls come by.
struct Recorder<'a> {
    volume: &'a Path,
    step: &'a AtomicUsize,
    instants: Vec<Instant>,
    durable: BTreeMap<Key, Arc<Vec<u8>>>,
    /// The files that the last call syncs, and their data.
    syncing: Vec<(Key, Vec<u8>)>,
}

/// What becomes of data that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Data {
    Kept,
    Lost,
    /// The size is there and the data is not.
    Zeros,
}

/// Checks every crash of a story that begins with the layers in `scratch`; returns how many there were.
pub fn crash_everywhere(scratch: &Path, config: &Config, steps: &[Step]) -> usize {
    let (history, instants) = record(scratch, config, steps);
    let mut seen = HashSet::new();
    let mut broken = String::new();
    for instant in &instants {
        for data in [Data::Kept, Data::Lost, Data::Zeros] {
            let disk = instant.with_data(data);
            if !seen.insert(hash(&(instant.step, &disk))) {
                continue;
            }
            let found = open(scratch, config, &disk).moment();
            let promises = history.until(instant.step).broken_promises(&found);
            if !promises.is_empty() {
                let Instant { step, next, .. } = instant;
                broken += &format!("step {step}, before {next}, data {data:?}:\n{promises}\n");
            }
        }
    }
    assert!(broken.is_empty(), "{broken}");
    seen.len()
}

fn record(scratch: &Path, config: &Config, steps: &[Step]) -> (History, Vec<Instant>) {
    let step = AtomicUsize::new(0);
    let volume = scratch.join("volume");
    let mut recorder = Recorder::begin(&volume, &step);
    let config = config_at(config, scratch, "volume");
    let history = watch(
        |call| {
            recorder.hear(call);
            Answer::Go
        },
        || {
            let tree = Facade(Overlay::open(&config).unwrap());
            let mut history = History::begin(&tree);
            for (number, taken) in steps.iter().enumerate() {
                step.store(number + 1, Ordering::SeqCst);
                history.take(taken, &tree);
            }
            step.store(steps.len() + 1, Ordering::SeqCst);
            history
        },
    );
    recorder.finish();
    (history, recorder.instants)
}

fn config_at(config: &Config, scratch: &Path, volume: &str) -> Config {
    let at = |name: &str| scratch.join(volume).join(name);
    Config { upper: Some(UpperDirs { upper: at("upper"), work: at("work") }), ..config.clone() }
}

/// Opens the union whose disk is this.
fn open(scratch: &Path, config: &Config, disk: &Disk) -> Facade {
    let volume = scratch.join("crashed");
    if volume.exists() {
        fs::remove_dir_all(&volume).unwrap();
    }
    fs::create_dir(&volume).unwrap();
    disk.put(&volume);
    Facade(Overlay::open(&config_at(config, scratch, "crashed")).unwrap())
}

impl<'a> Recorder<'a> {
    fn begin(volume: &'a Path, step: &'a AtomicUsize) -> Self {
        let disk = Disk::take(volume);
        let files = disk.inodes.iter().filter(|(_, inode)| inode.is_file());
        let durable = files.map(|(key, inode)| (*key, inode.data.clone())).collect();
        Self { volume, step, instants: Vec::new(), durable, syncing: Vec::new() }
    }

    fn hear(&mut self, call: &Call) {
        self.sync();
        if !call.changes() {
            return;
        }
        self.look(call.to_string());
        match call.name {
            "sync_file_range" if call.args[3] != WRITE_AND_WAIT => {}
            "fsync" | "fdatasync" | "sync_file_range" => {
                let file = PathBuf::from(format!("/proc/self/fd/{}", call.args[0]));
                let status = fs::metadata(&file).unwrap();
                if status.is_file() {
                    self.syncing.push((key(&status), fs::read(&file).unwrap()));
                }
            }
            "syncfs" | "sync" => {
                let disk = self.instants.last().unwrap().disk.clone();
                let files = disk.inodes.iter().filter(|(_, inode)| inode.is_file());
                self.syncing.extend(files.map(|(key, file)| (*key, file.data.to_vec())));
            }
            _ => {}
        }
    }

    /// The last call is over, and what it was to sync is synced.
    fn sync(&mut self) {
        for (key, data) in std::mem::take(&mut self.syncing) {
            self.durable.insert(key, Arc::new(data));
        }
    }

    fn look(&mut self, next: String) {
        let step = self.step.load(Ordering::SeqCst);
        let disk = Arc::new(Disk::take(self.volume));
        let durable = self.durable.clone();
        self.instants.push(Instant { disk, durable, step, next });
    }

    fn finish(&mut self) {
        self.sync();
        self.look("the end".into());
    }
}

impl Instant {
    fn with_data(&self, how: Data) -> Disk {
        let mut disk = (*self.disk).clone();
        let files = disk.inodes.iter_mut().filter(|(_, inode)| inode.is_file());
        for (key, inode) in files {
            let durable = self.durable.get(key).map_or(&[][..], |data| data);
            if *durable == **inode.data {
                continue;
            }
            let size = inode.data.len();
            match how {
                Data::Kept => {}
                Data::Lost => inode.data = Arc::new(durable.to_vec()),
                Data::Zeros => {
                    let mut data = durable[..durable.len().min(size)].to_vec();
                    data.resize(size, 0);
                    inode.data = Arc::new(data);
                }
            }
        }
        disk
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
