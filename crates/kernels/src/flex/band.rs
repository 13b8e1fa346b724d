//! Between the scores of one head and its products with a table of positions.
//!
//! A block of tokens meets only a band of distances, hence a range of the table's rows. Its products
//! with that range are a small matrix; the score of a pair takes its element by the pair's index.

use super::heads::Head;
use crate::relative::RelativeIndex;

/// Tokens that share one product with a range of a table. Fewer make the range narrower, more make
/// the product faster.
pub(super) const BLOCK: usize = 32;

/// Which tokens meet a table.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Meets {
    /// A table of position keys.
    Queries,
    /// A table of position queries.
    Keys,
}

/// A block of a head's tokens and the range of a table's rows that they meet.
pub(super) struct Band {
    pub(super) meets: Meets,
    pub(super) first: usize,
    pub(super) tokens: usize,
    /// First row of the range, and the number of rows.
    pub(super) low: usize,
    pub(super) rows: usize,
}

impl Band {
    fn new(meets: Meets, first: usize, head: &Head, index: &RelativeIndex) -> Self {
        let (m, n) = (head.queries as isize, head.keys as isize);
        let count = match meets {
            Meets::Queries => head.queries,
            Meets::Keys => head.keys,
        };
        let end = (first + BLOCK).min(count);
        let (from, last) = (first as isize, end as isize - 1);
        let met = match meets {
            Meets::Queries => index.of_distances(from - (n - 1), last),
            Meets::Keys => index.of_distances(-last, m - 1 - from),
        };
        let (low, high) = met.iter().fold((u32::MAX, 0), |(low, high), row| {
            (low.min(*row), high.max(*row))
        });
        Self {
            meets,
            first,
            tokens: end - first,
            low: low as usize,
            rows: (high - low) as usize + 1,
        }
    }

    /// All blocks of a head.
    pub(super) fn all(
        meets: Meets,
        head: &Head,
        index: &RelativeIndex,
    ) -> impl Iterator<Item = Self> {
        let count = match meets {
            Meets::Queries => head.queries,
            Meets::Keys => head.keys,
        };
        // Without queries no key meets a distance.
        let count = if head.queries == 0 { 0 } else { count };
        (0..count)
            .step_by(BLOCK)
            .map(move |first| Self::new(meets, first, head, index))
    }

    /// Offset of the block's first token.
    pub(super) fn offset(&self, head: &Head) -> usize {
        let base = match self.meets {
            Meets::Queries => head.q,
            Meets::Keys => head.k,
        };
        base + self.first * head.stride
    }

    /// Offset of the range's first row in this head's columns of a table.
    pub(super) fn table_offset(&self, head: &Head) -> usize {
        self.low * head.stride + head.q % head.stride
    }

    /// scores += the products of each pair, taken from `band` [tokens, rows].
    pub(super) fn gather(
        &self,
        scores: &mut [f32],
        band: &[f32],
        head: &Head,
        index: &RelativeIndex,
    ) {
        match self.meets {
            Meets::Queries => {
                let scores = &mut scores[self.first * head.keys..][..self.tokens * head.keys];
                let lines = scores.chunks_exact_mut(head.keys);
                for ((line, band), i) in lines.zip(band.chunks_exact(self.rows)).zip(self.first..) {
                    for (score, row) in line.iter_mut().zip(index.of_query(i)) {
                        *score += band[*row as usize - self.low];
                    }
                }
            }
            Meets::Keys => {
                for (i, line) in scores.chunks_exact_mut(head.keys).enumerate() {
                    let line = &mut line[self.first..][..self.tokens];
                    let rows = &index.of_query(i)[self.first..][..self.tokens];
                    let bands = band.chunks_exact(self.rows);
                    for ((score, row), band) in line.iter_mut().zip(rows).zip(bands) {
                        *score += band[*row as usize - self.low];
                    }
                }
            }
        }
    }

    /// band += the gradients of the scores, each at the place it was taken from.
    pub(super) fn scatter(
        &self,
        band: &mut [f32],
        gradient: &[f32],
        head: &Head,
        index: &RelativeIndex,
    ) {
        match self.meets {
            Meets::Queries => {
                let gradient = &gradient[self.first * head.keys..][..self.tokens * head.keys];
                let lines = gradient.chunks_exact(head.keys);
                let bands = band.chunks_exact_mut(self.rows);
                for ((line, band), i) in lines.zip(bands).zip(self.first..) {
                    for (g, row) in line.iter().zip(index.of_query(i)) {
                        band[*row as usize - self.low] += g;
                    }
                }
            }
            Meets::Keys => {
                for (i, line) in gradient.chunks_exact(head.keys).enumerate() {
                    let line = &line[self.first..][..self.tokens];
                    let rows = &index.of_query(i)[self.first..][..self.tokens];
                    let bands = band.chunks_exact_mut(self.rows);
                    for ((g, row), band) in line.iter().zip(rows).zip(bands) {
                        band[*row as usize - self.low] += g;
                    }
                }
            }
        }
    }
}
