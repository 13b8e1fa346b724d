//! softmax(q k^T / scale) v per head, read and written in place in [tokens, heads x size]: no
//! padding, no transposes, no score tensor. The backward pass computes the probabilities again.

use std::cell::RefCell;

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{Out, tensor, values, written};
use super::linear::scale_by_mask as drop_in_stream;
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

/// One head of one row of the batch: where it lies and how many tokens it has.
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
    /// Where its scores begin in the dropout's stream.
    stream: u32,
}

/// All heads of all rows, in the order of the dropout's stream.
fn heads(shape: &AttentionShape, stride: usize) -> Vec<Head> {
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
                stream: scores as u32,
            });
            scores += queries * keys;
        }
        q += queries;
        k += keys;
    }
    heads
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

/// Checks the tensors against the shape and returns the width.
fn checked_width(q: &FlexTensor, k: &FlexTensor, shape: &AttentionShape) -> usize {
    let [queries, width] = [0, 1].map(|i| q.layout().shape()[i]);
    assert_eq!(
        shape.queries.len(),
        shape.keys.len(),
        "rows of queries and of keys"
    );
    assert_eq!(shape.queries.iter().sum::<usize>(), queries, "tokens of q");
    assert_eq!(
        shape.keys.iter().sum::<usize>(),
        k.layout().shape()[0],
        "tokens of k"
    );
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

pub(crate) fn forward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    shape: &AttentionShape,
    dropout: Dropout,
) -> FlexTensor {
    let width = checked_width(&q, &k, shape);
    let (q, k, v) = (values(&q), values(&k), values(&v));
    // SAFETY: every head writes its own columns of its own rows, and together they cover all.
    let out = unsafe {
        written(q.len(), |out| {
            heads(shape, width).into_par_iter().for_each(|head| {
                forward_head(out, &head, q, k, v, shape.scale as f32, dropout);
            });
        })
    };
    tensor(out, [q.len() / width, width])
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
            drop_in_stream(p, head.stream, dropout);
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
    let width = checked_width(&q, &k, shape);
    let input = Inputs {
        gradient: values(&gradient),
        q: values(&q),
        k: values(&k),
        v: values(&v),
        scale: shape.scale as f32,
        dropout,
    };
    let (queries, keys) = (input.q.len(), input.k.len());
    let (mut dk, mut dv) = (Vec::new(), Vec::new());
    // SAFETY: every head writes its own columns of its own rows, and together they cover all.
    let dq = unsafe {
        written(queries, |dq| {
            dk = written(keys, |dk| {
                dv = written(keys, |dv| {
                    heads(shape, width)
                        .into_par_iter()
                        .for_each(|head| backward_head([dq, dk, dv], &head, &input));
                });
            });
        })
    };
    (
        tensor(dq, [queries / width, width]),
        tensor(dk, [keys / width, width]),
        tensor(dv, [keys / width, width]),
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
            drop_in_stream(kept, head.stream, input.dropout);
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
            drop_in_stream(ds, head.stream, input.dropout);
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
