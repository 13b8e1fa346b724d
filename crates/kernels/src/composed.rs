//! The same operations composed of Burn's own, differentiated by Burn: what devices other than
//! flex run, and what the fused ones are tested against.

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::{AttentionShape, Dropout, LoraScale};

/// See [`crate::linear`].
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let y = x.matmul(weight.unsqueeze());
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// See [`crate::lora_linear`].
pub fn lora_linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    [a, b]: [Tensor<2>; 2],
    lora: LoraScale,
) -> Tensor<D> {
    let update = dropout(x.clone(), lora.dropout)
        .matmul(a.unsqueeze())
        .matmul(b.unsqueeze())
        .mul_scalar(lora.scale);
    linear(x, weight, bias) + update
}

/// See [`crate::bias_gelu`].
pub fn bias_gelu<const D: usize>(x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
    activation::gelu(add_bias(x, bias))
}

/// See [`crate::dropout`].
pub fn dropout<const D: usize>(x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
    if dropout.is_none() {
        return x;
    }
    let factors = dropout.factors(x.shape().num_elements());
    let mask = Tensor::from_data(TensorData::new(factors, x.shape()), &x.device());
    x * mask
}

/// See [`crate::add_layer_norm`].
pub fn add_layer_norm<const D: usize>(
    x: Tensor<D>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<D>>,
    [gamma, beta]: [Tensor<1>; 2],
    epsilon: f64,
    probability: Dropout,
) -> Tensor<D> {
    let mut z = dropout(add_bias(x, bias), probability);
    if let Some(residual) = residual {
        z = z + residual;
    }
    let centred = z.clone() - z.mean_dim(D - 1);
    let variance = centred.clone().powi_scalar(2).mean_dim(D - 1);
    centred / variance.add_scalar(epsilon).sqrt() * gamma.unsqueeze() + beta.unsqueeze()
}

/// See [`crate::attention`].
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    shape: &AttentionShape,
    probability: Dropout,
) -> Tensor<3> {
    let device = q.device();
    let [batch, queries, width] = q.dims();
    let keys = k.dims()[1];
    let size = width / shape.heads;
    let split = |x: Tensor<3>, length| {
        x.reshape([batch, length, shape.heads, size])
            .swap_dims(1, 2) // [batch, heads, len, size]
    };
    let scores = split(q, queries)
        .matmul(split(k, keys).swap_dims(2, 3))
        .mul_scalar(shape.scale);
    let lengths: Vec<i64> = shape.lengths.iter().map(|l| *l as i64).collect();
    let lengths = Tensor::<1, Int>::from_data(TensorData::new(lengths, [batch]), &device);
    let masked = Tensor::<1, Int>::arange(0..keys as i64, &device)
        .reshape([1, 1, 1, keys])
        .greater_equal(lengths.reshape([batch, 1, 1, 1]))
        .expand([batch, shape.heads, queries, keys]);
    let probabilities = activation::softmax(scores.mask_fill(masked, f32::MIN), 3);
    dropout(probabilities, probability)
        .matmul(split(v, keys))
        .swap_dims(1, 2)
        .reshape([batch, queries, width])
}

fn add_bias<const D: usize>(x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
    match bias {
        Some(bias) => x + bias.unsqueeze(),
        None => x,
    }
}
