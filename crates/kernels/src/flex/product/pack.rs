//! Operands in the order in which a tile reads them: for every step of the depth a line with one element of each row of
//! a (or column of b), the lines of a panel one after the other. For Strassen's products the panels are sums of the
//! operand's quarters.

use std::mem::MaybeUninit;

use super::isa::{Isa, fetch, fetch_far};

/// An operand seen from its panels: `across` goes over the rows of a or the columns of b, `along` over the depth. It is cut
/// in `grid` x `grid` blocks, of which the last ones may be smaller.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) data: *const f32,
    /// Elements from one to the next.
    pub(super) across: usize,
    pub(super) along: usize,
    /// How many there are.
    pub(super) width: usize,
    pub(super) depth: usize,
    /// How many there are in a block.
    pub(super) block_width: usize,
    pub(super) block_depth: usize,
    /// Whether the blocks are counted along first, as those of b are.
    pub(super) along_first: bool,
}

// SAFETY: tasks only read through the pointer.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

impl Source {
    /// The block that a matrix calls (row, column), as a part that begins there.
    #[inline]
    fn block(&self, row: usize, column: usize) -> Self {
        let (u, v) = if self.along_first {
            (column, row)
        } else {
            (row, column)
        };
        let (first, top) = (u * self.block_width, v * self.block_depth);
        Self {
            data: self
                .data
                .wrapping_add(first * self.across + top * self.along),
            width: self.width.saturating_sub(first).min(self.block_width),
            depth: self.depth.saturating_sub(top).min(self.block_depth),
            ..*self
        }
    }
}

/// Lines that are summed at a time, a multiple of the largest register.
const CHUNK: usize = 128;
/// Elements of a row between the one that is read and the one that is fetched.
const AHEAD: usize = 64;
/// Elements of the largest register.
const MOST_LANES: usize = 16;

/// Lines between the one that is read where it lies and the one that is fetched.
const LINES_AHEAD: usize = 32;
/// Registers of a line, at most.
const MOST_WIDE: usize = 2;

/// Lines on their way.
#[repr(align(64))]
struct Square([MaybeUninit<f32>; CHUNK * MOST_LANES * MOST_WIDE]);

/// Where the lines of each sum begin; one is enough for an operand in one piece.
pub(super) type Places = [*mut f32; 7];

/// Packs W registers x `block_depth` elements from `first` of a block on, of which `count` count, of each of the sums: the lines are
/// `step` elements apart. What this thread is thought to pack then lies `next` rows of a or columns of b further on, and is
/// fetched where each of them is a line of memory; where the lines of the depth are, those of the sums are fetched some lines ahead.
///
/// The sums are those of Strassen's products, over quarters a b / c d: a + d, c + d, a, d, a + b, c - a, b - d; of an operand in one piece
/// it is the operand. What is beyond the operand is 0.
///
/// # Safety
/// The processor has the instructions, the source is readable, one of its steps is 1, and the places have room and begin at a
/// multiple of a register.
#[inline(always)]
pub(super) unsafe fn pack<S: Isa, const GRID: usize, const W: usize>(
    source: &Source,
    part: (usize, usize),
    step: usize,
    out: Places,
    next: usize,
) {
    if GRID == 1 {
        for top in (0..source.block_depth).step_by(CHUNK) {
            let lines = (source.block_depth - top).min(CHUNK);
            // SAFETY: promised by the caller.
            unsafe {
                let to = out[0].add(top * step);
                let from = lines_of::<S, W>(source, part, (top, lines), (to, step), next);
                if from.0 != to.cast_const() {
                    for line in 0..lines {
                        for lane in (0..W).map(|w| w * S::LANES) {
                            let [a] = read::<S, 1>([from], line, lane);
                            S::store(to.add(line * step + lane), a);
                        }
                    }
                }
            }
        }
        return;
    }
    const EMPTY: Square = Square([MaybeUninit::uninit(); CHUNK * MOST_LANES * MOST_WIDE]);
    let mut squares = [EMPTY; 4];
    for top in (0..source.block_depth).step_by(CHUNK) {
        let lines = (source.block_depth - top).min(CHUNK);
        let mut from = [(std::ptr::null(), 0); 4];
        for (n, (from, square)) in from.iter_mut().zip(&mut squares).enumerate() {
            let block = source.block(n / 2, n % 2);
            let square = (square.0.as_mut_ptr().cast(), W * S::LANES);
            // SAFETY: promised by the caller.
            *from = unsafe { lines_of::<S, W>(&block, part, (top, lines), square, next) };
        }
        let to = out.map(|out| out.wrapping_add(top * step));
        for line in 0..lines {
            if source.across == 1 {
                for (data, step) in from {
                    for lane in (0..W).map(|w| w * S::LANES) {
                        fetch_far(data.wrapping_add((line + LINES_AHEAD) * step + lane));
                    }
                }
            }
            for lane in (0..W).map(|w| w * S::LANES) {
                // SAFETY: each block has so many lines, in the source or in its square.
                unsafe {
                    let [a, b, c, d] = read::<S, 4>(from, line, lane);
                    let sums = [
                        S::add(a, d),
                        S::add(c, d),
                        a,
                        d,
                        S::add(a, b),
                        S::sub(c, a),
                        S::sub(b, d),
                    ];
                    for (to, sum) in to.into_iter().zip(sums) {
                        S::store(to.add(line * step + lane), sum);
                    }
                }
            }
        }
    }
}

/// # Safety
/// Every block has the line.
#[inline(always)]
unsafe fn read<S: Isa, const N: usize>(
    from: [(*const f32, usize); N],
    line: usize,
    lane: usize,
) -> [S::Register; N] {
    // SAFETY: promised by the caller.
    from.map(|(data, step)| unsafe { S::read(data.add(line * step + lane)) })
}

/// Where the elements from `first` on of the lines from `top` on lie side by side, and how far apart the lines are: in the source where
/// they do, else in `place`, which is given in the same way.
///
/// # Safety
/// As for [`pack`]; the place has room for the lines.
#[inline(always)]
unsafe fn lines_of<S: Isa, const W: usize>(
    block: &Source,
    (first, wanted): (usize, usize),
    (top, lines): (usize, usize),
    (to, step): (*mut f32, usize),
    next: usize,
) -> (*const f32, usize) {
    let width = block.width.saturating_sub(first).min(W * S::LANES);
    let depth = block.depth.saturating_sub(top).min(lines);
    let data = block
        .data
        .wrapping_add(first * block.across + top * block.along);
    // SAFETY: counts end with the block, and places with the lines.
    unsafe {
        if block.across == 1 {
            if width == W * S::LANES && depth == lines {
                return (data, block.along);
            }
            for line in 0..lines {
                for lane in (0..W).map(|w| w * S::LANES) {
                    let values = if line < depth {
                        let from = data.wrapping_add(line * block.along + lane);
                        S::read_first(width.saturating_sub(lane), from)
                    } else {
                        S::zero()
                    };
                    S::store(to.add(line * step + lane), values);
                }
            }
        } else {
            debug_assert_eq!(block.along, 1);
            for part in (0..lines).step_by(S::LANES) {
                let count = depth.saturating_sub(part).min(S::LANES);
                for lane in (0..W).map(|w| w * S::LANES) {
                    let row = |i: usize| {
                        let from = data.wrapping_add((lane + i) * block.across + part);
                        if lane + i >= width.min(wanted) {
                            S::zero()
                        } else if count == S::LANES {
                            fetch(from.wrapping_add(AHEAD));
                            fetch_far(from.wrapping_add(next * block.across));
                            S::read(from)
                        } else {
                            S::read_first(count, from)
                        }
                    };
                    S::turn(row, lines - part, to.add(part * step + lane), step);
                }
            }
        }
    }
    (to, step)
}
