//! RoBERTa's encoder (Liu et al. 2019; `RobertaModel` in transformers, without its pooler).

use burn::module::{Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{Device, Tensor};
use lowburn_kernels::{AttentionShape, Dropout, attention, dropout};
use lowburn_lora::Linear;

use crate::input::ModelInput;
use crate::layers::{Intermediate, LayerNorm, SubLayerOutput};
use crate::mode::Mode;

/// The encoder: token ids to one vector per token.
#[derive(Module, Debug)]
pub struct Roberta {
    /// Words, positions and the token type.
    pub embeddings: Embeddings,
    /// The layers.
    pub encoder: Encoder,
}

/// A stack of layers.
#[derive(Module, Debug)]
pub struct Encoder {
    /// The layers, first to last.
    pub layer: Vec<Layer>,
}

/// A table of vectors, `[entries, d]`.
#[derive(Module, Debug)]
pub struct Table {
    /// The vectors.
    pub weight: Param<Tensor<2>>,
}

/// Word + position + token type, LayerNorm, dropout.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// `[vocabulary, d]`.
    pub word_embeddings: Table,
    /// `[positions, d]`.
    pub position_embeddings: Table,
    /// `[types, d]`, of which row 0 is used for every token.
    pub token_type_embeddings: Table,
    /// LayerNorm of the sum.
    pub layer_norm: LayerNorm,
    /// Probability of the dropout.
    pub dropout: f64,
    /// Id of the padding token.
    pub pad: usize,
}

/// One post-norm layer: attention, then the feed-forward.
#[derive(Module, Debug)]
pub struct Layer {
    /// The attention sub-layer.
    pub attention: AttentionBlock,
    /// The first half of the feed-forward sub-layer.
    pub intermediate: Intermediate,
    /// The second half of the feed-forward sub-layer.
    pub output: SubLayerOutput,
}

/// Self-attention and what follows it.
#[derive(Module, Debug)]
pub struct AttentionBlock {
    /// Queries, keys, values.
    pub self_attention: SelfAttention,
    /// Projection, residual and LayerNorm.
    pub output: SubLayerOutput,
}

/// Multi-head scaled dot-product self-attention.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// `[d, d]`.
    pub query: Linear,
    /// `[d, d]`.
    pub key: Linear,
    /// `[d, d]`.
    pub value: Linear,
    /// Number of heads.
    pub heads: usize,
    /// Probability of the dropout on the attention probabilities.
    pub dropout: f64,
}

/// Which tokens of the last layer are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    /// Token 0 only, which is all that a classification head reads.
    First,
}

impl Roberta {
    /// The last hidden state of every token.
    ///
    /// # Shapes
    /// Returns `[batch, length, d]`, zero where there is padding.
    pub fn forward(&self, input: &ModelInput, mode: &mut Mode) -> Tensor<3> {
        input.padded(self.run(input, mode, Keep::All, &mut |_| {}))
    }

    /// The last hidden state of token 0, without computing the last layer for any other token:
    /// the last layer needs keys and values of all tokens, and everything else of token 0 alone.
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
        let last = self.encoder.layer.len() - 1;
        for (i, layer) in self.encoder.layer.iter().enumerate() {
            let keep = if i == last { keep } else { Keep::All };
            x = layer.forward(x, input, keep, mode);
            each(&x);
        }
        x
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.embeddings.word_embeddings.weight.lazy_device()
    }
}

impl Embeddings {
    /// # Shapes
    /// Returns `[tokens, d]`.
    ///
    /// # Panics
    /// Panics when a row has more tokens than the model has positions.
    pub fn forward(&self, input: &ModelInput, mode: &mut Mode) -> Tensor<2> {
        let [rows, _] = self.position_embeddings.weight.lazy_shape().dims();
        let positions = rows - self.pad - 1;
        let longest = input.lengths.iter().max().copied().unwrap_or(0);
        assert!(
            longest <= positions,
            "a row has {longest} tokens, the model has {positions} positions"
        );
        let words = self.word_embeddings.weight.val();
        let device = words.device();
        let words = embedding(words, input.packed_ids(&device)).squeeze_dim(0); // [tokens, d]
        let positions = input.packed_positions(self.pad, &device);
        let positions = embedding(self.position_embeddings.weight.val(), positions).squeeze_dim(0);
        let types = self.token_type_embeddings.weight.val();
        let token_type = types.narrow(0, 0, 1).squeeze_dim(0); // [d]
        let x = self
            .layer_norm
            .forward(words, Some(token_type), Some(positions), Dropout::NONE);
        dropout(x, mode.dropout(self.dropout))
    }
}

impl Layer {
    /// # Shapes
    /// `x` is `[tokens, d]`; returns the same, or `[batch, d]` where only token 0 is kept.
    fn forward(&self, x: Tensor<2>, input: &ModelInput, keep: Keep, mode: &mut Mode) -> Tensor<2> {
        let x = self.attention.forward(x, input, keep, mode);
        let intermediate = self.intermediate.forward(x.clone(), mode);
        self.output.forward(intermediate, x, mode)
    }
}

impl AttentionBlock {
    fn forward(&self, x: Tensor<2>, input: &ModelInput, keep: Keep, mode: &mut Mode) -> Tensor<2> {
        let (queries, counts) = match keep {
            Keep::All => (x.clone(), input.lengths.clone()),
            Keep::First => {
                let starts = input.starts(&x.device());
                (x.clone().select(0, starts), vec![1; input.rows])
            }
        };
        let context = self
            .self_attention
            .forward(queries.clone(), counts, x, input, mode);
        self.output.forward(context, queries, mode)
    }
}

impl SelfAttention {
    /// `queries` has `counts` tokens for each row of the batch, `x` has all of the input's.
    ///
    /// # Shapes
    /// - `queries`: `[sum of counts, d]`, `x`: `[tokens, d]`
    /// - returns the shape of `queries`
    fn forward(
        &self,
        queries: Tensor<2>,
        counts: Vec<usize>,
        x: Tensor<2>,
        input: &ModelInput,
        mode: &mut Mode,
    ) -> Tensor<2> {
        let shape = AttentionShape {
            heads: self.heads,
            scale: ((x.dims()[1] / self.heads) as f64).sqrt().recip(),
            queries: counts,
            keys: input.lengths.clone(),
        };
        let q = self.query.forward(queries, mode.key());
        let k = self.key.forward(x.clone(), mode.key());
        let v = self.value.forward(x, mode.key());
        attention(q, k, v, &shape, mode.dropout(self.dropout))
    }
}
