//! The rules of [`crate::PagePool`], apart from any memory: which blocks are pages of their own, how large they are, and how
//! many bytes of them are kept. Whoever predicts the memory of a program that uses the pool calls these.

/// Bytes from which on a block is pages of its own.
pub const SMALLEST: u64 = 128 << 10;
/// Sizes between a power of two and the next, so that at most an eighth of a block is for nothing.
pub const STEPS: u64 = 8;
/// Bytes of a page.
pub const PAGE: u64 = 4 << 10;
/// Bytes of a page of the huge kind.
pub const HUGE: u64 = 2 << 20;
/// Bytes that may be kept beyond the most that was ever in use.
pub const SLACK: u64 = 64 << 20;

/// The class of a block, in rising order of sizes; `None` for one that is smaller than [`SMALLEST`].
pub fn class(bytes: u64) -> Option<usize> {
    if bytes < SMALLEST {
        return None;
    }
    let power = u64::from((bytes / SMALLEST).ilog2());
    let base = SMALLEST << power;
    let step = (bytes - base).div_ceil(base / STEPS);
    Some((power * STEPS + step) as usize)
}

/// Bytes of the blocks of a class.
pub fn size_of(class: usize) -> u64 {
    let (power, step) = (class as u64 / STEPS, class as u64 % STEPS);
    let base = SMALLEST << power;
    base + step * (base / STEPS)
}
