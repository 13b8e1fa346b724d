//! Memory that operations work in: packed operands of products, weights in f32, the scores of an attention.

use super::heap::{NUMBER, Part, Shared};
use super::sizes::Linear;
use super::tape::Tape;

/// Inner extent that products of matrices pack at a time.
const DEPTH: u64 = 512;

/// Outputs up to which a product packs its weight.
const NARROW: u64 = 768;

impl Tape {
    /// What a product with a weight `[inner, outputs]` packs.
    pub(super) fn pack_weight(&mut self, inner: u64, outputs: u64) {
        self.pack(inner, outputs.min(NARROW));
    }

    /// What a product packs of an operand `[inner, side]`.
    pub(super) fn pack(&mut self, inner: u64, side: u64) {
        let numbers = inner.min(DEPTH).saturating_mul(side);
        self.heap.pass(numbers.saturating_mul(NUMBER));
    }

    /// The weight in f32 for as long as a product takes, where it is stored in 16 bit.
    pub(super) fn widened(&mut self, linear: &Linear) -> Option<Shared> {
        let numbers = linear.inputs.saturating_mul(linear.outputs);
        linear.half.then(|| self.fresh(numbers, Part::Buffers))
    }

    /// The threads' scratch memory for an attention of `tasks` heads.
    pub(super) fn lend(&mut self, numbers: u64, tasks: u64) {
        let bytes = numbers.saturating_mul(NUMBER);
        let threads = self
            .scratch
            .len()
            .min(tasks.try_into().unwrap_or(usize::MAX));
        for thread in 0..threads {
            let has = self.scratch[thread].as_ref().map_or(0, |block| block.bytes);
            if has >= bytes {
                continue;
            }
            // A vector grows to twice its size at least, and moves.
            let grown = self.heap.take(bytes.max(2 * has), Part::Buffers);
            if let Some(before) = self.scratch[thread].replace(grown) {
                self.heap.give(before);
            }
        }
    }
}
