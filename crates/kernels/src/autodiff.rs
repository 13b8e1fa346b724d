//! Hand-written backward passes. What a pass keeps from the forward pass is in its `State`: a
//! frozen linear keeps nothing but its weight, dropout masks are computed again.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::Dropout;
use crate::backend::{
    AttentionShape, FirstInputs, FirstNeeds, KernelBackward, Kernels, LinearNeeds, LoraScale,
    Maybe, SelfLayers, SelfSaved,
};
use crate::flex::SAVED;

/// Registers a gradient for a parent that wants one.
macro_rules! register {
    ($grads:expr, $parent:expr, $gradient:expr) => {
        if let (Some(node), Some(gradient)) = ($parent, $gradient) {
            $grads.register::<B>(node.id, gradient);
        }
    };
}
pub(crate) use register;

#[derive(Debug)]
struct Linear;

impl<B: KernelBackward> Backward<B, 3> for Linear {
    type State = (Option<FloatTensor<B>>, FloatTensor<B>, bool);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node, bias_node] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (x, weight, has_bias) = ops.state;
        let needs = LinearNeeds {
            x: x_node.is_some(),
            weight: weight_node.is_some(),
            bias: has_bias && bias_node.is_some(),
            ..LinearNeeds::default()
        };
        let result = B::lb_linear_backward(gradient, x, weight, needs);
        register!(grads, x_node, result.x);
        register!(grads, weight_node, result.weight);
        register!(grads, bias_node, result.bias);
    }
}

#[derive(Debug)]
struct LoraLinear;

impl<B: KernelBackward> Backward<B, 5> for LoraLinear {
    type State = ([FloatTensor<B>; 4], Option<FloatTensor<B>>, bool, LoraScale);

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node, bias_node, a_node, b_node] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (inputs, projected, has_bias, lora) = ops.state;
        let needs = LinearNeeds {
            x: x_node.is_some(),
            weight: weight_node.is_some(),
            bias: has_bias && bias_node.is_some(),
            a: a_node.is_some(),
            b: b_node.is_some(),
        };
        let result = B::lb_lora_linear_backward(gradient, inputs, projected, lora, needs);
        register!(grads, x_node, result.x);
        register!(grads, weight_node, result.weight);
        register!(grads, bias_node, result.bias);
        register!(grads, a_node, result.a);
        register!(grads, b_node, result.b);
    }
}

#[derive(Debug)]
struct BiasGelu;

impl<B: KernelBackward> Backward<B, 2> for BiasGelu {
    type State = (FloatTensor<B>, Option<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, bias_node] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (x, bias) = ops.state;
        let has_bias = bias.is_some();
        let dx = B::lb_bias_gelu_backward(gradient, x, bias);
        if let Some(node) = bias_node.filter(|_| has_bias) {
            grads.register::<B>(node.id, B::lb_sum_rows(dx.clone()));
        }
        register!(grads, x_node, Some(dx));
    }
}

#[derive(Debug)]
struct DropoutMask;

impl<B: Kernels> Backward<B, 1> for DropoutMask {
    type State = Dropout;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        register!(grads, x_node, Some(B::lb_dropout(gradient, ops.state)));
    }
}

#[derive(Debug)]
struct AddLayerNorm;

impl<B: KernelBackward> Backward<B, 5> for AddLayerNorm {
    type State = ([FloatTensor<B>; 3], [bool; 2], Dropout);

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, bias_node, residual_node, gamma_node, beta_node] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let ([normalised, inverse, gamma], [has_bias, has_residual], dropout) = ops.state;
        if let Some(node) = beta_node {
            grads.register::<B>(node.id, B::lb_sum_rows(gradient.clone()));
        }
        if let Some(node) = gamma_node {
            let dgamma = B::lb_layer_norm_gamma_backward(gradient.clone(), normalised.clone());
            grads.register::<B>(node.id, dgamma);
        }
        let bias_node = bias_node.filter(|_| has_bias);
        let residual_node = residual_node.filter(|_| has_residual);
        if x_node.is_none() && bias_node.is_none() && residual_node.is_none() {
            return;
        }
        let wants_dx = x_node.is_some() || bias_node.is_some();
        let dropped = Some(dropout).filter(|dropout| wants_dx && !dropout.is_none());
        let (dz, dx) = B::lb_layer_norm_backward(gradient, normalised, inverse, gamma, dropped);
        let dx = dx.unwrap_or_else(|| dz.clone());
        register!(grads, residual_node, Some(dz));
        if !wants_dx {
            return;
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::lb_sum_rows(dx.clone()));
        }
        register!(grads, x_node, Some(dx));
    }
}

#[derive(Debug)]
struct Attention;

impl<B: KernelBackward> Backward<B, 3> for Attention {
    type State = (
        [FloatTensor<B>; 3],
        Option<FloatTensor<B>>,
        AttentionShape,
        Dropout,
    );

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [q_node, k_node, v_node] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (inputs, probabilities, shape, dropout) = ops.state;
        let (dq, dk, dv) =
            B::lb_attention_backward(gradient, inputs, probabilities, &shape, dropout);
        register!(grads, q_node, Some(dq));
        register!(grads, k_node, Some(dk));
        register!(grads, v_node, Some(dv));
    }
}

#[derive(Debug)]
struct FirstAttention;

impl<B: KernelBackward> Backward<B, 10> for FirstAttention {
    type State = (
        FirstInputs<B>,
        [FloatTensor<B>; SAVED],
        AttentionShape,
        Dropout,
    );

    fn backward(self, ops: Ops<Self::State, 10>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [
            q,
            x,
            key,
            value,
            biases @ ..,
            key_a,
            key_b,
            value_a,
            value_b,
        ] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (inputs, saved, shape, dropout) = ops.state;
        let has_bias = [0, 1].map(|i| inputs.biases[i].is_some());
        let has_adapter = [0, 1].map(|i| inputs.adapters[i].is_some());
        let (weights, a, b) = ([key, value], [key_a, value_a], [key_b, value_b]);
        let needs = FirstNeeds {
            q: q.is_some(),
            x: x.is_some(),
            weights: [0, 1].map(|i| weights[i].is_some()),
            biases: [0, 1].map(|i| has_bias[i] && biases[i].is_some()),
            a: [0, 1].map(|i| has_adapter[i] && a[i].is_some()),
            b: [0, 1].map(|i| has_adapter[i] && b[i].is_some()),
        };
        let result =
            B::lb_first_attention_backward(gradient, inputs, saved, needs, &shape, dropout);
        register!(grads, q, result.q);
        register!(grads, x, result.x);
        for (nodes, gradients) in [
            (weights, result.weights),
            (biases, result.biases),
            (a, result.a),
            (b, result.b),
        ] {
            for (node, gradient) in nodes.into_iter().zip(gradients) {
                register!(grads, node, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct SelfAttention;

impl<B: KernelBackward> Backward<B, 13> for SelfAttention {
    type State = (
        Option<FloatTensor<B>>,
        SelfLayers<B>,
        SelfSaved<B>,
        AttentionShape,
        Dropout,
    );

    fn backward(self, ops: Ops<Self::State, 13>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, of @ ..] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (x, layers, saved, shape, dropout) = ops.state;
        let mut of = of.into_iter();
        // Weights, biases, A and B, of queries, keys and values each.
        let [weights, biases, a, b]: [[_; 3]; 4] =
            std::array::from_fn(|_| std::array::from_fn(|_| of.next().flatten()));
        let needs = std::array::from_fn(|i| LinearNeeds {
            x: x_node.is_some(),
            weight: weights[i].is_some(),
            bias: layers.biases[i].is_some() && biases[i].is_some(),
            a: layers.adapters[i].is_some() && a[i].is_some(),
            b: layers.adapters[i].is_some() && b[i].is_some(),
        });
        let (dx, results) =
            B::lb_self_attention_backward(gradient, x, layers, saved, needs, &shape, dropout);
        register!(grads, x_node, dx);
        let nodes = weights.into_iter().zip(biases).zip(a).zip(b);
        for ((((weight, bias), a), b), result) in nodes.zip(results) {
            register!(grads, weight, result.weight);
            register!(grads, bias, result.bias);
            register!(grads, a, result.a);
            register!(grads, b, result.b);
        }
    }
}

impl<B: Kernels + KernelBackward, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn lb_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Maybe<Self>,
    ) -> FloatTensor<Self> {
        let bias = bias.into_option();
        let (has_bias, keep_x) = (bias.is_some(), weight.is_tracked());
        // An operation has a fixed number of parents: a missing bias is stood in for by the weight,
        // and `has_bias` tells the backward pass to leave it alone.
        let guards = [
            x.node(),
            weight.node(),
            bias.as_ref().unwrap_or(&weight).node(),
        ];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let bias = bias.map(|bias| bias.into_primitive());
        match Linear.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (keep_x.then(|| x.clone()), weight.clone(), has_bias);
                prep.finish(state, B::lb_linear(x, weight, bias.into()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::lb_linear(x, weight, bias.into())),
        }
    }

    fn lb_lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Maybe<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        lora: LoraScale,
    ) -> FloatTensor<Self> {
        let bias = bias.into_option();
        let has_bias = bias.is_some();
        let stand_in = bias.as_ref().unwrap_or(&weight).node();
        let guards = [x.node(), weight.node(), stand_in, a.node(), b.node()];
        let [x, weight, a, b] = [x, weight, a, b].map(|t| t.into_primitive());
        let bias = bias.map(|bias| bias.into_primitive());
        match LoraLinear.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let inputs = [x, weight, a, b];
                let (output, projected) = B::lb_lora_linear_saving(inputs.clone(), bias, lora);
                prep.finish((inputs, projected, has_bias, lora), output)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::lb_lora_linear(x, weight, bias.into(), a, b, lora))
            }
        }
    }

    fn lb_bias_gelu(x: FloatTensor<Self>, bias: Maybe<Self>) -> FloatTensor<Self> {
        let bias = bias.into_option();
        let guards = [x.node(), bias.as_ref().unwrap_or(&x).node()];
        let x = x.into_primitive();
        let bias = bias.map(|bias| bias.into_primitive());
        match BiasGelu.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                prep.finish((x.clone(), bias.clone()), B::lb_bias_gelu(x, bias.into()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::lb_bias_gelu(x, bias.into())),
        }
    }

    fn lb_dropout(x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        let guards = [x.node()];
        let x = x.into_primitive();
        match DropoutMask.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(dropout, B::lb_dropout(x, dropout)),
            OpsKind::UnTracked(prep) => prep.finish(B::lb_dropout(x, dropout)),
        }
    }

    fn lb_add_layer_norm(
        x: FloatTensor<Self>,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        let (bias, residual) = (bias.into_option(), residual.into_option());
        let present = [bias.is_some(), residual.is_some()];
        let guards = [
            x.node(),
            bias.as_ref().unwrap_or(&x).node(),
            residual.as_ref().unwrap_or(&x).node(),
            gamma.node(),
            beta.node(),
        ];
        let [x, gamma, beta] = [x, gamma, beta].map(|t| t.into_primitive());
        let bias = bias.map(|t| t.into_primitive());
        let residual = residual.map(|t| t.into_primitive());
        match AddLayerNorm.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let result = B::lb_add_layer_norm_saving(
                    x,
                    bias,
                    residual,
                    gamma.clone(),
                    beta,
                    epsilon,
                    dropout,
                );
                let kept = [result.normalised, result.inverse_deviation, gamma];
                prep.finish((kept, present, dropout), result.output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::lb_add_layer_norm(
                x,
                bias.into(),
                residual.into(),
                gamma,
                beta,
                epsilon,
                dropout,
            )),
        }
    }

    fn lb_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: AttentionShape,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        let guards = [q.node(), k.node(), v.node()];
        let [q, k, v] = [q, k, v].map(|t| t.into_primitive());
        match Attention.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let inputs = [q, k, v];
                let (output, kept) = B::lb_attention_saving(inputs.clone(), &shape, dropout);
                prep.finish((inputs, kept, shape, dropout), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::lb_attention(q, k, v, shape, dropout)),
        }
    }

    // An extension's arguments are tensors one by one.
    #[allow(clippy::too_many_arguments)]
    fn lb_first_attention(
        q: FloatTensor<Self>,
        x: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        key_bias: Maybe<Self>,
        value_bias: Maybe<Self>,
        key_a: Maybe<Self>,
        key_b: Maybe<Self>,
        value_a: Maybe<Self>,
        value_b: Maybe<Self>,
        loras: [LoraScale; 2],
        shape: AttentionShape,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        // What is missing is stood in for by x.
        let maybe = [key_bias, value_bias, key_a, key_b, value_a, value_b].map(Maybe::into_option);
        let inputs = [q, x, key, value];
        let guards: [_; 10] = std::array::from_fn(|i| match i {
            0..=3 => inputs[i].node(),
            _ => maybe[i - 4].as_ref().unwrap_or(&inputs[1]).node(),
        });
        let [key_bias, value_bias, key_a, key_b, value_a, value_b] =
            maybe.map(|tensor| Maybe::from(tensor.map(|t| t.into_primitive())));
        let inputs = inputs.map(|t| t.into_primitive());
        let prepared = FirstAttention.prepare::<C>(guards);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let factors = [[key_a, key_b], [value_a, value_b]];
                let inputs = FirstInputs::new(inputs, [key_bias, value_bias], factors, loras);
                let (output, saved) = B::lb_first_attention_saving(inputs.clone(), &shape, dropout);
                prep.finish((inputs, saved, shape, dropout), output)
            }
            OpsKind::UnTracked(prep) => {
                let [q, x, key, value] = inputs;
                prep.finish(B::lb_first_attention(
                    q, x, key, value, key_bias, value_bias, key_a, key_b, value_a, value_b, loras,
                    shape, dropout,
                ))
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn lb_self_attention(
        x: FloatTensor<Self>,
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
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
    ) -> FloatTensor<Self> {
        let maybe = [
            query_bias, key_bias, value_bias, query_a, key_a, value_a, query_b, key_b, value_b,
        ]
        .map(Maybe::into_option);
        let weights = [query, key, value];
        // What is missing is stood in for by x.
        let guards: [_; 13] = std::array::from_fn(|i| match i {
            0 => x.node(),
            1..=3 => weights[i - 1].node(),
            _ => maybe[i - 4].as_ref().unwrap_or(&x).node(),
        });
        // Of a frozen layer without an adapter x is not needed again.
        let keeps_x = weights.iter().any(|weight| weight.is_tracked())
            || maybe[3..6].iter().any(Option::is_some);
        let mut maybe = maybe.into_iter();
        let [biases, a, b]: [[Maybe<B>; 3]; 3] = std::array::from_fn(|_| {
            std::array::from_fn(|_| {
                let tensor = maybe.next().flatten();
                tensor.map(|tensor| tensor.into_primitive()).into()
            })
        });
        let (x, weights) = (x.into_primitive(), weights.map(|t| t.into_primitive()));
        let prepared = SelfAttention.prepare::<C>(guards);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let layers = SelfLayers::new(weights, biases, [a, b], loras);
                let kept = keeps_x.then(|| x.clone());
                let (output, saved) =
                    B::lb_self_attention_saving(x, layers.clone(), &shape, dropout);
                prep.finish((kept, layers, saved, shape, dropout), output)
            }
            OpsKind::UnTracked(prep) => {
                let [query, key, value] = weights;
                let [query_bias, key_bias, value_bias] = biases;
                let [query_a, key_a, value_a] = a;
                let [query_b, key_b, value_b] = b;
                prep.finish(B::lb_self_attention(
                    x, query, key, value, query_bias, key_bias, value_bias, query_a, key_a,
                    value_a, query_b, key_b, value_b, loras, shape, dropout,
                ))
            }
        }
    }
}
