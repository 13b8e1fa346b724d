//! softmax(q k^T scale) v per head, read and written in place in [tokens, heads x size]: no
//! padding, no transposes. The backward pass computes the probabilities again, unless they are few enough to be kept.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{Out, tensor, values, written};
use super::heads::{
    Head, checked_width, content_scores, heads, softmax_gradient_rows, softmax_rows, with_scratch,
};
use super::low_rank::{scale_by_mask as drop_in_stream, write_dropped};
use super::product::small_product;
use super::simd::multiversion;
use crate::backend::AttentionShape;
use crate::random::Dropout;

/// The output, and the probabilities before their dropout where `keep` asks for them and they are worth it: [numbers of all heads], head
/// after head.
pub(crate) fn forward(
    [q, k, v]: [FlexTensor; 3],
    shape: &AttentionShape,
    dropout: Dropout,
    keep: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let width = checked_width(&q, &k, &v, shape);
    let (q, k, v) = (values(&q), values(&k), values(&v));
    let heads = heads(shape, width);
    let scores = heads.iter().map(|head| head.queries * head.keys).sum();
    let keep = keep && crate::keeps_probabilities(scores as u64, (k.len() + v.len()) as u64);
    let mut kept = None;
    let run = |probabilities: Option<Out>| {
        // SAFETY: every head writes its own columns of its own rows, and together they cover all; so they do the probabilities.
        unsafe {
            written(q.len(), |out| {
                heads.par_iter().for_each(|head| {
                    let own =
                        probabilities.map(|all| all.slice(head.scores, head.queries * head.keys));
                    forward_head(out, own, head, [q, k, v], shape.scale as f32, dropout);
                });
            })
        }
    };
    let out = match keep {
        false => run(None),
        true => {
            let mut out = Vec::new();
            // SAFETY: the heads write all of it.
            let probabilities = unsafe { written(scores, |all| out = run(Some(all))) };
            kept = Some(tensor(probabilities, [scores]));
            out
        }
    };
    (tensor(out, [q.len() / width, width]), kept)
}

/// # Safety
/// `out` is an allocation like q, and nobody else writes this head's columns.
unsafe fn forward_head(
    out: Out,
    kept: Option<&mut [f32]>,
    head: &Head,
    [q, k, v]: [&[f32]; 3],
    scale: f32,
    dropout: Dropout,
) {
    let (stride, scores) = (head.stride, head.queries * head.keys);
    with_scratch(scores, |scratch| {
        let dropped: &[f32] = match kept {
            None => {
                probabilities(scratch, head, q, k, scale);
                if !dropout.is_none() {
                    drop_in_stream(scratch, head.stream(), dropout);
                }
                scratch
            }
            Some(kept) => {
                probabilities(kept, head, q, k, scale);
                if dropout.is_none() {
                    kept
                } else {
                    write_dropped(scratch, kept, head.stream(), dropout);
                    scratch
                }
            }
        };
        // SAFETY: the head's rows lie inside v and out.
        unsafe {
            small_product(
                [head.queries, head.size, head.keys],
                (out.at(head.q), stride),
                (dropped.as_ptr(), head.keys, 1),
                (v.as_ptr().wrapping_add(head.k), stride, 1),
                1.0,
                false,
            );
        }
    });
}

/// The probabilities of a head, [queries, keys].
fn probabilities(p: &mut [f32], head: &Head, q: &[f32], k: &[f32], scale: f32) {
    content_scores(p, head, q, k, scale);
    softmax_rows(p, head.keys);
}

/// The gradients of q, k and v. `probabilities` are those that [`forward`] kept.
pub(crate) fn backward(
    gradient: FlexTensor,
    [q, k, v]: [FlexTensor; 3],
    probabilities: Option<FlexTensor>,
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
        kept: probabilities.as_ref().map(values),
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
    kept: Option<&'a [f32]>,
    scale: f32,
    dropout: Dropout,
}

multiversion! {
    /// Writes x times the dropout's mask, from position `first` of the stream, and multiplies `also` with it.
    fn drop_both(out: &mut [f32], x: &[f32], also: &mut [f32], first: u32, dropout: Dropout) {
        let mask = dropout.mask();
        for (i, ((out, x), also)) in out.iter_mut().zip(x).zip(also).enumerate() {
            let factor = mask.factor(first.wrapping_add(i as u32));
            *out = x * factor;
            *also *= factor;
        }
    }
}

/// # Safety
/// The outputs are allocations like q, k and v, and nobody else writes this head's columns.
unsafe fn backward_head([dq, dk, dv]: [Out; 3], head: &Head, input: &Inputs<'_>) {
    let stride = head.stride;
    let (m, n, d) = (head.queries, head.keys, head.size);
    let keys = n;
    with_scratch(3 * m * n, |scratch| {
        let (own, rest) = scratch.split_at_mut(m * n);
        let (dropped, ds) = rest.split_at_mut(m * n);
        let p: &[f32] = match input.kept {
            Some(kept) => &kept[head.scores..head.scores + m * n],
            None => {
                probabilities(own, head, input.q, input.k, input.scale);
                own
            }
        };
        let g = (input.gradient.as_ptr().wrapping_add(head.q), stride, 1);
        // SAFETY: the head's rows lie inside all buffers.
        unsafe {
            // d(dropped p) = g v^T
            let right = (input.v.as_ptr().wrapping_add(head.k), 1, stride);
            small_product([m, n, d], (ds.as_mut_ptr(), keys), g, right, 1.0, false);
        }
        let dropped = match input.dropout.is_none() {
            true => p,
            false => {
                drop_both(dropped, p, ds, head.stream(), input.dropout);
                &*dropped
            }
        };
        // SAFETY: as above.
        unsafe {
            // dv = (dropped p)^T g
            let left = (dropped.as_ptr(), 1, keys);
            small_product([n, d, m], (dv.at(head.k), stride), left, g, 1.0, false);
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
