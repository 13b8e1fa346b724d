//! The same operations composed of Burn's own, differentiated by Burn: what devices other than
//! flex run, and what the fused ones are tested against.
//!
//! Where activations are halves (bf16, f16), so are the operands of the products with the frozen base and of
//! attention's. Everything else is f32: the adapter's own products, as in PEFT, LayerNorm, GELU, softmax.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};

use crate::{AttentionShape, Dropout, LoraScale, PositionTerms, RelativeIndex};

/// See [`crate::linear`].
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let dtype = x.dtype();
    let y = x.matmul(weight.cast(dtype).unsqueeze());
    match bias {
        Some(bias) => y + bias.cast(dtype).unsqueeze(),
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
    let dtype = x.dtype();
    let update = dropout(wide(x.clone()), lora.dropout)
        .matmul(a.unsqueeze())
        .matmul(b.unsqueeze())
        .mul_scalar(lora.scale);
    (wide(linear(x, weight, bias)) + update).cast(dtype)
}

/// See [`crate::bias_gelu`]. Written out, because Burn's own GELU has the gradient of its approximation by tanh on most devices,
/// which is off by a thousandth.
pub fn bias_gelu<const D: usize>(x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let dtype = x.dtype();
    let x = add_bias(wide(x), bias);
    let normal = x.clone().mul_scalar(FRAC_1_SQRT_2).erf().add_scalar(1.0);
    (x.mul_scalar(0.5) * normal).cast(dtype)
}

/// See [`crate::dropout`].
pub fn dropout<const D: usize>(x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
    if dropout.is_none() {
        return x;
    }
    let factors = dropout.factors(x.shape().num_elements());
    let mask = Tensor::from_data(TensorData::new(factors, x.shape()), &x.device());
    let dtype = x.dtype();
    (wide(x) * mask).cast(dtype)
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
    let dtype = x.dtype();
    let mut z = dropout(add_bias(wide(x), bias), probability);
    if let Some(residual) = residual {
        z = z + wide(residual);
    }
    let centred = z.clone() - z.mean_dim(D - 1);
    let variance = centred.clone().powi_scalar(2).mean_dim(D - 1);
    let normalised = centred / variance.add_scalar(epsilon).sqrt();
    (normalised * gamma.unsqueeze() + beta.unsqueeze()).cast(dtype)
}

/// See [`crate::attention`].
pub fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    shape: &AttentionShape,
    probability: Dropout,
) -> Tensor<2> {
    let content = |q: Tensor<4>, k: Tensor<4>| wide(q.matmul(k.swap_dims(2, 3)));
    scored_attention(q, k, v, shape, probability, content)
}

/// See [`crate::disentangled_attention`].
pub fn disentangled_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    position: PositionTerms,
    shape: &AttentionShape,
    probability: Dropout,
) -> Tensor<2> {
    let PositionTerms { key, query, index } = position;
    let size = q.dims()[1] / shape.heads;
    // [2 span, heads x size] -> [1, heads, size, 2 span]
    let split = |table: Tensor<2>| {
        table
            .reshape([1, index.rows(), shape.heads, size])
            .permute([0, 2, 3, 1])
    };
    let scale = shape.scale;
    let scores = |q: Tensor<4>, k: Tensor<4>| {
        let [batch, heads, queries, _] = q.dims();
        let keys = k.dims()[2];
        let rows = table_rows(&index, queries, keys, &q.device())
            .reshape([1, 1, queries, keys])
            .expand([batch, heads, queries, keys]);
        let mut scores = wide(q.clone().matmul(k.clone().swap_dims(2, 3)));
        if let Some(key) = key {
            scores = scores + wide(q.matmul(split(key))).gather(3, rows.clone());
        }
        if let Some(query) = query {
            let transposed = wide(k.mul_scalar(scale).matmul(split(query)));
            let transposed = transposed.gather(3, rows.swap_dims(2, 3));
            scores = scores + transposed.swap_dims(2, 3);
        }
        scores
    };
    scored_attention(q, k, v, shape, probability, scores)
}

/// Rows of the position tables for all pairs of positions, [queries, keys].
fn table_rows(of: &RelativeIndex, queries: usize, keys: usize, device: &Device) -> Tensor<2, Int> {
    let rows: Vec<usize> = (0..queries)
        .flat_map(|i| of.of_query(i)[..keys].iter().map(|row| *row as usize))
        .collect();
    index(&rows, device).reshape([queries, keys])
}

/// Attention with `scores` in f32, from q and k of [batch, heads, length, size]. The scale is in q already: halves would
/// overflow in the products otherwise.
fn scored_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    shape: &AttentionShape,
    probability: Dropout,
    scores: impl FnOnce(Tensor<4>, Tensor<4>) -> Tensor<4>,
) -> Tensor<2> {
    let (heads, batch) = (shape.heads, shape.keys.len());
    let size = q.dims()[1] / heads;
    let queries = shape.queries.iter().copied().max().unwrap_or(0);
    let keys = shape.keys.iter().copied().max().unwrap_or(0);
    let split = |x: Tensor<2>, counts: &[usize], length| {
        let padded = x
            .clone()
            .select(0, index(&padding(counts, length), &x.device()));
        padded.reshape([batch, length, heads, size]).swap_dims(1, 2) // [batch, heads, len, size]
    };
    let (device, dtype) = (q.device(), q.dtype());
    let scores = scores(
        split(q.mul_scalar(shape.scale), &shape.queries, queries),
        split(k, &shape.keys, keys),
    );
    let masked = Tensor::<1, Int>::arange(0..keys as i64, &device)
        .reshape([1, 1, 1, keys])
        .greater_equal(index(&shape.keys, &device).reshape([batch, 1, 1, 1]))
        .expand([batch, heads, queries, keys]);
    let probabilities = activation::softmax(scores.mask_fill(masked, f32::MIN), 3);
    let factors = padded_factors(shape, queries, keys, probability);
    let mask = Tensor::from_data(
        TensorData::new(factors, [batch, heads, queries, keys]),
        &device,
    );
    let padded = (probabilities * mask)
        .cast(dtype)
        .matmul(split(v, &shape.keys, keys))
        .swap_dims(1, 2)
        .reshape([batch * queries, heads * size]);
    let real: Vec<usize> = (0..batch)
        .flat_map(|row| (0..shape.queries[row]).map(move |i| row * queries + i))
        .collect();
    padded.select(0, index(&real, &device))
}

/// See [`crate::unfold_rows`].
pub fn unfold_rows(x: Tensor<2>, lengths: &[usize], width: usize) -> Tensor<2> {
    let [tokens, d] = x.dims();
    let half = (width - 1) / 2;
    let mut first = 0;
    let mut sources = Vec::with_capacity(tokens * width);
    for length in lengths {
        let row = first..first + length;
        // The token after the last is one of zeros.
        let source = |place: usize| match place.checked_sub(half) {
            Some(token) if row.contains(&token) => token,
            _ => tokens,
        };
        sources.extend(row.clone().flat_map(|i| (i..i + width).map(source)));
        first += length;
    }
    let zeros = Tensor::zeros([1, d], (&x.device(), x.dtype()));
    let device = x.device();
    Tensor::cat(vec![x, zeros], 0)
        .select(0, index(&sources, &device))
        .reshape([tokens, width * d])
}

fn index(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.iter().map(|v| *v as i64).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// For every place of a padded batch the token that goes there; token 0 where there is none.
fn padding(counts: &[usize], length: usize) -> Vec<usize> {
    let mut first = 0;
    let mut places = Vec::with_capacity(counts.len() * length);
    for count in counts {
        places.extend((0..length).map(|i| if i < *count { first + i } else { 0 }));
        first += count;
    }
    places
}

/// The mask of the attention probabilities, [batch, heads, queries, keys] with padding.
fn padded_factors(shape: &AttentionShape, queries: usize, keys: usize, p: Dropout) -> Vec<f32> {
    let rows = || shape.queries.iter().zip(&shape.keys);
    let total = rows().map(|(q, k)| q * k * shape.heads).sum();
    let dense = p.factors(total);
    let mut dense = dense.as_slice();
    let mut padded = vec![1.0; shape.keys.len() * shape.heads * queries * keys];
    let mut blocks = padded.chunks_exact_mut((queries * keys).max(1));
    for (q, k) in rows() {
        for block in blocks.by_ref().take(shape.heads) {
            for row in block.chunks_exact_mut(keys).take(*q) {
                let (own, rest) = dense.split_at(*k);
                row[..*k].copy_from_slice(own);
                dense = rest;
            }
        }
    }
    padded
}

/// Halves in f32; anything else as it is.
fn wide<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.cast(DType::F32),
        _ => x,
    }
}

fn add_bias<const D: usize>(x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
    match bias {
        Some(bias) => x + bias.unsqueeze(),
        None => x,
    }
}
