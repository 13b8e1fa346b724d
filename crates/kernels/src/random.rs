//! A counter-based random stream: the value at position `i` is a pure function of (key, i).
//!
//! Dropout masks are never stored. The forward pass and the backward pass compute the same mask
//! from the same [`Dropout`], in any order and on any number of threads.

/// Which elements a dropout drops: a probability and the key of its random stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability that an element is set to zero, in [0, 1).
    pub probability: f64,
    /// Key of the stream. Every dropout of every step needs a key of its own.
    pub key: u64,
}

impl Dropout {
    /// No dropout: the identity.
    pub const NONE: Self = Self {
        probability: 0.0,
        key: 0,
    };

    /// A dropout with a probability in [0, 1).
    ///
    /// # Panics
    /// Panics when the probability is not in [0, 1).
    pub fn new(probability: f64, key: u64) -> Self {
        assert!(
            (0.0..1.0).contains(&probability),
            "a dropout probability lies in [0, 1), not {probability}"
        );
        Self { probability, key }
    }

    /// True when nothing is dropped.
    pub fn is_none(&self) -> bool {
        self.probability == 0.0
    }

    /// The mask as a function of the position: 0, or 1 / (1 - p).
    #[inline(always)]
    pub(crate) fn mask(&self) -> Mask {
        let keep = 1.0 / (1.0 - self.probability);
        Mask {
            low: self.key as u32,
            high: (self.key >> 32) as u32,
            // 2^32 p, rounded: the probability is exact to 1.2e-10.
            threshold: (self.probability * 4_294_967_296.0).round() as u32,
            keep: keep as f32,
        }
    }

    /// The first `len` factors of the mask, each 0 or 1 / (1 - p).
    pub fn factors(&self, len: usize) -> Vec<f32> {
        let mask = self.mask();
        (0..len).map(|i| mask.factor(i as u32)).collect()
    }
}

/// A [`Dropout`] made ready for the inner loop.
#[derive(Clone, Copy)]
pub(crate) struct Mask {
    pub(crate) low: u32,
    pub(crate) high: u32,
    pub(crate) threshold: u32,
    pub(crate) keep: f32,
}

impl Mask {
    /// What [`mix`] multiplies by.
    pub(crate) const FACTORS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

    /// The factor at a position: 0 where the element is dropped, 1 / (1 - p) elsewhere.
    #[inline(always)]
    pub(crate) fn factor(&self, position: u32) -> f32 {
        let hash = mix(mix(position ^ self.low).wrapping_add(self.high));
        if hash < self.threshold {
            0.0
        } else {
            self.keep
        }
    }
}

/// A bijection of 32-bit words in which every input bit reaches every output bit
/// (xor-shift and multiply, constants by C. Wellons' search for low bias).
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(Mask::FACTORS[0]);
    x ^= x >> 15;
    x = x.wrapping_mul(Mask::FACTORS[1]);
    x ^ (x >> 16)
}

/// Derives the key of a stream from a parent key and a label (splitmix64's finaliser).
pub fn derive_key(parent: u64, label: u64) -> u64 {
    let mut z = parent
        .wrapping_add(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(label.wrapping_mul(0xbf58_476d_1ce4_e5b9));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A uniform number in [0, 1) at a position of a stream, with 53 random bits.
pub fn uniform(key: u64, position: u64) -> f64 {
    (derive_key(key, position) >> 11) as f64 / (1u64 << 53) as f64
}

/// The first standard normal numbers of a stream, for tests.
#[cfg(test)]
pub(crate) fn normals(len: usize, key: u64) -> Vec<f32> {
    (0..len as u64).map(|at| normal(key, at) as f32).collect()
}

/// A standard normal number at a position of a stream (Box and Muller 1958).
pub fn normal(key: u64, position: u64) -> f64 {
    // 1 - u lies in (0, 1], so the logarithm is finite.
    let radius = (-2.0 * (1.0 - uniform(key, 2 * position)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(key, 2 * position + 1)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_the_stated_share_and_keeps_the_mean() {
        for probability in [0.1, 0.5, 0.9] {
            let n = 1 << 20;
            let factors = Dropout::new(probability, 42).factors(n);
            let dropped = factors.iter().filter(|f| **f == 0.0).count() as f64 / n as f64;
            // Five standard deviations of a binomial share over 2^20 draws.
            let bound = 5.0 * (probability * (1.0 - probability) / n as f64).sqrt();
            assert!((dropped - probability).abs() < bound, "{dropped}");
            let kept = factors.iter().copied().fold(0.0, f32::max) as f64;
            assert!((kept - 1.0 / (1.0 - probability)).abs() < 1e-5);
        }
    }

    #[test]
    fn neighbouring_keys_and_positions_are_uncorrelated() {
        let n = 1 << 18;
        let a = Dropout::new(0.5, 1).factors(n);
        let b = Dropout::new(0.5, 2).factors(n);
        let same = a.iter().zip(&b).filter(|(x, y)| x == y).count() as f64 / n as f64;
        let next = a.windows(2).filter(|w| w[0] == w[1]).count() as f64 / n as f64;
        let bound = 5.0 * (0.25 / n as f64).sqrt();
        assert!((same - 0.5).abs() < bound, "{same}");
        assert!((next - 0.5).abs() < bound, "{next}");
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let n = 200_000;
        let u: Vec<f64> = (0..n).map(|i| uniform(7, i)).collect();
        let z: Vec<f64> = (0..n).map(|i| normal(7, i)).collect();
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let bound = 5.0 / (n as f64).sqrt();
        assert!((mean(&u) - 0.5).abs() < bound && (square(&u) - 1.0 / 3.0).abs() < bound);
        assert!(mean(&z).abs() < bound && (square(&z) - 1.0).abs() < 2.0 * bound);
    }
}
