//! Fused tensor operations for transformer encoders, with hand-written backward passes.
//!
//! A naive encoder spends more time between its matrix products than in them: biases, dropout,
//! softmax, GELU and LayerNorm each walk over memory several times, and each leaves a temporary
//! for the backward pass. The operations here do their work in one pass, keep only what the
//! gradients need (nothing for a frozen weight), and draw their dropout masks from a counter-based
//! generator, so that a mask is computed again instead of stored and never depends on the number of
//! threads.
//!
//! Every function takes and returns Burn tensors and is differentiable once. On the CPU backend
//! `flex` with f32 it runs the fused code; on every other device the composition in [`composed`],
//! which is also what the tests compare with.
//!
//! This crate knows tensors. It knows nothing of adapters' files, models, data or training.

mod autodiff;
mod backend;
pub mod composed;
mod flex;
mod pages;
pub mod pool;
mod random;
mod relative;

use std::cell::Cell;

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::{DType, Device, Tensor};

use backend::{Kernels, Maybe};

pub use backend::{AttentionShape, LoraScale};
pub use pages::PagePool;
pub use random::{Dropout, derive_key, normal, uniform};
pub use relative::{PositionTerms, RelativeIndex, disentangled_attention, unfold_rows};

thread_local! {
    static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

/// Does `work` with the composition in [`composed`] on every device, flex included: what another device would compute. It holds
/// for calls on this thread, and for the backward passes of what they return.
pub fn composed_only<T>(work: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            COMPOSED.set(self.0);
        }
    }
    let _before = Before(COMPOSED.replace(true));
    work()
}

/// True where the fused code runs: flex (with or without autodiff), f32.
fn fused<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && has_fused(&x.device())
}

fn has_fused(device: &Device) -> bool {
    let device = device.clone().without_autodiff();
    !COMPOSED.get() && matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// The numbers in which an encoder computes whose base is stored in `stored` on that device. Halves on flex save the memory of the
/// base alone, whose matrices become f32 for one operation at a time; elsewhere products are in halves too.
pub fn activation_dtype(stored: DType, device: &Device) -> DType {
    match has_fused(device) {
        true => DType::F32,
        false => stored,
    }
}

/// Seconds that threads of this process spent in products of matrices in fused code since it started: how much of a step is
/// where little can be saved. The time of a product over all threads counts for each of them, so it is an upper bound.
pub fn product_seconds() -> f64 {
    flex::product_seconds()
}

/// Bytes that fused products of f32 matrices [m, k] x [k, n] work in beside their operands and results, on this processor;
/// `turned` says that the right operand is the transpose of a dense matrix, as the weight of a file is in a forward pass, and
/// `joined` how many results are made at a time of one left operand, and of how many products a result is the sum. For whoever predicts
/// the memory of a program.
pub fn product_workspace(m: usize, k: usize, n: usize, turned: bool, joined: [usize; 2]) -> u64 {
    flex::product_workspace([m, n, k], turned, joined) as u64
}

/// Bytes that a product of a matrix [rows, width] behind a dropout with an adapter's factor of that rank works in, on this
/// processor: a copy with the dropout applied, or none where the dropout is drawn on the way.
pub fn adapter_workspace(rows: usize, width: usize, rank: usize) -> u64 {
    flex::adapter_workspace(rows, width, rank) as u64
}

/// Whether [`attention`] keeps its probabilities for the backward pass: where they are no more numbers than the keys and values
/// are. Computing them again would be a seventh of its products; of longer rows they would be most of what a step keeps.
pub fn keeps_probabilities(probabilities: u64, keys_and_values: u64) -> bool {
    probabilities <= keys_and_values
}

/// Whether [`lora_linear`] keeps the projection drop(x) A [rows, r] for the backward pass, beside x: where the rank is small.
pub fn keeps_projected(rank: u64) -> bool {
    rank <= flex::SMALL_RANK as u64
}

/// y = x W + b. The weight may be of halves (bf16, f16) where it is frozen: the product is then in the numbers of `x`.
///
/// # Shapes
/// - `x`: `[.., in]`, `weight`: `[in, out]`, `bias`: `[out]`
/// - returns `[.., out]`
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    if !fused(&x) {
        return composed::linear(x, weight, bias);
    }
    let bias = bias.map(Tensor::into_dispatch).into();
    Tensor::from_dispatch(Dispatch::lb_linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias,
    ))
}

/// y = x W + b + scale * dropout(x) A B: a linear layer with a LoRA adapter
/// (Hu et al. 2021, equation 3), in activation space. W is never rewritten.
///
/// # Shapes
/// - `x`: `[.., in]`, `weight`: `[in, out]`, `bias`: `[out]`
/// - `factors`: A `[in, r]` and B `[r, out]`
/// - returns `[.., out]`
pub fn lora_linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    factors: [Tensor<2>; 2],
    lora: LoraScale,
) -> Tensor<D> {
    if !fused(&x) {
        return composed::lora_linear(x, weight, bias, factors, lora);
    }
    let [a, b] = factors.map(Tensor::into_dispatch);
    let bias = bias.map(Tensor::into_dispatch).into();
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::lb_lora_linear(x, weight, bias, a, b, lora))
}

/// GELU(x + bias), the exact GELU by erf.
///
/// # Shapes
/// - `x`: `[.., width]`, `bias`: `[width]`
/// - returns the shape of `x`
pub fn bias_gelu<const D: usize>(x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
    if !fused(&x) {
        return composed::bias_gelu(x, bias);
    }
    let bias = bias.map(Tensor::into_dispatch).into();
    Tensor::from_dispatch(Dispatch::lb_bias_gelu(x.into_dispatch(), bias))
}

/// Sets elements to zero with the dropout's probability and scales the others by 1 / (1 - p).
///
/// # Shapes
/// Returns the shape of `x`.
pub fn dropout<const D: usize>(x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
    if dropout.is_none() {
        return x;
    }
    if !fused(&x) {
        return composed::dropout(x, dropout);
    }
    Tensor::from_dispatch(Dispatch::lb_dropout(x.into_dispatch(), dropout))
}

/// LayerNorm(residual + dropout(x + bias)) x gamma + beta, over the last dimension: the end of a
/// post-norm sub-layer. Without bias, residual and dropout it is a plain LayerNorm.
///
/// # Shapes
/// - `x`, `residual`: `[.., width]`; `bias`, gamma and beta (`affine`): `[width]`
/// - returns the shape of `x`
pub fn add_layer_norm<const D: usize>(
    x: Tensor<D>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<D>>,
    affine: [Tensor<1>; 2],
    epsilon: f64,
    dropout: Dropout,
) -> Tensor<D> {
    if !fused(&x) {
        return composed::add_layer_norm(x, bias, residual, affine, epsilon, dropout);
    }
    let [gamma, beta] = affine.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::lb_add_layer_norm(
        x.into_dispatch(),
        bias.map(Tensor::into_dispatch).into(),
        residual.map(Tensor::into_dispatch).into(),
        gamma,
        beta,
        epsilon,
        dropout,
    ))
}

/// Multi-head attention softmax(scale q k^T) v with dropout on the probabilities (Vaswani et al.
/// 2017, section 3.2). The rows of a batch lie one after the other without padding, and the tokens
/// of a row attend to that row alone.
///
/// # Shapes
/// - `q`: `[sum of shape.queries, heads x size]`; `k`, `v`: `[sum of shape.keys, heads x size]`
/// - returns the shape of `q`
///
/// # Panics
/// Panics when the tensors are not of these shapes, a row has no key, or the width is no multiple of
/// the heads.
pub fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    shape: &AttentionShape,
    dropout: Dropout,
) -> Tensor<2> {
    if !fused(&q) {
        return composed::attention(q, k, v, shape, dropout);
    }
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::lb_attention(q, k, v, shape.clone(), dropout))
}

type Primitive = burn::backend::tensor::FloatTensor<Dispatch>;

/// A linear layer that makes queries, keys or values: y = x W + b, plus an adapter's part.
#[derive(Clone, Debug)]
pub struct Projection {
    /// W, `[in, out]`.
    pub weight: Tensor<2>,
    /// b, `[out]`.
    pub bias: Option<Tensor<1>>,
    /// The factors A `[in, r]` and B `[r, out]`, and how they are applied.
    pub adapter: Option<([Tensor<2>; 2], LoraScale)>,
}

impl Projection {
    /// The layer applied to all tokens, as [`linear`] or [`lora_linear`].
    pub fn forward(self, x: Tensor<2>) -> Tensor<2> {
        match self.adapter {
            Some((factors, lora)) => lora_linear(x, self.weight, self.bias, factors, lora),
            None => linear(x, self.weight, self.bias),
        }
    }

    /// The weight, the bias, A and B, and how they are applied, as operations take them.
    fn split(self) -> (Primitive, Maybe<Dispatch>, [Maybe<Dispatch>; 2], LoraScale) {
        let none = LoraScale {
            scale: 0.0,
            dropout: Dropout::NONE,
        };
        let (factors, lora) = self.adapter.unzip();
        let [a, b] = factors.map_or([None, None], |factors| factors.map(Some));
        let factors = [a, b].map(|factor| factor.map(Tensor::into_dispatch).into());
        let bias = self.bias.map(Tensor::into_dispatch).into();
        (
            self.weight.into_dispatch(),
            bias,
            factors,
            lora.unwrap_or(none),
        )
    }
}

/// [`attention`] whose queries, keys and values are three linear layers of the same `x`. On flex the three products read x once, and its
/// gradient is one sum. Elsewhere it is `attention` of the layers' outputs.
///
/// # Shapes
/// - `x`: `[sum of shape.keys, in]`, with as many queries as keys in every row; all layers are `[in, heads x size]`
/// - returns `[sum of shape.keys, heads x size]`
///
/// # Panics
/// As [`attention`], and when the layers are not of one size.
pub fn self_attention(
    x: Tensor<2>,
    [query, key, value]: [Projection; 3],
    shape: &AttentionShape,
    dropout: Dropout,
) -> Tensor<2> {
    if !fused(&x) {
        let (q, k, v) = (
            query.forward(x.clone()),
            key.forward(x.clone()),
            value.forward(x),
        );
        return attention(q, k, v, shape, dropout);
    }
    let (query, query_bias, [query_a, query_b], query_lora) = query.split();
    let (key, key_bias, [key_a, key_b], key_lora) = key.split();
    let (value, value_bias, [value_a, value_b], value_lora) = value.split();
    Tensor::from_dispatch(Dispatch::lb_self_attention(
        x.into_dispatch(),
        query,
        key,
        value,
        query_bias,
        key_bias,
        value_bias,
        query_a,
        key_a,
        value_a,
        query_b,
        key_b,
        value_b,
        [query_lora, key_lora, value_lora],
        shape.clone(),
        dropout,
    ))
}

/// [`attention`] of one query a row, whose keys and values are two linear layers of `x`: what a last layer is that a head reads one token
/// of. On flex no key and no value is computed: scores are q_h . (x_j W_h) = (q_h W_h^T) . x_j, and the output is (sum_j p_j x_j) W_h, so
/// two projections of all tokens become two of one vector a row and head. Elsewhere it is `attention` of both layers' outputs.
///
/// The bias of the keys adds the same to all scores of a head, which the softmax takes away again: it is not read, and its gradient is 0
/// where others have the rounding of sums that cancel.
///
/// # Shapes
/// - `q`: `[rows, heads x size]`, `x`: `[sum of shape.keys, in]`, with 1 for every row in `shape.queries`
/// - returns the shape of `q`
///
/// # Panics
/// As [`attention`], and when a row has more than one query.
pub fn first_token_attention(
    q: Tensor<2>,
    x: Tensor<2>,
    key: Projection,
    value: Projection,
    shape: &AttentionShape,
    dropout: Dropout,
) -> Tensor<2> {
    if !fused(&q) {
        let (k, v) = (key.forward(x.clone()), value.forward(x));
        return attention(q, k, v, shape, dropout);
    }
    let (key, key_bias, [key_a, key_b], key_lora) = key.split();
    let (value, value_bias, [value_a, value_b], value_lora) = value.split();
    Tensor::from_dispatch(Dispatch::lb_first_attention(
        q.into_dispatch(),
        x.into_dispatch(),
        key,
        value,
        key_bias,
        value_bias,
        key_a,
        key_b,
        value_a,
        value_b,
        [key_lora, value_lora],
        shape.clone(),
        dropout,
    ))
}
