//! One post-norm layer: self-attention, plain or disentangled, then the feed-forward.

use burn::module::Module;
use burn::tensor::Tensor;
use lowburn_kernels::{
    AttentionShape, attention, disentangled_attention, first_token_attention, self_attention,
};
use lowburn_lora::Linear;

use crate::disentangled::{Distances, PositionBranch};
use crate::input::ModelInput;
use crate::layers::{Intermediate, SubLayerOutput};
use crate::mode::Mode;

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
    /// How positions enter, in disentangled attention.
    pub position: Option<PositionBranch>,
    /// Number of heads.
    pub heads: usize,
    /// What scores are multiplied by before the softmax.
    pub scale: f64,
    /// Probability of the dropout on the attention probabilities.
    pub dropout: f64,
}

/// Which tokens of the last layer are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    All,
    /// Token 0 only, which is all that a classification head reads.
    First,
}

impl Layer {
    /// # Shapes
    /// `x` is `[tokens, d]`; returns the same, or `[batch, d]` where only token 0 is kept.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        input: &ModelInput,
        distances: Option<&Distances>,
        keep: Keep,
        mode: &mut Mode,
    ) -> Tensor<2> {
        let x = self.attention.forward(x, input, distances, keep, mode);
        let intermediate = self.intermediate.forward(x.clone(), mode);
        self.output.forward(intermediate, x, mode)
    }
}

impl AttentionBlock {
    fn forward(
        &self,
        x: Tensor<2>,
        input: &ModelInput,
        distances: Option<&Distances>,
        keep: Keep,
        mode: &mut Mode,
    ) -> Tensor<2> {
        let (queries, counts) = match keep {
            Keep::All => (x.clone(), input.lengths.clone()),
            Keep::First => (input.first_tokens(x.clone()), vec![1; input.rows]),
        };
        let shape = AttentionShape {
            heads: self.self_attention.heads,
            scale: self.self_attention.scale,
            queries: counts,
            keys: input.lengths.clone(),
        };
        let own = &self.self_attention;
        let context = own.forward(queries.clone(), x, &shape, distances, mode);
        self.output.forward(context, queries, mode)
    }
}

impl SelfAttention {
    /// # Shapes
    /// - `queries`: `[sum of shape.queries, d]`, which are `x` where there are as many queries as keys; `x`: `[tokens, d]`
    /// - returns the shape of `queries`
    fn forward(
        &self,
        queries: Tensor<2>,
        x: Tensor<2>,
        shape: &AttentionShape,
        distances: Option<&Distances>,
        mode: &mut Mode,
    ) -> Tensor<2> {
        let keys = [mode.key(), mode.key(), mode.key()];
        if let (Some(branch), Some(distances)) = (&self.position, distances) {
            let q = self.query.forward(queries, keys[0]);
            let k = self.key.forward(x.clone(), keys[1]);
            let v = self.value.forward(x, keys[2]);
            let terms = branch.terms(&self.query, &self.key, distances, mode);
            let dropout = mode.dropout(self.dropout);
            return match terms {
                Some(terms) => disentangled_attention(q, k, v, terms, shape, dropout),
                None => attention(q, k, v, shape, dropout),
            };
        }
        let dropout = mode.dropout(self.dropout);
        let [key, value] = [self.key.projection(keys[1]), self.value.projection(keys[2])];
        // Of every token, or of one a row.
        if shape.queries == shape.keys {
            let layers = [self.query.projection(keys[0]), key, value];
            return self_attention(x, layers, shape, dropout);
        }
        let q = self.query.forward(queries, keys[0]);
        first_token_attention(q, x, key, value, shape, dropout)
    }
}
