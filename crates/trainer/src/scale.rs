//! Loss scaling: gradients that are computed in f16 would vanish below 6e-8, so the loss is multiplied before the backward
//! pass and the gradients are divided after it (Micikevicius et al. 2018, "Mixed precision training", section 3.2).
//!
//! The scale finds itself, with the constants of PyTorch's `GradScaler` and a ceiling: a step whose gradients are not numbers is skipped
//! and halves it, 2000 good steps in a row double it. It is always a power of two, so that dividing by it is exact.

use serde::{Deserialize, Serialize};

/// The first scale.
const FIRST: f64 = 65_536.0;
/// Good steps in a row after which it doubles.
const INTERVAL: u32 = 2_000;
/// The largest scale: the smallest number of f16 times it is 1. Where gradients are f32, as on flex, nothing else would end its growth.
const MOST: f64 = 16_777_216.0;
/// The scale below which nothing is left to try: the gradients themselves are not numbers.
const LEAST: f64 = 1.0;

/// The scale of a run and what it has been through; part of the state that a run resumes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct LossScale {
    /// What the loss is multiplied by.
    pub(crate) scale: f64,
    /// Good steps since it changed.
    good: u32,
    /// Steps that were skipped, in which the optimiser did nothing.
    pub(crate) skipped: u64,
}

impl Default for LossScale {
    fn default() -> Self {
        Self {
            scale: FIRST,
            good: 0,
            skipped: 0,
        }
    }
}

impl LossScale {
    /// Books a step that was taken.
    pub(crate) fn taken(&mut self) {
        self.good += 1;
        if self.good == INTERVAL {
            self.scale = (2.0 * self.scale).min(MOST);
            self.good = 0;
        }
    }

    /// Books a step whose gradients overflowed; false when no smaller scale is worth a try.
    pub(crate) fn overflowed(&mut self) -> bool {
        if self.scale <= LEAST {
            return false;
        }
        self.scale /= 2.0;
        self.good = 0;
        self.skipped += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_after_a_good_run_and_halves_at_once() {
        let mut scale = LossScale::default();
        for _ in 0..INTERVAL - 1 {
            scale.taken();
        }
        assert_eq!(scale.scale, FIRST);
        scale.taken();
        assert_eq!((scale.scale, scale.good), (2.0 * FIRST, 0));
        scale.taken();
        assert!(scale.overflowed());
        assert_eq!((scale.scale, scale.good, scale.skipped), (FIRST, 0, 1));
    }

    #[test]
    fn it_ends_somewhere() {
        let mut scale = LossScale::default();
        for _ in 0..20 * INTERVAL {
            scale.taken();
        }
        assert_eq!(scale.scale, MOST);
    }

    #[test]
    fn it_gives_up_when_scaling_is_not_the_matter() {
        let mut scale = LossScale::default();
        let halvings = (0..100).take_while(|_| scale.overflowed()).count();
        assert_eq!(halvings, 16);
        assert_eq!(scale.skipped, 16);
    }
}
