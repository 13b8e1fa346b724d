//! Memory that operations work in: packed operands of products, weights in f32, the scores of an attention.

use lowburn_kernels::{adapter_workspace, product_workspace};

use super::heap::{NUMBER, Part, Shared};
use super::sizes::Linear;
use super::tape::Tape;

impl Tape {
    /// What a product `[rows, inner]` x `[inner, columns]` packs; the right operand is a dense matrix or, `turned`, its transpose.
    pub(super) fn pack(
        &mut self,
        [rows, inner, columns]: [u64; 3],
        turned: bool,
        joined: [usize; 2],
    ) {
        let sizes = [rows, inner, columns].map(usize::try_from);
        // Sizes that no memory holds are refused elsewhere.
        if let [Ok(rows), Ok(inner), Ok(columns)] = sizes {
            self.heap
                .pass(product_workspace(rows, inner, columns, turned, joined));
        }
    }

    /// The copy of a layer's input with the dropout of its adapter applied, where the adapter's products need one.
    pub(super) fn dropped(&mut self, linear: &Linear, rows: u64) -> Option<Shared> {
        let sizes = [rows, linear.inputs, linear.rank].map(usize::try_from);
        let bytes = match sizes {
            [Ok(rows), Ok(inputs), Ok(rank)] => adapter_workspace(rows, inputs, rank),
            _ => u64::MAX,
        };
        (linear.drops && bytes > 0).then(|| self.fresh(bytes / NUMBER, Part::Buffers))
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
