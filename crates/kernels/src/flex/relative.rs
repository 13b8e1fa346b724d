//! The operations of [`crate::relative`] on flex.

use burn_flex::{Flex, FlexTensor};

use super::buffer::contiguous;
use super::{disentangled, unfold};
use crate::backend::Maybe;
use crate::relative::{
    ContentAndPosition, PositionGradients, RelativeBackward, RelativeKernels, RelativeShape,
};

impl RelativeKernels for Flex {
    fn lb_disentangled_attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        key: Maybe<Self>,
        query: Maybe<Self>,
        shape: RelativeShape,
    ) -> FlexTensor {
        let (key, query) = (key.into_option(), query.into_option());
        disentangled::forward(
            &dense(ContentAndPosition {
                q,
                k,
                v,
                key,
                query,
            }),
            &shape,
        )
    }

    fn lb_unfold_rows(x: FlexTensor, lengths: Vec<usize>, width: usize) -> FlexTensor {
        unfold::unfold(contiguous(x), &lengths, width)
    }
}

impl RelativeBackward for Flex {
    fn lb_disentangled_attention_backward(
        gradient: FlexTensor,
        input: ContentAndPosition<Self>,
        shape: RelativeShape,
        needs: [bool; 2],
    ) -> PositionGradients<Self> {
        disentangled::backward(&contiguous(gradient), &dense(input), &shape, needs)
    }

    fn lb_fold_rows(gradient: FlexTensor, lengths: Vec<usize>, width: usize) -> FlexTensor {
        unfold::fold(contiguous(gradient), &lengths, width)
    }
}

fn dense(input: ContentAndPosition<Flex>) -> ContentAndPosition<Flex> {
    ContentAndPosition {
        q: contiguous(input.q),
        k: contiguous(input.k),
        v: contiguous(input.v),
        key: input.key.map(contiguous),
        query: input.query.map(contiguous),
    }
}
