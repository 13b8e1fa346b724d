//! What the tests against the composed operations share.
//!
//! Fused and composed are f32 with sums in different orders: with unit-scale data and sums over at
//! most a few hundred terms they agree to a few 1e-6. The bound below is ten times what was seen.

use burn::tensor::{Device, Tensor, TensorData};
use lowburn_kernels::normal;

pub(crate) const BOUND: f32 = 2e-5;

pub(crate) fn device() -> Device {
    Device::flex().autodiff()
}

pub(crate) fn random<const D: usize>(shape: [usize; D], key: u64) -> Tensor<D> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n as u64).map(|i| normal(key, i) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &device()).require_grad()
}

pub(crate) fn close<const D: usize>(name: &str, a: Tensor<D>, b: Tensor<D>) {
    assert_eq!(a.dims(), b.dims(), "{name}");
    let a = a.into_data().try_to_vec::<f32>().unwrap();
    let b = b.into_data().try_to_vec::<f32>().unwrap();
    let size = b.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        assert!((x - y).abs() <= BOUND * size, "{name}[{i}]: {x} is not {y}");
    }
}

/// A loss whose gradient differs from element to element.
pub(crate) fn loss<const D: usize>(y: Tensor<D>) -> Tensor<1> {
    let n = y.shape().num_elements();
    let weights: Vec<f32> = (0..n as u64).map(|i| normal(99, i) as f32).collect();
    let weights = Tensor::from_data(TensorData::new(weights, y.dims()), &y.device());
    (y * weights).sum()
}

/// Compares values and the gradients of all inputs.
macro_rules! compare {
    ($name:expr, [$($input:ident),*], $fused:expr, $composed:expr) => {{
        let fused = $fused;
        let composed = $composed;
        $crate::common::close(&format!("{} value", $name), fused.clone(), composed.clone());
        let ours = $crate::common::loss(fused).backward();
        let theirs = $crate::common::loss(composed).backward();
        $(
            let what = format!("{} gradient of {}", $name, stringify!($input));
            match ($input.grad(&ours), $input.grad(&theirs)) {
                (Some(ours), Some(theirs)) => $crate::common::close(&what, ours, theirs),
                (ours, theirs) => assert_eq!(ours.is_some(), theirs.is_some(), "{what}"),
            }
        )*
    }};
}
pub(crate) use compare;

pub(crate) trait NoGrad {
    fn no_grad(self) -> Self;
}

impl<const D: usize> NoGrad for Tensor<D> {
    fn no_grad(self) -> Self {
        self.inner().autodiff()
    }
}
