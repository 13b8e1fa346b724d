//! A feed-forward block from fused operations, forward and backward.
//!
//!     cargo run -p lowburn-kernels --example fused

use burn::tensor::{Device, Distribution, Tensor};
use lowburn_kernels::{Dropout, add_layer_norm, bias_gelu, derive_key, linear};

fn main() {
    let device = Device::flex().autodiff();
    let normal = Distribution::Normal(0.0, 0.1);
    let x = Tensor::<3>::random([2, 5, 16], normal, &device);
    let up = Tensor::<2>::random([16, 64], normal, &device).require_grad();
    let down = Tensor::<2>::random([64, 16], normal, &device);
    let bias = Tensor::<1>::zeros([64], &device);
    let affine = [Tensor::ones([16], &device), Tensor::zeros([16], &device)];

    // Masks are a function of the key: the backward pass computes the same one again.
    let dropout = Dropout::new(0.1, derive_key(42, 0));
    let hidden = bias_gelu(linear(x.clone(), up.clone(), None), Some(bias));
    let y = add_layer_norm(
        linear(hidden, down, None),
        None,
        Some(x),
        affine,
        1e-5,
        dropout,
    );

    let gradients = (y.clone() * y).sum().backward();
    let gradient = up.grad(&gradients).expect("it requires a gradient");
    println!("gradient of the first weight: {:?}", gradient.dims());
}
