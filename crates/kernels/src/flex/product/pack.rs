//! Operands in the order in which a tile reads them: for every step of the depth a line with one element of each
//! row of a (or column of b), the lines of a panel one after the other.

use std::arch::x86_64::{
    __m512, __mmask16, _mm512_loadu_ps, _mm512_maskz_loadu_ps,
    _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_unpackhi_ps,
    _mm512_unpacklo_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_unpackhi_pd, _mm512_unpacklo_pd,
};

use super::avx512::LANES;

/// A part of a matrix to be packed: `width` elements of each of `depth` lines.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) data: *const f32,
    /// From an element of a line to the next.
    pub(super) across: usize,
    /// From a line to the next.
    pub(super) along: usize,
    pub(super) width: usize,
    pub(super) depth: usize,
}

/// Writes `lanes` x 16 elements for each line; what is beyond the width is 0 or arbitrary, but finite where the source is.
///
/// # Safety
/// The processor has AVX-512, the source is readable, `out` has room for `depth` lines, and one of the steps is 1.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack(source: Source, lanes: usize, out: *mut f32) {
    for lane in 0..lanes {
        let first = lane * LANES;
        let part = Source {
            // SAFETY: not read where it is beyond the width.
            data: source.data.wrapping_add(first * source.across),
            width: source.width.saturating_sub(first).min(LANES),
            ..source
        };
        // SAFETY: promised by the caller.
        unsafe {
            let out = out.add(first);
            if source.across == 1 {
                lines(part, lanes * LANES, out);
            } else {
                turned(part, lanes * LANES, out);
            }
        }
    }
}

fn mask(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

/// The elements of a line lie side by side.
///
/// # Safety
/// As for [`pack`].
#[target_feature(enable = "avx512f")]
unsafe fn lines(source: Source, step: usize, out: *mut f32) {
    let whole = source.width == LANES;
    let mask = mask(source.width);
    for p in 0..source.depth {
        // SAFETY: promised by the caller.
        unsafe {
            let from = source.data.wrapping_add(p * source.along);
            let line = if whole {
                _mm512_loadu_ps(from)
            } else {
                _mm512_maskz_loadu_ps(mask, from)
            };
            _mm512_storeu_ps(out.add(p * step), line);
        }
    }
}

/// The elements of a line are `across` apart, and the lines one: 16 x 16 elements are turned at a time.
///
/// # Safety
/// As for [`pack`].
#[target_feature(enable = "avx512f")]
unsafe fn turned(source: Source, step: usize, out: *mut f32) {
    assert_eq!(source.along, 1);
    let mut p = 0;
    while p < source.depth {
        let count = (source.depth - p).min(LANES);
        let mask = mask(count);
        let mut square = [_mm512_setzero_ps(); LANES];
        for (i, row) in square.iter_mut().enumerate().take(source.width) {
            // SAFETY: row i is inside the width, and the mask ends with the depth.
            unsafe {
                let from = source.data.add(i * source.across + p);
                *row = if count == LANES {
                    _mm512_loadu_ps(from)
                } else {
                    _mm512_maskz_loadu_ps(mask, from)
                };
            }
        }
        let square = transpose(square);
        for (i, line) in square.into_iter().enumerate() {
            if i < count {
                // SAFETY: `out` has `depth` lines.
                unsafe { _mm512_storeu_ps(out.add((p + i) * step), line) };
            }
        }
        p += LANES;
    }
}

/// 16 x 16 elements with rows and columns exchanged.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose(r: [__m512; LANES]) -> [__m512; LANES] {
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
