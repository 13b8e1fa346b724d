//! A product in blocks that fit the caches, in one piece or by Strassen's seven products of quarters.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::isa::Isa;
use super::pack::Source;
use super::tile::{At, Begin, Goal, Lines, Place, elements};
use super::{Joined, Matrix, Operand, Start};
use crate::flex::buffer::Out;

/// Elements to the next cache line, at most.
const ALIGNED: usize = 16;
/// Elements by which each sum's panels are further on: at the same place in a page all seven would meet in the same lines of the first cache.
const APART: usize = 16 * 9;

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

/// Tiles and panels from which to which.
type Task = ((usize, usize), (usize, usize));

/// Pieces for each thread into which what is left is thought to be cut when the next task is made.
const SHARES: usize = 4;

/// Looks at what another thread makes before the processor is left to it.
const SPINS: usize = 1 << 14;

/// Tiles for each thread that are left when tasks begin to share columns.
const LAST: usize = 2;

/// How products are cut.
struct Cut {
    /// Rows and columns of a block of a result, and the tiles and panels that cover it.
    rows: usize,
    cols: usize,
    tiles: usize,
    panels: usize,
    /// Blocks of the depth of a left operand, the steps of each, and those of its parts.
    slices: usize,
    slice: usize,
    depth: usize,
    /// Panels of b, counted over all results, that are packed at a time, the elements of them for a slice, and slices, counted over all left
    /// operands, that are packed at a time.
    wide: usize,
    packed: usize,
    together: usize,
}

impl Cut {
    fn new<S: Isa>(grid: usize, [m, n, k]: [usize; 3], [results, terms]: [usize; 2]) -> Self {
        let (rows, cols) = (m.div_ceil(grid), n.div_ceil(grid));
        let (tiles, panels) = (rows.div_ceil(S::ROWS), cols.div_ceil(S::COLS));
        let slices = k.div_ceil(S::DEPTH * grid);
        let slice = k.div_ceil(slices).next_multiple_of(grid);
        let depth = slice / grid;
        let elements = |panels: usize| {
            let sum = (depth * S::COLS).saturating_mul(panels);
            sum.saturating_add(APART).saturating_mul(steps(grid).len())
        };
        let bytes = |panels| elements(panels).saturating_mul(size_of::<f32>());
        // As equal pieces as there can be.
        let all = panels.saturating_mul(results);
        let wide = all.div_ceil(bytes(all).div_ceil(S::PACKED));
        let packed = elements(wide);
        let all = slices.saturating_mul(terms);
        let together = all.div_ceil(all.div_ceil((S::PACKED / bytes(wide)).max(1)));
        Self {
            rows,
            cols,
            tiles,
            panels,
            slices,
            slice,
            depth,
            packed,
            wide,
            together,
        }
    }
}

fn steps(grid: usize) -> &'static [Step] {
    if grid == 1 { PLAIN } else { STRASSEN }
}

/// Bytes that [`run`] works in, beside a small piece for each thread.
pub(super) fn workspace<S: Isa, const GRID: usize>(size: [usize; 3], joined: [usize; 2]) -> usize {
    let cut = Cut::new::<S>(GRID, size, joined);
    let numbers = cut.together.saturating_mul(cut.packed);
    numbers
        .saturating_add(ALIGNED)
        .saturating_mul(size_of::<f32>())
}

/// Products whose results are dense; in one piece (GRID 1) or by quarters (GRID 2).
///
/// # Safety
/// The processor has the instructions, and as for [`super::joined`].
pub(super) unsafe fn run<S: Isa, const GRID: usize>(of: &Joined<'_>) {
    let (m, n, k) = (of.a[0].rows, of.b[0].cols, of.a[0].cols);
    let (results, terms) = (of.results.len(), of.a.len());
    let cut = Cut::new::<S>(GRID, [m, n, k], [results, terms]);
    let left = |a: &Matrix<'_>| Source {
        data: a.data.as_ptr(),
        across: a.row_stride,
        along: a.col_stride,
        width: m,
        depth: k,
        block_width: cut.rows,
        block_depth: cut.depth,
        along_first: false,
    };
    let right = |b: &Matrix<'_>| Source {
        data: b.data.as_ptr(),
        across: b.col_stride,
        along: b.row_stride,
        width: n,
        depth: k,
        block_width: cut.cols,
        block_depth: cut.depth,
        along_first: true,
    };
    let job = Job::<S, GRID> {
        results: of.results,
        scale: of.scale,
        size: [m, n],
        a: of.a.iter().map(left).collect(),
        b: of.b.iter().map(right).collect(),
        cut,
        isa: PhantomData,
    };
    let cut = &job.cut;
    let mut buffer: Vec<f32> = Vec::with_capacity(cut.together * cut.packed + ALIGNED);
    let begin = buffer.as_mut_ptr();
    let packed = Out(begin.wrapping_add(begin.align_offset(64).min(ALIGNED)));
    let threads = rayon::current_num_threads();
    for left in (0..cut.panels * results).step_by(cut.wide) {
        let columns = (left, (left + cut.wide).min(cut.panels * results));
        let tasks = job.tasks(threads, columns);
        for from in (0..cut.slices * terms).step_by(cut.together) {
            let slices = (from, (from + cut.together).min(cut.slices * terms));
            job.round(threads, slices, columns, &tasks, packed);
        }
    }
}

/// Products that are under way.
struct Job<'a, S, const GRID: usize> {
    results: &'a [(Out, Start<'a>)],
    scale: f32,
    size: [usize; 2],
    a: Vec<Source>,
    /// As in [`Joined`].
    b: Vec<Source>,
    cut: Cut,
    isa: PhantomData<S>,
}

impl<S: Isa, const GRID: usize> Job<'_, S, GRID> {
    /// Packs columns of b in slices of the depth and multiplies with them.
    fn round(
        &self,
        threads: usize,
        slices: (usize, usize),
        columns: (usize, usize),
        tasks: &[Task],
        packed: Out,
    ) {
        let wide = columns.1 - columns.0;
        let panels = (slices.1 - slices.0) * wide;
        let (next_panel, made, next_task) = Default::default();
        let counters: [&AtomicUsize; 3] = [&next_panel, &made, &next_task];
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            let [next_panel, made, next_task] = counters;
            let take = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
            while let Some(number) = Some(take(next_panel)).filter(|n| *n < panels) {
                let (slice, panel) = (number / wide, number % wide);
                let packed = packed.at(slice * self.cut.packed);
                // SAFETY: every panel is packed once.
                unsafe { self.pack_b(slices.0 + slice, columns.0 + panel, panel, packed) };
                made.fetch_add(1, Ordering::Release);
            }
            // What is left another thread is making now, for some microseconds, if it has a processor.
            let mut waited = 0;
            while made.load(Ordering::Acquire) < panels {
                match waited {
                    SPINS => std::thread::yield_now(),
                    _ => {
                        std::hint::spin_loop();
                        waited += 1;
                    }
                }
            }
            while let Some((tiles, panels)) = tasks.get(take(next_task)) {
                // SAFETY: b is packed, and tasks write different rows or columns.
                unsafe { self.multiply(slices, *tiles, *panels, columns.0, packed) };
            }
        });
    }

    /// Tiles and panels of each task. They decide who does what, never how an element is computed: the last ones are small,
    /// so that all threads end at about the same time.
    fn tasks(&self, threads: usize, (left, right): (usize, usize)) -> Vec<Task> {
        let most = if GRID == 1 {
            S::PLAIN_TILES
        } else {
            S::STRASSEN_TILES
        };
        let (tiles, panels) = (self.cut.tiles, right - left);
        let groups = panels.div_ceil(S::PANELS);
        let mut tasks = Vec::new();
        let mut top = 0;
        while top < tiles {
            let more = tiles - top;
            let bottom = top + more.div_ceil(SHARES * threads).min(most);
            // Where few tiles are left, the columns are shared too.
            let parts = match more {
                _ if tiles < threads => (2 * threads).div_ceil(tiles).min(groups),
                _ if more <= LAST * threads => groups,
                _ => 1,
            };
            for part in 0..parts {
                let [from, to] = [part, part + 1].map(|part| left + panels * part / parts);
                let columns = (from, to);
                tasks.push(((top, bottom), columns));
            }
            top = bottom;
        }
        tasks
    }

    /// A slice of an operand, counted from the operand's own first.
    fn slice_of(&self, source: &Source, slice: usize) -> Source {
        let from = slice * self.cut.slice;
        Source {
            data: source.data.wrapping_add(from * source.along),
            depth: (source.depth - from).min(self.cut.slice),
            ..*source
        }
    }

    /// Packs a panel of every block of b.
    ///
    /// # Safety
    /// The processor has the instructions and `packed` has room for a slice.
    unsafe fn pack_b(&self, slice: usize, panel: usize, place: usize, packed: *mut f32) {
        let (wide, depth) = (self.cut.wide, self.cut.depth);
        let (term, slice) = (slice / self.cut.slices, slice % self.cut.slices);
        let (result, panel) = (panel / self.cut.panels, panel % self.cut.panels);
        let source = &self.b[term * self.results.len() + result];
        let source = self.slice_of(source, slice);
        // Threads take panels in turn, most of the time.
        let next = S::COLS * rayon::current_num_threads();
        // SAFETY: promised by the caller.
        unsafe {
            let places = std::array::from_fn(|sum| {
                packed.wrapping_add((sum * wide + place) * depth * S::COLS + sum * APART)
            });
            S::pack::<GRID, 2>(&source, (panel * S::COLS, S::COLS), S::COLS, places, next);
        }
    }

    /// The rows of tiles and columns of panels in all blocks of the result, over slices of the depth.
    ///
    /// # Safety
    /// The processor has the instructions, the slices of b are packed, and nobody else writes there.
    unsafe fn multiply(
        &self,
        slices: (usize, usize),
        (top, bottom): (usize, usize),
        (left, right): (usize, usize),
        begin: usize,
        packed: Out,
    ) {
        let (depth, wide) = (self.cut.depth, self.cut.wide);
        let (steps, tiles) = (steps(GRID), bottom - top);
        let place = |sum: usize, tile: usize| (sum * tiles + tile) * depth * S::LANES + sum * APART;
        let sums = place(steps.len(), 0);
        let sum_tiles = GRID * GRID * tiles * S::PANELS;
        with_scratch(sums + sum_tiles * elements::<S>(), |a| {
            let sums = a.wrapping_add(sums);
            for slice in slices.0..slices.1 {
                let (term, own) = (slice / self.cut.slices, slice % self.cut.slices);
                let source = self.slice_of(&self.a[term], own);
                for tile in 0..tiles {
                    let first = (top + tile) * S::ROWS;
                    // What comes after the last one, nobody knows yet.
                    let next = if tile + 1 < tiles { S::ROWS } else { 0 };
                    // SAFETY: the scratch memory has room for the tiles of all sums.
                    unsafe {
                        let places = std::array::from_fn(|sum| a.wrapping_add(place(sum, tile)));
                        S::pack::<GRID, 1>(&source, (first, S::ROWS), S::LANES, places, next);
                    };
                }
                let b = packed.at((slice - slices.0) * self.cut.packed);
                let mut from = left;
                while from < right {
                    // Not beyond a result's last.
                    let end = right.min((from / self.cut.panels + 1) * self.cut.panels);
                    let to = (from + S::PANELS).min(end);
                    for step in steps {
                        let goals = [0, step.parts.len() - 1].map(|part| {
                            let part = step.parts[part];
                            let sum = part.block * tiles * S::PANELS * elements::<S>();
                            self.goal(slice, part, (top, from), sums.wrapping_add(sum))
                        });
                        for panel in from..to {
                            let first = (step.b * wide + panel - begin) * depth * S::COLS;
                            let b = Lines {
                                data: b.wrapping_add(first + step.b * APART),
                                step: S::COLS,
                            };
                            for tile in 0..tiles {
                                let a = Lines {
                                    data: a.wrapping_add(place(step.a, tile)),
                                    step: S::LANES,
                                };
                                let at = At {
                                    sum: (tile * S::PANELS + panel - from) * elements::<S>(),
                                    row: tile * S::ROWS,
                                    col: (panel - from) * S::COLS,
                                };
                                let size = self.tile_size(top + tile, panel);
                                // SAFETY: both are packed, and the results are this task's; the places end with the result.
                                unsafe {
                                    S::tile(size, depth, a, b, &goals[..step.parts.len()], at)
                                };
                            }
                        }
                    }
                    from = to;
                }
            }
        });
    }

    /// Rows and columns of a tile that count.
    fn tile_size(&self, row: usize, panel: usize) -> (usize, usize) {
        let panel = panel % self.cut.panels;
        let rows = (self.cut.rows - row * S::ROWS).min(S::ROWS);
        let cols = (self.cut.cols - panel * S::COLS).min(S::COLS);
        (rows, cols)
    }

    /// What tiles add to one block of the result, from that of a row and a panel on.
    fn goal(&self, slice: usize, part: Part, (row, panel): (usize, usize), sum: *mut f32) -> Goal {
        let (cut, [m, n]) = (&self.cut, self.size);
        let (out, start) = self.results[panel / cut.panels];
        let panel = panel % cut.panels;
        let [block_row, block_col] = [part.block / GRID, part.block % GRID];
        let first_row = block_row * cut.rows + row * S::ROWS;
        let first_col = block_col * cut.cols + panel * S::COLS;
        let place = || Place {
            out: out.at(first_row * n + first_col),
            stride: n,
            // To the end of the block or of the result.
            rows: m.min((block_row + 1) * cut.rows).saturating_sub(first_row),
            cols: n.min((block_col + 1) * cut.cols).saturating_sub(first_col),
            begin: match start {
                Start::Zero if slice == 0 => Begin::Zero,
                Start::Bias(bias) if slice == 0 => {
                    Begin::Bias(bias.as_ptr().wrapping_add(first_col))
                }
                Start::Zero | Start::Bias(_) | Start::Add => Begin::Add,
            },
        };
        Goal {
            sum,
            scale: part.sign * self.scale,
            first: part.first,
            last: part.last.then(place),
        }
    }
}

/// dst = lhs rhs times `scale`, or dst += it, on the calling thread: for small products, many of which run beside each other. An operand
/// whose lines lie in it as a tile reads them stays where it is; else b is packed once, a tile by tile.
///
/// # Safety
/// As for [`super::small_product`]; and the processor has the instructions.
pub(super) unsafe fn alone<S: Isa>(
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
    for (_, rows, columns) in [lhs, rhs] {
        assert!(
            rows == 1 || columns == 1,
            "an operand lies in rows or in columns"
        );
    }
    // A tile reads rows by twos and columns by registers: no more than there are.
    let a_lies = a.across == 1 && m.is_multiple_of(2);
    let b_lies = b.across == 1 && n.is_multiple_of(S::LANES);
    let panels = n.div_ceil(S::COLS);
    let begin = if accumulate { Begin::Add } else { Begin::Zero };
    let a_len = if a_lies { 0 } else { k * S::LANES };
    let b_len = if b_lies { 0 } else { k * panels * S::COLS };
    with_scratch(a_len + b_len, |a_panel| {
        let b_panels = a_panel.wrapping_add(a_len);
        let b_at = |panel: usize| match b_lies {
            true => Lines {
                data: b.data.wrapping_add(panel * S::COLS),
                step: b.along,
            },
            false => Lines {
                data: b_panels.wrapping_add(panel * k * S::COLS),
                step: S::COLS,
            },
        };
        // SAFETY: the scratch memory has room for a tile of a and all of b, where they are packed; places end with the result.
        unsafe {
            for panel in (0..panels).filter(|_| !b_lies) {
                let to = [b_panels.wrapping_add(panel * k * S::COLS); 7];
                let first = panel * S::COLS;
                if n - first > S::LANES {
                    S::pack::<1, 2>(&b, (first, S::COLS), S::COLS, to, 0);
                } else {
                    S::pack::<1, 1>(&b, (first, S::LANES), S::COLS, to, 0);
                }
            }
            let goal = Goal {
                sum: dst.0,
                scale,
                first: true,
                last: Some(Place {
                    out: dst.0,
                    stride: dst.1,
                    rows: m,
                    cols: n,
                    begin,
                }),
            };
            let mut row = 0;
            while row < m {
                let rows = height::<S>(m - row);
                let lines = match a_lies {
                    true => Lines {
                        data: a.data.wrapping_add(row),
                        step: a.along,
                    },
                    false => {
                        S::pack::<1, 1>(&a, (row, rows), S::LANES, [a_panel; 7], 0);
                        Lines {
                            data: a_panel,
                            step: S::LANES,
                        }
                    }
                };
                for panel in 0..panels {
                    let col = panel * S::COLS;
                    let size = (rows, (n - col).min(S::COLS));
                    S::tile(
                        size,
                        k,
                        lines,
                        b_at(panel),
                        &[goal],
                        At { sum: 0, row, col },
                    );
                }
                row += rows;
            }
        }
    });
}

/// Rows of the next tile where so many are left: all tiles are about as high, for one of few rows takes longer than its share.
fn height<S: Isa>(left: usize) -> usize {
    let tiles = left.div_ceil(S::ROWS);
    left.div_ceil(tiles).next_multiple_of(2).min(left)
}

/// Lends `len` elements of this thread's scratch memory, from the border of a cache line on.
fn with_scratch(len: usize, work: impl FnOnce(*mut f32)) {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.capacity() < len + ALIGNED {
            *scratch = Vec::with_capacity(len + ALIGNED);
        }
        let begin = scratch.as_mut_ptr();
        work(begin.wrapping_add(begin.align_offset(64).min(ALIGNED)));
    });
}
