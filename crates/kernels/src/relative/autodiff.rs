//! Hand-written backward passes of this module, as in [`crate::autodiff`].

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{ContentAndPosition, RelativeBackward, RelativeKernels, RelativeShape};
use crate::autodiff::register;
use crate::backend::Maybe;

#[derive(Debug)]
struct DisentangledAttention;

impl<B: RelativeBackward> Backward<B, 5> for DisentangledAttention {
    type State = (ContentAndPosition<B>, RelativeShape);

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [q_node, k_node, v_node, key_node, query_node] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (input, shape) = ops.state;
        let key_node = key_node.filter(|_| input.key.is_some());
        let query_node = query_node.filter(|_| input.query.is_some());
        let needs = [key_node.is_some(), query_node.is_some()];
        let result = B::lb_disentangled_attention_backward(gradient, input, shape, needs);
        register!(grads, q_node, Some(result.q));
        register!(grads, k_node, Some(result.k));
        register!(grads, v_node, Some(result.v));
        register!(grads, key_node, result.key);
        register!(grads, query_node, result.query);
    }
}

#[derive(Debug)]
struct UnfoldRows;

impl<B: RelativeBackward> Backward<B, 1> for UnfoldRows {
    type State = (Vec<usize>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (lengths, width) = ops.state;
        let dx = B::lb_fold_rows(gradient, lengths, width);
        register!(grads, x_node, Some(dx));
    }
}

impl<B: RelativeKernels + RelativeBackward, C: CheckpointStrategy> RelativeKernels
    for Autodiff<B, C>
{
    fn lb_disentangled_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        key: Maybe<Self>,
        query: Maybe<Self>,
        shape: RelativeShape,
    ) -> FloatTensor<Self> {
        let (key, query) = (key.into_option(), query.into_option());
        // A missing table is stood in for by the queries; the state knows that it is missing.
        let guards = [
            q.node(),
            k.node(),
            v.node(),
            key.as_ref().unwrap_or(&q).node(),
            query.as_ref().unwrap_or(&q).node(),
        ];
        let [q, k, v] = [q, k, v].map(|t| t.into_primitive());
        let [key, query] = [key, query].map(|table| table.map(|t| t.into_primitive()));
        let run = |input: ContentAndPosition<B>, shape| {
            let ContentAndPosition {
                q,
                k,
                v,
                key,
                query,
            } = input;
            B::lb_disentangled_attention(q, k, v, key.into(), query.into(), shape)
        };
        let input = ContentAndPosition {
            q,
            k,
            v,
            key,
            query,
        };
        match DisentangledAttention
            .prepare::<C>(guards)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let output = run(input.clone(), shape.clone());
                prep.finish((input, shape), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(run(input, shape)),
        }
    }

    fn lb_unfold_rows(
        x: FloatTensor<Self>,
        lengths: Vec<usize>,
        width: usize,
    ) -> FloatTensor<Self> {
        let guards = [x.node()];
        let x = x.into_primitive();
        match UnfoldRows.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::lb_unfold_rows(x, lengths.clone(), width);
                prep.finish((lengths, width), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::lb_unfold_rows(x, lengths, width)),
        }
    }
}
