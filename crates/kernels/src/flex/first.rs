//! Attention of one query a row without keys and values: what [`crate::first_token_attention`] says, and its gradients.
//!
//! With h for a head, j for a token of the row, W for a weight [in, out] and n for the row: scores are q_h . (x_j Wk_h) = u_h . x_j for
//! u_h = q_h Wk_h^T, and the output is sum_j p_j (x_j Wv_h) = z_h Wv_h for z_h = sum_j p_j x_j. So the two projections of all tokens become
//! two of one vector a row and head. A key's bias adds the same to all scores of a head, which the softmax takes away; a value's
//! counts as often as probabilities are left by the dropout; an adapter's t_j = drop(x_j) A lies beside x_j, and u_h and z_h have numbers for it.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{Out, contiguous, tensor, values, written};
use super::heads::{softmax_gradient_rows, softmax_rows, with_scratch};
use super::linear::{checked_rank, viewable};
use super::low_rank::{Prefill, Wide, add_scaled, scale_by_mask, transpose, write_dropped};
use super::product::{Matrix, ordered_product, small_product};
use super::simd::dot;
use crate::backend::{self, AttentionShape, FirstGradients, FirstInputs, FirstNeeds, LoraScale};
use crate::random::Dropout;

/// What the backward pass needs beside the inputs: u, the probabilities, t of the keys and of the values, and z.
pub(crate) const SAVED: usize = 5;

/// Sizes of a call, and where each row's tokens begin.
struct Sizes {
    rows: usize,
    heads: usize,
    /// Of a head.
    size: usize,
    width: usize,
    /// Of the adapters of keys and values; 0 where there is none.
    ranks: [usize; 2],
    starts: Vec<usize>,
    lengths: Vec<usize>,
}

impl Sizes {
    fn new(q: &FlexTensor, x: &FlexTensor, ranks: [usize; 2], shape: &AttentionShape) -> Self {
        let [rows, inner] = [0, 1].map(|i| q.layout().shape()[i]);
        let [tokens, width] = [0, 1].map(|i| x.layout().shape()[i]);
        assert_eq!(shape.keys.len(), rows, "rows of q and of the shape");
        assert!(shape.queries.iter().all(|n| *n == 1), "one query a row");
        assert!(shape.keys.iter().all(|n| *n > 0), "a row without keys");
        assert_eq!(shape.keys.iter().sum::<usize>(), tokens, "tokens of x");
        assert_eq!(
            inner % shape.heads,
            0,
            "the width is a multiple of the heads"
        );
        let mut next = 0;
        let starts = shape.keys.iter().map(|length| {
            next += length;
            next - length
        });
        Self {
            rows,
            heads: shape.heads,
            size: inner / shape.heads,
            width,
            ranks,
            starts: starts.collect(),
            lengths: shape.keys.clone(),
        }
    }

    /// Numbers of a head's u: for x and for t.
    fn scored(&self) -> usize {
        self.width + self.ranks[0]
    }

    /// Numbers of a head's z: the sums of x, of t, and of 1.
    fn summed(&self) -> usize {
        self.width + self.ranks[1] + 1
    }

    fn inner(&self) -> usize {
        self.heads * self.size
    }

    fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// For every row: its number, its first token, and how many it has.
    fn each(&self) -> impl IndexedParallelIterator<Item = (usize, usize, usize)> {
        (0..self.rows)
            .into_par_iter()
            .map(|row| (row, self.starts[row], self.lengths[row]))
    }

    /// out[row, head, ..width] = x_h W_h^T for x [rows, heads x size]; a head's numbers of the result are `step` apart.
    ///
    /// # Safety
    /// `out` points to [rows, heads, step] elements that nobody else touches.
    unsafe fn widen(&self, out: Out, step: usize, x: &[f32], weight: Matrix<'_>) {
        (0..self.heads).into_par_iter().for_each(|head| {
            let (w, [across, along]) = weight.columns_from(head * self.size);
            // SAFETY: every head writes its own columns.
            unsafe {
                ordered_product(
                    [self.rows, self.width, self.size],
                    (out.at(head * step), self.heads * step),
                    (x.as_ptr().wrapping_add(head * self.size), self.inner(), 1),
                    (w, along, across),
                    1.0,
                    false,
                );
            }
        });
    }

    /// out[row, head x size ..] += z_h W_h for z [rows, heads, step].
    ///
    /// # Safety
    /// `out` points to [rows, heads x size] initialised elements that nobody else touches.
    unsafe fn narrow(&self, out: Out, z: &[f32], step: usize, weight: Matrix<'_>) {
        (0..self.heads).into_par_iter().for_each(|head| {
            let (w, [across, along]) = weight.columns_from(head * self.size);
            // SAFETY: every head writes its own columns.
            unsafe {
                ordered_product(
                    [self.rows, self.size, self.width],
                    (out.at(head * self.size), self.inner()),
                    (z.as_ptr().wrapping_add(head * step), self.heads * step, 1),
                    (w, across, along),
                    1.0,
                    true,
                );
            }
        });
    }
}

/// The gradient [in, heads x size] of a weight: the product of a head's numbers for x in [rows, heads, step] and of its part of
/// [rows, heads x size], one of which is an operand and the other the gradient of what it gave.
fn weight_gradient(sizes: &Sizes, wide: &[f32], step: usize, side: &[f32]) -> FlexTensor {
    // SAFETY: every head writes its own columns, and together they cover all.
    let gradient = unsafe {
        written(sizes.width * sizes.inner(), |out| {
            (0..sizes.heads).into_par_iter().for_each(|head| {
                let first = head * sizes.size;
                small_product(
                    [sizes.width, sizes.size, sizes.rows],
                    (out.at(first), sizes.inner()),
                    (
                        wide.as_ptr().wrapping_add(head * step),
                        1,
                        sizes.heads * step,
                    ),
                    (side.as_ptr().wrapping_add(first), sizes.inner(), 1),
                    1.0,
                    false,
                );
            });
        })
    };
    tensor(gradient, [sizes.width, sizes.inner()])
}

/// The adapter of keys or values, dense.
struct Adapter {
    a: FlexTensor,
    b: FlexTensor,
    lora: LoraScale,
    rank: usize,
}

impl Adapter {
    fn new(of: backend::Adapter<burn_flex::Flex>, weight: Matrix<'_>) -> Self {
        let (a, b) = (contiguous(of.a), contiguous(of.b));
        let rank = checked_rank(&a, &b, [weight.rows(), weight.cols()]);
        Self {
            a,
            b,
            lora: of.lora,
            rank,
        }
    }

    /// A^T [rank, in].
    fn turned(&self, sizes: &Sizes) -> Vec<f32> {
        transpose(values(&self.a), sizes.width, self.rank)
    }

    /// For a head, counted over all rows: where it begins in [rows, heads x size], and its first column.
    fn place(&self, at: usize, sizes: &Sizes) -> (usize, usize) {
        (at * sizes.size, at % sizes.heads * sizes.size)
    }

    /// wide[row, head, width + j] = scale side_h . B_j,h for side [rows, heads x size].
    fn widen(&self, wide: &mut [f32], step: usize, side: &[f32], sizes: &Sizes) {
        let b = values(&self.b);
        for (at, wide) in wide.chunks_exact_mut(step).enumerate() {
            let (first, column) = self.place(at, sizes);
            let side = &side[first..first + sizes.size];
            for (j, wide) in wide[sizes.width..][..self.rank].iter_mut().enumerate() {
                let b = &b[j * sizes.inner() + column..][..sizes.size];
                *wide = self.lora.scale as f32 * dot(side, b);
            }
        }
    }

    /// side_h += scale sum_j wide[row, head, width + j] B_j,h.
    fn narrow(&self, side: &mut [f32], wide: &[f32], step: usize, sizes: &Sizes) {
        let b = values(&self.b);
        for (at, wide) in wide.chunks_exact(step).enumerate() {
            let (first, column) = self.place(at, sizes);
            let side = &mut side[first..first + sizes.size];
            for (j, wide) in wide[sizes.width..][..self.rank].iter().enumerate() {
                let b = &b[j * sizes.inner() + column..][..sizes.size];
                add_scaled(side, b, self.lora.scale as f32 * wide);
            }
        }
    }

    /// The gradient of B, where `wide` and `side` are an operand and the gradient of the other.
    fn gradient(&self, wide: &[f32], step: usize, side: &[f32], sizes: &Sizes) -> FlexTensor {
        let mut db = vec![0.0; self.rank * sizes.inner()];
        for (at, wide) in wide.chunks_exact(step).enumerate() {
            let (first, column) = self.place(at, sizes);
            let side = &side[first..first + sizes.size];
            for (j, wide) in wide[sizes.width..][..self.rank].iter().enumerate() {
                let db = &mut db[j * sizes.inner() + column..][..sizes.size];
                add_scaled(db, side, self.lora.scale as f32 * wide);
            }
        }
        tensor(db, [self.rank, sizes.inner()])
    }
}

/// The inputs, dense.
struct Dense {
    q: FlexTensor,
    x: FlexTensor,
    weights: [FlexTensor; 2],
    bias: Option<FlexTensor>,
    adapters: [Option<Adapter>; 2],
    sizes: Sizes,
}

impl Dense {
    fn new(inputs: FirstInputs<burn_flex::Flex>, shape: &AttentionShape) -> Self {
        let (q, x) = (contiguous(inputs.q), contiguous(inputs.x));
        let weights = [inputs.key, inputs.value].map(viewable);
        let [key, value] = inputs.adapters;
        let adapter = |of: Option<_>, weight| of.map(|of| Adapter::new(of, matrix(weight)));
        let adapters = [adapter(key, &weights[0]), adapter(value, &weights[1])];
        let ranks = [0, 1].map(|i| adapters[i].as_ref().map_or(0, |of: &Adapter| of.rank));
        let sizes = Sizes::new(&q, &x, ranks, shape);
        for weight in &weights {
            let found = [matrix(weight).rows(), matrix(weight).cols()];
            assert_eq!(found, [sizes.width, sizes.inner()], "a weight is [in, out]");
        }
        let [_, bias] = inputs.biases;
        Self {
            q,
            x,
            weights,
            bias: bias.map(contiguous),
            adapters,
            sizes,
        }
    }
}

fn matrix(weight: &FlexTensor) -> Matrix<'_> {
    Matrix::view(weight).expect("made viewable")
}

/// The output [rows, heads x size], and what is saved.
pub(crate) fn forward(
    inputs: FirstInputs<burn_flex::Flex>,
    shape: &AttentionShape,
    dropout: Dropout,
) -> (FlexTensor, [FlexTensor; SAVED]) {
    let dense = Dense::new(inputs, shape);
    let (sizes, x) = (&dense.sizes, values(&dense.x));
    let (rows, heads) = (sizes.rows, sizes.heads);
    let [scored, summed] = [sizes.scored(), sizes.summed()];
    let [key, value] = dense.weights.each_ref().map(matrix);
    let t = dense.adapters.each_ref().map(|adapter| match adapter {
        Some(of) => {
            let wide = Wide::new(x, [sizes.tokens(), sizes.width], of.lora.dropout);
            wide.project(&of.turned(sizes), of.rank, 1.0)
        }
        None => Vec::new(),
    });
    let mut u = vec![0.0; rows * heads * scored];
    // SAFETY: it has room for all heads.
    unsafe { sizes.widen(Out(u.as_mut_ptr()), scored, values(&dense.q), key) };
    if let Some(of) = &dense.adapters[0] {
        of.widen(&mut u, scored, values(&dense.q), sizes);
    }
    let mut p = Vec::new();
    // SAFETY: every row writes its own sums and probabilities, and together they cover all.
    let z = unsafe {
        written(rows * heads * summed, |z| {
            p = written(heads * sizes.tokens(), |p| {
                sizes.each().for_each(|at| {
                    let row = Row::new(sizes, x, &t, at);
                    let (start, length) = (row.start, row.length);
                    let p = p.slice(heads * start, heads * length);
                    let z = z.slice(row.number * heads * summed, heads * summed);
                    row.probabilities(p, &u, shape.scale as f32);
                    row.sum(z, p, dropout);
                });
            });
        })
    };
    let mut out = vec![0.0; rows * sizes.inner()];
    if let Some(bias) = dense.bias.as_ref().map(values) {
        for (at, out) in out.chunks_exact_mut(sizes.size).enumerate() {
            let bias = &bias[at % heads * sizes.size..][..sizes.size];
            add_scaled(out, bias, z[(at + 1) * summed - 1]);
        }
    }
    if let Some(of) = &dense.adapters[1] {
        of.narrow(&mut out, &z, summed, sizes);
    }
    // SAFETY: the output was just set.
    unsafe { sizes.narrow(Out(out.as_mut_ptr()), &z, summed, value) };
    let [key_t, value_t] = t;
    let saved = [u, p, key_t, value_t, z].map(|numbers| {
        let len = numbers.len();
        tensor(numbers, [len])
    });
    (tensor(out, [rows, sizes.inner()]), saved)
}

/// A row of the batch: `length` tokens from `start` on.
struct Row<'a, T> {
    sizes: &'a Sizes,
    x: &'a [f32],
    /// Of keys and of values.
    t: &'a [T; 2],
    start: usize,
    length: usize,
    number: usize,
}

impl<'a, T: AsRef<[f32]>> Row<'a, T> {
    /// One of [`Sizes::each`].
    fn new(
        sizes: &'a Sizes,
        x: &'a [f32],
        t: &'a [T; 2],
        (number, start, length): (usize, usize, usize),
    ) -> Self {
        Self {
            sizes,
            x,
            t,
            start,
            length,
            number,
        }
    }

    /// The row's tokens in x, and in t of the keys or of the values where there is an adapter.
    fn tokens(&self, side: usize) -> impl Iterator<Item = (*const f32, usize)> {
        let of = |x: &[f32], width: usize| (x.as_ptr().wrapping_add(self.start * width), width);
        let parts = [
            of(self.x, self.sizes.width),
            of(self.t[side].as_ref(), self.sizes.ranks[side]),
        ];
        parts.into_iter().filter(|(_, width)| *width > 0)
    }

    /// out[head, token] = scale times a head's numbers in `wide` times those of the token.
    fn score(&self, out: &mut [f32], wide: &[f32], step: usize, side: usize, scale: f32) {
        let heads = self.sizes.heads;
        let mut at = self.number * heads * step;
        for (tokens, width) in self.tokens(side) {
            // SAFETY: the row's tokens and heads lie inside.
            unsafe {
                small_product(
                    [heads, self.length, width],
                    (out.as_mut_ptr(), self.length),
                    (wide.as_ptr().wrapping_add(at), step, 1),
                    (tokens, 1, width),
                    scale,
                    at != self.number * heads * step,
                );
            }
            at += width;
        }
    }

    /// out[head, ..] = the sums of tokens that scores [heads, length] weigh.
    fn weigh(&self, out: &mut [f32], step: usize, scores: &[f32], side: usize) {
        let mut at = 0;
        for (tokens, width) in self.tokens(side) {
            // SAFETY: the row's tokens lie inside, and their sums inside the head's.
            unsafe {
                small_product(
                    [self.sizes.heads, width, self.length],
                    (out.as_mut_ptr().add(at), step),
                    (scores.as_ptr(), self.length, 1),
                    (tokens, width, 1),
                    1.0,
                    false,
                );
            }
            at += width;
        }
    }

    fn probabilities(&self, p: &mut [f32], u: &[f32], scale: f32) {
        self.score(p, u, self.sizes.scored(), 0, scale);
        softmax_rows(p, self.length);
    }

    fn stream(&self) -> u32 {
        (self.sizes.heads * self.start) as u32
    }

    /// The sums of x, t and 1 that the probabilities weigh after their dropout.
    fn sum(&self, z: &mut [f32], p: &[f32], dropout: Dropout) {
        let summed = self.sizes.summed();
        with_scratch(p.len(), |dropped| {
            write_dropped(dropped, p, self.stream(), dropout);
            self.weigh(z, summed, dropped, 1);
            for (z, p) in z
                .chunks_exact_mut(summed)
                .zip(dropped.chunks_exact(self.length))
            {
                z[summed - 1] = p.iter().sum();
            }
        });
    }
}

/// The gradients that `needs` asks for.
pub(crate) fn backward(
    gradient: FlexTensor,
    inputs: FirstInputs<burn_flex::Flex>,
    saved: [FlexTensor; SAVED],
    needs: FirstNeeds,
    shape: &AttentionShape,
    dropout: Dropout,
) -> FirstGradients<burn_flex::Flex> {
    let gradient = contiguous(gradient);
    let dense = Dense::new(inputs, shape);
    let (sizes, x, q) = (&dense.sizes, values(&dense.x), values(&dense.q));
    let (rows, heads, width) = (sizes.rows, sizes.heads, sizes.width);
    let [scored, summed] = [sizes.scored(), sizes.summed()];
    let [key, value] = dense.weights.each_ref().map(matrix);
    let [u, p, key_t, value_t, z] = saved.each_ref().map(values);
    let (g, t) = (values(&gradient), [key_t, value_t]);

    // The gradient of the sums.
    let mut dz = vec![0.0; rows * heads * summed];
    // SAFETY: it has room for them.
    unsafe { sizes.widen(Out(dz.as_mut_ptr()), summed, g, value) };
    if let Some(of) = &dense.adapters[1] {
        of.widen(&mut dz, summed, g, sizes);
    }
    if let Some(bias) = dense.bias.as_ref().map(values) {
        for (at, dz) in dz.chunks_exact_mut(summed).enumerate() {
            let bias = &bias[at % heads * sizes.size..][..sizes.size];
            dz[summed - 1] = dot(&g[at * sizes.size..][..sizes.size], bias);
        }
    }

    // The gradients of scores, of u and of t.
    let scores = heads * sizes.tokens();
    let (mut du, mut dropped) = (Vec::new(), Vec::new());
    let mut dt = [Vec::new(), Vec::new()];
    let [key_dt, value_dt] = &mut dt;
    // SAFETY: every row writes its own numbers, and together they cover all.
    let ds = unsafe {
        written(scores, |ds| {
            dropped = written(scores, |dropped| {
                *key_dt = written(sizes.tokens() * sizes.ranks[0], |key_dt| {
                    *value_dt = written(sizes.tokens() * sizes.ranks[1], |value_dt| {
                        du = written(rows * heads * scored, |du| {
                            sizes.each().for_each(|at| {
                                let of = Row::new(sizes, x, &t, at);
                                let (row, start, length) = at;
                                let own = heads * start..heads * (start + length);
                                let ds = ds.slice(own.start, own.len());
                                let dropped = dropped.slice(own.start, own.len());
                                write_dropped(dropped, &p[own.clone()], of.stream(), dropout);
                                of.score(ds, &dz, summed, 1, 1.0);
                                let dz = &dz[row * heads * summed..][..heads * summed];
                                for (ds, dz) in
                                    ds.chunks_exact_mut(length).zip(dz.chunks_exact(summed))
                                {
                                    ds.iter_mut().for_each(|ds| *ds += dz[summed - 1]);
                                }
                                scale_by_mask(ds, of.stream(), dropout);
                                softmax_gradient_rows(ds, &p[own], length, shape.scale as f32);
                                let du = du.slice(row * heads * scored, heads * scored);
                                of.weigh(du, scored, ds, 0);
                                let u = &u[row * heads * scored..][..heads * scored];
                                for (scores, wide, step, dt, rank) in [
                                    (&*ds, u, scored, key_dt, sizes.ranks[0]),
                                    (&*dropped, dz, summed, value_dt, sizes.ranks[1]),
                                ] {
                                    if rank > 0 {
                                        small_product(
                                            [length, rank, heads],
                                            (dt.at(start * rank), rank),
                                            (scores.as_ptr(), 1, length),
                                            (wide.as_ptr().add(width), step, 1),
                                            1.0,
                                            false,
                                        );
                                    }
                                }
                            });
                        });
                    });
                });
            });
        })
    };

    let mut result = FirstGradients::default();
    if needs.q {
        let mut dq = vec![0.0; rows * sizes.inner()];
        if let Some(of) = &dense.adapters[0] {
            of.narrow(&mut dq, &du, scored, sizes);
        }
        // SAFETY: it was just set.
        unsafe { sizes.narrow(Out(dq.as_mut_ptr()), &du, scored, key) };
        result.q = Some(tensor(dq, [rows, sizes.inner()]));
    }
    let sides = [(du.as_slice(), scored, q), (z, summed, g)];
    for (i, (wide, step, side)) in sides.into_iter().enumerate() {
        if needs.weights[i] {
            result.weights[i] = Some(weight_gradient(sizes, wide, step, side));
        }
        let Some(of) = &dense.adapters[i] else {
            continue;
        };
        if needs.b[i] {
            result.b[i] = Some(of.gradient(wide, step, side, sizes));
        }
        if needs.a[i] {
            let mut storage = Vec::new();
            let wide = Wide::new(x, [sizes.tokens(), width], of.lora.dropout);
            let wide = wide.settled(of.rank, &mut storage);
            let da = transpose(&wide.gather(&dt[i], of.rank, 1.0), of.rank, width);
            result.a[i] = Some(tensor(da, [width, of.rank]));
        }
    }
    if needs.biases[0] {
        result.biases[0] = Some(tensor(vec![0.0; sizes.inner()], [sizes.inner()]));
    }
    if needs.biases[1] {
        let mut dbias = vec![0.0; sizes.inner()];
        for (at, g) in g.chunks_exact(sizes.size).enumerate() {
            let dbias = &mut dbias[at % heads * sizes.size..][..sizes.size];
            add_scaled(dbias, g, z[(at + 1) * summed - 1]);
        }
        result.biases[1] = Some(tensor(dbias, [sizes.inner()]));
    }
    if needs.x {
        let scores = [ds.as_slice(), dropped.as_slice()];
        let dx = token_gradients(&dense, scores, [(u, scored), (&dz, summed)], &dt);
        result.x = Some(tensor(dx, [sizes.tokens(), width]));
    }
    result
}

/// The gradient of x [tokens, in]: what the adapters hand back through their dropouts, and sums of the heads' numbers for x that the
/// gradients of scores and the probabilities weigh.
fn token_gradients(
    dense: &Dense,
    scores: [&[f32]; 2],
    wides: [(&[f32], usize); 2],
    dt: &[Vec<f32>; 2],
) -> Vec<f32> {
    let sizes = &dense.sizes;
    let (tokens, width, heads) = (sizes.tokens(), sizes.width, sizes.heads);
    let part = |i: usize, out: Out, first: bool| {
        let of = dense.adapters[i].as_ref().expect("asked for where it is");
        let prefill = Prefill {
            bias: None,
            t: &dt[i],
            b: &of.turned(sizes),
            scale: 1.0,
            dropout: of.lora.dropout,
        };
        // SAFETY: the output has room for all tokens, which the first one writes.
        unsafe {
            match first {
                true => prefill.write(out, tokens, width),
                false => prefill.add(out, tokens, width),
            }
        }
    };
    let adapted: Vec<usize> = (0..2).filter(|i| dense.adapters[*i].is_some()).collect();
    // SAFETY: the first adapter or the first product writes all, and every row writes its own tokens.
    unsafe {
        written(tokens * width, |dx| {
            for (n, i) in adapted.iter().enumerate() {
                part(*i, dx, n == 0);
            }
            sizes.each().for_each(|(row, start, length)| {
                for (n, (scores, (wide, step))) in scores.into_iter().zip(wides).enumerate() {
                    small_product(
                        [length, width, heads],
                        (dx.at(start * width), width),
                        (scores.as_ptr().wrapping_add(heads * start), 1, length),
                        (wide.as_ptr().wrapping_add(row * heads * step), step, 1),
                        1.0,
                        n > 0 || !adapted.is_empty(),
                    );
                }
            });
        })
    }
}
