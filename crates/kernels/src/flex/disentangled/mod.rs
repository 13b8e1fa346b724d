//! Disentangled attention per head: plain attention whose scores also hold the products of queries
//! and keys with tables of positions.
//!
//! Those products are made in blocks ([`band`]) and gathered into the scores.

mod backward;
mod band;

use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::buffer::{Out, tensor, values, written};
use super::heads::{Head, checked_width, content_scores, heads, softmax_rows, with_scratch};
use super::low_rank::scale_by_mask as drop_in_stream;
use super::product::small_product;
use crate::relative::{ContentAndPosition, RelativeShape};
pub(crate) use backward::backward;
use band::{BLOCK, Band, Meets};

/// The inputs as slices.
struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    tables: [Option<&'a [f32]>; 2],
    shape: &'a RelativeShape,
    width: usize,
}

impl<'a> Inputs<'a> {
    fn new(input: &'a ContentAndPosition<Flex>, shape: &'a RelativeShape) -> Self {
        let width = checked_width(&input.q, &input.k, &input.v, &shape.attention);
        let tables = [&input.key, &input.query].map(|table| table.as_ref().map(values));
        for table in tables.into_iter().flatten() {
            assert_eq!(table.len(), shape.index.rows() * width, "a position table");
        }
        Self {
            q: values(&input.q),
            k: values(&input.k),
            v: values(&input.v),
            tables,
            shape,
            width,
        }
    }

    fn scale(&self) -> f32 {
        self.shape.attention.scale as f32
    }

    /// The tables there are, and who meets them.
    fn tables(&self) -> impl Iterator<Item = (usize, Meets, &'a [f32])> {
        let sides = [Meets::Queries, Meets::Keys];
        let tables = self.tables.into_iter().zip(sides).enumerate();
        tables.filter_map(|(place, (table, meets))| Some((place, meets, table?)))
    }

    /// The tokens that meet a table.
    fn tokens(&self, meets: Meets) -> &'a [f32] {
        match meets {
            Meets::Queries => self.q,
            Meets::Keys => self.k,
        }
    }

    /// Elements of a block's product with a table, at most.
    fn band_len(&self) -> usize {
        BLOCK * self.shape.index.rows()
    }
}

/// The probabilities of one head before dropout, dense [queries, keys]. `band` is scratch.
fn probabilities(out: &mut [f32], band: &mut [f32], head: &Head, input: &Inputs<'_>) {
    let (stride, index) = (head.stride, &input.shape.index);
    content_scores(out, head, input.q, input.k, input.scale());
    for (_, meets, table) in input.tables() {
        for block in Band::all(meets, head, index) {
            let band = &mut band[..block.tokens * block.rows];
            let tokens = input.tokens(meets)[block.offset(head)..].as_ptr();
            let rows = table[block.table_offset(head)..].as_ptr();
            // SAFETY: the block's tokens and the range's rows lie inside their tensors.
            unsafe {
                small_product(
                    [block.tokens, block.rows, head.size],
                    (band.as_mut_ptr(), block.rows),
                    (tokens, stride, 1),
                    (rows, 1, stride),
                    input.scale(),
                    false,
                );
            }
            block.gather(out, band, head, index);
        }
    }
    softmax_rows(out, head.keys);
}

pub(crate) fn forward(input: &ContentAndPosition<Flex>, shape: &RelativeShape) -> FlexTensor {
    let input = Inputs::new(input, shape);
    let width = input.width;
    // SAFETY: every head writes its own columns of its own rows, and together they cover all.
    let out = unsafe {
        written(input.q.len(), |out| {
            heads(&shape.attention, width)
                .into_par_iter()
                .for_each(|head| forward_head(out, &head, &input));
        })
    };
    tensor(out, [input.q.len() / width, width])
}

/// # Safety
/// `out` is an allocation like q, and nobody else writes this head's columns.
unsafe fn forward_head(out: Out, head: &Head, input: &Inputs<'_>) {
    let stride = head.stride;
    let scores = head.queries * head.keys;
    with_scratch(scores + input.band_len(), |scratch| {
        let (p, band) = scratch.split_at_mut(scores);
        probabilities(p, band, head, input);
        if !input.shape.dropout.is_none() {
            drop_in_stream(p, head.stream(), input.shape.dropout);
        }
        // SAFETY: the head's rows lie inside v and out.
        unsafe {
            small_product(
                [head.queries, head.size, head.keys],
                (out.at(head.q), stride),
                (p.as_ptr(), head.keys, 1),
                (input.v.as_ptr().wrapping_add(head.k), stride, 1),
                1.0,
                false,
            );
        }
    });
}
