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
    LinearGradients, LinearNeeds, LoraScale, Maybe, Normalised,
};
use buffer::{contiguous, tensor, values};

impl Kernels for Flex {
    fn lb_linear(x: FlexTensor, weight: FlexTensor, bias: Maybe<Self>) -> FlexTensor {
        linear::forward(x, weight, bias.into_option(), None).0
    }

    fn lb_lora_linear(
        x: FlexTensor,
        weight: FlexTensor,
        bias: Maybe<Self>,
        a: FlexTensor,
        b: FlexTensor,
        lora: LoraScale,
    ) -> FlexTensor {
        linear::forward(x, weight, bias.into_option(), Some((a, b, lora))).0
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
}

impl KernelBackward for Flex {
    fn lb_linear_backward(
        gradient: FlexTensor,
        x: Option<FlexTensor>,
        weight: FlexTensor,
        needs: LinearNeeds,
    ) -> LinearGradients<Self> {
        linear::backward(gradient, x, weight, None, None, needs)
    }

    fn lb_lora_linear_saving(
        [x, weight, a, b]: [FlexTensor; 4],
        bias: Option<FlexTensor>,
        lora: LoraScale,
    ) -> (FlexTensor, Option<FlexTensor>) {
        linear::forward(x, weight, bias, Some((a, b, lora)))
    }

    fn lb_lora_linear_backward(
        gradient: FlexTensor,
        [x, weight, a, b]: [FlexTensor; 4],
        projected: Option<FlexTensor>,
        lora: LoraScale,
        needs: LinearNeeds,
    ) -> LinearGradients<Self> {
        let lora = Some((a, b, lora));
        linear::backward(gradient, Some(x), weight, lora, projected, needs)
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
}
