//! The gradients of a disentangled attention.
//!
//! The gradient of the scores is scattered into the same small matrices that they were gathered
//! from. A table's gradient sums over all rows of the batch: over the rows of each of a few groups,
//! then over the groups. Both orders are fixed, so the bits do not depend on the number of threads.

use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::band::{Band, Meets};
use super::{Inputs, probabilities};
use crate::flex::buffer::{Out, for_row_blocks, tensor, values, written};
use crate::flex::heads::{Head, heads, softmax_gradient_rows, with_scratch};
use crate::flex::low_rank::scale_by_mask as drop_in_stream;
use crate::flex::product::small_product;
use crate::relative::{ContentAndPosition, PositionGradients, RelativeShape};

/// Groups of a batch's rows whose contributions to a table's gradient are summed apart.
const GROUPS: usize = 4;

/// Where a head's gradients go: its columns of its rows in dq, dk and dv, and its columns of its
/// group's tables where they are asked for.
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
    let tasks = groups * shape.attention.heads;
    let mut partial = needs.map(|needed| needed.then(|| vec![0.0f32; groups * table]));
    let partial_out = partial
        .each_mut()
        .map(|p| p.as_mut().map(|p| Out(p.as_mut_ptr())));
    let all = heads(&shape.attention, width);
    let run = |content: [Out; 3]| {
        (0..tasks).into_par_iter().for_each(|task| {
            let (group, column) = (task / shape.attention.heads, task % shape.attention.heads);
            // Every group has a table of its own, and every head its columns of it.
            let tables = partial_out.map(|p| p.map(|p| Out(p.at(group * table))));
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
    let (stride, keys) = (head.stride, head.keys);
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
            drop_in_stream(kept, head.stream(), dropout);
        }
        // SAFETY: the head's rows lie inside all buffers.
        unsafe {
            let g = (gradient.as_ptr().wrapping_add(head.q), stride, 1);
            // dv = (dropped p)^T g
            let (dv, left) = ((dv.at(head.k), stride), (kept.as_ptr(), 1, keys));
            small_product([n, d, m], dv, left, g, 1.0, false);
            // d(dropped p) = g v^T
            let right = (input.v.as_ptr().wrapping_add(head.k), 1, stride);
            small_product([m, n, d], (ds.as_mut_ptr(), keys), g, right, 1.0, false);
        }
        if !dropout.is_none() {
            drop_in_stream(ds, head.stream(), dropout);
        }
        softmax_gradient_rows(ds, p, n, input.scale());
        // SAFETY: as above.
        unsafe {
            let (q, k) = (
                input.q.as_ptr().wrapping_add(head.q),
                input.k.as_ptr().wrapping_add(head.k),
            );
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
    let (stride, index) = (head.stride, &input.shape.index);
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
            let (offset, range, rows) = (block.offset(head), block.table_offset(head), block.rows);
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
