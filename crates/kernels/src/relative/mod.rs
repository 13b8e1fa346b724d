//! Operations that know how far apart two tokens of a row are: disentangled attention, and the
//! unfolding of each token's neighbours in front of a convolution.

mod autodiff;
mod backend;

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::{AttentionShape, Dropout, composed, fused};
pub(crate) use backend::{
    ContentAndPosition, PositionGradients, RelativeBackward, RelativeKernels, RelativeShape,
};

/// Which row of a position table belongs to which distance between a query and a key.
///
/// It is the same for all layers and heads: built once per forward pass, cheap to clone.
#[derive(Clone, Debug)]
pub struct RelativeIndex {
    span: usize,
    /// Rows for the distances longest - 1 down to -(longest - 1), so that a walk over the keys is
    /// a walk forwards.
    table: Arc<[u32]>,
}

impl RelativeIndex {
    /// The index clamp(bucket + span, 0, 2 span - 1) of every distance in a batch whose longest row
    /// has `longest` tokens. `bucket_of` takes a distance, position of the query - position of the
    /// key, in -(longest - 1)..=(longest - 1) and gives its signed bucket; with buckets it is
    /// logarithmic beyond some distance, without it is the distance itself.
    ///
    /// # Panics
    /// Panics when `span` is 0 or a table of 2 `span` rows has more than 2^32 of them.
    pub fn new(span: usize, longest: usize, bucket_of: impl Fn(isize) -> isize) -> Self {
        assert!(
            (1..=1 << 31).contains(&span),
            "the span of relative positions lies in 1..=2^31, not {span}"
        );
        let reach = longest.saturating_sub(1) as isize;
        let last = 2 * span as isize - 1;
        let index = |distance| {
            bucket_of(distance)
                .saturating_add(span as isize)
                .clamp(0, last)
        };
        let table = (-reach..=reach).rev().map(|d| index(d) as u32).collect();
        Self { span, table }
    }

    /// Rows of a position table.
    pub(crate) fn rows(&self) -> usize {
        2 * self.span
    }

    /// The most tokens a row of the batch may have.
    pub(crate) fn longest(&self) -> usize {
        self.table.len().div_ceil(2)
    }

    /// The table's rows for one query and the keys 0, 1, 2, ..
    pub(crate) fn of_query(&self, query: usize) -> &[u32] {
        &self.table[self.longest() - 1 - query..]
    }

    /// The table's rows for the distances `from..=to`, the largest distance first.
    pub(crate) fn of_distances(&self, from: isize, to: isize) -> &[u32] {
        let zero = self.longest() as isize - 1;
        &self.table[(zero - to) as usize..=(zero - from) as usize]
    }
}

/// What a disentangled attention knows of positions. At least one of the tables is there.
#[derive(Clone, Debug)]
pub struct PositionTerms {
    /// Projected position keys, met by the queries (content to position, c2p):
    /// `[2 span, heads x size]`.
    pub key: Option<Tensor<2>>,
    /// Projected position queries, met by the keys (position to content, p2c):
    /// `[2 span, heads x size]`.
    pub query: Option<Tensor<2>>,
    /// Which row of the tables belongs to which distance.
    pub index: RelativeIndex,
}

/// Disentangled attention (He et al. 2021, DeBERTa, equation 4): [`crate::attention`] with scores
///
/// scale (q_i . k_j + q_i . key_d + k_j . query_d),  d = index(i - j),
///
/// where i and j are positions in the row. The queries of a row are its first tokens. The caller
/// chooses the scale, in DeBERTa 1 / sqrt(head size x number of terms).
///
/// # Shapes
/// - `q`: `[sum of shape.queries, heads x size]`; `k`, `v`: `[sum of shape.keys, heads x size]`
/// - `position`: tables of `[2 span, heads x size]`
/// - returns the shape of `q`
///
/// # Panics
/// Panics when the tensors are not of these shapes, there is no position table, a row has no key or
/// is longer than the index, or the width is no multiple of the heads.
pub fn disentangled_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    position: PositionTerms,
    shape: &AttentionShape,
    dropout: Dropout,
) -> Tensor<2> {
    check(&q, &position, shape);
    if !fused(&q) {
        return composed::disentangled_attention(q, k, v, position, shape, dropout);
    }
    let PositionTerms { key, query, index } = position;
    let shape = RelativeShape {
        attention: shape.clone(),
        index,
        dropout,
    };
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    let [key, query] = [key, query].map(|table| table.map(Tensor::into_dispatch).into());
    Tensor::from_dispatch(Dispatch::lb_disentangled_attention(
        q, k, v, key, query, shape,
    ))
}

fn check(q: &Tensor<2>, position: &PositionTerms, shape: &AttentionShape) {
    assert!(
        position.key.is_some() || position.query.is_some(),
        "disentangled attention needs a table of position keys or of position queries"
    );
    let expected = [position.index.rows(), q.dims()[1]];
    for table in [&position.key, &position.query].into_iter().flatten() {
        assert_eq!(
            table.dims(),
            expected,
            "a position table is [2 span, heads x size]"
        );
    }
    let longest = shape.keys.iter().chain(&shape.queries).max();
    assert!(
        longest.is_none_or(|n| *n <= position.index.longest()),
        "a row of {longest:?} tokens, the index ends at {}",
        position.index.longest()
    );
}

/// The neighbours of every token side by side: block t of token i is token i + t - (width - 1) / 2
/// of the same row of the batch, zeros outside the row. A product with a `[width x d, out]` matrix
/// then is a one-dimensional convolution with padding (width - 1) / 2, and no row sees another.
///
/// # Shapes
/// - `x`: `[sum of lengths, d]`
/// - returns `[sum of lengths, width x d]`
///
/// # Panics
/// Panics when `width` is even (that padding would change the length of a row) or the lengths are not those
/// of `x`.
pub fn unfold_rows(x: Tensor<2>, lengths: &[usize], width: usize) -> Tensor<2> {
    assert_eq!(
        width % 2,
        1,
        "the width of a convolution is odd, not {width}"
    );
    assert_eq!(lengths.iter().sum::<usize>(), x.dims()[0], "tokens of x");
    if !fused(&x) {
        return composed::unfold_rows(x, lengths, width);
    }
    Tensor::from_dispatch(Dispatch::lb_unfold_rows(
        x.into_dispatch(),
        lengths.to_vec(),
        width,
    ))
}
