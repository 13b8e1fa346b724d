//! AdamW in one pass, in place where nobody else holds the tensors, and norms.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::values;
use super::simd::{LANES, multiversion};
use crate::AdamWStep;

const CHUNK: usize = 16_384;

multiversion! {
    fn update(parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], step: &AdamWStep) {
        let correction = step.correction();
        let (beta1, beta2) = (step.beta1 as f32, step.beta2 as f32);
        let (rest1, rest2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
        let decay = (1.0 - step.learning_rate * step.weight_decay) as f32;
        let size = (step.learning_rate / correction.first) as f32;
        let root = correction.second.sqrt() as f32;
        let (epsilon, scale) = (step.epsilon as f32, step.gradient_scale as f32);
        let items = parameter.iter_mut().zip(gradient).zip(first.iter_mut().zip(second.iter_mut()));
        for ((parameter, gradient), (first, second)) in items {
            let gradient = gradient * scale;
            *first = first.mul_add(beta1, rest1 * gradient);
            *second = second.mul_add(beta2, rest2 * gradient * gradient);
            let denominator = second.sqrt() / root + epsilon;
            *parameter = *parameter * decay - size * (*first / denominator);
        }
    }
}

/// One step of AdamW on one tensor.
pub(crate) fn adamw(
    mut parameter: FlexTensor,
    gradient: FlexTensor,
    mut first: FlexTensor,
    mut second: FlexTensor,
    step: &AdamWStep,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    for tensor in [&mut parameter, &mut first, &mut second] {
        if !tensor.is_contiguous() || tensor.layout().start_offset() != 0 {
            *tensor = tensor.to_contiguous();
        }
    }
    let gradient = values(&gradient);
    let len = gradient.len();
    let p = &mut parameter.storage_mut::<f32>()[..len];
    let m = &mut first.storage_mut::<f32>()[..len];
    let v = &mut second.storage_mut::<f32>()[..len];
    p.par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)))
        .for_each(|((p, g), (m, v))| update(p, g, m, v, step));
    (parameter, first, second)
}

multiversion! {
    fn squares(x: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        for chunk in x.chunks(LANES) {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*x) * f64::from(*x);
            }
        }
        lanes.iter().sum()
    }
}

/// The sum of squares, in f64; its order depends on the length only.
pub(crate) fn squared_norm(x: &[f32]) -> f64 {
    let parts: Vec<f64> = x.par_chunks(CHUNK).map(squares).collect();
    parts.iter().sum()
}
