//! softmax(q k^T scale) v per head, read and written in place in [tokens, heads x size]: no
//! padding, no transposes, no score tensor. The backward pass computes the probabilities again.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{Out, tensor, values, written};
use super::heads::{
    Head, checked_width, content_scores, heads, softmax_gradient_rows, softmax_rows, with_scratch,
};
use super::low_rank::scale_by_mask as drop_in_stream;
use super::product::small_product;
use crate::backend::AttentionShape;
use crate::random::Dropout;

pub(crate) fn forward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    shape: &AttentionShape,
    dropout: Dropout,
) -> FlexTensor {
    let width = checked_width(&q, &k, &v, shape);
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
    let stride = head.stride;
    with_scratch(head.queries * head.keys, |p| {
        content_scores(p, head, q, k, scale);
        softmax_rows(p, head.keys);
        if !dropout.is_none() {
            drop_in_stream(p, head.stream, dropout);
        }
        // SAFETY: the head's rows lie inside v and out.
        unsafe {
            small_product(
                [head.queries, head.size, head.keys],
                (out.at(head.q), stride),
                (p.as_ptr(), head.keys, 1),
                (v.as_ptr().wrapping_add(head.k), stride, 1),
                1.0,
                false,
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
    let width = checked_width(&q, &k, &v, shape);
    assert_eq!(
        values(&gradient).len(),
        values(&q).len(),
        "elements of the gradient and of q"
    );
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
    let stride = head.stride;
    let (m, n, d) = (head.queries, head.keys, head.size);
    let keys = n;
    with_scratch(3 * m * n, |scratch| {
        let (p, rest) = scratch.split_at_mut(m * n);
        let (kept, ds) = rest.split_at_mut(m * n);
        content_scores(p, head, input.q, input.k, input.scale);
        softmax_rows(p, n);
        kept.copy_from_slice(p);
        let dropping = !input.dropout.is_none();
        if dropping {
            drop_in_stream(kept, head.stream, input.dropout);
        }
        // SAFETY: the head's rows lie inside all buffers.
        unsafe {
            let g = (input.gradient.as_ptr().wrapping_add(head.q), stride, 1);
            // dv = (dropped p)^T g
            let left = (kept.as_ptr(), 1, keys);
            small_product([n, d, m], (dv.at(head.k), stride), left, g, 1.0, false);
            // d(dropped p) = g v^T
            let right = (input.v.as_ptr().wrapping_add(head.k), 1, stride);
            small_product([m, n, d], (ds.as_mut_ptr(), keys), g, right, 1.0, false);
        }
        if dropping {
            drop_in_stream(ds, head.stream, input.dropout);
        }
        softmax_gradient_rows(ds, p, n, input.scale);
        // SAFETY: as above.
        unsafe {
            let k = (input.k.as_ptr().wrapping_add(head.k), stride, 1);
            small_product(
                [m, d, n],
                (dq.at(head.q), stride),
                (ds.as_ptr(), keys, 1),
                k,
                1.0,
                false,
            );
            let q = (input.q.as_ptr().wrapping_add(head.q), stride, 1);
            small_product(
                [n, d, m],
                (dk.at(head.k), stride),
                (ds.as_ptr(), 1, keys),
                q,
                1.0,
                false,
            );
        }
    });
}
