//! DeBERTa-v2's convolution over neighbouring tokens, whose output is added to the first layer's.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use lowburn_kernels::{Dropout, dropout, linear, unfold_rows};

use crate::config::Activation;
use crate::input::ModelInput;
use crate::layers::{LayerNorm, activate};
use crate::mode::Mode;

/// LayerNorm(residual + activation(dropout(conv(x)))), `ConvLayer` in transformers.
#[derive(Module, Debug)]
pub struct ConvLayer {
    /// The convolution.
    pub conv: Conv1d,
    /// The post-norm.
    pub layer_norm: LayerNorm,
    /// Probability of the dropout.
    pub dropout: f64,
    /// The activation.
    #[module(skip)]
    pub activation: Activation,
}

/// A convolution over the tokens of a row, with zeros beyond its ends.
#[derive(Module, Debug)]
pub struct Conv1d {
    /// `[out, in / groups, width]`, as in PyTorch.
    pub weight: Param<Tensor<3>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl ConvLayer {
    /// # Shapes
    /// `x` (the embedding output), `residual` (the first layer's output) and the result are
    /// `[tokens, d]`.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        residual: Tensor<2>,
        input: &ModelInput,
        mode: &mut Mode,
    ) -> Tensor<2> {
        let x = dropout(self.conv.forward(x, input), mode.dropout(self.dropout));
        let x = activate(x, self.activation);
        let norm = &self.layer_norm;
        norm.forward(x, None, Some(residual), Dropout::NONE)
    }
}

impl Conv1d {
    /// # Shapes
    /// `x` is `[tokens, in]`; returns `[tokens, out]`.
    fn forward(&self, x: Tensor<2>, input: &ModelInput) -> Tensor<2> {
        let weight = self.weight.val();
        let [outputs, inputs, width] = weight.dims();
        let matrix = |weight: Tensor<3>| {
            let outputs = weight.dims()[0];
            let weight = weight.permute([2, 1, 0]); // [width, in / groups, out / groups]
            weight.reshape([width * inputs, outputs])
        };
        let near = unfold_rows(x, &input.lengths, width); // [tokens, width * in]
        let bias = Some(self.bias.val());
        if self.groups == 1 {
            return linear(near, matrix(weight), bias);
        }
        let tokens = near.dims()[0];
        let near = near.reshape([tokens, width, self.groups * inputs]);
        let each = outputs / self.groups;
        let parts = (0..self.groups).map(|group| {
            let x = near.clone().narrow(2, group * inputs, inputs);
            let weight = weight.clone().narrow(0, group * each, each);
            linear(x.reshape([tokens, width * inputs]), matrix(weight), None)
        });
        let bias = self.bias.val().cast(near.dtype());
        Tensor::cat(parts.collect(), 1) + bias.unsqueeze()
    }
}
