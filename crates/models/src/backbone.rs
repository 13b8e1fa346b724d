//! The encoder (`RobertaModel` and `DebertaV2Model` in transformers, without a pooler): one
//! skeleton for both architectures.
//!
//! What is common is here and in the files of its parts: embeddings, post-norm layers, the last
//! layer for token 0 only. What DeBERTa-v2 adds are options of the same modules: distances that
//! enter the attention, and a convolution after the first layer.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::attention::{Keep, Layer};
use crate::convolution::ConvLayer;
use crate::disentangled::{Distances, RelativePositions};
use crate::embeddings::Embeddings;
use crate::input::ModelInput;
use crate::mode::Mode;

/// The encoder: token ids to one vector per token.
#[derive(Module, Debug)]
pub struct Backbone {
    /// Words, positions and token types.
    pub embeddings: Embeddings,
    /// The layers.
    pub encoder: Encoder,
}

/// A stack of layers.
#[derive(Module, Debug)]
pub struct Encoder {
    /// The layers, first to last.
    pub layer: Vec<Layer>,
    /// Embeddings of distances, for disentangled attention.
    pub relative: Option<RelativePositions>,
    /// The convolution after the first layer.
    pub conv: Option<ConvLayer>,
}

impl Backbone {
    /// The last hidden state of every token.
    ///
    /// # Shapes
    /// Returns `[batch, length, d]`, zero where there is padding.
    pub fn forward(&self, input: &ModelInput, mode: &mut Mode) -> Tensor<3> {
        input.padded(self.run(input, mode, Keep::All, &mut |_| {}))
    }

    /// The last hidden state of token 0, without computing the last layer for any other token:
    /// the last layer needs keys and values of all tokens (and not even those in plain attention, see
    /// [`lowburn_kernels::first_token_attention`]), and everything else of token 0 alone.
    ///
    /// # Shapes
    /// Returns `[batch, d]`.
    pub fn first_token(&self, input: &ModelInput, mode: &mut Mode) -> Tensor<2> {
        self.run(input, mode, Keep::First, &mut |_| {})
    }

    /// The embedding output and the output of every layer, in evaluation mode.
    ///
    /// # Shapes
    /// Returns layers + 1 tensors `[batch, length, d]`, zero where there is padding.
    pub fn hidden_states(&self, input: &ModelInput) -> Vec<Tensor<3>> {
        let mut states = Vec::new();
        self.run(input, &mut Mode::eval(), Keep::All, &mut |x| {
            states.push(input.padded(x.clone()));
        });
        states
    }

    /// Works on the real tokens of all rows, one after the other: `[tokens, d]`. Padding is never
    /// computed.
    fn run(
        &self,
        input: &ModelInput,
        mode: &mut Mode,
        keep: Keep,
        each: &mut dyn FnMut(&Tensor<2>),
    ) -> Tensor<2> {
        let mut x = self.embeddings.forward(input, mode);
        each(&x);
        let distances = self.distances(input);
        for i in 0..self.encoder.layer.len() {
            x = self.layer(i, x, input, distances.as_ref(), keep, mode);
            each(&x);
        }
        x
    }

    /// The embeddings of the distances that a batch has, where the layers read any.
    pub(crate) fn distances(&self, input: &ModelInput) -> Option<Distances> {
        let relative = self.encoder.relative.as_ref();
        relative.map(|relative| relative.distances(input))
    }

    /// Layer `i` and, behind the first, the convolution. `keep` is a matter of the last layer only.
    ///
    /// # Shapes
    /// `x` is `[tokens, d]`; returns the same, or `[batch, d]` where only token 0 is kept.
    pub(crate) fn layer(
        &self,
        i: usize,
        x: Tensor<2>,
        input: &ModelInput,
        distances: Option<&Distances>,
        keep: Keep,
        mode: &mut Mode,
    ) -> Tensor<2> {
        let stack = &self.encoder;
        let layer = &stack.layer[i];
        let keep = match i + 1 == stack.layer.len() {
            true => keep,
            false => Keep::All,
        };
        let Some(conv) = stack.conv.as_ref().filter(|_| i == 0) else {
            return layer.forward(x, input, distances, keep, mode);
        };
        let output = layer.forward(x.clone(), input, distances, Keep::All, mode);
        let output = conv.forward(x, output, input, mode);
        match keep {
            Keep::All => output,
            Keep::First => input.first_tokens(output),
        }
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.embeddings.word_embeddings.weight.lazy_device()
    }
}
