//! y = x W + b + s drop(x) A B, and its gradients, as matrix products with as few passes as possible.

use burn::tensor::Shape;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{contiguous, tensor, values, written};
use super::low_rank::{Prefill, Wide, transpose};
use super::product::{Matrix, Start, is_dense, multiplied, product};
use super::simd::multiversion;
use super::widen::widened;
use crate::backend::{LinearGradients, LinearNeeds, LoraScale};
use crate::keeps_projected;
use crate::random::Dropout;

/// y, and drop(x) A [rows, r] where there is an adapter whose backward pass keeps it. `x` is [.., in], `weight` [in, out], `bias` [out], A [in, r], B [r, out].
pub(crate) fn forward(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    lora: Option<(FlexTensor, FlexTensor, LoraScale)>,
) -> (FlexTensor, Option<FlexTensor>) {
    let x = contiguous(x);
    let weight = viewable(weight);
    let w = Matrix::view(&weight).expect("made viewable");
    let (inputs, outputs) = (w.rows(), w.cols());
    let rows = rows_of(&x, inputs, "x", "the weight's rows");
    let x_matrix = Matrix::new(values(&x), rows, inputs);
    let bias = bias.map(contiguous);
    let lora = lora.map(|(a, b, lora)| (contiguous(a), contiguous(b), lora));
    let low_rank = lora.as_ref().map(|(a, b, lora)| {
        let rank = checked_rank(a, b, [inputs, outputs]);
        let a = transpose(values(a), inputs, rank);
        let wide = Wide::new(values(&x), [rows, inputs], lora.dropout);
        let t = wide.project(&a, rank, 1.0);
        (t, values(b), lora.scale as f32)
    });
    let bias = bias.as_ref().map(values);
    // SAFETY: the product writes every element, or adds to the prefill, which did.
    let out = unsafe {
        written(rows * outputs, |out| {
            let start = match (&low_rank, bias) {
                (Some((t, b, scale)), _) => {
                    let prefill = Prefill {
                        bias,
                        t,
                        b,
                        scale: *scale,
                        dropout: Dropout::NONE,
                    };
                    prefill.write(out, rows, outputs);
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
    let t = low_rank.and_then(|(t, _, _)| {
        let rank = t.len() / rows.max(1);
        keeps_projected(rank as u64).then(|| tensor(t, [rows, rank]))
    });
    (tensor(out, Shape::from(shape)), t)
}

/// The rank of the factors A [inputs, rank] and B [rank, outputs].
pub(crate) fn checked_rank(a: &FlexTensor, b: &FlexTensor, [inputs, outputs]: [usize; 2]) -> usize {
    let rank = a.layout().shape()[1];
    assert_eq!(&a.layout().shape()[..], [inputs, rank], "A is [in, r]");
    assert_eq!(&b.layout().shape()[..], [rank, outputs], "B is [r, out]");
    rank
}

/// The number of vectors in a tensor whose last dimension is `width`.
fn rows_of(x: &FlexTensor, width: usize, name: &str, of: &str) -> usize {
    let shape = x.layout().shape();
    let (last, leading) = shape.split_last().expect("at least one dimension");
    assert_eq!(*last, width, "the last dimension of {name} and {of}");
    leading.iter().product()
}

/// A weight as a dense matrix of f32. One of halves is copied, for as long as the product takes.
pub(crate) fn viewable(weight: FlexTensor) -> FlexTensor {
    let weight = match is_dense(weight.layout()) {
        true => weight,
        false => weight.to_contiguous(),
    };
    widened(weight)
}

/// The gradients that `needs` asks for; `projected` is drop(x) A if [`forward`] kept it.
pub(crate) fn backward(
    gradient: FlexTensor,
    x: Option<FlexTensor>,
    weight: FlexTensor,
    lora: Option<(FlexTensor, FlexTensor, LoraScale)>,
    projected: Option<FlexTensor>,
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
    if let Some((a, b, lora)) = lora.map(|(a, b, lora)| (contiguous(a), contiguous(b), lora)) {
        let rank = checked_rank(&a, &b, [inputs, outputs]);
        let a = transpose(values(&a), inputs, rank);
        let scale = lora.scale as f32;
        let wide_gradient = Wide::new(values(&gradient), [rows, outputs], Dropout::NONE);
        let dt = wide_gradient.project(values(&b), rank, scale);
        if needs.a || needs.b {
            let x = x.as_ref().expect("the input is kept for the adapter");
            let mut storage = Vec::new();
            let input = Wide::new(values(x), [rows, inputs], lora.dropout);
            let input = input.settled(rank, &mut storage);
            if needs.b {
                let db = match &projected {
                    Some(t) => wide_gradient.gather(values(t), rank, scale),
                    None => wide_gradient.gather(&input.project(&a, rank, 1.0), rank, scale),
                };
                result.b = Some(tensor(db, [rank, outputs]));
            }
            if needs.a {
                let da = transpose(&input.gather(&dt, rank, 1.0), rank, inputs);
                result.a = Some(tensor(da, [inputs, rank]));
            }
        }
        low_rank_gradient = Some((dt, a, lora.dropout));
    }
    if needs.x {
        // SAFETY: the product writes every element, or adds to the prefill, which did.
        let dx = unsafe {
            written(rows * inputs, |out| {
                let start = match &low_rank_gradient {
                    Some((dt, a, dropout)) => {
                        let prefill = Prefill {
                            bias: None,
                            t: dt,
                            b: a,
                            scale: 1.0,
                            dropout: *dropout,
                        };
                        prefill.write(out, rows, inputs);
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
