//! The operations as extensions of Burn's backends, and their gradients for the autodiff backend.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, backend_extension};

use crate::Dropout;
use crate::flex::SAVED;

/// Sizes of an attention that its tensors do not say.
#[derive(Clone, Debug)]
pub struct AttentionShape {
    /// Number of heads; the width of q, k and v is heads x head size.
    pub heads: usize,
    /// Factor on q k^T before the softmax, usually 1 / sqrt(head size).
    pub scale: f64,
    /// Number of queries of each row of the batch.
    pub queries: Vec<usize>,
    /// Number of keys of each row of the batch, at least 1.
    pub keys: Vec<usize>,
}

/// The adapter's scale (alpha / r) and the dropout in front of A.
#[derive(Clone, Copy, Debug)]
pub struct LoraScale {
    /// alpha / r, or alpha / sqrt(r) when rank-stabilised.
    pub scale: f64,
    /// Dropout of the adapter's input.
    pub dropout: Dropout,
}

/// A tensor that an operation can do without. (An extension's arguments cannot be `Option`s.)
#[derive(ExtensionType)]
pub(crate) enum Maybe<B: Backend> {
    Some(FloatTensor<B>),
    None,
}

impl<B: Backend> Maybe<B> {
    pub(crate) fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Some(tensor) => Some(tensor),
            Self::None => None,
        }
    }
}

impl<B: Backend> From<Option<FloatTensor<B>>> for Maybe<B> {
    fn from(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Self::None, Self::Some)
    }
}

/// Forward operations. [`crate`]'s functions on tensors are the way to call them.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Kernels: Backend {
    fn lb_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
    ) -> FloatTensor<Self>;

    fn lb_lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        lora: LoraScale,
    ) -> FloatTensor<Self>;

    fn lb_bias_gelu(x: FloatTensor<Self>, #[extension_type] bias: Maybe<Self>)
    -> FloatTensor<Self>;

    fn lb_dropout(x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self>;

    fn lb_add_layer_norm(
        x: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
        #[extension_type] residual: Maybe<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        dropout: Dropout,
    ) -> FloatTensor<Self>;

    fn lb_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: AttentionShape,
        dropout: Dropout,
    ) -> FloatTensor<Self>;

    // An extension's arguments are tensors one by one.
    #[allow(clippy::too_many_arguments)]
    fn lb_first_attention(
        q: FloatTensor<Self>,
        x: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] key_bias: Maybe<Self>,
        #[extension_type] value_bias: Maybe<Self>,
        #[extension_type] key_a: Maybe<Self>,
        #[extension_type] key_b: Maybe<Self>,
        #[extension_type] value_a: Maybe<Self>,
        #[extension_type] value_b: Maybe<Self>,
        loras: [LoraScale; 2],
        shape: AttentionShape,
        dropout: Dropout,
    ) -> FloatTensor<Self>;

    #[allow(clippy::too_many_arguments)]
    fn lb_self_attention(
        x: FloatTensor<Self>,
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] query_bias: Maybe<Self>,
        #[extension_type] key_bias: Maybe<Self>,
        #[extension_type] value_bias: Maybe<Self>,
        #[extension_type] query_a: Maybe<Self>,
        #[extension_type] key_a: Maybe<Self>,
        #[extension_type] value_a: Maybe<Self>,
        #[extension_type] query_b: Maybe<Self>,
        #[extension_type] key_b: Maybe<Self>,
        #[extension_type] value_b: Maybe<Self>,
        loras: [LoraScale; 3],
        shape: AttentionShape,
        dropout: Dropout,
    ) -> FloatTensor<Self>;
}

/// The layers of queries, keys and values in [`crate::self_attention`].
#[derive(Clone, Debug)]
pub(crate) struct SelfLayers<B: Backend> {
    pub(crate) weights: [FloatTensor<B>; 3],
    pub(crate) biases: [Option<FloatTensor<B>>; 3],
    pub(crate) adapters: [Option<Adapter<B>>; 3],
}

impl<B: Backend> SelfLayers<B> {
    /// The weights, and what they may come with; an adapter has both factors.
    pub(crate) fn new(
        weights: [FloatTensor<B>; 3],
        biases: [Maybe<B>; 3],
        [a, b]: [[Maybe<B>; 3]; 2],
        loras: [LoraScale; 3],
    ) -> Self {
        let mut factors = a.into_iter().zip(b).zip(loras);
        let adapters = std::array::from_fn(|_| {
            let ((a, b), lora) = factors.next()?;
            Adapter::of([a, b], lora)
        });
        Self {
            weights,
            biases: biases.map(Maybe::into_option),
            adapters,
        }
    }
}

/// What its backward pass needs beside x and the layers.
#[derive(Clone, Debug)]
pub(crate) struct SelfSaved<B: Backend> {
    /// Queries, keys and values.
    pub(crate) projections: [FloatTensor<B>; 3],
    /// drop(x) A of each, where it is kept.
    pub(crate) low_rank: [Option<FloatTensor<B>>; 3],
    /// Where they are kept.
    pub(crate) probabilities: Option<FloatTensor<B>>,
}

/// What [`crate::first_token_attention`] is computed from: weights [in, out], biases [out] and adapters, of keys and of values.
#[derive(Clone, Debug)]
pub(crate) struct FirstInputs<B: Backend> {
    pub(crate) q: FloatTensor<B>,
    pub(crate) x: FloatTensor<B>,
    pub(crate) key: FloatTensor<B>,
    pub(crate) value: FloatTensor<B>,
    pub(crate) biases: [Option<FloatTensor<B>>; 2],
    pub(crate) adapters: [Option<Adapter<B>>; 2],
}

impl<B: Backend> FirstInputs<B> {
    /// q, x, key and value, and what they may come with; an adapter has both factors.
    pub(crate) fn new(
        [q, x, key, value]: [FloatTensor<B>; 4],
        biases: [Maybe<B>; 2],
        factors: [[Maybe<B>; 2]; 2],
        loras: [LoraScale; 2],
    ) -> Self {
        let [key_factors, value_factors] = factors;
        Self {
            q,
            x,
            key,
            value,
            biases: biases.map(Maybe::into_option),
            adapters: [
                Adapter::of(key_factors, loras[0]),
                Adapter::of(value_factors, loras[1]),
            ],
        }
    }
}

/// The adapter of queries, keys or values.
#[derive(Clone, Debug)]
pub(crate) struct Adapter<B: Backend> {
    pub(crate) a: FloatTensor<B>,
    pub(crate) b: FloatTensor<B>,
    pub(crate) lora: LoraScale,
}

impl<B: Backend> Adapter<B> {
    /// That of the factors A and B, if there are both.
    fn of(factors: [Maybe<B>; 2], lora: LoraScale) -> Option<Self> {
        let [a, b] = factors.map(Maybe::into_option);
        a.zip(b).map(|(a, b)| Self { a, b, lora })
    }
}

/// Which of its gradients are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FirstNeeds {
    pub(crate) q: bool,
    pub(crate) x: bool,
    /// Of the keys and of the values.
    pub(crate) weights: [bool; 2],
    pub(crate) biases: [bool; 2],
    pub(crate) a: [bool; 2],
    pub(crate) b: [bool; 2],
}

/// Its gradients, where asked for.
pub(crate) struct FirstGradients<B: Backend> {
    pub(crate) q: Option<FloatTensor<B>>,
    pub(crate) x: Option<FloatTensor<B>>,
    /// Of the keys and of the values.
    pub(crate) weights: [Option<FloatTensor<B>>; 2],
    pub(crate) biases: [Option<FloatTensor<B>>; 2],
    pub(crate) a: [Option<FloatTensor<B>>; 2],
    pub(crate) b: [Option<FloatTensor<B>>; 2],
}

impl<B: Backend> Default for FirstGradients<B> {
    fn default() -> Self {
        let none = || [None, None];
        Self {
            q: None,
            x: None,
            weights: none(),
            biases: none(),
            a: none(),
            b: none(),
        }
    }
}

/// Which gradients of a linear layer are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinearNeeds {
    pub(crate) x: bool,
    pub(crate) weight: bool,
    pub(crate) bias: bool,
    pub(crate) a: bool,
    pub(crate) b: bool,
}

/// The gradients of a linear layer, where asked for.
pub(crate) struct LinearGradients<B: Backend> {
    pub(crate) x: Option<FloatTensor<B>>,
    pub(crate) weight: Option<FloatTensor<B>>,
    pub(crate) bias: Option<FloatTensor<B>>,
    pub(crate) a: Option<FloatTensor<B>>,
    pub(crate) b: Option<FloatTensor<B>>,
}

impl<B: Backend> Default for LinearGradients<B> {
    fn default() -> Self {
        Self {
            x: None,
            weight: None,
            bias: None,
            a: None,
            b: None,
        }
    }
}

/// A LayerNorm's output and what its gradient needs.
pub(crate) struct Normalised<B: Backend> {
    pub(crate) output: FloatTensor<B>,
    pub(crate) normalised: FloatTensor<B>,
    pub(crate) inverse_deviation: FloatTensor<B>,
}

/// What the gradients are made of, on a backend without autodiff.
pub(crate) trait KernelBackward: Backend {
    fn lb_linear_backward(
        gradient: FloatTensor<Self>,
        x: Option<FloatTensor<Self>>,
        weight: FloatTensor<Self>,
        needs: LinearNeeds,
    ) -> LinearGradients<Self>;

    /// The output for x, weight, A and B, and drop(x) A if it is to be kept for the backward pass.
    fn lb_lora_linear_saving(
        inputs: [FloatTensor<Self>; 4],
        bias: Option<FloatTensor<Self>>,
        lora: LoraScale,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>);

    fn lb_lora_linear_backward(
        gradient: FloatTensor<Self>,
        inputs: [FloatTensor<Self>; 4],
        projected: Option<FloatTensor<Self>>,
        lora: LoraScale,
        needs: LinearNeeds,
    ) -> LinearGradients<Self>;

    fn lb_bias_gelu_backward(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
    ) -> FloatTensor<Self>;

    fn lb_sum_rows(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn lb_add_layer_norm_saving(
        x: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        residual: Option<FloatTensor<Self>>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        dropout: Dropout,
    ) -> Normalised<Self>;

    /// The gradient of the sum, and the same behind a dropout where one is given.
    fn lb_layer_norm_backward(
        gradient: FloatTensor<Self>,
        normalised: FloatTensor<Self>,
        inverse_deviation: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dropout: Option<Dropout>,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>);

    fn lb_layer_norm_gamma_backward(
        gradient: FloatTensor<Self>,
        normalised: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The output for q, k and v, and the probabilities if they are to be kept for the backward pass.
    fn lb_attention_saving(
        inputs: [FloatTensor<Self>; 3],
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>);

    fn lb_attention_backward(
        gradient: FloatTensor<Self>,
        inputs: [FloatTensor<Self>; 3],
        probabilities: Option<FloatTensor<Self>>,
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    fn lb_first_attention_saving(
        inputs: FirstInputs<Self>,
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> (FloatTensor<Self>, [FloatTensor<Self>; SAVED]);

    fn lb_first_attention_backward(
        gradient: FloatTensor<Self>,
        inputs: FirstInputs<Self>,
        saved: [FloatTensor<Self>; SAVED],
        needs: FirstNeeds,
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> FirstGradients<Self>;

    fn lb_self_attention_saving(
        x: FloatTensor<Self>,
        layers: SelfLayers<Self>,
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> (FloatTensor<Self>, SelfSaved<Self>);

    /// The gradients of x, and of each layer; x may be missing where no weight and no adapter asks for its gradient.
    fn lb_self_attention_backward(
        gradient: FloatTensor<Self>,
        x: Option<FloatTensor<Self>>,
        layers: SelfLayers<Self>,
        saved: SelfSaved<Self>,
        needs: [LinearNeeds; 3],
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> (Option<FloatTensor<Self>>, [LinearGradients<Self>; 3]);
}
