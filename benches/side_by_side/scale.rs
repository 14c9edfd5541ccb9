//! How large the trees are and how long a measurement lasts.

use std::time::Duration;

/// Which of three sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Only whether it works.
    Smoke,
    /// Under three minutes.
    Quick,
    /// The sizes of the documents.
    Full,
}

impl Scale {
    fn of<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Self::Smoke => smoke,
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    /// Files of the large tree that is walked.
    pub fn files(self) -> usize {
        self.of(300, 5_000, 50_000)
    }

    /// Files of the tree by which memory is measured.
    pub fn walked(self) -> usize {
        self.of(500, 20_000, 500_000)
    }

    /// Names in the wide directory.
    pub fn names(self) -> usize {
        self.of(300, 10_000, 100_000)
    }

    /// Lower files that are copied up or removed.
    pub fn lower_files(self) -> usize {
        self.of(30, 300, 5_000)
    }

    /// Names that are made, renamed and removed.
    pub fn changes(self) -> usize {
        self.of(30, 500, 5_000)
    }

    /// Bytes of the big file.
    pub fn big(self) -> u64 {
        self.of(4, 64, 1024) << 20
    }

    /// Bytes that are written.
    pub fn written(self) -> u64 {
        self.of(1, 16, 256) << 20
    }

    /// Files of the git repository.
    pub fn repository(self) -> usize {
        self.of(20, 1_000, 10_000)
    }

    /// C files of the program that is built.
    pub fn sources(self) -> usize {
        self.of(1, 4, 40)
    }

    /// Files of the archive and of the package.
    pub fn archived(self) -> usize {
        self.of(20, 400, 5_000)
    }

    /// Rounds, if nobody says how many.
    pub fn rounds(self) -> usize {
        self.of(1, 3, 7)
    }

    /// How long one measurement of something short is repeated.
    pub fn repeat(self) -> Duration {
        Duration::from_millis(self.of(0, 15, 150))
    }

    /// After this long, and the least number of rounds, a workload gets no more rounds.
    pub fn patience(self) -> (usize, Duration) {
        self.of((1, Duration::ZERO), (2, Duration::from_millis(1000)), (3, Duration::from_secs(25)))
    }
}
