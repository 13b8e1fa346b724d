//! LayerNorm of residual + dropout(x + bias), in one pass over the rows.

use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::buffer::{Out, for_row_blocks, tensor, values, written};
use super::simd::{dot, multiversion, sum};
use crate::backend::Normalised;
use crate::random::Dropout;

multiversion! {
    /// Rows of `normalised` and of the output, and one inverse deviation per row.
    fn norm_rows(
        out: &mut [f32],
        normalised: &mut [f32],
        inverse: &mut [f32],
        x: &[f32],
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        gamma: &[f32],
        beta: &[f32],
        epsilon: f32,
        dropout: Dropout,
        first: u32,
    ) {
        let width = gamma.len();
        let mask = dropout.mask();
        for (row, inverse) in inverse.iter_mut().enumerate() {
            let range = row * width..(row + 1) * width;
            let z = &mut normalised[range.clone()];
            match bias {
                Some(bias) => {
                    for ((z, x), bias) in z.iter_mut().zip(&x[range.clone()]).zip(bias) {
                        *z = x + bias;
                    }
                }
                None => z.copy_from_slice(&x[range.clone()]),
            }
            if !dropout.is_none() {
                let start = first.wrapping_add(range.start as u32);
                for (i, z) in z.iter_mut().enumerate() {
                    *z *= mask.factor(start.wrapping_add(i as u32));
                }
            }
            if let Some(residual) = residual {
                for (z, residual) in z.iter_mut().zip(&residual[range.clone()]) {
                    *z += residual;
                }
            }
            let mean = sum(z) / width as f32;
            for z in z.iter_mut() {
                *z -= mean;
            }
            let variance = dot(z, z) / width as f32;
            *inverse = 1.0 / (variance + epsilon).sqrt();
            for z in z.iter_mut() {
                *z *= *inverse;
            }
            for (((out, z), gamma), beta) in out[range].iter_mut().zip(z.iter()).zip(gamma).zip(beta) {
                *out = z.mul_add(*gamma, *beta);
            }
        }
    }
}

multiversion! {
    /// dz = (g gamma - mean(g gamma) - z mean(g gamma z)) / deviation, by rows, and the same times the mask of a dropout, from position
    /// `first` of its stream, where there is room for it.
    fn norm_gradient_rows(
        out: &mut [f32],
        dropped: Option<&mut [f32]>,
        gradient: &[f32],
        normalised: &[f32],
        inverse: &[f32],
        gamma: &[f32],
        dropout: Dropout,
        first: u32,
    ) {
        let width = gamma.len();
        let mask = dropout.mask();
        let mut dropped = dropped.map(|dropped| dropped.chunks_exact_mut(width));
        for (row, inverse) in inverse.iter().enumerate() {
            let range = row * width..(row + 1) * width;
            let (out, z) = (&mut out[range.clone()], &normalised[range.clone()]);
            for ((out, g), gamma) in out.iter_mut().zip(&gradient[range]).zip(gamma) {
                *out = g * gamma;
            }
            let mean = sum(out) / width as f32;
            let slope = dot(out, z) / width as f32;
            for (out, z) in out.iter_mut().zip(z) {
                *out = (*out - mean - z * slope) * inverse;
            }
            if let Some(dropped) = dropped.as_mut().and_then(Iterator::next) {
                let start = first.wrapping_add((row * width) as u32);
                for (i, (dropped, out)) in dropped.iter_mut().zip(out.iter()).enumerate() {
                    *dropped = out * mask.factor(start.wrapping_add(i as u32));
                }
            }
        }
    }
}

multiversion! {
    fn add_products(sum: &mut [f32], a: &[f32], b: &[f32]) {
        let width = sum.len();
        for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
            for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
                *sum = a.mul_add(*b, *sum);
            }
        }
    }
}

pub(crate) fn forward(
    x: FlexTensor,
    bias: Option<FlexTensor>,
    residual: Option<FlexTensor>,
    gamma: FlexTensor,
    beta: FlexTensor,
    epsilon: f32,
    dropout: Dropout,
) -> Normalised<Flex> {
    let (input, gamma, beta) = (values(&x), values(&gamma), values(&beta));
    let (bias, residual) = (bias.as_ref().map(values), residual.as_ref().map(values));
    let width = gamma.len();
    let rows = input.len() / width.max(1);
    if let Some(residual) = residual {
        assert_eq!(
            residual.len(),
            input.len(),
            "residual and input differ in shape"
        );
    }
    let mut inverse = vec![0.0f32; rows];
    let inverse_out = super::buffer::Out(inverse.as_mut_ptr());
    let mut normalised = Vec::new();
    // SAFETY: the blocks of rows are disjoint and cover everything, in all three outputs.
    let output = unsafe {
        written(input.len(), |out| {
            normalised = written(input.len(), |z| {
                for_row_blocks(rows, width, |first, count| {
                    let range = first * width..(first + count) * width;
                    norm_rows(
                        out.slice(range.start, range.len()),
                        z.slice(range.start, range.len()),
                        inverse_out.slice(first, count),
                        &input[range.clone()],
                        bias,
                        residual.map(|r| &r[range.clone()]),
                        gamma,
                        beta,
                        epsilon,
                        dropout,
                        range.start as u32,
                    );
                });
            });
        })
    };
    let shape = x.layout().shape().clone();
    Normalised {
        output: tensor(output, shape.clone()),
        normalised: tensor(normalised, shape),
        inverse_deviation: tensor(inverse, [rows]),
    }
}

/// The gradient of the sum that was normalised, and of what a dropout before it was given, where that is asked for.
pub(crate) fn backward(
    gradient: FlexTensor,
    normalised: FlexTensor,
    inverse: FlexTensor,
    gamma: FlexTensor,
    dropout: Option<Dropout>,
) -> (FlexTensor, Option<FlexTensor>) {
    let (g, z) = (values(&gradient), values(&normalised));
    let (inverse, gamma) = (values(&inverse), values(&gamma));
    let width = gamma.len();
    let run = |out: Out, dropped: Option<Out>| {
        for_row_blocks(inverse.len(), width, |first, count| {
            let range = first * width..(first + count) * width;
            // SAFETY: the blocks of rows are disjoint.
            let (out, dropped) = unsafe {
                let of = |out: Out| out.slice(range.start, range.len());
                (of(out), dropped.map(of))
            };
            let start = range.start as u32;
            let inverse = &inverse[first..first + count];
            let (g, z) = (&g[range.clone()], &z[range]);
            let dropout = dropout.unwrap_or(Dropout::NONE);
            norm_gradient_rows(out, dropped, g, z, inverse, gamma, dropout, start);
        });
    };
    let shape = gradient.layout().shape().clone();
    let mut out = Vec::new();
    // SAFETY: the blocks of rows cover everything, in both.
    let dropped = unsafe {
        match dropout {
            None => {
                out = written(g.len(), |out| run(out, None));
                None
            }
            Some(_) => Some(written(g.len(), |dropped| {
                out = written(g.len(), |out| run(out, Some(dropped)));
            })),
        }
    };
    let dropped = dropped.map(|dropped| tensor(dropped, shape.clone()));
    (tensor(out, shape), dropped)
}

/// The gradient of gamma: the sum over rows of gradient x normalised.
pub(crate) fn gamma_backward(gradient: FlexTensor, normalised: FlexTensor) -> FlexTensor {
    let (g, z) = (values(&gradient), values(&normalised));
    let width = *gradient
        .layout()
        .shape()
        .last()
        .expect("at least one dimension");
    let step = 64 * width;
    let partial: Vec<Vec<f32>> = g
        .par_chunks(step)
        .zip(z.par_chunks(step))
        .map(|(g, z)| {
            let mut sum = vec![0.0; width];
            add_products(&mut sum, g, z);
            sum
        })
        .collect();
    tensor(super::linear::sum_rows(&partial.concat(), width), [width])
}
