//! Disentangled attention per head: plain attention whose scores also hold the products of queries
//! and keys with tables of positions.
//!
//! Those products are made in blocks ([`super::band`]) and gathered into the scores; the backward
//! pass scatters the gradient of the scores into the same small matrices. A table's gradient sums
//! over all rows of the batch: over the rows of each of a few groups, then over the groups. Both
//! orders are fixed, so the bits do not depend on the number of threads.

use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::band::{BLOCK, Band, Meets};
use super::buffer::{Out, for_row_blocks, tensor, values, written};
use super::heads::{
    Head, checked_width, content_scores, heads, small_product, softmax_gradient_rows, softmax_rows,
    with_scratch,
};
use super::linear::scale_by_mask as drop_in_stream;
use crate::relative::{ContentAndPosition, PositionGradients, RelativeShape};

/// Groups of a batch's rows whose contributions to a table's gradient are summed apart.
const GROUPS: usize = 4;

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
    let (stride, index) = (head.stride as isize, &input.shape.index);
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
                    (band.as_mut_ptr(), block.rows as isize),
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
    let stride = head.stride as isize;
    let scores = head.queries * head.keys;
    with_scratch(scores + input.band_len(), |scratch| {
        let (p, band) = scratch.split_at_mut(scores);
        probabilities(p, band, head, input);
        if !input.shape.dropout.is_none() {
            drop_in_stream(p, head.stream, input.shape.dropout);
        }
        // SAFETY: the head's rows lie inside v and out.
        unsafe {
            small_product(
                [head.queries, head.size, head.keys],
                (out.at(head.q), stride),
                (p.as_ptr(), head.keys as isize, 1),
                (input.v.as_ptr().add(head.k), stride, 1),
                1.0,
                false,
            );
        }
    });
}

/// The gradients that a head writes: its columns of its rows in dq, dk and dv, and its columns of
/// the tables that need one.
struct Outputs {
    content: [Out; 3],
    tables: [Option<Out>; 2],
}

pub(crate) fn backward(
    gradient: &FlexTensor,
    input: &ContentAndPosition<Flex>,
    shape: &RelativeShape,
    needs: [bool; 2],
) -> PositionGradients<Flex> {
    let input = Inputs::new(input, shape);
    let gradient = values(gradient);
    assert_eq!(gradient.len(), input.q.len(), "the gradient is like q");
    let (width, batch) = (input.width, shape.attention.keys.len());
    // Without a sum over the batch every row is a task of its own.
    let step = match needs {
        [false, false] => 1,
        _ => batch.div_ceil(GROUPS).max(1),
    };
    let groups = batch.div_ceil(step);
    let table = shape.index.rows() * width;
    let mut partial = needs.map(|needed| needed.then(|| vec![0.0f32; groups * table]));
    let partial_out = partial
        .each_mut()
        .map(|p| p.as_mut().map(|p| Out(p.as_mut_ptr())));
    let all = heads(&shape.attention, width);
    let run = |content: [Out; 3]| {
        let tasks = groups * shape.attention.heads;
        (0..tasks).into_par_iter().for_each(|task| {
            let (group, column) = (task / shape.attention.heads, task % shape.attention.heads);
            // SAFETY: every group has a table of its own, and every head its columns of it.
            let tables = partial_out.map(|p| p.map(|p| unsafe { Out(p.at(group * table)) }));
            let out = Outputs { content, tables };
            let own = all.iter().skip(column).step_by(shape.attention.heads);
            for head in own.skip(group * step).take(step) {
                // SAFETY: every head writes its own columns of its own rows.
                unsafe { backward_head(&out, head, gradient, &input) };
            }
        });
    };
    let (mut dk, mut dv) = (Vec::new(), Vec::new());
    // SAFETY: the heads together cover all columns of all rows.
    let dq = unsafe {
        written(input.q.len(), |dq| {
            dk = written(input.k.len(), |dk| {
                dv = written(input.v.len(), |dv| run([dq, dk, dv]));
            });
        })
    };
    let content = |x: Vec<f32>| {
        let tokens = x.len() / width;
        tensor(x, [tokens, width])
    };
    let [key, query] = partial.map(|p| p.map(|p| content(sum_groups(&p, table, width))));
    PositionGradients {
        q: content(dq),
        k: content(dk),
        v: content(dv),
        key,
        query,
    }
}

/// The sum of the groups' tables, in their order.
fn sum_groups(partial: &[f32], table: usize, width: usize) -> Vec<f32> {
    // SAFETY: the blocks of rows are disjoint and cover everything.
    unsafe {
        written(table, |out| {
            for_row_blocks(table / width, width, |first, rows| {
                let (offset, len) = (first * width, rows * width);
                let sum = out.slice(offset, len);
                sum.fill(0.0);
                for group in partial.chunks_exact(table) {
                    for (sum, g) in sum.iter_mut().zip(&group[offset..][..len]) {
                        *sum += g;
                    }
                }
            });
        })
    }
}

/// # Safety
/// The outputs are allocations like the inputs, and nobody else writes this head's columns.
unsafe fn backward_head(out: &Outputs, head: &Head, gradient: &[f32], input: &Inputs<'_>) {
    let (stride, keys) = (head.stride as isize, head.keys as isize);
    let (m, n, d) = (head.queries, head.keys, head.size);
    let [dq, dk, dv] = out.content;
    let dropout = input.shape.dropout;
    with_scratch(3 * m * n + input.band_len(), |scratch| {
        let (p, rest) = scratch.split_at_mut(m * n);
        let (kept, rest) = rest.split_at_mut(m * n);
        let (ds, band) = rest.split_at_mut(m * n);
        probabilities(p, band, head, input);
        kept.copy_from_slice(p);
        if !dropout.is_none() {
            drop_in_stream(kept, head.stream, dropout);
        }
        // SAFETY: the head's rows lie inside all buffers.
        unsafe {
            let g = (gradient.as_ptr().add(head.q), stride, 1);
            // dv = (dropped p)^T g
            let (dv, left) = ((dv.at(head.k), stride), (kept.as_ptr(), 1, keys));
            small_product([n, d, m], dv, left, g, 1.0, false);
            // d(dropped p) = g v^T
            let right = (input.v.as_ptr().add(head.k), 1, stride);
            small_product([m, n, d], (ds.as_mut_ptr(), keys), g, right, 1.0, false);
        }
        if !dropout.is_none() {
            drop_in_stream(ds, head.stream, dropout);
        }
        softmax_gradient_rows(ds, p, n, input.scale());
        // SAFETY: as above.
        unsafe {
            let (q, k) = (input.q.as_ptr().add(head.q), input.k.as_ptr().add(head.k));
            let (dq, dk) = ((dq.at(head.q), stride), (dk.at(head.k), stride));
            let left = (ds.as_ptr(), keys, 1);
            small_product([m, d, n], dq, left, (k, stride, 1), 1.0, false);
            let left = (ds.as_ptr(), 1, keys);
            small_product([n, d, m], dk, left, (q, stride, 1), 1.0, false);
            position_gradients(out, head, ds, band, input);
        }
    });
}

/// Adds what comes through the tables to dq and dk, and to the tables' own gradients. `band` is
/// scratch.
///
/// # Safety
/// As for [`backward_head`]; this head's parts of dq and dk are written already.
unsafe fn position_gradients(
    out: &Outputs,
    head: &Head,
    ds: &[f32],
    band: &mut [f32],
    input: &Inputs<'_>,
) {
    let (stride, index) = (head.stride as isize, &input.shape.index);
    let [dq, dk, _] = out.content;
    for (place, meets, table) in input.tables() {
        let tokens = input.tokens(meets);
        let gradient = match meets {
            Meets::Queries => dq,
            Meets::Keys => dk,
        };
        for block in Band::all(meets, head, index) {
            let band = &mut band[..block.tokens * block.rows];
            band.fill(0.0);
            block.scatter(band, ds, head, index);
            let (offset, range, rows) = (
                block.offset(head),
                block.table_offset(head),
                block.rows as isize,
            );
            let size = [block.tokens, head.size, block.rows];
            let right = (table[range..].as_ptr(), stride, 1);
            // SAFETY: the block's tokens and the range's rows lie inside their tensors.
            unsafe {
                let to = (gradient.at(offset), stride);
                small_product(size, to, (band.as_ptr(), rows, 1), right, 1.0, true);
            }
            if let Some(gradient) = out.tables[place] {
                let size = [block.rows, head.size, block.tokens];
                let right = (tokens[offset..].as_ptr(), stride, 1);
                // SAFETY: as above.
                unsafe {
                    let to = (gradient.at(range), stride);
                    small_product(size, to, (band.as_ptr(), 1, rows), right, 1.0, true);
                }
            }
        }
    }
}
