//! The sum of word, position and type vectors, LayerNorm, dropout.

use burn::module::{Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{DType, Device, Int, Tensor};
use lowburn_kernels::{Dropout, activation_dtype, dropout};
use lowburn_lora::Linear;

use crate::input::ModelInput;
use crate::layers::LayerNorm;
use crate::mode::Mode;

/// A table of vectors, `[entries, d]`.
#[derive(Module, Debug)]
pub struct Table {
    /// The vectors.
    pub weight: Param<Tensor<2>>,
}

/// How tokens count as positions and types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// RoBERTa: positions count from behind the padding id, and every token is of type 0.
    AfterPadding(usize),
    /// DeBERTa-v2: positions count from 0, types are the input's.
    FromZero,
}

/// Word + position + token type, LayerNorm, dropout.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// `[vocabulary, width]`.
    pub word_embeddings: Table,
    /// `[positions, width]`.
    pub position_embeddings: Option<Table>,
    /// `[types, width]`.
    pub token_type_embeddings: Option<Table>,
    /// From the tables' width to d, where they differ (no bias).
    pub embed_proj: Option<Linear>,
    /// LayerNorm of the sum.
    pub layer_norm: LayerNorm,
    /// Probability of the dropout.
    pub dropout: f64,
    /// How tokens count as positions and types.
    #[module(skip)]
    pub counting: Counting,
}

impl Table {
    /// The vectors of the ids `[1, tokens]`, as `[tokens, width]` in the numbers that activations have.
    fn of(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        activations(embedding(self.weight.val(), ids).squeeze_dim(0))
    }
}

/// Rows of a table, in the numbers in which the encoder computes upon them.
///
/// # Shapes
/// Returns the shape of `rows`.
pub(crate) fn activations(rows: Tensor<2>) -> Tensor<2> {
    let dtype = activation_dtype(rows.dtype(), &rows.device());
    rows.cast(dtype)
}

impl Embeddings {
    /// # Shapes
    /// Returns `[tokens, d]`.
    ///
    /// # Panics
    /// Panics when a row has more tokens than the model has positions.
    pub fn forward(&self, input: &ModelInput, mode: &mut Mode) -> Tensor<2> {
        let device = self.word_embeddings.weight.lazy_device();
        let words = self.word_embeddings.of(input.packed_ids(&device)); // [tokens, width]
        let positions = self.positions(input, &device);
        let x = match (&self.embed_proj, self.counting) {
            (None, Counting::AfterPadding(_)) => {
                // One vector for all tokens: added like a bias.
                let row = self.token_type_embeddings.as_ref().map(|types| {
                    let types = types.weight.val().narrow(0, 0, 1);
                    types.squeeze_dim(0).cast(DType::F32) // [d]
                });
                let norm = &self.layer_norm;
                norm.forward(words, row, positions, Dropout::NONE)
            }
            (projection, _) => {
                let types = self.types(input, &device);
                let parts = [positions, types].into_iter().flatten();
                let mut x = parts.fold(words, |sum, part| sum + part);
                if let Some(projection) = projection {
                    x = projection.forward(x, mode.key());
                }
                self.layer_norm.forward(x, None, None, Dropout::NONE)
            }
        };
        dropout(x, mode.dropout(self.dropout))
    }

    fn positions(&self, input: &ModelInput, device: &Device) -> Option<Tensor<2>> {
        let table = self.position_embeddings.as_ref()?;
        let [rows, _] = table.weight.lazy_shape().dims();
        let (usable, ids) = match self.counting {
            Counting::AfterPadding(pad) => (rows - pad - 1, input.packed_positions(pad, device)),
            Counting::FromZero => (rows, input.packed_places(device)),
        };
        let longest = input.longest();
        assert!(
            longest <= usable,
            "a row has {longest} tokens, the model has {usable} positions"
        );
        Some(table.of(ids))
    }

    fn types(&self, input: &ModelInput, device: &Device) -> Option<Tensor<2>> {
        let table = self.token_type_embeddings.as_ref()?;
        Some(table.of(input.packed_types(device)))
    }
}
