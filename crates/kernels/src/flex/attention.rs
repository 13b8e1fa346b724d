//! softmax(q k^T / scale) v per head, read and written in place in [batch, length, heads x size]:
//! no transposes, no score tensor. The backward pass computes the probabilities again.

use std::cell::RefCell;

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{Out, tensor, values, written};
use super::simd::{dot, exp, max, multiversion, sum};
use crate::backend::AttentionShape;
use crate::random::Dropout;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` elements of this thread's scratch memory; their content is arbitrary.
fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        work(&mut scratch[..len])
    })
}

/// One head of one row of the batch: where it lies and how many keys it sees.
#[derive(Clone, Copy)]
struct Head {
    queries: usize,
    keys: usize,
    /// Offset of the first query and of the first key.
    q: usize,
    k: usize,
    /// Elements from one token to the next.
    stride: usize,
    size: usize,
    /// Where its scores begin in the dropout's stream, and its row length there.
    stream: u32,
    stream_row: usize,
}

impl Head {
    fn new(
        shape: &AttentionShape,
        queries: usize,
        keys: usize,
        index: usize,
        stride: usize,
    ) -> Self {
        let (row, head) = (index / shape.heads, index % shape.heads);
        let size = stride / shape.heads;
        Self {
            queries,
            keys: shape.lengths[row].min(keys),
            q: row * queries * stride + head * size,
            k: row * keys * stride + head * size,
            stride,
            size,
            stream: (index * queries * keys) as u32,
            stream_row: keys,
        }
    }
}

/// An operand inside a larger buffer: (pointer, row stride, column stride).
type Operand = (*const f32, isize, isize);

/// dst = product of lhs [m, k] and rhs [k, n], times `scale`.
///
/// # Safety
/// All three lie inside their allocations; nobody else writes to `dst`.
unsafe fn small_product(
    size: [usize; 3],
    dst: (*mut f32, isize),
    lhs: Operand,
    rhs: Operand,
    scale: f32,
) {
    let [m, n, k] = size;
    // SAFETY: promised by the caller.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.0,
            1,
            dst.1,
            false,
            lhs.0,
            lhs.2,
            lhs.1,
            rhs.0,
            rhs.2,
            rhs.1,
            0.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

multiversion! {
    /// The softmax of every row of `scores`, in place.
    fn softmax_rows(scores: &mut [f32], keys: usize) {
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
    /// out = probabilities times the mask, by rows of `keys` elements; may be the same memory.
    fn drop_rows(probabilities: &mut [f32], keys: usize, stream: u32, stream_row: usize, dropout: Dropout) {
        let mask = dropout.mask();
        for (i, row) in probabilities.chunks_exact_mut(keys).enumerate() {
            let start = stream.wrapping_add((i * stream_row) as u32);
            for (j, p) in row.iter_mut().enumerate() {
                *p *= mask.factor(start.wrapping_add(j as u32));
            }
        }
    }
}

multiversion! {
    /// Turns `gradient`, d loss / d (dropped probabilities), into d loss / d scores x `scale`.
    fn softmax_gradient_rows(gradient: &mut [f32], probabilities: &[f32], keys: usize, scale: f32) {
        for (g, p) in gradient.chunks_exact_mut(keys).zip(probabilities.chunks_exact(keys)) {
            let mean = dot(g, p);
            for (g, p) in g.iter_mut().zip(p) {
                *g = p * (*g - mean) * scale;
            }
        }
    }
}

/// probabilities = softmax(q k^T scale) of one head, dense [queries, keys].
fn probabilities(out: &mut [f32], head: &Head, q: &[f32], k: &[f32], scale: f32) {
    let stride = head.stride as isize;
    // SAFETY: the head's rows lie inside q and k by construction.
    unsafe {
        small_product(
            [head.queries, head.keys, head.size],
            (out.as_mut_ptr(), head.keys as isize),
            (q.as_ptr().add(head.q), stride, 1),
            (k.as_ptr().add(head.k), 1, stride),
            scale,
        );
    }
    softmax_rows(out, head.keys);
}

struct Sizes {
    batch: usize,
    queries: usize,
    keys: usize,
    width: usize,
    scale: f32,
}

fn sizes(q: &FlexTensor, k: &FlexTensor, shape: &AttentionShape) -> Sizes {
    let [batch, queries, width] = [0, 1, 2].map(|i| q.layout().shape()[i]);
    let keys = k.layout().shape()[1];
    assert_eq!(
        shape.lengths.len(),
        batch,
        "one length per row of the batch"
    );
    assert_eq!(
        width % shape.heads,
        0,
        "the width is a multiple of the heads"
    );
    Sizes {
        batch,
        queries,
        keys,
        width,
        scale: shape.scale as f32,
    }
}

pub(crate) fn forward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    shape: &AttentionShape,
    dropout: Dropout,
) -> FlexTensor {
    let s = sizes(&q, &k, shape);
    let (q, k, v) = (values(&q), values(&k), values(&v));
    // SAFETY: every head writes its own columns of its own rows, and together they cover all.
    let out = unsafe {
        written(s.batch * s.queries * s.width, |out| {
            (0..s.batch * shape.heads)
                .into_par_iter()
                .for_each(|index| {
                    let head = Head::new(shape, s.queries, s.keys, index, s.width);
                    forward_head(out, &head, q, k, v, s.scale, dropout);
                });
        })
    };
    tensor(out, [s.batch, s.queries, s.width])
}

/// # Safety
/// `out` is an allocation like q, and nobody else writes this head's columns.
unsafe fn forward_head(
    out: Out,
    head: &Head,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    scale: f32,
    dropout: Dropout,
) {
    let stride = head.stride as isize;
    with_scratch(head.queries * head.keys, |p| {
        probabilities(p, head, q, k, scale);
        if !dropout.is_none() {
            drop_rows(p, head.keys, head.stream, head.stream_row, dropout);
        }
        // SAFETY: the head's rows lie inside v and out.
        unsafe {
            small_product(
                [head.queries, head.size, head.keys],
                (out.at(head.q), stride),
                (p.as_ptr(), head.keys as isize, 1),
                (v.as_ptr().add(head.k), stride, 1),
                1.0,
            );
        }
    });
}

pub(crate) fn backward(
    gradient: FlexTensor,
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    shape: &AttentionShape,
    dropout: Dropout,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let s = sizes(&q, &k, shape);
    let input = Inputs {
        gradient: values(&gradient),
        q: values(&q),
        k: values(&k),
        v: values(&v),
        scale: s.scale,
        dropout,
    };
    let (mut dk, mut dv) = (Vec::new(), Vec::new());
    // SAFETY: every head writes its own columns of its own rows; padded keys are set to zero.
    let dq = unsafe {
        written(s.batch * s.queries * s.width, |dq| {
            dk = written(s.batch * s.keys * s.width, |dk| {
                dv = written(s.batch * s.keys * s.width, |dv| {
                    (0..s.batch * shape.heads)
                        .into_par_iter()
                        .for_each(|index| {
                            let head = Head::new(shape, s.queries, s.keys, index, s.width);
                            backward_head([dq, dk, dv], &head, &input);
                            for token in head.keys..s.keys {
                                let offset = head.k + token * head.stride;
                                dk.slice(offset, head.size).fill(0.0);
                                dv.slice(offset, head.size).fill(0.0);
                            }
                        });
                });
            });
        })
    };
    (
        tensor(dq, [s.batch, s.queries, s.width]),
        tensor(dk, [s.batch, s.keys, s.width]),
        tensor(dv, [s.batch, s.keys, s.width]),
    )
}

struct Inputs<'a> {
    gradient: &'a [f32],
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    scale: f32,
    dropout: Dropout,
}

/// # Safety
/// The outputs are allocations like q, k and v, and nobody else writes this head's columns.
unsafe fn backward_head([dq, dk, dv]: [Out; 3], head: &Head, input: &Inputs<'_>) {
    let stride = head.stride as isize;
    let (m, n, d) = (head.queries, head.keys, head.size);
    let keys = n as isize;
    with_scratch(3 * m * n, |scratch| {
        let (p, rest) = scratch.split_at_mut(m * n);
        let (kept, ds) = rest.split_at_mut(m * n);
        probabilities(p, head, input.q, input.k, input.scale);
        kept.copy_from_slice(p);
        let dropping = !input.dropout.is_none();
        if dropping {
            drop_rows(kept, n, head.stream, head.stream_row, input.dropout);
        }
        // SAFETY: the head's rows lie inside all buffers.
        unsafe {
            let g = (input.gradient.as_ptr().add(head.q), stride, 1);
            // dv = (dropped p)^T g
            let left = (kept.as_ptr(), 1, keys);
            small_product([n, d, m], (dv.at(head.k), stride), left, g, 1.0);
            // d(dropped p) = g v^T
            let right = (input.v.as_ptr().add(head.k), 1, stride);
            small_product([m, n, d], (ds.as_mut_ptr(), keys), g, right, 1.0);
        }
        if dropping {
            drop_rows(ds, n, head.stream, head.stream_row, input.dropout);
        }
        softmax_gradient_rows(ds, p, n, input.scale);
        // SAFETY: as above.
        unsafe {
            let k = (input.k.as_ptr().add(head.k), stride, 1);
            small_product(
                [m, d, n],
                (dq.at(head.q), stride),
                (ds.as_ptr(), keys, 1),
                k,
                1.0,
            );
            let q = (input.q.as_ptr().add(head.q), stride, 1);
            small_product(
                [n, d, m],
                (dk.at(head.k), stride),
                (ds.as_ptr(), 1, keys),
                q,
                1.0,
            );
        }
    });
}
