//! The innermost loop: a tile of results, which stays in the registers over the whole depth.

use super::isa::{Isa, fetch};

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
pub(super) const fn elements<S: Isa>() -> usize {
    S::ROWS * S::COLS
}

/// Floats of a cache line.
const LINE: usize = 16;

/// Adds scale a b to every goal, for packed a ([depth][LANES], of which `rows` count) and b ([depth][COLS], of which `cols` count).
///
/// # Safety
/// The processor has the instructions; a and b begin at a cache line and have `depth` lines; sums that are kept
/// between products begin at one and have [`elements`]; the places have no more than `cols` columns, and no more than `rows` rows where those are not [`Isa::ROWS`], and are the caller's, initialised for [`Begin::Add`].
#[inline(always)]
pub(super) unsafe fn tile<S: Isa>(
    (rows, cols): (usize, usize),
    depth: usize,
    a: *const f32,
    b: *const f32,
    goals: &[Goal],
) {
    // SAFETY: promised by the caller.
    unsafe {
        if cols <= S::LANES {
            columns_of::<S, 1>(rows, depth, a, b, goals);
        } else {
            columns_of::<S, 2>(rows, depth, a, b, goals);
        }
    }
}

/// # Safety
/// As for [`tile`], with at most N registers of columns.
#[inline(always)]
unsafe fn columns_of<S: Isa, const N: usize>(
    rows: usize,
    depth: usize,
    a: *const f32,
    b: *const f32,
    goals: &[Goal],
) {
    // SAFETY: promised by the caller. Tiles larger than the instructions' are not made.
    unsafe {
        match rows {
            0..=2 => block::<S, 2, N>(depth, a, b, goals),
            3..=4 => block::<S, 4, N>(depth, a, b, goals),
            5..=6 => block::<S, 6, N>(depth, a, b, goals),
            7..=8 if S::ROWS > 6 => block::<S, 8, N>(depth, a, b, goals),
            9..=10 if S::ROWS > 6 => block::<S, 10, N>(depth, a, b, goals),
            11..=12 if S::ROWS > 6 => block::<S, 12, N>(depth, a, b, goals),
            _ if S::ROWS > 6 => block::<S, 14, N>(depth, a, b, goals),
            _ => unreachable!("a tile of more rows than there are"),
        }
    }
}

/// # Safety
/// As for [`tile`], with at most M rows and N registers of columns.
#[inline(always)]
unsafe fn block<S: Isa, const M: usize, const N: usize>(
    depth: usize,
    mut a: *const f32,
    mut b: *const f32,
    goals: &[Goal],
) {
    let mut sums = [[S::zero(); N]; M];
    // Before the end, line by line, what the sums go to is fetched.
    let near = nearby::<S>(goals);
    let (across, lines) = (S::COLS / LINE, S::COLS / LINE * M);
    let before = depth.saturating_sub(S::FETCHED.max(lines));
    let after = (depth - before).saturating_sub(lines);
    // SAFETY: a and b have `depth` lines.
    unsafe {
        steps::<S, M, N>(before, &mut sums, &mut a, &mut b);
        for line in 0..depth - before - after {
            for (begin, stride) in near {
                let row = begin.wrapping_add(line / across * stride);
                fetch(row.wrapping_add(line % across * LINE));
                fetch(row.wrapping_add(S::COLS - 1));
            }
            step::<S, M, N>(&mut sums, &mut a, &mut b);
        }
        steps::<S, M, N>(after, &mut sums, &mut a, &mut b);
    }
    for goal in goals {
        let scale = S::splat(goal.scale);
        // SAFETY: the sums and places are the caller's.
        unsafe {
            match (goal.first, goal.last) {
                (true, None) => {
                    for (i, sums) in sums.iter().enumerate() {
                        for (j, sum) in sums.iter().enumerate() {
                            let at = goal.sum.add(i * S::COLS + j * S::LANES);
                            S::store(at, S::mul(*sum, scale));
                        }
                    }
                }
                (false, None) => {
                    for (i, sums) in sums.iter().enumerate() {
                        for (j, sum) in sums.iter().enumerate() {
                            let at = goal.sum.add(i * S::COLS + j * S::LANES);
                            S::store(at, S::mul_add(*sum, scale, S::load(at)));
                        }
                    }
                }
                (first, Some(place)) => {
                    let mut results = sums;
                    for (i, results) in results.iter_mut().enumerate() {
                        for (j, result) in results.iter_mut().enumerate() {
                            *result = if first {
                                S::mul(*result, scale)
                            } else {
                                let at = goal.sum.add(i * S::COLS + j * S::LANES);
                                S::mul_add(*result, scale, S::load(at))
                            };
                        }
                    }
                    if place.rows >= M && place.cols == N * S::LANES {
                        whole::<S, M, N>(&results, &place);
                    } else {
                        part::<S, M, N>(&results, &place);
                    }
                }
            }
        }
    }
}

/// Adds the products of so many steps of the depth.
///
/// # Safety
/// As for [`tile`], for so many lines of a and b.
#[inline(always)]
unsafe fn steps<S: Isa, const M: usize, const N: usize>(
    count: usize,
    sums: &mut [[S::Register; N]; M],
    a: &mut *const f32,
    b: &mut *const f32,
) {
    // SAFETY: promised by the caller.
    unsafe {
        for _ in 0..count / S::UNROLLED {
            for _ in 0..S::UNROLLED {
                step::<S, M, N>(sums, a, b);
            }
        }
        for _ in 0..count % S::UNROLLED {
            step::<S, M, N>(sums, a, b);
        }
    }
}

/// Adds the products of one step of the depth, and goes to the next.
///
/// # Safety
/// As for [`tile`], for one line of a and b.
#[inline(always)]
unsafe fn step<S: Isa, const M: usize, const N: usize>(
    sums: &mut [[S::Register; N]; M],
    a: &mut *const f32,
    b: &mut *const f32,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let mut line = [S::zero(); N];
        for (j, line) in line.iter_mut().enumerate() {
            *line = S::load(b.add(j * S::LANES));
        }
        for from in (0..N * S::LANES).step_by(LINE) {
            fetch(b.wrapping_add(S::AHEAD * S::COLS + from));
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let x = S::splat(*a.add(i));
            for (sum, line) in sums.iter_mut().zip(line) {
                *sum = S::mul_add(x, line, *sum);
            }
        }
        *a = a.add(S::LANES);
        *b = b.add(S::COLS);
    }
}

/// Where a tile's results go first, and the elements from row to row there.
#[inline(always)]
fn nearby<S: Isa>(goals: &[Goal]) -> [(*const f32, usize); 2] {
    let near = |goal: &Goal| match goal.last {
        Some(place) => (place.out.cast_const(), place.stride),
        None => (goal.sum.cast_const(), S::COLS),
    };
    let first = near(&goals[0]);
    [first, goals.get(1).map_or(first, near)]
}

/// # Safety
/// As for [`tile`], for a place of M rows and N registers of columns.
#[inline(always)]
unsafe fn whole<S: Isa, const M: usize, const N: usize>(
    results: &[[S::Register; N]; M],
    place: &Place,
) {
    for (i, row) in results.iter().enumerate() {
        for (j, result) in row.iter().enumerate() {
            // SAFETY: inside the place; a bias has a value for every column.
            unsafe {
                let out = place.out.add(i * place.stride + j * S::LANES);
                let value = match place.begin {
                    Begin::Zero => *result,
                    Begin::Bias(bias) => S::add(*result, S::read(bias.add(j * S::LANES))),
                    Begin::Add => S::add(*result, S::read(out)),
                };
                S::write(out, value);
            }
        }
    }
}

/// # Safety
/// As for [`tile`], for a place at the border.
#[inline(always)]
unsafe fn part<S: Isa, const M: usize, const N: usize>(
    results: &[[S::Register; N]; M],
    place: &Place,
) {
    for (i, row) in results.iter().enumerate().take(place.rows) {
        for (j, result) in row.iter().enumerate() {
            let count = place.cols.saturating_sub(j * S::LANES);
            // SAFETY: what counts ends with the place's columns.
            unsafe {
                let out = place.out.wrapping_add(i * place.stride + j * S::LANES);
                let begin = match place.begin {
                    Begin::Zero => S::zero(),
                    Begin::Bias(bias) => S::read_first(count, bias.wrapping_add(j * S::LANES)),
                    Begin::Add => S::read_first(count, out),
                };
                S::write_first(count, out, S::add(*result, begin));
            }
        }
    }
}
