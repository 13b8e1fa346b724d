//! A product in blocks that fit the caches.

use std::cell::RefCell;

use rayon::prelude::*;

use super::avx512::{Begin, COLS, LANES, Place, ROWS, tile};
use super::pack::{Source, pack};
use super::{Matrix, Start, Target, Term};
use crate::flex::buffer::Out;

/// Steps of the depth in one block: a panel of b of this depth (96 KiB) and a few more fit the second cache beside what is read
/// of a.
const DEPTH: usize = 768;
/// Columns of a block, which is packed and used by one task.
const BLOCK_COLS: usize = 4 * COLS;
/// Rows of a tile panel in the packed a.
const LINE: usize = LANES;
/// Fewer rows than this for a task are not worth packing b for it.
const FEWEST_TILES: usize = 8;
/// Below these sizes most of a tile would be for nothing.
const FEWEST_ROWS: usize = 5;
const FEWEST_COLS: usize = 12;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Whether the processor has the instructions.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

/// Whether a product of these sizes is faster here than with the crate `gemm`.
pub(super) fn worth_it(m: usize, n: usize, k: usize) -> bool {
    m >= FEWEST_ROWS && n >= FEWEST_COLS && k > 0 && available()
}

/// A block of the depth of a term, and of all its rows and columns.
#[derive(Clone, Copy)]
struct Slice<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    from: usize,
    depth: usize,
    scale: f32,
    start: Start<'a>,
}

/// # Safety
/// As for [`super::sum_of_products`]; and the processor has AVX-512.
pub(super) unsafe fn run(target: Target, start: Start<'_>, terms: &[Term<'_>], parallel: bool) {
    let mut start = start;
    for term in terms {
        let depth = term.a.cols;
        let blocks = depth.div_ceil(DEPTH).max(1);
        for block in 0..blocks {
            let from = depth * block / blocks;
            let slice = Slice {
                a: term.a,
                b: term.b,
                from,
                depth: depth * (block + 1) / blocks - from,
                scale: term.scale,
                start,
            };
            // SAFETY: the caller's promise; after the first block the result is initialised.
            unsafe {
                if parallel {
                    in_parallel(target, slice);
                } else {
                    alone(target, slice);
                }
            }
            start = Start::Add;
        }
    }
}

fn tiles(slice: &Slice<'_>) -> usize {
    slice.a.rows.div_ceil(ROWS)
}

/// # Safety
/// As for [`run`].
unsafe fn in_parallel(target: Target, slice: Slice<'_>) {
    let tiles = tiles(&slice);
    let size = slice.depth * LINE;
    let mut packed: Vec<f32> = Vec::with_capacity(tiles * size);
    let a = Out(packed.as_mut_ptr());
    (0..tiles).into_par_iter().with_min_len(4).for_each(|tile| {
        // SAFETY: every task packs its own panels, which the buffer has room for.
        unsafe { pack_rows(&slice, tile, a.at(tile * size)) };
    });
    let column_blocks = slice.b.cols.div_ceil(BLOCK_COLS);
    let wanted = (12 * rayon::current_num_threads()).div_ceil(column_blocks);
    let row_blocks = wanted.min(tiles.div_ceil(FEWEST_TILES)).max(1);
    (0..column_blocks * row_blocks)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let (block, rows) = (task / row_blocks, task % row_blocks);
            let from = tiles * rows / row_blocks;
            let to = tiles * (rows + 1) / row_blocks;
            with_scratch(slice.depth * BLOCK_COLS, |scratch| {
                // SAFETY: tasks write different rows or columns.
                unsafe { columns(target, &slice, block, (from, to), a, scratch) };
            });
        });
}

/// # Safety
/// As for [`run`].
unsafe fn alone(target: Target, slice: Slice<'_>) {
    let tiles = tiles(&slice);
    let size = slice.depth * LINE;
    with_scratch(tiles * size + slice.depth * BLOCK_COLS, |scratch| {
        let a = Out(scratch);
        // SAFETY: the scratch memory has room for the panels of a, and for a block of b behind them.
        unsafe {
            for tile in 0..tiles {
                pack_rows(&slice, tile, a.at(tile * size));
            }
            for block in 0..slice.b.cols.div_ceil(BLOCK_COLS) {
                columns(target, &slice, block, (0, tiles), a, a.at(tiles * size));
            }
        }
    });
}

/// Lends `len` elements of this thread's scratch memory, at the border of a cache line.
fn with_scratch(len: usize, work: impl FnOnce(*mut f32)) {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.capacity() < len + LANES {
            *scratch = Vec::with_capacity(len + LANES);
        }
        let start = scratch.as_mut_ptr();
        let before = start.align_offset(64);
        work(start.wrapping_add(before.min(LANES)));
    });
}

/// Packs the rows of a tile.
///
/// # Safety
/// `out` has room for them.
unsafe fn pack_rows(slice: &Slice<'_>, tile: usize, out: *mut f32) {
    let a = &slice.a;
    let first = tile * ROWS;
    let source = Source {
        data: a.data[first * a.row_stride + slice.from * a.col_stride..].as_ptr(),
        across: a.row_stride,
        along: a.col_stride,
        width: ROWS.min(a.rows - first),
        depth: slice.depth,
    };
    // SAFETY: the part is inside the matrix, one of whose strides is 1.
    unsafe { pack(source, 1, out) }
}

/// Packs a block of columns of b and multiplies the tiles `from..to` of a by it.
///
/// # Safety
/// `scratch` has room for the block; the rows and columns are the task's own.
unsafe fn columns(
    target: Target,
    slice: &Slice<'_>,
    block: usize,
    (from, to): (usize, usize),
    a: Out,
    scratch: *mut f32,
) {
    let (b, depth) = (&slice.b, slice.depth);
    let first = block * BLOCK_COLS;
    let last = b.cols.min(first + BLOCK_COLS);
    let panels = (last - first).div_ceil(COLS);
    let width = |panel: usize| (last - first - panel * COLS).min(COLS);
    for panel in 0..panels {
        let col = first + panel * COLS;
        let source = Source {
            data: b.data[slice.from * b.row_stride + col * b.col_stride..].as_ptr(),
            across: b.col_stride,
            along: b.row_stride,
            width: width(panel),
            depth,
        };
        let lanes = width(panel).div_ceil(LANES);
        // SAFETY: the part is inside the matrix, one of whose strides is 1, and the scratch memory has room for it.
        unsafe { pack(source, lanes, scratch.add(panel * depth * COLS)) };
    }
    for row in from..to {
        for panel in 0..panels {
            let col = first + panel * COLS;
            let begin = match slice.start {
                Start::Zero => Begin::Zero,
                Start::Bias(bias) => Begin::Bias(bias[col..].as_ptr()),
                Start::Add => Begin::Add,
            };
            // SAFETY: a and b are packed, the place is inside the target and the task's own.
            unsafe {
                let place = Place {
                    out: target.out.at(row * ROWS * target.stride + col),
                    stride: target.stride,
                    rows: ROWS.min(slice.a.rows - row * ROWS),
                    cols: width(panel),
                };
                let a = a.at(row * depth * LINE);
                let b = scratch.add(panel * depth * COLS);
                tile(depth, a, b, slice.scale, begin, place);
            }
        }
    }
}
