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
/// Panels of b that a task goes through for every tile of a.
const BLOCK_PANELS: usize = 4;
/// Tasks for each thread, so that all end at about the same time.
const TASKS: usize = 12;
/// Rows of a tile panel in the packed a.
const LINE: usize = LANES;
/// Fewer tiles of a than this are no task of their own: the panels of b would be fetched for little.
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

fn panels(slice: &Slice<'_>) -> usize {
    slice.b.cols.div_ceil(COLS)
}

/// # Safety
/// As for [`run`].
unsafe fn in_parallel(target: Target, slice: Slice<'_>) {
    let tiles = tiles(&slice);
    let (panels, behind) = (panels(&slice), tiles * slice.depth * LINE);
    let mut buffer: Vec<f32> = Vec::with_capacity(behind + panels * slice.depth * COLS + LANES);
    let start = buffer.as_mut_ptr();
    let a = Out(start.wrapping_add(start.align_offset(64).min(LANES)));
    // SAFETY: the buffer has room for the panels of b behind those of a.
    let b = Out(unsafe { a.at(behind) });
    let packing = |number: usize| {
        // SAFETY: every task packs a panel of its own.
        unsafe {
            if number < tiles {
                pack_rows(&slice, number, a);
            } else {
                pack_columns(&slice, number - tiles, b);
            }
        }
    };
    (0..tiles + panels)
        .into_par_iter()
        .with_min_len(4)
        .for_each(packing);
    let column_blocks = panels.div_ceil(BLOCK_PANELS);
    let wanted = (TASKS * rayon::current_num_threads()).div_ceil(column_blocks);
    let row_blocks = wanted.min(tiles.div_ceil(FEWEST_TILES)).max(1);
    (0..column_blocks * row_blocks)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let (block, rows) = (task / row_blocks, task % row_blocks);
            let from = tiles * rows / row_blocks;
            let to = tiles * (rows + 1) / row_blocks;
            // SAFETY: tasks write different rows or columns.
            unsafe { multiply(target, &slice, block, (from, to), (a, b)) };
        });
}

/// # Safety
/// As for [`run`].
unsafe fn alone(target: Target, slice: Slice<'_>) {
    let tiles = tiles(&slice);
    let (panels, behind) = (panels(&slice), tiles * slice.depth * LINE);
    with_scratch(behind + panels * slice.depth * COLS, |scratch| {
        let a = Out(scratch);
        // SAFETY: the scratch memory has room for the panels of b behind those of a.
        unsafe {
            let b = Out(a.at(behind));
            (0..tiles).for_each(|tile| pack_rows(&slice, tile, a));
            (0..panels).for_each(|panel| pack_columns(&slice, panel, b));
            for block in 0..panels.div_ceil(BLOCK_PANELS) {
                multiply(target, &slice, block, (0, tiles), (a, b));
            }
        }
    });
}

/// Lends `len` elements of this thread's scratch memory, from the border of a cache line on.
fn with_scratch(len: usize, work: impl FnOnce(*mut f32)) {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.capacity() < len + LANES {
            *scratch = Vec::with_capacity(len + LANES);
        }
        let start = scratch.as_mut_ptr();
        work(start.wrapping_add(start.align_offset(64).min(LANES)));
    });
}

/// Packs the rows of a tile into their place.
///
/// # Safety
/// `out` has room for all tiles.
unsafe fn pack_rows(slice: &Slice<'_>, tile: usize, out: Out) {
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
    unsafe { pack(source, 1, out.at(tile * slice.depth * LINE)) }
}

/// Packs the columns of a panel into their place.
///
/// # Safety
/// `out` has room for all panels.
unsafe fn pack_columns(slice: &Slice<'_>, panel: usize, out: Out) {
    let b = &slice.b;
    let first = panel * COLS;
    let width = COLS.min(b.cols - first);
    let source = Source {
        data: b.data[slice.from * b.row_stride + first * b.col_stride..].as_ptr(),
        across: b.col_stride,
        along: b.row_stride,
        width,
        depth: slice.depth,
    };
    // SAFETY: as above.
    unsafe {
        pack(
            source,
            width.div_ceil(LANES),
            out.at(panel * slice.depth * COLS),
        )
    }
}

/// Multiplies the tiles `from..to` of a by a block of columns of b.
///
/// # Safety
/// a and b are packed; the rows and columns of the target are the task's own.
unsafe fn multiply(
    target: Target,
    slice: &Slice<'_>,
    block: usize,
    (from, to): (usize, usize),
    (a, b): (Out, Out),
) {
    let depth = slice.depth;
    let first = block * BLOCK_PANELS;
    let last = panels(slice).min(first + BLOCK_PANELS);
    for row in from..to {
        for panel in first..last {
            let col = panel * COLS;
            let begin = match slice.start {
                Start::Zero => Begin::Zero,
                Start::Bias(bias) => Begin::Bias(bias[col..].as_ptr()),
                Start::Add => Begin::Add,
            };
            // SAFETY: the place is inside the target and the task's own.
            unsafe {
                let place = Place {
                    out: target.out.at(row * ROWS * target.stride + col),
                    stride: target.stride,
                    rows: ROWS.min(slice.a.rows - row * ROWS),
                    cols: COLS.min(slice.b.cols - col),
                };
                let (a, b) = (a.at(row * depth * LINE), b.at(panel * depth * COLS));
                tile(depth, a, b, slice.scale, begin, place);
            }
        }
    }
}
