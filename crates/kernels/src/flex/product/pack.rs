//! Operands in the order in which a tile reads them: for every step of the depth a line with one element of each row of
//! a (or column of b), the lines of a panel one after the other. For Strassen's products the panels are sums of the
//! operand's quarters.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd,
    _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4,
    _mm512_store_ps, _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd,
    _mm512_unpacklo_ps,
};
use std::mem::MaybeUninit;

use super::tile::{LANES, mask};

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

/// Lines that are summed at a time, a multiple of 16.
const CHUNK: usize = 64;
/// Elements of a row between the one that is read and the one that is fetched.
const AHEAD: usize = 64;

/// Lines on their way.
#[repr(align(64))]
struct Square([MaybeUninit<f32>; CHUNK * LANES]);

/// Packs 16 x `block_depth` elements from `first` of a block on, of which `count` count, of each of the sums: the lines are
/// `step` elements apart, and `out(n)` is where those of sum n begin. What is beyond the operand is 0.
///
/// The sums are those of Strassen's products, over quarters a b / c d: a + d, c + d, a, d, a + b, c - a, b - d; of an operand in one piece
/// it is the operand.
///
/// # Safety
/// The processor has AVX-512, the source is readable, one of its steps is 1, and `out` has room and begins at a cache
/// line.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack<const GRID: usize>(
    source: &Source,
    (first, count): (usize, usize),
    step: usize,
    out: impl Fn(usize) -> *mut f32,
) {
    if GRID == 1 {
        for top in (0..source.block_depth).step_by(CHUNK) {
            let lines = (source.block_depth - top).min(CHUNK);
            // SAFETY: promised by the caller.
            unsafe {
                let to = out(0).add(top * step);
                let (from, stride) = lines_of(source, (first, count), (top, lines), (to, step));
                if from != to.cast_const() {
                    for line in 0..lines {
                        let [a] = read([(from, stride)], line);
                        _mm512_store_ps(to.add(line * step), a);
                    }
                }
            }
        }
        return;
    }
    const EMPTY: Square = Square([MaybeUninit::uninit(); CHUNK * LANES]);
    let mut squares = [EMPTY; 4];
    for top in (0..source.block_depth).step_by(CHUNK) {
        let lines = (source.block_depth - top).min(CHUNK);
        let mut from = [(std::ptr::null(), 0); 4];
        for (n, (from, square)) in from.iter_mut().zip(&mut squares).enumerate() {
            let block = source.block(n / 2, n % 2);
            let square = (square.0.as_mut_ptr().cast(), LANES);
            // SAFETY: promised by the caller.
            *from = unsafe { lines_of(&block, (first, count), (top, lines), square) };
        }
        let to: [*mut f32; 7] = std::array::from_fn(|n| out(n).wrapping_add(top * step));
        for line in 0..lines {
            // SAFETY: each block has so many lines, in the source or in its square.
            unsafe {
                let [a, b, c, d] = read(from, line);
                let sums = [
                    _mm512_add_ps(a, d),
                    _mm512_add_ps(c, d),
                    a,
                    d,
                    _mm512_add_ps(a, b),
                    _mm512_sub_ps(c, a),
                    _mm512_sub_ps(b, d),
                ];
                for (to, sum) in to.into_iter().zip(sums) {
                    _mm512_store_ps(to.add(line * step), sum);
                }
            }
        }
    }
}

/// # Safety
/// Every block has the line.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn read<const N: usize>(from: [(*const f32, usize); N], line: usize) -> [__m512; N] {
    // SAFETY: promised by the caller.
    from.map(|(data, step)| unsafe { _mm512_loadu_ps(data.add(line * step)) })
}

/// Where the 16 elements from `first` on of the lines from `top` on lie side by side, and how far apart the lines are: in the source where
/// they do, else in `place`, which is given in the same way.
///
/// # Safety
/// As for [`pack`]; the place has room for the lines.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn lines_of(
    block: &Source,
    (first, wanted): (usize, usize),
    (top, lines): (usize, usize),
    (to, step): (*mut f32, usize),
) -> (*const f32, usize) {
    let width = block.width.saturating_sub(first).min(LANES);
    let depth = block.depth.saturating_sub(top).min(lines);
    let data = block
        .data
        .wrapping_add(first * block.across + top * block.along);
    // SAFETY: masks and counts end with the block, and places with the lines.
    unsafe {
        if block.across == 1 {
            if width == LANES && depth == lines {
                return (data, block.along);
            }
            let mask = mask(width);
            for line in 0..lines {
                let values = if line < depth {
                    _mm512_maskz_loadu_ps(mask, data.wrapping_add(line * block.along))
                } else {
                    _mm512_setzero_ps()
                };
                _mm512_store_ps(to.add(line * step), values);
            }
        } else {
            debug_assert_eq!(block.along, 1);
            for part in (0..lines).step_by(LANES) {
                let count = depth.saturating_sub(part).min(LANES);
                let mask = mask(count);
                let mut rows = [_mm512_setzero_ps(); LANES];
                for (i, row) in rows.iter_mut().enumerate().take(width.min(wanted)) {
                    let from = data.wrapping_add(i * block.across + part);
                    _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD).cast());
                    *row = if count == LANES {
                        _mm512_loadu_ps(from)
                    } else {
                        _mm512_maskz_loadu_ps(mask, from)
                    };
                }
                let to = to.add(part * step);
                for (line, values) in turned(rows).into_iter().enumerate().take(lines - part) {
                    _mm512_store_ps(to.add(line * step), values);
                }
            }
        }
    }
    (to, step)
}

/// 16 x 16 elements with rows and columns exchanged.
#[target_feature(enable = "avx512f")]
#[inline]
fn turned(r: [__m512; LANES]) -> [__m512; LANES] {
    let zero = _mm512_setzero_ps();
    // Pairs of rows, then quadruples: every quarter of a register holds 4 x 4 elements turned.
    let mut pairs = [zero; LANES];
    for i in 0..LANES / 2 {
        pairs[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    let mut quads = [zero; LANES];
    for i in 0..LANES / 4 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|j| _mm512_castps_pd(pairs[4 * i + j]));
        quads[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        quads[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        quads[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        quads[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    // quads[4 i + j] holds columns j, 4 + j, 8 + j, 12 + j of rows 4 i to 4 i + 3: now the quarters change places.
    let mut out = [zero; LANES];
    for j in 0..4 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| quads[4 * i + j]);
        let low_ab = _mm512_shuffle_f32x4::<0x88>(a, b);
        let high_ab = _mm512_shuffle_f32x4::<0xdd>(a, b);
        let low_cd = _mm512_shuffle_f32x4::<0x88>(c, d);
        let high_cd = _mm512_shuffle_f32x4::<0xdd>(c, d);
        out[j] = _mm512_shuffle_f32x4::<0x88>(low_ab, low_cd);
        out[8 + j] = _mm512_shuffle_f32x4::<0xdd>(low_ab, low_cd);
        out[4 + j] = _mm512_shuffle_f32x4::<0x88>(high_ab, high_cd);
        out[12 + j] = _mm512_shuffle_f32x4::<0xdd>(high_ab, high_cd);
    }
    out
}
