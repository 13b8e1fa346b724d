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

/// Where results go: the place of a task's first tile, and how many rows and columns there are from there on.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) begin: Begin,
}

/// Which of a task's tiles it is: the elements from the first one's sum to its own, and the rows and columns from the first one's place.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) sum: usize,
    pub(super) row: usize,
    pub(super) col: usize,
}

/// One of the sums that a product of blocks is a part of, as the first tile of a task has it. It grows in a tile of its own, dense and
/// near; with its last part it goes to its place.
#[derive(Clone, Copy)]
pub(super) struct Goal {
    pub(super) sum: *mut f32,
    pub(super) scale: f32,
    /// Nothing is in the sum yet.
    pub(super) first: bool,
    pub(super) last: Option<Place>,
}

/// An operand as a tile reads it: for every step of the depth a line, `step` elements after the one before.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) data: *const f32,
    pub(super) step: usize,
}

/// Elements of a tile.
pub(super) const fn elements<S: Isa>() -> usize {
    S::ROWS * S::COLS
}

/// Floats of a cache line.
const LINE: usize = 16;

/// Adds scale a b to every goal, for lines of a, of which `rows` elements count, and of b, of which `cols` count.
///
/// # Safety
/// The processor has the instructions; a and b have `depth` lines, those of a as many elements as count, made even, and those of b whole
/// registers; sums that are kept
/// between products begin at one and have [`elements`]; the places have no more than `cols` columns, and no more than `rows` rows where those are not [`Isa::ROWS`], and are the caller's, initialised for [`Begin::Add`].
#[inline(always)]
pub(super) unsafe fn tile<S: Isa>(
    (rows, cols): (usize, usize),
    depth: usize,
    a: Lines,
    b: Lines,
    goals: &[Goal],
    at: At,
) {
    // SAFETY: promised by the caller.
    unsafe {
        if cols <= S::LANES {
            columns_of::<S, 1>(rows, depth, a, b, goals, at);
        } else {
            columns_of::<S, 2>(rows, depth, a, b, goals, at);
        }
    }
}

/// # Safety
/// As for [`tile`], with at most N registers of columns.
#[inline(always)]
unsafe fn columns_of<S: Isa, const N: usize>(
    rows: usize,
    depth: usize,
    a: Lines,
    b: Lines,
    goals: &[Goal],
    at: At,
) {
    // SAFETY: promised by the caller. Tiles larger than the instructions' are not made.
    unsafe {
        match rows {
            0..=2 => block::<S, 2, N>(depth, a, b, goals, at),
            3..=4 => block::<S, 4, N>(depth, a, b, goals, at),
            5..=6 => block::<S, 6, N>(depth, a, b, goals, at),
            7..=8 if S::ROWS > 6 => block::<S, 8, N>(depth, a, b, goals, at),
            9..=10 if S::ROWS > 6 => block::<S, 10, N>(depth, a, b, goals, at),
            11..=12 if S::ROWS > 6 => block::<S, 12, N>(depth, a, b, goals, at),
            _ if S::ROWS > 6 => block::<S, 14, N>(depth, a, b, goals, at),
            _ => unreachable!("a tile of more rows than there are"),
        }
    }
}

/// # Safety
/// As for [`tile`], with at most M rows and N registers of columns.
#[inline(always)]
unsafe fn block<S: Isa, const M: usize, const N: usize>(
    depth: usize,
    mut a: Lines,
    mut b: Lines,
    goals: &[Goal],
    at: At,
) {
    let mut sums = [[S::zero(); N]; M];
    // Before the end, line by line, what the sums go to is fetched.
    let near = nearby::<S>(goals, at);
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
        // SAFETY: the sums and places are the caller's.
        unsafe {
            if goal.first {
                add_to::<S, M, N, true>(&sums, goal, at);
            } else {
                add_to::<S, M, N, false>(&sums, goal, at);
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
    a: &mut Lines,
    b: &mut Lines,
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
    a: &mut Lines,
    b: &mut Lines,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let mut line = [S::zero(); N];
        for (j, line) in line.iter_mut().enumerate() {
            *line = S::read(b.data.add(j * S::LANES));
        }
        for from in (0..N * S::LANES).step_by(LINE) {
            fetch(b.data.wrapping_add(S::AHEAD * b.step + from));
        }
        {
            fetch(a.data.wrapping_add(S::AHEAD * a.step));
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let x = S::splat(*a.data.add(i));
            for (sum, line) in sums.iter_mut().zip(line) {
                *sum = S::mul_add(x, line, *sum);
            }
        }
        a.data = a.data.wrapping_add(a.step);
        b.data = b.data.wrapping_add(b.step);
    }
}

/// Where a tile's results go first, and the elements from row to row there.
#[inline(always)]
fn nearby<S: Isa>(goals: &[Goal], at: At) -> [(*const f32, usize); 2] {
    let near = |goal: &Goal| match goal.last {
        Some(place) => (place.at(at).cast_const(), place.stride),
        None => (goal.sum.wrapping_add(at.sum).cast_const(), S::COLS),
    };
    let first = near(&goals[0]);
    [first, goals.get(1).map_or(first, near)]
}

impl Place {
    #[inline(always)]
    fn at(&self, at: At) -> *mut f32 {
        self.out.wrapping_add(at.row * self.stride + at.col)
    }
}

/// Adds a tile's sums to a goal, which is `FIRST` or not.
///
/// # Safety
/// As for [`tile`], with M rows and N registers of columns.
#[inline(always)]
unsafe fn add_to<S: Isa, const M: usize, const N: usize, const FIRST: bool>(
    sums: &[[S::Register; N]; M],
    goal: &Goal,
    at: At,
) {
    let before = goal.sum.wrapping_add(at.sum);
    let scale = S::splat(goal.scale);
    // SAFETY: promised by the caller.
    unsafe {
        let Some(place) = goal.last else {
            for (i, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    let at = before.add(i * S::COLS + j * S::LANES);
                    S::store(at, so_far::<S, FIRST>(*sum, scale, at));
                }
            }
            return;
        };
        // In memory the compiler leaves them there; else it would move them several times.
        let sums = &std::hint::black_box(*sums);
        let (out, stride) = (place.at(at), place.stride);
        let rows = place.rows.saturating_sub(at.row);
        let cols = place.cols.saturating_sub(at.col);
        let results = Results::<S, M, N, FIRST> {
            sums,
            before,
            scale,
            out,
            stride,
        };
        match place.begin {
            begin if rows < M || cols < N * S::LANES => {
                let begin = match begin {
                    Begin::Bias(bias) => Begin::Bias(bias.wrapping_add(at.col)),
                    begin => begin,
                };
                results.part(begin, rows, cols);
            }
            Begin::Zero => results.whole::<false>((out, 0)),
            Begin::Bias(bias) => results.whole::<true>((bias.wrapping_add(at.col), 0)),
            Begin::Add => results.whole::<true>((out, stride)),
        }
    }
}

/// A goal's sum so far with a tile's: nothing is there yet for the first.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn so_far<S: Isa, const FIRST: bool>(
    sum: S::Register,
    scale: S::Register,
    before: *const f32,
) -> S::Register {
    // SAFETY: promised by the caller.
    unsafe {
        if FIRST {
            S::mul(sum, scale)
        } else {
            S::mul_add(sum, scale, S::load(before))
        }
    }
}

/// Sums that are complete with a tile's, on their way to their place.
struct Results<'a, S: Isa, const M: usize, const N: usize, const FIRST: bool> {
    sums: &'a [[S::Register; N]; M],
    before: *mut f32,
    scale: S::Register,
    out: *mut f32,
    stride: usize,
}

impl<S: Isa, const M: usize, const N: usize, const FIRST: bool> Results<'_, S, M, N, FIRST> {
    /// To a place of M rows and N registers of columns, `ADDED` to what they begin with: (pointer, from row to row).
    ///
    /// # Safety
    /// As for [`tile`].
    #[inline(always)]
    unsafe fn whole<const ADDED: bool>(&self, begin: (*const f32, usize)) {
        for i in 0..M {
            for j in 0..N {
                // SAFETY: inside the place; a bias has a value for every column.
                unsafe {
                    let mut result = self.result(i, j);
                    if ADDED {
                        let from = begin.0.add(i * begin.1 + j * S::LANES);
                        result = S::add(result, S::read(from));
                    }
                    S::write(self.out.add(i * self.stride + j * S::LANES), result);
                }
            }
        }
    }

    /// To a place at the border, of so many rows and columns.
    ///
    /// # Safety
    /// As for [`tile`].
    #[inline(always)]
    unsafe fn part(&self, begin: Begin, rows: usize, cols: usize) {
        for i in 0..M.min(rows) {
            for j in 0..N {
                let count = cols.saturating_sub(j * S::LANES);
                let out = self.out.wrapping_add(i * self.stride + j * S::LANES);
                // SAFETY: what counts ends with the place.
                unsafe {
                    let begin = match begin {
                        Begin::Zero => S::zero(),
                        Begin::Bias(bias) => S::read_first(count, bias.wrapping_add(j * S::LANES)),
                        Begin::Add => S::read_first(count, out),
                    };
                    S::write_first(count, out, S::add(self.result(i, j), begin));
                }
            }
        }
    }

    /// # Safety
    /// As for [`tile`].
    #[inline(always)]
    unsafe fn result(&self, i: usize, j: usize) -> S::Register {
        let before = self.before.wrapping_add(i * S::COLS + j * S::LANES);
        // SAFETY: promised by the caller.
        unsafe { so_far::<S, FIRST>(self.sums[i][j], self.scale, before) }
    }
}
