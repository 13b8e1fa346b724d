//! Products with the narrow factors of an adapter: a pass over the wide operand, whose dropout is drawn on the way.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi32, _mm512_cmplt_epu32_mask, _mm512_fmadd_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_mul_ps,
    _mm512_mullo_epi32, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32,
    _mm512_setzero_ps, _mm512_srli_epi32, _mm512_xor_si512,
};

use super::Block;
use super::tile::{LANES, mask};
use crate::random::Mask;

impl Block<'_> {
    fn rows(&self) -> usize {
        self.x.len() / self.width
    }

    fn mask(&self) -> Option<Mask> {
        (!self.dropout.is_none()).then(|| self.dropout.mask())
    }

    /// 16 elements of a row from a column on, dropped; 0 beyond its end.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn read(&self, dropout: Option<&Mask>, row: usize, col: usize) -> __m512 {
        let at = row * self.width + col;
        let there = mask(self.width - col);
        // SAFETY: the mask ends with the row.
        let x = unsafe { _mm512_maskz_loadu_ps(there, self.x.as_ptr().add(at)) };
        match dropout {
            None => x,
            Some(dropout) => {
                let position = self.first.wrapping_add(at as u32);
                dropped(x, dropout, position)
            }
        }
    }
}

/// x times the factors of a mask from a position on.
#[target_feature(enable = "avx512f")]
#[inline]
fn dropped(x: __m512, dropout: &Mask, position: u32) -> __m512 {
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let word = |word: u32| _mm512_set1_epi32(word.cast_signed());
    let position = _mm512_add_epi32(word(position), lanes);
    let hash = mixed(_mm512_xor_si512(position, word(dropout.low)));
    let hash = mixed(_mm512_add_epi32(hash, word(dropout.high)));
    let falls = _mm512_cmplt_epu32_mask(hash, word(dropout.threshold));
    _mm512_mul_ps(x, _mm512_maskz_mov_ps(!falls, _mm512_set1_ps(dropout.keep)))
}

/// The bijection behind [`Mask::factor`].
#[target_feature(enable = "avx512f")]
#[inline]
fn mixed(x: __m512i) -> __m512i {
    let word = |word: u32| _mm512_set1_epi32(word.cast_signed());
    let x = _mm512_xor_si512(x, _mm512_srli_epi32::<16>(x));
    let x = _mm512_mullo_epi32(x, word(Mask::FACTORS[0]));
    let x = _mm512_xor_si512(x, _mm512_srli_epi32::<15>(x));
    let x = _mm512_mullo_epi32(x, word(Mask::FACTORS[1]));
    _mm512_xor_si512(x, _mm512_srli_epi32::<16>(x))
}

/// Calls a function for each group of 8, 4, 2 or 1 of the rank's columns.
macro_rules! in_groups {
    ($rank:expr, |$from:ident| $call:ident::<_>($($arg:expr),*)) => {
        let mut $from = 0;
        while $from < $rank {
            $from += match $rank - $from {
                1 => { $call::<1>($($arg),*); 1 }
                2..=3 => { $call::<2>($($arg),*); 2 }
                4..=7 => { $call::<4>($($arg),*); 4 }
                _ => { $call::<8>($($arg),*); 8 }
            };
        }
    };
}

/// out [rows, rank] = scale drop(x) factor^T, for a factor [rank, width].
///
/// # Safety
/// The processor has AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn project(out: &mut [f32], wide: Block<'_>, factor: &[f32], scale: f32) {
    let rank = factor.len() / wide.width;
    in_groups!(rank, |from| project_group::<_>(
        out,
        wide,
        factor,
        scale,
        (from, rank)
    ));
}

#[target_feature(enable = "avx512f")]
fn project_group<const R: usize>(
    out: &mut [f32],
    wide: Block<'_>,
    factor: &[f32],
    scale: f32,
    group: (usize, usize),
) {
    let rows = wide.rows();
    for row in (0..rows).step_by(2) {
        if row + 1 < rows {
            project_rows::<R, 2>(out, wide, factor, scale, group, row);
        } else {
            project_rows::<R, 1>(out, wide, factor, scale, group, row);
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn project_rows<const R: usize, const N: usize>(
    out: &mut [f32],
    wide: Block<'_>,
    factor: &[f32],
    scale: f32,
    (from, rank): (usize, usize),
    row: usize,
) {
    let dropout = wide.mask();
    let mut sums = [[_mm512_setzero_ps(); R]; N];
    for col in (0..wide.width).step_by(LANES) {
        let mut x = [_mm512_setzero_ps(); N];
        for (n, x) in x.iter_mut().enumerate() {
            *x = wide.read(dropout.as_ref(), row + n, col);
        }
        let there = mask(wide.width - col);
        for j in 0..R {
            let at = (from + j) * wide.width + col;
            // SAFETY: the mask ends with the factor's row.
            let factor = unsafe { _mm512_maskz_loadu_ps(there, factor.as_ptr().add(at)) };
            for (sums, x) in sums.iter_mut().zip(x) {
                sums[j] = _mm512_fmadd_ps(x, factor, sums[j]);
            }
        }
    }
    for (n, sums) in sums.iter().enumerate() {
        let at = (row + n) * rank + from;
        for (out, sum) in out[at..at + R].iter_mut().zip(sums) {
            *out = scale * _mm512_reduce_add_ps(*sum);
        }
    }
}

/// Rows that are added while the sums of some columns are in registers.
const ROWS: usize = 8;

/// out [rank, width] += t^T drop(x), for t [rows, rank].
///
/// # Safety
/// The processor has AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn gather(out: &mut [f32], wide: Block<'_>, t: &[f32]) {
    let rank = out.len() / wide.width;
    in_groups!(rank, |from| gather_group::<_>(out, wide, t, (from, rank)));
}

#[target_feature(enable = "avx512f")]
fn gather_group<const R: usize>(
    out: &mut [f32],
    wide: Block<'_>,
    t: &[f32],
    (from, rank): (usize, usize),
) {
    let (rows, width) = (wide.rows(), wide.width);
    let dropout = wide.mask();
    for top in (0..rows).step_by(ROWS) {
        let bottom = (top + ROWS).min(rows);
        for col in (0..width).step_by(LANES) {
            let there = mask(width - col);
            let mut sums = [_mm512_setzero_ps(); R];
            for (j, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the mask ends with the row of the result.
                *sum = unsafe {
                    _mm512_maskz_loadu_ps(there, out.as_ptr().add((from + j) * width + col))
                };
            }
            for row in top..bottom {
                let x = wide.read(dropout.as_ref(), row, col);
                let at = row * rank + from;
                for (sum, t) in sums.iter_mut().zip(&t[at..at + R]) {
                    *sum = _mm512_fmadd_ps(x, _mm512_set1_ps(*t), *sum);
                }
            }
            for (j, sum) in sums.iter().enumerate() {
                let at = (from + j) * width + col;
                // SAFETY: as above.
                unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr().add(at), there, *sum) };
            }
        }
    }
}
