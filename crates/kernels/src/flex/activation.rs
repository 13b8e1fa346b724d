//! GELU (the exact one, by erf) with the bias before it, and dropout on its own.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{for_row_blocks, rows_per_task, tensor, values, written};
use super::low_rank::write_dropped;
use super::simd::{exp, multiversion};
#[cfg(target_arch = "x86_64")]
use super::table;
use crate::random::Dropout;

/// (Phi(x), phi(x)): the normal distribution function and density.
///
/// erfc(u) = e^(-u^2) t P(t) with t = 1 / (1 + 0.39 u) for u >= 0; P is a least-squares fit of
/// degree 5 whose absolute error in erfc is 8.3e-9, below the rounding of f32. The exponential
/// serves both values.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let u = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let e = exp(-0.5 * x * x);
    let t = 1.0 / 0.39f32.mul_add(u, 1.0);
    let mut p = -0.227_538_16f32;
    p = p.mul_add(t, 0.886_668_6);
    p = p.mul_add(t, -0.635_407_2);
    p = p.mul_add(t, 0.649_565);
    p = p.mul_add(t, 0.091_386_18);
    p = p.mul_add(t, 0.235_325_58);
    let tail = 0.5 * e * t * p;
    (if x < 0.0 { tail } else { 1.0 - tail }, INV_SQRT_2PI * e)
}

multiversion! {
    fn gelu_rows(out: &mut [f32], x: &[f32], bias: Option<&[f32]>, width: usize) {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            match bias {
                Some(bias) => {
                    for ((out, x), bias) in out.iter_mut().zip(x).zip(bias) {
                        let x = x + bias;
                        *out = x * normal(x).0;
                    }
                }
                None => {
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = x * normal(*x).0;
                    }
                }
            }
        }
    }
}

multiversion! {
    fn gelu_gradient_rows(gradient: &mut [f32], x: &[f32], bias: Option<&[f32]>, width: usize) {
        for (gradient, x) in gradient.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            match bias {
                Some(bias) => {
                    for ((gradient, x), bias) in gradient.iter_mut().zip(x).zip(bias) {
                        let x = x + bias;
                        let (cumulative, density) = normal(x);
                        *gradient *= x.mul_add(density, cumulative);
                    }
                }
                None => {
                    for (gradient, x) in gradient.iter_mut().zip(x) {
                        let (cumulative, density) = normal(*x);
                        *gradient *= x.mul_add(density, cumulative);
                    }
                }
            }
        }
    }
}

/// out = GELU(x + bias) of rows, the fastest way there is here.
fn write_gelu(out: &mut [f32], x: &[f32], bias: Option<&[f32]>, width: usize) {
    #[cfg(target_arch = "x86_64")]
    if table::available() {
        // SAFETY: as just asked.
        return unsafe { table::gelu(out, x, bias, width) };
    }
    gelu_rows(out, x, bias, width);
}

/// gradient *= GELU'(x + bias) of rows, the fastest way there is here.
fn scale_by_gelu(gradient: &mut [f32], x: &[f32], bias: Option<&[f32]>, width: usize) {
    #[cfg(target_arch = "x86_64")]
    if table::available() {
        // SAFETY: as just asked.
        return unsafe { table::gelu_gradient(gradient, x, bias, width) };
    }
    gelu_gradient_rows(gradient, x, bias, width);
}

fn width_of(x: &FlexTensor) -> usize {
    x.layout().shape().last().copied().unwrap_or(1).max(1)
}

/// x [.., width] + bias [width], through GELU.
pub(crate) fn gelu(x: FlexTensor, bias: Option<FlexTensor>) -> FlexTensor {
    let (input, width) = (values(&x), width_of(&x));
    let bias = bias.as_ref().map(values);
    // SAFETY: the blocks of rows are disjoint and cover everything.
    let out = unsafe {
        written(input.len(), |out| {
            for_row_blocks(input.len() / width, width, |first, rows| {
                let range = first * width..(first + rows) * width;
                let out = out.slice(range.start, range.len());
                write_gelu(out, &input[range], bias, width);
            });
        })
    };
    tensor(out, x.layout().shape().clone())
}

/// The gradient of [`gelu`] with respect to x (and, summed over rows, to the bias).
pub(crate) fn gelu_backward(
    mut gradient: FlexTensor,
    x: FlexTensor,
    bias: Option<FlexTensor>,
) -> FlexTensor {
    let (input, width) = (values(&x), width_of(&x));
    let bias = bias.as_ref().map(values);
    // In place, unless somebody else has the gradient too.
    let start = gradient.layout().start_offset();
    let values = &mut gradient.storage_mut::<f32>()[start..start + input.len()];
    let step = rows_per_task(width) * width;
    let blocks = values.par_chunks_mut(step).zip(input.par_chunks(step));
    blocks.for_each(|(gradient, x)| scale_by_gelu(gradient, x, bias, width));
    gradient
}

/// x with its dropout applied. Its own backward: the gradient goes through the same mask.
pub(crate) fn dropout(mut x: FlexTensor, dropout: Dropout) -> FlexTensor {
    if dropout.is_none() {
        return x;
    }
    let whole = x.layout().start_offset() == 0;
    if let Some(storage) = x.try_storage_mut::<f32>().filter(|_| whole) {
        super::low_rank::drop_in_place(storage, dropout);
        return x;
    }
    let input = values(&x);
    let step = rows_per_task(1);
    // SAFETY: the blocks are disjoint and cover everything.
    let out = unsafe {
        written(input.len(), |out| {
            input.par_chunks(step).enumerate().for_each(|(block, x)| {
                let first = block * step;
                write_dropped(out.slice(first, x.len()), x, first as u32, dropout);
            });
        })
    };
    tensor(out, x.layout().shape().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normals;

    #[test]
    fn rows_are_right_without_the_table_too() {
        let width = 37;
        let (x, bias) = (normals(3 * width, 1), normals(width, 2));
        let gradient = normals(3 * width, 3);
        for bias in [None, Some(bias.as_slice())] {
            let (mut out, mut slope) = (vec![0.0; x.len()], gradient.clone());
            gelu_rows(&mut out, &x, bias, width);
            gelu_gradient_rows(&mut slope, &x, bias, width);
            for (at, x) in x.iter().enumerate() {
                let x = x + bias.map_or(0.0, |bias| bias[at % width]);
                let (cumulative, density) = normal(x);
                assert!((out[at] - x * cumulative).abs() <= 1e-6, "GELU({x})");
                let right = gradient[at] * (cumulative + x * density);
                assert!((slope[at] - right).abs() <= 1e-6, "GELU'({x})");
            }
        }
    }

    #[test]
    fn a_gradient_that_others_hold_stays_as_it_is() {
        let given = |seed| tensor(normals(40, seed), [2, 20]);
        let (x, gradient) = (given(1), given(2));
        let held = gradient.clone();
        let changed = gelu_backward(gradient, x, None);
        assert_eq!(values(&held), normals(40, 2));
        assert_ne!(values(&changed), values(&held));
    }

    #[test]
    fn normal_distribution_and_density_are_exact_to_single_precision() {
        // Phi(x) at a few points, from tables computed in extended precision.
        for (x, phi) in [
            (0.0f32, 0.5f64),
            (1.0, 0.841_344_746_068_542_9),
            (-1.0, 0.158_655_253_931_457_05),
            (2.5, 0.993_790_334_674_224),
            (-2.5, 0.006_209_665_325_776_132),
            (-4.0, 3.167_124_183_311_992e-5),
            (6.0, 0.999_999_999_013_412_4),
        ] {
            assert!((f64::from(normal(x).0) - phi).abs() < 6e-8, "Phi({x})");
        }
        // Against a numerical derivative of Phi itself.
        for i in -50..50 {
            let x = f64::from(i) * 0.1;
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((f64::from(normal(x as f32).1) - density).abs() < 1e-7);
        }
    }
}
