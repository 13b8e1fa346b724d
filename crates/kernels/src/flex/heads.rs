//! One head of one row of a batch: where it lies in [tokens, heads x size], and the products and
//! softmax that its attention is made of.

use std::cell::RefCell;

use burn_flex::FlexTensor;

use super::product::small_product;
use super::simd::{dot, exp, max, multiversion, sum};
use crate::backend::AttentionShape;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` elements of this thread's scratch memory; their content is arbitrary.
pub(super) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        work(&mut scratch[..len])
    })
}

/// One head of one row of the batch: where it lies and how many tokens it has.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) queries: usize,
    pub(super) keys: usize,
    /// Offset of the first query and of the first key.
    pub(super) q: usize,
    pub(super) k: usize,
    /// Elements from one token to the next.
    pub(super) stride: usize,
    pub(super) size: usize,
    /// Where its scores begin among those of all heads.
    pub(super) scores: usize,
}

impl Head {
    /// Where its scores begin in the dropout's stream.
    pub(super) fn stream(&self) -> u32 {
        self.scores as u32
    }
}

/// All heads of all rows, in the order of the dropout's stream.
pub(super) fn heads(shape: &AttentionShape, stride: usize) -> Vec<Head> {
    let size = stride / shape.heads;
    let (mut q, mut k, mut scores) = (0, 0, 0usize);
    let mut heads = Vec::with_capacity(shape.keys.len() * shape.heads);
    for (&queries, &keys) in shape.queries.iter().zip(&shape.keys) {
        for head in 0..shape.heads {
            heads.push(Head {
                queries,
                keys,
                q: q * stride + head * size,
                k: k * stride + head * size,
                stride,
                size,
                scores,
            });
            scores += queries * keys;
        }
        q += queries;
        k += keys;
    }
    heads
}

multiversion! {
    /// The softmax of every row of `scores`, in place.
    pub(super) fn softmax_rows(scores: &mut [f32], keys: usize) {
        for row in scores.chunks_exact_mut(keys) {
            let top = max(row);
            for score in row.iter_mut() {
                *score = exp(*score - top);
            }
            let inverse = 1.0 / sum(row);
            for score in row.iter_mut() {
                *score *= inverse;
            }
        }
    }
}

multiversion! {
    /// Turns `gradient`, d loss / d (dropped probabilities), into d loss / d scores x `scale`.
    pub(super) fn softmax_gradient_rows(gradient: &mut [f32], probabilities: &[f32], keys: usize, scale: f32) {
        for (g, p) in gradient.chunks_exact_mut(keys).zip(probabilities.chunks_exact(keys)) {
            let mean = dot(g, p);
            for (g, p) in g.iter_mut().zip(p) {
                *g = p * (*g - mean) * scale;
            }
        }
    }
}

/// scores = q k^T scale of one head, dense [queries, keys].
pub(super) fn content_scores(out: &mut [f32], head: &Head, q: &[f32], k: &[f32], scale: f32) {
    let stride = head.stride;
    // SAFETY: the head's rows lie inside q and k by construction.
    unsafe {
        small_product(
            [head.queries, head.keys, head.size],
            (out.as_mut_ptr(), head.keys),
            (q.as_ptr().wrapping_add(head.q), stride, 1),
            (k.as_ptr().wrapping_add(head.k), 1, stride),
            scale,
            false,
        );
    }
}

/// Checks the tensors against the shape and returns the width.
pub(super) fn checked_width(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    shape: &AttentionShape,
) -> usize {
    let [queries, width] = [0, 1].map(|i| q.layout().shape()[i]);
    assert_eq!(
        shape.queries.len(),
        shape.keys.len(),
        "rows of queries and of keys"
    );
    assert_eq!(shape.queries.iter().sum::<usize>(), queries, "tokens of q");
    let expected = [shape.keys.iter().sum::<usize>(), width];
    for (name, x) in [("k", k), ("v", v)] {
        assert_eq!(
            &x.layout().shape()[..],
            expected,
            "tokens and width of {name}"
        );
    }
    assert!(
        shape.keys.iter().all(|keys| *keys > 0),
        "a row without keys"
    );
    assert_eq!(
        width % shape.heads,
        0,
        "the width is a multiple of the heads"
    );
    width
}
