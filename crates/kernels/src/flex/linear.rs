//! y = x W + b + s drop(x) A B, and its gradients, as matrix products with as few passes as possible.

use burn::tensor::Shape;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{Out, contiguous, for_row_blocks, rows_per_task, tensor, values, written};
use super::product::{Matrix, Start, is_dense, multiplied, product};
use super::simd::multiversion;
use super::widen::widened;
use crate::backend::{LinearGradients, LinearNeeds, LoraScale};
use crate::random::Dropout;

/// Ranks up to this are added while the output is first written; above it a product is faster.
const SMALL_RANK: usize = 32;

multiversion! {
    /// Writes bias + scale t B into the rows of `out`; t is [rows, rank], B is [rank, width].
    fn write_low_rank(out: &mut [f32], bias: Option<&[f32]>, t: &[f32], b: &[f32], scale: f32, width: usize) {
        let rank = b.len() / width.max(1);
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            match bias {
                Some(bias) => out.copy_from_slice(bias),
                None => out.fill(0.0),
            }
            for j in 0..rank {
                let factor = scale * t[row * rank + j];
                for (out, b) in out.iter_mut().zip(&b[j * width..(j + 1) * width]) {
                    *out = factor.mul_add(*b, *out);
                }
            }
        }
    }
}

multiversion! {
    /// out = x times the dropout's mask, from position `first` of the stream.
    pub(crate) fn write_dropped(out: &mut [f32], x: &[f32], first: u32, dropout: Dropout) {
        let mask = dropout.mask();
        for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
            *out = x * mask.factor(first.wrapping_add(i as u32));
        }
    }
}

/// x with its dropout applied, or x itself without one.
fn dropped<'a>(x: &'a [f32], dropout: Dropout, storage: &'a mut Vec<f32>) -> &'a [f32] {
    if dropout.is_none() {
        return x;
    }
    // SAFETY: the blocks cover every element once.
    *storage = unsafe {
        written(x.len(), |out| {
            for_row_blocks(x.len(), 1, |first, len| {
                write_dropped(
                    out.slice(first, len),
                    &x[first..first + len],
                    first as u32,
                    dropout,
                );
            });
        })
    };
    storage
}

/// Writes bias + scale t B everywhere in `out` [rows, width].
///
/// # Safety
/// `out` points to rows x width elements.
unsafe fn prefill(
    out: Out,
    rows: usize,
    width: usize,
    bias: Option<&[f32]>,
    (t, b, scale): (&[f32], &[f32], f32),
) {
    let rank = b.len() / width.max(1);
    let (small, large) = if rank > SMALL_RANK {
        (0, rank)
    } else {
        (rank, 0)
    };
    for_row_blocks(rows, width, |first, count| {
        // SAFETY: blocks of rows are disjoint.
        let out = unsafe { out.slice(first * width, count * width) };
        let (t, b) = if small > 0 {
            (&t[first * rank..(first + count) * rank], b)
        } else {
            (&[][..], &[][..])
        };
        write_low_rank(out, bias, t, b, scale, width);
    });
    if large > 0 {
        // SAFETY: the rows were just written.
        unsafe {
            product(
                out,
                Start::Add,
                Matrix::new(t, rows, rank),
                Matrix::new(b, rank, width),
                scale,
            )
        };
    }
}

/// `x` is [.., in], `weight` [in, out], `bias` [out], A [in, r], B [r, out].
pub(crate) fn forward(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    lora: Option<(FlexTensor, FlexTensor, LoraScale)>,
) -> FlexTensor {
    let x = contiguous(x);
    let weight = viewable(weight);
    let w = Matrix::view(&weight).expect("made viewable");
    let (inputs, outputs) = (w.rows(), w.cols());
    let rows = rows_of(&x, inputs, "x", "the weight's rows");
    let x_matrix = Matrix::new(values(&x), rows, inputs);
    let bias = bias.map(contiguous);
    let lora = lora.map(|(a, b, lora)| (contiguous(a), contiguous(b), lora));
    let mut storage = Vec::new();
    let low_rank = lora.as_ref().map(|(a, b, lora)| {
        let rank = a.layout().shape()[1];
        let input = dropped(x_matrix.data(), lora.dropout, &mut storage);
        let t = multiplied(
            Matrix::new(input, rows, inputs),
            Matrix::new(values(a), inputs, rank),
            1.0,
        );
        (t, values(b), lora.scale as f32)
    });
    let bias = bias.as_ref().map(values);
    // SAFETY: the product writes every element, or adds to the prefill, which did.
    let out = unsafe {
        written(rows * outputs, |out| {
            let start = match (&low_rank, bias) {
                (Some((t, b, scale)), _) => {
                    prefill(out, rows, outputs, bias, (t, b, *scale));
                    Start::Add
                }
                (None, Some(bias)) => Start::Bias(bias),
                (None, None) => Start::Zero,
            };
            product(out, start, x_matrix, w, 1.0);
        })
    };
    let mut shape: Vec<usize> = x.layout().shape().to_vec();
    *shape.last_mut().expect("at least one dimension") = outputs;
    tensor(out, Shape::from(shape))
}

/// The number of vectors in a tensor whose last dimension is `width`.
fn rows_of(x: &FlexTensor, width: usize, name: &str, of: &str) -> usize {
    let shape = x.layout().shape();
    let (last, leading) = shape.split_last().expect("at least one dimension");
    assert_eq!(*last, width, "the last dimension of {name} and {of}");
    leading.iter().product()
}

/// A weight as a dense matrix of f32. One of halves is copied, for as long as the product takes.
fn viewable(weight: FlexTensor) -> FlexTensor {
    let weight = match is_dense(weight.layout()) {
        true => weight,
        false => weight.to_contiguous(),
    };
    widened(weight)
}

/// The gradients that `needs` asks for.
pub(crate) fn backward(
    gradient: FlexTensor,
    x: Option<FlexTensor>,
    weight: FlexTensor,
    lora: Option<(FlexTensor, FlexTensor, LoraScale)>,
    needs: LinearNeeds,
) -> LinearGradients<burn_flex::Flex> {
    let gradient = contiguous(gradient);
    let weight = viewable(weight);
    let w = Matrix::view(&weight).expect("made viewable");
    let (inputs, outputs) = (w.rows(), w.cols());
    let rows = rows_of(&gradient, outputs, "the gradient", "the weight's columns");
    let g = Matrix::new(values(&gradient), rows, outputs);
    let x = x.map(contiguous);
    let x_matrix = x.as_ref().map(|x| Matrix::new(values(x), rows, inputs));

    let mut result = LinearGradients::default();
    let mut low_rank_gradient = None; // dt = s dy B^T, [rows, r], and A^T
    let mut lora_dropout = Dropout::NONE;
    if let Some((a, b, lora)) = lora.map(|(a, b, lora)| (contiguous(a), contiguous(b), lora)) {
        let rank = a.layout().shape()[1];
        let (a_matrix, b_matrix) = (
            Matrix::new(values(&a), inputs, rank),
            Matrix::new(values(&b), rank, outputs),
        );
        let scale = lora.scale as f32;
        let dt = multiplied(g, b_matrix.transposed(), scale);
        if needs.a || needs.b {
            let mut storage = Vec::new();
            let x = x_matrix.expect("the input is kept for the adapter");
            let input = Matrix::new(dropped(x.data(), lora.dropout, &mut storage), rows, inputs);
            if needs.b {
                let t = multiplied(input, a_matrix, 1.0);
                let t = Matrix::new(&t, rows, rank);
                result.b = Some(tensor(
                    multiplied(t.transposed(), g, scale),
                    [rank, outputs],
                ));
            }
            if needs.a {
                let dt = Matrix::new(&dt, rows, rank);
                result.a = Some(tensor(
                    multiplied(input.transposed(), dt, 1.0),
                    [inputs, rank],
                ));
            }
        }
        low_rank_gradient = Some((dt, transpose(values(&a), inputs, rank)));
        lora_dropout = lora.dropout;
    }
    if needs.x {
        // SAFETY: the product writes every element, or adds to the prefill, which did.
        let dx = unsafe {
            written(rows * inputs, |out| {
                let start = match &low_rank_gradient {
                    Some((dt, a)) => {
                        prefill(out, rows, inputs, None, (dt, a, 1.0));
                        if !lora_dropout.is_none() {
                            drop_in_place(out.slice(0, rows * inputs), lora_dropout);
                        }
                        Start::Add
                    }
                    None => Start::Zero,
                };
                product(out, start, g, w.transposed(), 1.0);
            })
        };
        let mut shape: Vec<usize> = gradient.layout().shape().to_vec();
        *shape.last_mut().expect("at least one dimension") = inputs;
        result.x = Some(tensor(dx, Shape::from(shape)));
    }
    if needs.weight {
        let x = x_matrix.expect("the input is kept for the weight");
        result.weight = Some(tensor(
            multiplied(x.transposed(), g, 1.0),
            [inputs, outputs],
        ));
    }
    if needs.bias {
        result.bias = Some(tensor(sum_rows(g.data(), outputs), [outputs]));
    }
    result
}

pub(crate) fn drop_in_place(x: &mut [f32], dropout: Dropout) {
    let step = rows_per_task(1);
    x.par_chunks_mut(step).enumerate().for_each(|(block, x)| {
        scale_by_mask(x, (block * step) as u32, dropout);
    });
}

multiversion! {
    /// x times the dropout's mask, from position `first` of the stream.
    pub(crate) fn scale_by_mask(x: &mut [f32], first: u32, dropout: Dropout) {
        let mask = dropout.mask();
        for (i, x) in x.iter_mut().enumerate() {
            *x *= mask.factor(first.wrapping_add(i as u32));
        }
    }
}

fn transpose(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols)
        .map(|i| x[(i % rows) * cols + i / rows])
        .collect()
}

/// The sum over the rows of x [rows, width]. The order of additions depends on the shape only.
pub(crate) fn sum_rows(x: &[f32], width: usize) -> Vec<f32> {
    let rows = x.len() / width.max(1);
    let step = 64;
    let partial: Vec<Vec<f32>> = (0..rows.div_ceil(step))
        .into_par_iter()
        .map(|block| {
            let mut sum = vec![0.0; width];
            let end = ((block + 1) * step).min(rows);
            add_rows(&mut sum, &x[block * step * width..end * width]);
            sum
        })
        .collect();
    let mut total = vec![0.0; width];
    for sum in &partial {
        add_rows(&mut total, sum);
    }
    total
}

multiversion! {
    /// Adds every row of `x` to `sum`.
    fn add_rows(sum: &mut [f32], x: &[f32]) {
        for row in x.chunks_exact(sum.len()) {
            for (sum, x) in sum.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}
