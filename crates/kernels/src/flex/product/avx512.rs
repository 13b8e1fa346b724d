//! The innermost loop: a tile of up to 14 x 32 results in registers.

use std::arch::x86_64::{
    __m512, __mmask16, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps,
};

/// Elements of a register.
pub(super) const LANES: usize = 16;
/// Rows of a tile: 14 x 2 sums, two columns of b and one element of a fill the 32 registers.
pub(super) const ROWS: usize = 14;
/// Columns of a tile.
pub(super) const COLS: usize = 2 * LANES;

/// What a tile is added to.
#[derive(Clone, Copy)]
pub(super) enum Begin {
    Zero,
    /// One value a column.
    Bias(*const f32),
    /// The tile's place.
    Add,
}

/// Where a tile goes, and how much of it there is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// place = begin + scale a b, for packed a ([depth][16], of which 14 count) and b ([depth][32], or [depth][16] for at most
/// 16 columns).
///
/// # Safety
/// The processor has AVX-512; a and b have `depth` lines; the place is the caller's, initialised for [`Begin::Add`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile(
    depth: usize,
    a: *const f32,
    b: *const f32,
    scale: f32,
    begin: Begin,
    place: Place,
) {
    // SAFETY: promised by the caller.
    unsafe {
        match (place.rows > ROWS / 2, place.cols > LANES) {
            (true, true) => block::<ROWS, 2>(depth, a, b, scale, begin, place),
            (true, false) => block::<ROWS, 1>(depth, a, b, scale, begin, place),
            (false, true) => block::<{ ROWS / 2 }, 2>(depth, a, b, scale, begin, place),
            (false, false) => block::<{ ROWS / 2 }, 1>(depth, a, b, scale, begin, place),
        }
    }
}

/// # Safety
/// As for [`tile`], with at most M rows and 16 N columns.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn block<const M: usize, const N: usize>(
    depth: usize,
    mut a: *const f32,
    mut b: *const f32,
    scale: f32,
    begin: Begin,
    place: Place,
) {
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    for _ in 0..depth {
        // SAFETY: a and b have `depth` lines.
        unsafe {
            let mut line = [_mm512_setzero_ps(); N];
            for (j, line) in line.iter_mut().enumerate() {
                *line = _mm512_loadu_ps(b.add(j * LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i));
                for (sum, line) in sums.iter_mut().zip(line) {
                    *sum = _mm512_fmadd_ps(x, line, *sum);
                }
            }
            a = a.add(LANES);
            b = b.add(N * LANES);
        }
    }
    let factor = _mm512_set1_ps(scale);
    for j in 0..N {
        let left = place.cols.saturating_sub(j * LANES).min(LANES);
        let mask: __mmask16 = ((1u32 << left) - 1) as __mmask16;
        let bias = match begin {
            // SAFETY: the bias has a value for every column of the mask.
            Begin::Bias(bias) => unsafe { _mm512_maskz_loadu_ps(mask, bias.add(j * LANES)) },
            Begin::Zero | Begin::Add => _mm512_setzero_ps(),
        };
        for (i, sums) in sums.iter().enumerate() {
            if i < place.rows {
                // SAFETY: the row and the columns of the mask are the caller's.
                unsafe {
                    let out = place.out.add(i * place.stride + j * LANES);
                    let value: __m512 = match begin {
                        Begin::Zero => _mm512_mul_ps(sums[j], factor),
                        Begin::Bias(_) => _mm512_fmadd_ps(sums[j], factor, bias),
                        Begin::Add => {
                            let before = _mm512_maskz_loadu_ps(mask, out);
                            _mm512_fmadd_ps(sums[j], factor, before)
                        }
                    };
                    _mm512_mask_storeu_ps(out, mask, value);
                }
            }
        }
    }
}
