//! Numbers that a seed decides: `PLYFS_SEED`, or another one at every run.

use std::fmt;

/// A source of numbers, shown with the seed that repeats them.
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    pub fn new() -> Self {
        let chosen = std::env::var("PLYFS_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = chosen.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap().as_nanos() as u64
        });
        println!("PLYFS_SEED={seed}");
        Self { seed, state: seed }
    }

    /// Another source, for the thread of this number.
    pub fn of_thread(&self, number: u64) -> Self {
        Self { seed: self.seed, state: self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    /// A number below `end` (splitmix64).
    pub fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

impl fmt::Display for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PLYFS_SEED={}", self.seed)
    }
}
