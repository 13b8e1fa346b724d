//! A product in blocks that fit the caches, in one piece or by Strassen's seven products of quarters.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::pack::{Source, pack};
use super::tile::{Begin, COLS, Goal, LANES, Place, ROWS, TILE, tile};
use super::{Matrix, Operand, Start};
use crate::flex::buffer::Out;

/// Steps of the depth in one block: a tile of a of this depth (24 KiB) fits the first cache, a few of each sum the second.
const DEPTH: usize = 384;
/// Tiles of a, of every sum, that a task packs for itself at a time; in one piece there is room for more.
const STRASSEN_TILES: usize = 3;
const PLAIN_TILES: usize = 16;
/// Panels of b that a task goes through before the next sum: what they add to stays in the second cache.
const PANELS: usize = 6;
/// Bytes of packed b at a time, unless one block of the depth is more.
const PACKED: usize = 17 << 20;

/// A product of a sum of a's blocks and one of b's, in terms of the sums that [`pack`] makes.
struct Step {
    a: usize,
    b: usize,
    parts: &'static [Part],
}

/// A block of the result that a product is added to or taken from. Blocks are counted 0 1 / 2 3.
#[derive(Clone, Copy)]
struct Part {
    block: usize,
    sign: f32,
    /// Nothing was added to it before.
    first: bool,
    /// Nothing comes after.
    last: bool,
}

const fn part(block: usize, sign: f32, first: bool, last: bool) -> Part {
    Part {
        block,
        sign,
        first,
        last,
    }
}

const fn first(block: usize, sign: f32) -> Part {
    part(block, sign, true, false)
}

const fn then(block: usize, sign: f32) -> Part {
    part(block, sign, false, false)
}

const fn last(block: usize, sign: f32) -> Part {
    part(block, sign, false, true)
}

const PLAIN: &[Step] = &[Step {
    a: 0,
    b: 0,
    parts: &[part(0, 1.0, true, true)],
}];

/// Strassen (1969): (a + d)(a' + d'), (c + d) a', a (b' - d'), d (c' - a'), (a + b) d', (c - a)(a' + b'), (b - d)(c' + d').
const STRASSEN: &[Step] = &[
    Step {
        a: 0,
        b: 0,
        parts: &[first(0, 1.0), first(3, 1.0)],
    },
    Step {
        a: 1,
        b: 2,
        parts: &[first(2, 1.0), then(3, -1.0)],
    },
    Step {
        a: 2,
        b: 6,
        parts: &[first(1, 1.0), then(3, 1.0)],
    },
    Step {
        a: 3,
        b: 5,
        parts: &[then(0, 1.0), last(2, 1.0)],
    },
    Step {
        a: 4,
        b: 3,
        parts: &[then(0, -1.0), last(1, 1.0)],
    },
    Step {
        a: 5,
        b: 4,
        parts: &[last(3, 1.0)],
    },
    Step {
        a: 6,
        b: 1,
        parts: &[last(0, 1.0)],
    },
];

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Whether the processor has the instructions.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

/// Tiles and panels from which to which.
type Task = ((usize, usize), (usize, usize));

/// Pieces for each thread into which what is left is thought to be cut when the next task is made.
const SHARES: usize = 4;

/// How a product is cut.
struct Cut {
    /// Rows and columns of a block of the result, and the tiles and panels that cover it.
    rows: usize,
    cols: usize,
    tiles: usize,
    panels: usize,
    /// Blocks of the depth, the steps of each, and those of its parts.
    slices: usize,
    slice: usize,
    depth: usize,
    /// Elements of b that are packed for a slice, and slices that are packed at a time.
    packed: usize,
    together: usize,
}

impl Cut {
    fn new(grid: usize, [m, n, k]: [usize; 3]) -> Self {
        let (rows, cols) = (m.div_ceil(grid), n.div_ceil(grid));
        let (tiles, panels) = (rows.div_ceil(ROWS), cols.div_ceil(COLS));
        let slices = k.div_ceil(DEPTH * grid);
        let slice = k.div_ceil(slices).next_multiple_of(grid);
        let depth = slice / grid;
        let packed = (steps(grid).len() * depth * COLS).saturating_mul(panels);
        let together = (PACKED / packed.saturating_mul(size_of::<f32>())).clamp(1, slices);
        Self {
            rows,
            cols,
            tiles,
            panels,
            slices,
            slice,
            depth,
            packed,
            together,
        }
    }
}

fn steps(grid: usize) -> &'static [Step] {
    if grid == 1 { PLAIN } else { STRASSEN }
}

/// Bytes that [`run`] works in, beside a small piece for each thread.
pub(super) fn workspace<const GRID: usize>(size: [usize; 3]) -> usize {
    let cut = Cut::new(GRID, size);
    let numbers = cut.together.saturating_mul(cut.packed);
    numbers
        .saturating_add(LANES)
        .saturating_mul(size_of::<f32>())
}

/// out = start + scale a b, where `out` is dense; in one piece (GRID 1) or by quarters (GRID 2).
///
/// # Safety
/// The processor has AVX-512; `out` points to the result's elements, initialised for [`Start::Add`], and nobody else touches
/// them.
pub(super) unsafe fn run<const GRID: usize>(
    out: Out,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let cut = Cut::new(GRID, [m, n, k]);
    let job = Job::<GRID> {
        out,
        start,
        scale,
        size: [m, n],
        a: Source {
            data: a.data.as_ptr(),
            across: a.row_stride,
            along: a.col_stride,
            width: m,
            depth: k,
            block_width: cut.rows,
            block_depth: cut.depth,
            along_first: false,
        },
        b: Source {
            data: b.data.as_ptr(),
            across: b.col_stride,
            along: b.row_stride,
            width: n,
            depth: k,
            block_width: cut.cols,
            block_depth: cut.depth,
            along_first: true,
        },
        cut,
    };
    let cut = &job.cut;
    let mut buffer: Vec<f32> = Vec::with_capacity(cut.together * cut.packed + LANES);
    let begin = buffer.as_mut_ptr();
    let packed = Out(begin.wrapping_add(begin.align_offset(64).min(LANES)));
    let lanes = cut.panels * COLS / LANES;
    let tasks = job.tasks(rayon::current_num_threads());
    let mut from = 0;
    while from < cut.slices {
        let to = (from + cut.together).min(cut.slices);
        (0..(to - from) * lanes)
            .into_par_iter()
            .with_min_len(2)
            .for_each(|number| {
                let (slice, lane) = (number / lanes, number % lanes);
                // SAFETY: every task packs lines of its own.
                unsafe { job.pack_b(from + slice, lane, packed.at(slice * cut.packed)) };
            });
        let next = AtomicUsize::new(0);
        (0..rayon::current_num_threads())
            .into_par_iter()
            .with_max_len(1)
            .for_each(|_| {
                while let Some((tiles, panels)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // SAFETY: b is packed, and tasks write different rows or columns.
                    unsafe { job.multiply((from, to), *tiles, *panels, packed) };
                }
            });
        from = to;
    }
}

/// A product that is under way.
struct Job<'a, const GRID: usize> {
    out: Out,
    start: Start<'a>,
    scale: f32,
    size: [usize; 2],
    a: Source,
    b: Source,
    cut: Cut,
}

impl<const GRID: usize> Job<'_, GRID> {
    /// Tiles and panels of each task. They decide who does what, never how an element is computed: the last ones are small,
    /// so that all threads end at about the same time.
    fn tasks(&self, threads: usize) -> Vec<Task> {
        let most = if GRID == 1 {
            PLAIN_TILES
        } else {
            STRASSEN_TILES
        };
        let (tiles, panels) = (self.cut.tiles, self.cut.panels);
        // With fewer tiles than threads, the columns are shared too.
        let parts = match tiles < threads {
            true => (2 * threads).div_ceil(tiles).min(panels.div_ceil(PANELS)),
            false => 1,
        };
        let mut tasks = Vec::new();
        let mut top = 0;
        while top < tiles {
            let left = tiles - top;
            let bottom = top + left.div_ceil(SHARES * threads).min(most);
            for part in 0..parts {
                let columns = (panels * part / parts, panels * (part + 1) / parts);
                tasks.push(((top, bottom), columns));
            }
            top = bottom;
        }
        tasks
    }

    fn slice_of(&self, source: &Source, slice: usize) -> Source {
        let from = slice * self.cut.slice;
        Source {
            data: source.data.wrapping_add(from * source.along),
            depth: (source.depth - from).min(self.cut.slice),
            ..*source
        }
    }

    /// Packs 16 columns of every block of b.
    ///
    /// # Safety
    /// The processor has AVX-512 and `packed` has room for a slice.
    unsafe fn pack_b(&self, slice: usize, lane: usize, packed: *mut f32) {
        let (panel, half) = (lane / 2, lane % 2);
        let (panels, depth) = (self.cut.panels, self.cut.depth);
        let source = self.slice_of(&self.b, slice);
        // SAFETY: promised by the caller.
        unsafe {
            pack::<GRID>(&source, (lane * LANES, LANES), COLS, |sum| {
                packed.wrapping_add((sum * panels + panel) * depth * COLS + half * LANES)
            });
        }
    }

    /// The rows of tiles and columns of panels in all blocks of the result, over slices of the depth.
    ///
    /// # Safety
    /// The processor has AVX-512, the slices of b are packed, and nobody else writes there.
    unsafe fn multiply(
        &self,
        slices: (usize, usize),
        (top, bottom): (usize, usize),
        (left, right): (usize, usize),
        packed: Out,
    ) {
        let (depth, panels) = (self.cut.depth, self.cut.panels);
        let (steps, tiles) = (steps(GRID), bottom - top);
        let place = |sum: usize, tile: usize| (sum * tiles + tile) * depth * LANES;
        let sums = place(steps.len(), 0);
        let sum_tiles = GRID * GRID * tiles * PANELS;
        with_scratch(sums + sum_tiles * TILE, |a| {
            let sums = a.wrapping_add(sums);
            for slice in slices.0..slices.1 {
                let source = self.slice_of(&self.a, slice);
                for tile in 0..tiles {
                    let first = (top + tile) * ROWS;
                    // SAFETY: the scratch memory has room for the tiles of all sums.
                    unsafe {
                        pack::<GRID>(&source, (first, ROWS), LANES, |sum| {
                            a.wrapping_add(place(sum, tile))
                        })
                    };
                }
                let b = packed.at((slice - slices.0) * self.cut.packed);
                let mut from = left;
                while from < right {
                    let to = (from + PANELS).min(right);
                    for step in steps {
                        for panel in from..to {
                            let b = b.wrapping_add((step.b * panels + panel) * depth * COLS);
                            for tile in 0..tiles {
                                let a = a.wrapping_add(place(step.a, tile));
                                let near = tile * PANELS + panel - from;
                                let sum = |block: usize| {
                                    let at = block * tiles * PANELS + near;
                                    sums.wrapping_add(at * TILE)
                                };
                                // SAFETY: both are packed, and the results are this task's.
                                unsafe {
                                    self.add_tile((slice, step), (top + tile, panel), (a, b), sum);
                                }
                            }
                        }
                    }
                    from = to;
                }
            }
        });
    }

    /// # Safety
    /// As for [`Self::multiply`].
    unsafe fn add_tile(
        &self,
        (slice, step): (usize, &Step),
        (row, panel): (usize, usize),
        (a, b): (*const f32, *const f32),
        sum: impl Fn(usize) -> *mut f32,
    ) {
        let (cut, [m, n]) = (&self.cut, self.size);
        let rows = (cut.rows - row * ROWS).min(ROWS);
        let cols = (cut.cols - panel * COLS).min(COLS);
        let goal = |Part {
                        block,
                        sign,
                        first,
                        last,
                    }: Part| {
            let first_row = block / GRID * cut.rows + row * ROWS;
            let first_col = block % GRID * cut.cols + panel * COLS;
            let place = || Place {
                out: self.out.at(first_row * n + first_col),
                stride: n,
                rows: m.saturating_sub(first_row).min(rows),
                cols: n.saturating_sub(first_col).min(cols),
                begin: match self.start {
                    Start::Zero if slice == 0 => Begin::Zero,
                    Start::Bias(bias) if slice == 0 => {
                        Begin::Bias(bias.as_ptr().wrapping_add(first_col))
                    }
                    Start::Zero | Start::Bias(_) | Start::Add => Begin::Add,
                },
            };
            Goal {
                sum: sum(block),
                scale: sign * self.scale,
                first,
                last: last.then(place),
            }
        };
        // SAFETY: promised by the caller; the places end with the result.
        unsafe {
            match *step.parts {
                [one] => tile((rows, cols), cut.depth, a, b, &[goal(one)]),
                [one, two] => tile((rows, cols), cut.depth, a, b, &[goal(one), goal(two)]),
                _ => unreachable!("a product adds to one block or two"),
            }
        }
    }
}

/// dst = lhs rhs times `scale`, or dst += it, on the calling thread: for small products, many of which run beside each other. b is packed
/// once, a tile by tile.
///
/// # Safety
/// As for [`super::small_product`]; and the processor has AVX-512.
pub(super) unsafe fn alone(
    [m, n, k]: [usize; 3],
    dst: (*mut f32, usize),
    lhs: Operand,
    rhs: Operand,
    scale: f32,
    accumulate: bool,
) {
    let side = |operand: Operand, [across, along]: [usize; 2], width| Source {
        data: operand.0,
        across,
        along,
        width,
        depth: k,
        block_width: width,
        block_depth: k,
        along_first: false,
    };
    let a = side(lhs, [lhs.1, lhs.2], m);
    let b = side(rhs, [rhs.2, rhs.1], n);
    let panels = n.div_ceil(COLS);
    for (_, rows, columns) in [lhs, rhs] {
        assert!(
            rows == 1 || columns == 1,
            "an operand lies in rows or in columns"
        );
    }
    let begin = if accumulate { Begin::Add } else { Begin::Zero };
    with_scratch(k * (LANES + panels * COLS), |a_panel| {
        let b_panels = a_panel.wrapping_add(k * LANES);
        let b_at = |panel: usize| b_panels.wrapping_add(panel * k * COLS);
        // SAFETY: the scratch memory has room for a tile of a and all of b; places end with the result.
        unsafe {
            for lane in 0..n.div_ceil(LANES) {
                let to = b_at(lane / 2).wrapping_add(lane % 2 * LANES);
                pack::<1>(&b, (lane * LANES, LANES), COLS, |_| to);
            }
            for row in (0..m).step_by(ROWS) {
                let rows = (m - row).min(ROWS);
                pack::<1>(&a, (row, ROWS), LANES, |_| a_panel);
                for panel in 0..panels {
                    let col = panel * COLS;
                    let cols = (n - col).min(COLS);
                    let place = Place {
                        out: dst.0.wrapping_add(row * dst.1 + col),
                        stride: dst.1,
                        rows,
                        cols,
                        begin,
                    };
                    let goal = Goal {
                        sum: dst.0,
                        scale,
                        first: true,
                        last: Some(place),
                    };
                    tile((rows, cols), k, a_panel, b_at(panel), &[goal]);
                }
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
        let begin = scratch.as_mut_ptr();
        work(begin.wrapping_add(begin.align_offset(64).min(LANES)));
    });
}
