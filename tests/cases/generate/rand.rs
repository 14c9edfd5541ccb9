//! Choices.

use proptest::prelude::Rng;
use proptest::test_runner::TestRng;

pub trait Pick {
    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize;

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// An index, as often as its weight says.
    fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut left = self.below(weights.iter().sum());
        weights
            .iter()
            .position(|&weight| {
                let hit = left < weight;
                left = left.saturating_sub(weight);
                hit
            })
            .unwrap()
    }
}

impl Pick for TestRng {
    fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % bound as u64) as usize
    }
}
