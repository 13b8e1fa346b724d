//! y = x W + b + s drop(x) A B, and its gradients, as matrix products with as few passes as possible.

use burn::tensor::Shape;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{contiguous, for_row_blocks, rows_per_task, tensor, values, written};
use super::product::{Matrix, Start, Target, Term, multiplied, sum_of_products};
use super::simd::multiversion;
use crate::backend::{LinearGradients, LinearNeeds, LoraScale};
use crate::random::Dropout;

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
    let rows = values(&x).len() / inputs.max(1);
    let x_matrix = Matrix::new(values(&x), rows, inputs);
    let bias = bias.map(contiguous);
    let lora = lora.map(|(a, b, lora)| (contiguous(a), contiguous(b), lora));
    let mut storage = Vec::new();
    let t = lora.as_ref().map(|(a, _, lora)| {
        let input = dropped(values(&x), lora.dropout, &mut storage);
        let (input, a) = (Matrix::new(input, rows, inputs), factor(a));
        multiplied(input, a, 1.0)
    });
    let start = match &bias {
        Some(bias) => Start::Bias(values(bias)),
        None => Start::Zero,
    };
    let mut terms = vec![Term {
        a: x_matrix,
        b: w,
        scale: 1.0,
    }];
    if let (Some(t), Some((_, b, lora))) = (&t, &lora) {
        let b = factor(b);
        terms.push(Term {
            a: Matrix::new(t, rows, b.rows()),
            b,
            scale: lora.scale as f32,
        });
    }
    // SAFETY: the product writes every element.
    let out = unsafe {
        written(rows * outputs, |out| {
            let stride = outputs;
            sum_of_products(Target { out, stride }, start, &terms);
        })
    };
    let mut shape: Vec<usize> = x.layout().shape().to_vec();
    *shape.last_mut().expect("at least one dimension") = outputs;
    tensor(out, Shape::from(shape))
}

/// A dense two-dimensional tensor.
fn factor(x: &FlexTensor) -> Matrix<'_> {
    let shape = x.layout().shape();
    Matrix::new(values(x), shape[0], shape[1])
}

fn viewable(weight: FlexTensor) -> FlexTensor {
    if Matrix::view(&weight).is_some() {
        weight
    } else {
        weight.to_contiguous()
    }
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
    let rows = values(&gradient).len() / outputs.max(1);
    let g = Matrix::new(values(&gradient), rows, outputs);
    let x = x.map(contiguous);
    let x_matrix = x.as_ref().map(|x| Matrix::new(values(x), rows, inputs));

    let mut result = LinearGradients::default();
    // s dy B^T, [rows, r]: the gradient of x A.
    let low_rank = lora.map(|(a, b, lora)| {
        let (a, b) = (contiguous(a), contiguous(b));
        let dt = multiplied(g, factor(&b).transposed(), lora.scale as f32);
        (a, dt, lora)
    });
    if let Some((a, dt, lora)) = &low_rank
        && (needs.a || needs.b)
    {
        let a = factor(a);
        let mut storage = Vec::new();
        let x = x.as_ref().expect("the input is kept for the adapter");
        let input = dropped(values(x), lora.dropout, &mut storage);
        let input = Matrix::new(input, rows, inputs);
        let rank = a.cols();
        if needs.b {
            let t = multiplied(input, a, 1.0);
            let t = Matrix::new(&t, rows, rank).transposed();
            let db = multiplied(t, g, lora.scale as f32);
            result.b = Some(tensor(db, [rank, outputs]));
        }
        if needs.a {
            let da = multiplied(input.transposed(), Matrix::new(dt, rows, rank), 1.0);
            result.a = Some(tensor(da, [inputs, rank]));
        }
    }
    if needs.x {
        let through_weight = Term {
            a: g,
            b: w.transposed(),
            scale: 1.0,
        };
        // SAFETY: the products write every element, and what is added to was written before.
        let dx = unsafe {
            written(rows * inputs, |out| {
                let target = Target {
                    out,
                    stride: inputs,
                };
                let Some((a, dt, lora)) = &low_rank else {
                    return sum_of_products(target, Start::Zero, &[through_weight]);
                };
                let a = factor(a);
                let through_adapter = Term {
                    a: Matrix::new(dt, rows, a.cols()),
                    b: a.transposed(),
                    scale: 1.0,
                };
                if lora.dropout.is_none() {
                    let both = [through_weight, through_adapter];
                    return sum_of_products(target, Start::Zero, &both);
                }
                sum_of_products(target, Start::Zero, &[through_adapter]);
                drop_in_place(out.slice(0, rows * inputs), lora.dropout);
                sum_of_products(target, Start::Add, &[through_weight]);
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
        result.bias = Some(tensor(sum_rows(values(&gradient), outputs), [outputs]));
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
