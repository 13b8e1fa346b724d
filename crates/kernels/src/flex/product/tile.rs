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

/// Adds scale a b to every goal, for packed a ([depth][16], of which `rows` count) and b ([depth][32]).
///
/// # Safety
/// The processor has AVX-512; a, b and the sums begin at a cache line and have `depth` lines and [`TILE`] elements; the
/// places have no more than `rows` rows and are the caller's, initialised for [`Begin::Add`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile(rows: usize, depth: usize, a: *const f32, b: *const f32, goals: &[Goal]) {
    // SAFETY: promised by the caller.
    unsafe {
        match rows {
            0..=2 => rows_of::<2>(depth, a, b, goals),
            3..=4 => rows_of::<4>(depth, a, b, goals),
            5..=6 => rows_of::<6>(depth, a, b, goals),
            7..=8 => rows_of::<8>(depth, a, b, goals),
            9..=10 => rows_of::<10>(depth, a, b, goals),
            11..=12 => rows_of::<12>(depth, a, b, goals),
            _ => rows_of::<ROWS>(depth, a, b, goals),
        }
    }
}

/// # Safety
/// As for [`tile`], with at most M rows.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn rows_of<const M: usize>(
    depth: usize,
    mut a: *const f32,
    mut b: *const f32,
    goals: &[Goal],
) {
    let near = nearby(goals);
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    for step in 0..depth {
        // SAFETY: a and b have `depth` lines; fetching reads nothing.
        unsafe {
            let line = [_mm512_load_ps(b), _mm512_load_ps(b.add(LANES))];
            let ahead = b.wrapping_add(AHEAD * COLS).cast::<i8>();
            _mm_prefetch::<_MM_HINT_T0>(ahead);
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
            // With the last steps, line by line, what the sums go to.
            let at = (step + 2 * M).saturating_sub(depth);
            for (line, stride) in near {
                let line = line.wrapping_add(at / 2 * stride + at % 2 * 64);
                _mm_prefetch::<_MM_HINT_T0>(line);
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i));
                sums[0] = _mm512_fmadd_ps(x, line[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(x, line[1], sums[1]);
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
                    for (i, [left, right]) in sums.iter().enumerate() {
                        _mm512_store_ps(goal.sum.add(i * COLS), _mm512_mul_ps(*left, scale));
                        _mm512_store_ps(
                            goal.sum.add(i * COLS + LANES),
                            _mm512_mul_ps(*right, scale),
                        );
                    }
                }
                (false, None) => {
                    for (i, [left, right]) in sums.iter().enumerate() {
                        let at = goal.sum.add(i * COLS);
                        _mm512_store_ps(at, _mm512_fmadd_ps(*left, scale, _mm512_load_ps(at)));
                        let at = at.add(LANES);
                        _mm512_store_ps(at, _mm512_fmadd_ps(*right, scale, _mm512_load_ps(at)));
                    }
                }
                (first, Some(place)) => {
                    let mut results = sums;
                    for (i, [left, right]) in results.iter_mut().enumerate() {
                        if first {
                            *left = _mm512_mul_ps(*left, scale);
                            *right = _mm512_mul_ps(*right, scale);
                        } else {
                            let at = goal.sum.add(i * COLS);
                            *left = _mm512_fmadd_ps(*left, scale, _mm512_load_ps(at));
                            *right = _mm512_fmadd_ps(*right, scale, _mm512_load_ps(at.add(LANES)));
                        }
                    }
                    if place.rows >= M && place.cols == COLS {
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
/// As for [`tile`], for a place of M rows and 32 columns.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn whole<const M: usize>(results: &[[__m512; 2]; M], place: &Place) {
    for (i, [left, right]) in results.iter().enumerate() {
        // SAFETY: inside the place; a bias has a value for every column.
        unsafe {
            let out = place.out.add(i * place.stride);
            let (mut left, mut right) = (*left, *right);
            let begin = match place.begin {
                Begin::Zero => None,
                Begin::Bias(bias) => Some(bias),
                Begin::Add => Some(out.cast_const()),
            };
            if let Some(begin) = begin {
                left = _mm512_add_ps(left, _mm512_loadu_ps(begin));
                right = _mm512_add_ps(right, _mm512_loadu_ps(begin.add(LANES)));
            }
            _mm512_storeu_ps(out, left);
            _mm512_storeu_ps(out.add(LANES), right);
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
unsafe fn part<const M: usize>(results: &[[__m512; 2]; M], place: &Place) {
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
