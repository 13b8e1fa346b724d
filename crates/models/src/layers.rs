//! What every encoder is made of: embeddings' tables, LayerNorm, and the feed-forward sub-layer.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, activation};
use lowburn_kernels::{Dropout, add_layer_norm, bias_gelu};
use lowburn_lora::Linear;

use crate::config::Activation;
use crate::mode::Mode;

/// LayerNorm over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[d]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift, `[d]`.
    pub beta: Param<Tensor<1>>,
    /// Added to the variance.
    pub epsilon: f64,
}

impl LayerNorm {
    /// LayerNorm(residual + dropout(x + bias)).
    ///
    /// # Shapes
    /// `x`, `residual` and the result are `[tokens, d]`, `bias` is `[d]`.
    pub fn forward(
        &self,
        x: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
        dropout: Dropout,
    ) -> Tensor<2> {
        let affine = [self.gamma.val(), self.beta.val()];
        add_layer_norm(x, bias, residual, affine, self.epsilon, dropout)
    }
}

/// The end of a sub-layer: LayerNorm(residual + dropout(dense(x))).
#[derive(Module, Debug)]
pub struct SubLayerOutput {
    /// Back to the width of the residual.
    pub dense: Linear,
    /// The post-norm.
    pub layer_norm: LayerNorm,
    /// Probability of the dropout.
    pub dropout: f64,
}

impl SubLayerOutput {
    /// # Shapes
    /// - `x`: `[tokens, in]`, `residual`: `[tokens, d]`
    /// - returns `[tokens, d]`
    pub fn forward(&self, x: Tensor<2>, residual: Tensor<2>, mode: &mut Mode) -> Tensor<2> {
        let x = self.dense.forward_without_bias(x, mode.key());
        let bias = self.dense.bias.as_ref().map(Param::val);
        self.layer_norm
            .forward(x, bias, Some(residual), mode.dropout(self.dropout))
    }
}

/// The first half of the feed-forward sub-layer: activation(dense(x)).
#[derive(Module, Debug)]
pub struct Intermediate {
    /// From the width d to the intermediate width.
    pub dense: Linear,
    /// The activation.
    #[module(skip)]
    pub activation: Activation,
}

impl Intermediate {
    /// # Shapes
    /// - `x`: `[tokens, d]`
    /// - returns `[tokens, intermediate]`
    pub fn forward(&self, x: Tensor<2>, mode: &mut Mode) -> Tensor<2> {
        let key = mode.key();
        match self.activation {
            Activation::Gelu => {
                let x = self.dense.forward_without_bias(x, key);
                bias_gelu(x, self.dense.bias.as_ref().map(Param::val))
            }
            other => activate(self.dense.forward(x, key), other),
        }
    }
}

/// An activation by itself, of halves in f32.
///
/// # Shapes
/// Returns the shape of `x`.
pub(crate) fn activate(x: Tensor<2>, activation: Activation) -> Tensor<2> {
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let y = match activation {
        Activation::Gelu => bias_gelu(x, None),
        Activation::GeluTanh => gelu_tanh(x),
        Activation::Relu => activation::relu(x),
        Activation::Silu => activation::silu(x),
        Activation::Tanh => x.tanh(),
    };
    y.cast(dtype)
}

/// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let cubic = x.clone().powi_scalar(3).mul_scalar(0.044_715);
    let inner = (x.clone() + cubic).mul_scalar((2.0 / std::f64::consts::PI).sqrt());
    x.mul_scalar(0.5) * inner.tanh().add_scalar(1.0)
}
