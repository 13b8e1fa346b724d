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

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(mut mode: Mode) -> Vec<Vec<f32>> {
        (0..4).map(|_| mode.dropout(0.5).factors(64)).collect()
    }

    #[test]
    fn a_seed_gives_its_masks_again_and_every_call_another() {
        let first = masks(Mode::train(7));
        assert_eq!(first, masks(Mode::train(7)));
        let mut all = first;
        all.extend(masks(Mode::train(8)));
        for (i, mask) in all.iter().enumerate() {
            assert!(!all[..i].contains(mask), "mask {i} is there twice");
        }
    }

    #[test]
    fn a_dropout_takes_its_place_whatever_its_probability() {
        let mut some = Mode::train(7);
        let mut none = Mode::train(7);
        some.dropout(0.5);
        none.dropout(0.0);
        assert_eq!(some.key(), none.key());
    }

    #[test]
    fn evaluation_drops_nothing() {
        let mut mode = Mode::eval();
        assert_eq!(mode.key(), None);
        assert!(mode.dropout(0.9).is_none());
    }
}
