//! The fast path: Burn's CPU backend `flex`, f32.

mod activation;
mod attention;
mod buffer;
mod disentangled;
mod heads;
mod linear;
mod low_rank;
mod meter;
mod norm;
mod product;
mod relative;
pub(crate) mod simd;
mod unfold;
mod widen;

pub(crate) use low_rank::workspace as adapter_workspace;
pub(crate) use meter::seconds as product_seconds;
pub(crate) use product::workspace as product_workspace;

use burn_flex::{Flex, FlexTensor};

use crate::Dropout;
use crate::backend::{
    AttentionShape, KernelBackward, Kernels, LinearGradients, LinearNeeds, LoraScale, Maybe,
    Normalised,
};
use buffer::{contiguous, tensor, values};

impl Kernels for Flex {
    fn lb_linear(x: FlexTensor, weight: FlexTensor, bias: Maybe<Self>) -> FlexTensor {
        linear::forward(x, weight, bias.into_option(), None)
    }

    fn lb_lora_linear(
        x: FlexTensor,
        weight: FlexTensor,
        bias: Maybe<Self>,
        a: FlexTensor,
        b: FlexTensor,
        lora: LoraScale,
    ) -> FlexTensor {
        linear::forward(x, weight, bias.into_option(), Some((a, b, lora)))
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
        attention::forward(contiguous(q), contiguous(k), contiguous(v), &shape, dropout)
    }
}

impl KernelBackward for Flex {
    fn lb_linear_backward(
        gradient: FlexTensor,
        x: Option<FlexTensor>,
        weight: FlexTensor,
        needs: LinearNeeds,
    ) -> LinearGradients<Self> {
        linear::backward(gradient, x, weight, None, needs)
    }

    fn lb_lora_linear_backward(
        gradient: FlexTensor,
        x: FlexTensor,
        weight: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        lora: LoraScale,
        needs: LinearNeeds,
    ) -> LinearGradients<Self> {
        linear::backward(gradient, Some(x), weight, Some((a, b, lora)), needs)
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
    ) -> FlexTensor {
        norm::backward(
            contiguous(gradient),
            contiguous(normalised),
            contiguous(inverse_deviation),
            contiguous(gamma),
        )
    }

    fn lb_layer_norm_gamma_backward(gradient: FlexTensor, normalised: FlexTensor) -> FlexTensor {
        norm::gamma_backward(contiguous(gradient), contiguous(normalised))
    }

    fn lb_attention_backward(
        gradient: FlexTensor,
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        shape: AttentionShape,
        dropout: Dropout,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        attention::backward(
            contiguous(gradient),
            contiguous(q),
            contiguous(k),
            contiguous(v),
            &shape,
            dropout,
        )
    }
}
