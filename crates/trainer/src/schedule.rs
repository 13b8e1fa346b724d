//! The learning rate of every step: linear warm-up from zero, then linear decay to zero.
//!
//! Burn's own linear scheduler cannot start at 0, which the reference recipe does, so the
//! rate is a pure function of the step here; there is nothing to save and restore.

use serde::{Deserialize, Serialize};

/// How many of the first steps warm up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    /// A share of all steps, rounded up.
    Ratio(f64),
    /// A number of steps.
    Steps(u64),
}

impl Warmup {
    /// Warm-up steps of a run of `total` steps.
    #[must_use]
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Self::Ratio(ratio) => (total as f64 * ratio).ceil() as u64,
            Self::Steps(steps) => steps,
        }
    }
}

/// Linear warm-up and decay over a known number of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The peak rate.
    pub lr: f64,
    /// Steps that warm up; the first of them has rate 0.
    pub warmup: u64,
    /// All steps of the run.
    pub total: u64,
}

impl Schedule {
    /// The factor on the peak rate in step `step`, counted **from 0**:
    /// `t / w` while `t < w`, then `(T - t) / (T - w)`, never below 0.
    #[must_use]
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            step as f64 / self.warmup.max(1) as f64
        } else {
            let left = self.total.saturating_sub(step) as f64;
            left / self.total.saturating_sub(self.warmup).max(1) as f64
        }
    }

    /// The rate used in step `step`, counted **from 0**.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        self.lr * self.factor(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_reference_on_a_short_run() {
        // transformers.get_linear_schedule_with_warmup(optimizer, 3, 10), lr 1
        let expected = [
            0.0,
            1.0 / 3.0,
            2.0 / 3.0,
            1.0,
            6.0 / 7.0,
            5.0 / 7.0,
            4.0 / 7.0,
            3.0 / 7.0,
            2.0 / 7.0,
            1.0 / 7.0,
            0.0,
            0.0,
        ];
        let schedule = Schedule {
            lr: 1.0,
            warmup: 3,
            total: 10,
        };
        for (step, want) in expected.iter().enumerate() {
            let got = schedule.rate(step as u64);
            assert!((got - want).abs() < 1e-15, "step {step}: {got} for {want}");
        }
    }

    #[test]
    fn no_warmup_starts_at_the_peak() {
        let schedule = Schedule {
            lr: 5e-4,
            warmup: 0,
            total: 4,
        };
        assert_eq!(schedule.rate(0), 5e-4);
        assert_eq!(schedule.rate(3), 5e-4 / 4.0);
    }

    #[test]
    fn ratio_rounds_up() {
        assert_eq!(Warmup::Ratio(0.06).steps(101), 7);
        assert_eq!(Warmup::Ratio(0.0).steps(101), 0);
        assert_eq!(Warmup::Ratio(1.0).steps(101), 101);
        assert_eq!(Warmup::Steps(5).steps(101), 5);
    }

    #[test]
    fn warmup_over_the_whole_run_never_divides_by_zero() {
        let schedule = Schedule {
            lr: 1.0,
            warmup: 4,
            total: 4,
        };
        assert_eq!(schedule.rate(3), 0.75);
        assert_eq!(schedule.rate(4), 0.0);
    }
}
