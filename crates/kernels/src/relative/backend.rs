//! The operations of this module as an extension of Burn's backends, and what their gradients for
//! the autodiff backend are made of.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::RelativeIndex;
use crate::backend::{AttentionShape, Maybe};
use crate::random::Dropout;

/// What the tensors of a disentangled attention do not say.
#[derive(Clone, Debug)]
pub(crate) struct RelativeShape {
    pub(crate) attention: AttentionShape,
    pub(crate) index: RelativeIndex,
    pub(crate) dropout: Dropout,
}

/// Forward operations. [`crate`]'s functions on tensors are the way to call them.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait RelativeKernels: Backend {
    fn lb_disentangled_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        #[extension_type] key: Maybe<Self>,
        #[extension_type] query: Maybe<Self>,
        shape: RelativeShape,
    ) -> FloatTensor<Self>;

    fn lb_unfold_rows(x: FloatTensor<Self>, lengths: Vec<usize>, width: usize)
    -> FloatTensor<Self>;
}

/// The inputs of a disentangled attention.
#[derive(Clone, Debug)]
pub(crate) struct ContentAndPosition<B: Backend> {
    pub(crate) q: FloatTensor<B>,
    pub(crate) k: FloatTensor<B>,
    pub(crate) v: FloatTensor<B>,
    pub(crate) key: Option<FloatTensor<B>>,
    pub(crate) query: Option<FloatTensor<B>>,
}

/// The gradients of a disentangled attention; those of the tables where asked for.
pub(crate) struct PositionGradients<B: Backend> {
    pub(crate) q: FloatTensor<B>,
    pub(crate) k: FloatTensor<B>,
    pub(crate) v: FloatTensor<B>,
    pub(crate) key: Option<FloatTensor<B>>,
    pub(crate) query: Option<FloatTensor<B>>,
}

/// What the gradients are made of, on a backend without autodiff.
pub(crate) trait RelativeBackward: Backend {
    /// `needs` says whether the gradients of the position keys and queries are asked for.
    fn lb_disentangled_attention_backward(
        gradient: FloatTensor<Self>,
        input: ContentAndPosition<Self>,
        shape: RelativeShape,
        needs: [bool; 2],
    ) -> PositionGradients<Self>;

    fn lb_fold_rows(
        gradient: FloatTensor<Self>,
        lengths: Vec<usize>,
        width: usize,
    ) -> FloatTensor<Self>;
}
