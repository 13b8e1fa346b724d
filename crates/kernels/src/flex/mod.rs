//! The fast path: Burn's CPU backend `flex`, f32.

mod activation;
mod attention;
mod buffer;
mod disentangled;
mod first;
mod heads;
mod linear;
mod low_rank;
mod meter;
mod norm;
mod product;
mod relative;
pub(crate) mod simd;
#[cfg(target_arch = "x86_64")]
mod table;
mod unfold;
mod widen;

pub(crate) use first::SAVED;
pub(crate) use low_rank::{SMALL_RANK, workspace as adapter_workspace};
pub(crate) use meter::seconds as product_seconds;
pub(crate) use product::workspace as product_workspace;

use burn_flex::{Flex, FlexTensor};

use crate::Dropout;
use crate::backend::{
    AttentionShape, FirstGradients, FirstInputs, FirstNeeds, KernelBackward, Kernels,
    LinearGradients, LinearNeeds, LoraScale, Maybe, Normalised, SelfLayers, SelfSaved,
};
use buffer::{contiguous, tensor, values};
use linear::{Backward, Layer};

impl Kernels for Flex {
    fn lb_linear(x: FlexTensor, weight: FlexTensor, bias: Maybe<Self>) -> FlexTensor {
        let bias = bias.into_option();
        let lora = None;
        let [(output, _)] = linear::forward(x, [Layer { weight, bias, lora }]);
        output
    }

    fn lb_lora_linear(
        x: FlexTensor,
        weight: FlexTensor,
        bias: Maybe<Self>,
        a: FlexTensor,
        b: FlexTensor,
        lora: LoraScale,
    ) -> FlexTensor {
        Self::lb_lora_linear_saving([x, weight, a, b], bias.into_option(), lora).0
    }

    fn lb_bias_gelu(x: FlexTensor, bias: Maybe<Self>) -> FlexTensor {
        activation::gelu(contiguous(x), bias.into_option().map(contiguous))
    }

    fn lb_dropout(x: FlexTensor, dropout: Dropout) -> FlexTensor {
        activation::dropout(contiguous(x), dropout)
    }

    fn lb_add_layer_norm(
        x: FlexTensor,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
        dropout: Dropout,
    ) -> FlexTensor {
        Self::lb_add_layer_norm_saving(
            x,
            bias.into_option(),
            residual.into_option(),
            gamma,
            beta,
            epsilon,
            dropout,
        )
        .output
    }

    fn lb_attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        shape: AttentionShape,
        dropout: Dropout,
    ) -> FlexTensor {
        let inputs = [q, k, v].map(contiguous);
        attention::forward(inputs, &shape, dropout, false).0
    }

    // An extension's arguments are tensors one by one.
    #[allow(clippy::too_many_arguments)]
    fn lb_first_attention(
        q: FlexTensor,
        x: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        key_bias: Maybe<Self>,
        value_bias: Maybe<Self>,
        key_a: Maybe<Self>,
        key_b: Maybe<Self>,
        value_a: Maybe<Self>,
        value_b: Maybe<Self>,
        loras: [LoraScale; 2],
        shape: AttentionShape,
        dropout: Dropout,
    ) -> FlexTensor {
        let factors = [[key_a, key_b], [value_a, value_b]];
        let biases = [key_bias, value_bias];
        let inputs = FirstInputs::new([q, x, key, value], biases, factors, loras);
        first::forward(inputs, &shape, dropout).0
    }

    #[allow(clippy::too_many_arguments)]
    fn lb_self_attention(
        x: FlexTensor,
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        query_bias: Maybe<Self>,
        key_bias: Maybe<Self>,
        value_bias: Maybe<Self>,
        query_a: Maybe<Self>,
        key_a: Maybe<Self>,
        value_a: Maybe<Self>,
        query_b: Maybe<Self>,
        key_b: Maybe<Self>,
        value_b: Maybe<Self>,
        loras: [LoraScale; 3],
        shape: AttentionShape,
        dropout: Dropout,
    ) -> FlexTensor {
        let biases = [query_bias, key_bias, value_bias];
        let factors = [[query_a, key_a, value_a], [query_b, key_b, value_b]];
        let layers = SelfLayers::new([query, key, value], biases, factors, loras);
        let projections = linear::forward(x, each_layer(layers));
        attention::forward(projections.map(|of| of.0), &shape, dropout, false).0
    }
}

impl KernelBackward for Flex {
    fn lb_linear_backward(
        gradient: FlexTensor,
        x: Option<FlexTensor>,
        weight: FlexTensor,
        needs: LinearNeeds,
    ) -> LinearGradients<Self> {
        one_backward(gradient, x, weight, None, None, needs)
    }

    fn lb_lora_linear_saving(
        [x, weight, a, b]: [FlexTensor; 4],
        bias: Option<FlexTensor>,
        lora: LoraScale,
    ) -> (FlexTensor, Option<FlexTensor>) {
        let lora = Some((a, b, lora));
        let [output] = linear::forward(x, [Layer { weight, bias, lora }]);
        output
    }

    fn lb_lora_linear_backward(
        gradient: FlexTensor,
        [x, weight, a, b]: [FlexTensor; 4],
        projected: Option<FlexTensor>,
        lora: LoraScale,
        needs: LinearNeeds,
    ) -> LinearGradients<Self> {
        let lora = Some((a, b, lora));
        one_backward(gradient, Some(x), weight, lora, projected, needs)
    }

    fn lb_bias_gelu_backward(
        gradient: FlexTensor,
        x: FlexTensor,
        bias: Option<FlexTensor>,
    ) -> FlexTensor {
        activation::gelu_backward(contiguous(gradient), contiguous(x), bias.map(contiguous))
    }

    fn lb_sum_rows(x: FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        let width = *x.layout().shape().last().expect("at least one dimension");
        tensor(linear::sum_rows(values(&x), width), [width])
    }

    fn lb_add_layer_norm_saving(
        x: FlexTensor,
        bias: Option<FlexTensor>,
        residual: Option<FlexTensor>,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
        dropout: Dropout,
    ) -> Normalised<Self> {
        norm::forward(
            contiguous(x),
            bias.map(contiguous),
            residual.map(contiguous),
            contiguous(gamma),
            contiguous(beta),
            epsilon as f32,
            dropout,
        )
    }

    fn lb_layer_norm_backward(
        gradient: FlexTensor,
        normalised: FlexTensor,
        inverse_deviation: FlexTensor,
        gamma: FlexTensor,
        dropout: Option<Dropout>,
    ) -> (FlexTensor, Option<FlexTensor>) {
        norm::backward(
            contiguous(gradient),
            contiguous(normalised),
            contiguous(inverse_deviation),
            contiguous(gamma),
            dropout,
        )
    }

    fn lb_layer_norm_gamma_backward(gradient: FlexTensor, normalised: FlexTensor) -> FlexTensor {
        norm::gamma_backward(contiguous(gradient), contiguous(normalised))
    }

    fn lb_attention_saving(
        inputs: [FlexTensor; 3],
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> (FlexTensor, Option<FlexTensor>) {
        attention::forward(inputs.map(contiguous), shape, dropout, true)
    }

    fn lb_attention_backward(
        gradient: FlexTensor,
        inputs: [FlexTensor; 3],
        probabilities: Option<FlexTensor>,
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let inputs = inputs.map(contiguous);
        attention::backward(contiguous(gradient), inputs, probabilities, shape, dropout)
    }

    fn lb_first_attention_saving(
        inputs: FirstInputs<Self>,
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> (FlexTensor, [FlexTensor; SAVED]) {
        first::forward(inputs, shape, dropout)
    }

    fn lb_first_attention_backward(
        gradient: FlexTensor,
        inputs: FirstInputs<Self>,
        saved: [FlexTensor; SAVED],
        needs: FirstNeeds,
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> FirstGradients<Self> {
        first::backward(gradient, inputs, saved, needs, shape, dropout)
    }

    fn lb_self_attention_saving(
        x: FlexTensor,
        layers: SelfLayers<Self>,
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> (FlexTensor, SelfSaved<Self>) {
        let [q, k, v] = linear::forward(x, each_layer(layers));
        let projections = [q.0, k.0, v.0];
        let (output, probabilities) = attention::forward(projections.clone(), shape, dropout, true);
        let saved = SelfSaved {
            projections,
            low_rank: [q.1, k.1, v.1],
            probabilities,
        };
        (output, saved)
    }

    fn lb_self_attention_backward(
        gradient: FlexTensor,
        x: Option<FlexTensor>,
        layers: SelfLayers<Self>,
        saved: SelfSaved<Self>,
        needs: [LinearNeeds; 3],
        shape: &AttentionShape,
        dropout: Dropout,
    ) -> (Option<FlexTensor>, [LinearGradients<Self>; 3]) {
        let (dq, dk, dv) = attention::backward(
            contiguous(gradient),
            saved.projections,
            saved.probabilities,
            shape,
            dropout,
        );
        let mut of = (each_layer(layers).into_iter())
            .zip([dq, dk, dv])
            .zip(saved.low_rank)
            .zip(needs)
            .map(|(((layer, gradient), projected), needs)| Backward {
                gradient,
                layer,
                projected,
                needs,
            });
        let of = std::array::from_fn(|_| of.next().expect("three layers"));
        linear::backward(x, of)
    }
}

/// The layers of queries, keys and values.
fn each_layer(layers: SelfLayers<Flex>) -> [Layer; 3] {
    let mut parts = (layers.weights.into_iter())
        .zip(layers.biases)
        .zip(layers.adapters);
    std::array::from_fn(|_| {
        let ((weight, bias), adapter) = parts.next().expect("three layers");
        let lora = adapter.map(|of| (of.a, of.b, of.lora));
        Layer { weight, bias, lora }
    })
}

/// The gradients of one linear layer.
fn one_backward(
    gradient: FlexTensor,
    x: Option<FlexTensor>,
    weight: FlexTensor,
    lora: Option<(FlexTensor, FlexTensor, LoraScale)>,
    projected: Option<FlexTensor>,
    needs: LinearNeeds,
) -> LinearGradients<Flex> {
    let bias = None;
    let of = Backward {
        gradient,
        layer: Layer { weight, bias, lora },
        projected,
        needs,
    };
    let (x, [gradients]) = linear::backward(x, [of]);
    LinearGradients { x, ..gradients }
}
