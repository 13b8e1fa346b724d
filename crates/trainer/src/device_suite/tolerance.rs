//! How much of a difference arithmetic allows, and why: every limit of the suite.
//!
//! The unit is u, the largest relative error of rounding a number to b bits: 2^-b. What grows out of it is estimated
//! once, for the suite's models: three layers of six products, sums of at most 288 terms, numbers near 1 between them
//! (LayerNorm).

use lowburn_models::Dtype;

/// A bound on a relative difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// What a relative difference may be at most.
    pub limit: f64,
    /// Where the number comes from.
    pub reason: &'static str,
}

/// How exact the factors of a product of f32 matrices are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Factors {
    /// As they are, 24 bits.
    Full,
    /// TF32, 11 bits.
    Tf32,
}

const PRODUCTS: &str = "Over the sum of the terms' magnitudes. Factors of 24 bits make less than 1e-5 of it, with \
    sums of at most 160 terms. Factors of 11 bits (TF32, as NVIDIA cards take them) may make 2^-10, two roundings.";

const ORDER: &str = "Sums in another order: one of 288 terms is off by 2^-24 x sqrt(288) = 1e-6 of its size, and 36 \
    products one behind the other (six in each of three layers, forth and back) by 4e-5. exp, tanh and erf of \
    graphics cards may add 1e-5. The limit is four times both together.";

const ROUNDED: &str = "Factors of 11 bits (TF32, f16: u = 2^-11) or of 8 (bf16: u = 2^-8). Each of 18 products forth, \
    and of 36 forth and back, is off by u; errors of chance add up to 4 u and 6 u, and the worst of thousands of \
    numbers is some times as far off. The limits are 16 u for logits and 32 u for gradients.";

const AGAIN: &str = "The same operations on the same numbers: only the order may differ in which threads add, by a \
    few units of 2^-24 (1e-5). With factors of 11 bits that may round one of them the other way (2^-10).";

const LOSSES: &str = "Step by step. A loss follows the logits, while the parameters drift apart: 1e-3 is five times \
    the limit of logits in f32; with factors of 11 bits it is that of logits, 16 u.";

const PARAMETERS: &str = "Length of the difference over the length of the way from the start. AdamW moves a \
    parameter by the rate, however small its gradient; where a gradient is smaller than its error, the direction is \
    chance. If that holds for a share p of them, the ends are 2 sqrt(p) of the way apart: p is 2.5e-5 for 1e-2 and \
    6e-4 for 5e-2 (factors of 11 bits). Without RoBERTa's key bias, which no score sees and whose gradient is rounding \
    alone.";

const MEAN: &str = "A base in halves has to learn as one in f32: 2 % of the mean loss is less than what two seeds \
    differ by.";

impl Tolerance {
    pub(super) fn products() -> Self {
        Self::new(unit(10), PRODUCTS)
    }

    pub(super) fn logits(factors: Factors) -> Self {
        match factors {
            Factors::Full => Self::new(2e-4, ORDER),
            Factors::Tf32 => Self::new(16.0 * unit(11), ROUNDED),
        }
    }

    pub(super) fn gradients(factors: Factors) -> Self {
        match factors {
            Factors::Full => Self::new(2e-4, ORDER),
            Factors::Tf32 => Self::new(32.0 * unit(11), ROUNDED),
        }
    }

    /// For layers that are computed again.
    pub(super) fn again(factors: Factors) -> Self {
        match factors {
            Factors::Full => Self::new(1e-5, AGAIN),
            Factors::Tf32 => Self::new(unit(10), AGAIN),
        }
    }

    pub(super) fn losses(factors: Factors) -> Self {
        match factors {
            Factors::Full => Self::new(1e-3, LOSSES),
            Factors::Tf32 => Self::new(16.0 * unit(11), LOSSES),
        }
    }

    /// For the ends of trajectories.
    pub(super) fn parameters(factors: Factors) -> Self {
        match factors {
            Factors::Full => Self::new(1e-2, PARAMETERS),
            Factors::Tf32 => Self::new(5e-2, PARAMETERS),
        }
    }

    pub(super) fn half_logits(dtype: Dtype) -> Self {
        Self::new(16.0 * unit(bits(dtype)), ROUNDED)
    }

    pub(super) fn half_gradients(dtype: Dtype) -> Self {
        Self::new(32.0 * unit(bits(dtype)), ROUNDED)
    }

    pub(super) fn mean_loss() -> Self {
        Self::new(0.02, MEAN)
    }

    fn new(limit: f64, reason: &'static str) -> Self {
        Self { limit, reason }
    }
}

/// 2^-bits.
fn unit(bits: i32) -> f64 {
    2f64.powi(-bits)
}

/// Bits of precision.
fn bits(dtype: Dtype) -> i32 {
    match dtype {
        Dtype::F32 => 24,
        Dtype::F16 => 11,
        Dtype::Bf16 => 8,
    }
}
