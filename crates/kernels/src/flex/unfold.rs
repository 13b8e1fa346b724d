//! Neighbours side by side in front of a one-dimensional convolution, and back.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{tensor, values, written};

/// The row that each token belongs to, as (first, end).
fn rows(lengths: &[usize]) -> Vec<(usize, usize)> {
    let mut first = 0;
    let mut rows = Vec::new();
    for &length in lengths {
        rows.extend(std::iter::repeat_n((first, first + length), length));
        first += length;
    }
    rows
}

/// The token `place - half`, when it lies in the row.
fn inside((first, end): (usize, usize), place: usize, half: usize) -> Option<usize> {
    place
        .checked_sub(half)
        .filter(|token| (first..end).contains(token))
}

/// See [`crate::unfold_rows`].
pub(crate) fn unfold(x: FlexTensor, lengths: &[usize], width: usize) -> FlexTensor {
    let [tokens, d] = [0, 1].map(|i| x.layout().shape()[i]);
    let (x, rows, half) = (values(&x), rows(lengths), (width - 1) / 2);
    assert_eq!(rows.len(), tokens, "tokens of x");
    // SAFETY: every token writes its own row of the output, all blocks of it.
    let out = unsafe {
        written(x.len() * width, |out| {
            rows.par_iter().enumerate().for_each(|(token, row)| {
                let blocks = out.slice(token * width * d, width * d);
                for t in 0..width {
                    let block = &mut blocks[t * d..(t + 1) * d];
                    match inside(*row, token + t, half) {
                        Some(source) => block.copy_from_slice(&x[source * d..(source + 1) * d]),
                        None => block.fill(0.0),
                    }
                }
            });
        })
    };
    tensor(out, [tokens, width * d])
}

/// The gradient of [`unfold`]: every token collects its copies, in the order of the blocks.
pub(crate) fn fold(gradient: FlexTensor, lengths: &[usize], width: usize) -> FlexTensor {
    let [tokens, wide] = [0, 1].map(|i| gradient.layout().shape()[i]);
    let d = wide / width;
    let (gradient, rows, half) = (values(&gradient), rows(lengths), (width - 1) / 2);
    // SAFETY: every token writes its own row of the output.
    let out = unsafe {
        written(tokens * d, |out| {
            rows.par_iter().enumerate().for_each(|(token, row)| {
                let sum = out.slice(token * d, d);
                sum.fill(0.0);
                for t in 0..width {
                    // Block t of token i holds token i + t - half.
                    if let Some(holder) = inside(*row, token + width - 1 - t, half) {
                        let block = &gradient[holder * wide + t * d..][..d];
                        for (sum, g) in sum.iter_mut().zip(block) {
                            *sum += g;
                        }
                    }
                }
            });
        })
    };
    tensor(out, [tokens, d])
}
