//! Training or evaluation, and where dropout gets its randomness.

use lowburn_kernels::{Dropout, derive_key};

/// How a forward pass runs: with dropout, or without.
///
/// Every dropout of a pass draws from a stream of its own, keyed by the seed and by its place in
/// the order of calls. The same seed gives the same masks, whatever happened before.
#[derive(Debug, Clone)]
pub struct Mode {
    seed: Option<u64>,
    calls: u64,
}

impl Mode {
    /// No dropout.
    pub fn eval() -> Self {
        Self {
            seed: None,
            calls: 0,
        }
    }

    /// Dropout with masks that depend on `seed` only; take another seed for every step.
    pub fn train(seed: u64) -> Self {
        Self {
            seed: Some(seed),
            calls: 0,
        }
    }

    /// The key of the next dropout, or `None` in evaluation.
    pub(crate) fn key(&mut self) -> Option<u64> {
        let seed = self.seed?;
        self.calls += 1;
        Some(derive_key(seed, self.calls))
    }

    /// The next dropout, with the given probability.
    pub(crate) fn dropout(&mut self, probability: f64) -> Dropout {
        self.key()
            .map_or(Dropout::NONE, |key| Dropout::new(probability, key))
    }
}
