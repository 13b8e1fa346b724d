//! The innermost loop: a tile of up to 14 x 32 results, which stays in the registers of AVX-512 over the whole depth.

use std::arch::x86_64::{
    __m512, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_load_ps,
    _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_store_ps, _mm512_storeu_ps,
};

/// Elements of a register.
pub(super) const LANES: usize = 16;
/// Rows of a tile: 14 x 2 sums, two columns of b and one element of a fill the 32 registers.
pub(super) const ROWS: usize = 14;
/// Columns of a tile.
pub(super) const COLS: usize = 2 * LANES;
/// Lines of b between the one that is multiplied and the one that is fetched.
const AHEAD: usize = 24;

/// What a result begins with.
#[derive(Clone, Copy)]
pub(super) enum Begin {
    /// Nothing.
    Zero,
    /// One value a column.
    Bias(*const f32),
    /// What is in its place.
    Add,
}

/// Where results go, and how much of a tile counts there.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) begin: Begin,
}

/// One of the sums that a product of blocks is a part of. It grows in a tile of its own, dense and near; with its last part
/// it goes to its place.
#[derive(Clone, Copy)]
pub(super) struct Goal {
    pub(super) sum: *mut f32,
    pub(super) scale: f32,
    /// Nothing is in the sum yet.
    pub(super) first: bool,
    pub(super) last: Option<Place>,
}

/// Elements of a tile.
pub(super) const TILE: usize = ROWS * COLS;

/// Adds scale a b to every goal, for packed a ([depth][16], of which `rows` count) and b ([depth][32], of which `cols` count).
///
/// # Safety
/// The processor has AVX-512; a and b begin at a cache line and have `depth` lines; sums that are kept
/// between products begin at one and have [`TILE`] elements; the places have no more than `rows` rows and `cols` columns and are the caller's, initialised for [`Begin::Add`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile(
    (rows, cols): (usize, usize),
    depth: usize,
    a: *const f32,
    b: *const f32,
    goals: &[Goal],
) {
    // SAFETY: promised by the caller.
    unsafe {
        if cols <= LANES {
            columns_of::<1>(rows, depth, a, b, goals);
        } else {
            columns_of::<2>(rows, depth, a, b, goals);
        }
    }
}

/// # Safety
/// As for [`tile`], with at most 16 N columns.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn columns_of<const N: usize>(
    rows: usize,
    depth: usize,
    a: *const f32,
    b: *const f32,
    goals: &[Goal],
) {
    // SAFETY: promised by the caller.
    unsafe {
        match rows {
            0..=2 => block::<2, N>(depth, a, b, goals),
            3..=4 => block::<4, N>(depth, a, b, goals),
            5..=6 => block::<6, N>(depth, a, b, goals),
            7..=8 => block::<8, N>(depth, a, b, goals),
            9..=10 => block::<10, N>(depth, a, b, goals),
            11..=12 => block::<12, N>(depth, a, b, goals),
            _ => block::<ROWS, N>(depth, a, b, goals),
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
    goals: &[Goal],
) {
    let near = nearby(goals);
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    for step in 0..depth {
        // SAFETY: a and b have `depth` lines; fetching reads nothing.
        unsafe {
            let mut line = [_mm512_setzero_ps(); N];
            for (j, line) in line.iter_mut().enumerate() {
                *line = _mm512_load_ps(b.add(j * LANES));
                let ahead = b.wrapping_add(AHEAD * COLS + j * LANES);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
            // With the last steps, line by line, what the sums go to.
            let at = (step + 2 * M).saturating_sub(depth);
            for (line, stride) in near {
                let line = line.wrapping_add(at / 2 * stride + at % 2 * 64);
                _mm_prefetch::<_MM_HINT_T0>(line);
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i));
                for (sum, line) in sums.iter_mut().zip(line) {
                    *sum = _mm512_fmadd_ps(x, line, *sum);
                }
            }
            a = a.add(LANES);
            b = b.add(COLS);
        }
    }
    for goal in goals {
        let scale = _mm512_set1_ps(goal.scale);
        // SAFETY: the sums and places are the caller's.
        unsafe {
            match (goal.first, goal.last) {
                (true, None) => {
                    for (i, sums) in sums.iter().enumerate() {
                        for (j, sum) in sums.iter().enumerate() {
                            let at = goal.sum.add(i * COLS + j * LANES);
                            _mm512_store_ps(at, _mm512_mul_ps(*sum, scale));
                        }
                    }
                }
                (false, None) => {
                    for (i, sums) in sums.iter().enumerate() {
                        for (j, sum) in sums.iter().enumerate() {
                            let at = goal.sum.add(i * COLS + j * LANES);
                            _mm512_store_ps(at, _mm512_fmadd_ps(*sum, scale, _mm512_load_ps(at)));
                        }
                    }
                }
                (first, Some(place)) => {
                    let mut results = sums;
                    for (i, results) in results.iter_mut().enumerate() {
                        for (j, result) in results.iter_mut().enumerate() {
                            *result = if first {
                                _mm512_mul_ps(*result, scale)
                            } else {
                                let at = goal.sum.add(i * COLS + j * LANES);
                                _mm512_fmadd_ps(*result, scale, _mm512_load_ps(at))
                            };
                        }
                    }
                    if place.rows >= M && place.cols == N * LANES {
                        whole(&results, &place);
                    } else {
                        part(&results, &place);
                    }
                }
            }
        }
    }
}

/// Where a tile's results go first, and the bytes from row to row there.
#[inline]
fn nearby(goals: &[Goal]) -> [(*const i8, usize); 2] {
    let near = |goal: &Goal| match goal.last {
        Some(place) => (
            place.out.cast_const().cast(),
            place.stride * size_of::<f32>(),
        ),
        None => (goal.sum.cast_const().cast(), COLS * size_of::<f32>()),
    };
    let first = near(&goals[0]);
    [first, goals.get(1).map_or(first, near)]
}

/// # Safety
/// As for [`tile`], for a place of M rows and 16 N columns.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn whole<const M: usize, const N: usize>(results: &[[__m512; N]; M], place: &Place) {
    for (i, row) in results.iter().enumerate() {
        for (j, result) in row.iter().enumerate() {
            // SAFETY: inside the place; a bias has a value for every column.
            unsafe {
                let out = place.out.add(i * place.stride + j * LANES);
                let value = match place.begin {
                    Begin::Zero => *result,
                    Begin::Bias(bias) => {
                        _mm512_add_ps(*result, _mm512_loadu_ps(bias.add(j * LANES)))
                    }
                    Begin::Add => _mm512_add_ps(*result, _mm512_loadu_ps(out)),
                };
                _mm512_storeu_ps(out, value);
            }
        }
    }
}

/// The elements of a register that count when `count` are left.
pub(super) fn mask(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

/// # Safety
/// As for [`tile`], for a place at the border.
#[target_feature(enable = "avx512f")]
unsafe fn part<const M: usize, const N: usize>(results: &[[__m512; N]; M], place: &Place) {
    for (i, row) in results.iter().enumerate().take(place.rows) {
        for (j, result) in row.iter().enumerate() {
            let mask = mask(place.cols.saturating_sub(j * LANES));
            // SAFETY: the mask ends with the place's columns.
            unsafe {
                let out = place.out.wrapping_add(i * place.stride + j * LANES);
                let begin = match place.begin {
                    Begin::Zero => _mm512_setzero_ps(),
                    Begin::Bias(bias) => _mm512_maskz_loadu_ps(mask, bias.wrapping_add(j * LANES)),
                    Begin::Add => _mm512_maskz_loadu_ps(mask, out),
                };
                _mm512_mask_storeu_ps(out, mask, _mm512_add_ps(*result, begin));
            }
        }
    }
}
