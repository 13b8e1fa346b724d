//! What a device makes of the factors of a product: all 24 bits of f32, or the 11 of TF32.
//!
//! A card may take tensor cores for f32, which drop 13 bits of every factor, without being asked. That is no mistake,
//! and everything behind it is as exact as that.

use burn::tensor::{Device, Tensor, TensorData};
use lowburn_kernels::normal;

use super::difference::{Difference, largest};
use super::side::Side;
use crate::parameters::numbers;

/// An error up to this is one of factors with all their bits: a sum of 160 terms is off by 160 x 2^-24 of the terms'
/// magnitudes at most. TF32 makes 2e-4 of what is tried here.
pub(super) const FULL: f64 = 1e-5;

/// Rows, terms and columns of products as the suite has them.
const SHAPES: [[usize; 3]; 5] = [
    [64, 64, 64],
    [61, 64, 160],
    [61, 160, 64],
    [128, 96, 96],
    [24, 32, 24],
];

impl Side {
    /// The largest error of a product of f32 matrices; relative: over the sum of its terms' magnitudes.
    pub(super) fn product_error(&self) -> Difference {
        let multiply = |x: Tensor<2>, weight: Tensor<2>| lowburn_kernels::linear(x, weight, None);
        self.within(|| error_of(&self.device, &multiply))
    }
}

/// The largest error of `multiply`, x `[rows, terms]` and weight `[terms, columns]`, against 64 bit.
fn error_of(device: &Device, multiply: &dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<2>) -> Difference {
    let device = device.clone().without_autodiff();
    let mut most = Difference::new(0.0, 1.0);
    for (key, [rows, terms, columns]) in (1..).zip(SHAPES) {
        let x = drawn(2 * key, rows * terms);
        let weight = drawn(2 * key + 1, columns * terms);
        let tensor = |values: &[f32], shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &device)
        };
        // As the models have them: the transposed view of [columns, terms].
        let view = tensor(&weight, [columns, terms]).transpose();
        let product = multiply(tensor(&x, [rows, terms]), view);
        let product = numbers(product.into_data());
        assert_eq!(product.len(), rows * columns, "a product has another shape");
        for (place, found) in product.iter().enumerate() {
            let (row, column) = (place / columns, place % columns);
            let x = &x[row * terms..(row + 1) * terms];
            let weight = &weight[column * terms..(column + 1) * terms];
            let pairs = x.iter().zip(weight);
            let each = pairs.map(|(x, weight)| f64::from(*x) * f64::from(*weight));
            let (sum, size) = each.fold((0.0, 0.0), |(sum, size), term| {
                (sum + term, size + term.abs())
            });
            let apart = largest([f64::from(*found) - sum]);
            most = most.larger(Difference::new(apart, size));
        }
    }
    most
}

/// Numbers from a normal distribution.
fn drawn(key: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| normal(key, i) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::DType;

    #[test]
    fn lost_bits_of_factors_are_seen() {
        let device = Device::flex();
        let of = |dtype: Option<DType>| {
            let rounded = |x: Tensor<2>| match dtype {
                Some(dtype) => x.cast(dtype).cast(DType::F32),
                None => x,
            };
            error_of(&device, &|x, weight| rounded(x).matmul(rounded(weight))).relative
        };
        let full = of(None);
        assert!(full > 0.0 && full < FULL / 4.0, "{full:e}");
        // f16 has the 11 bits of TF32.
        let eleven = of(Some(DType::F16));
        assert!(eleven > 4.0 * FULL && eleven < 2f64.powi(-10), "{eleven:e}");
        // bf16 has 8, which no card may take for f32.
        let eight = of(Some(DType::BF16));
        assert!(eight > 2f64.powi(-10), "{eight:e}");
    }
}
