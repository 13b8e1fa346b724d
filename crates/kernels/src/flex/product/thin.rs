//! Products with the narrow factors of an adapter: a pass over the wide operand, whose dropout is drawn on the way.

use super::isa::Isa;
use super::{Block, Spread};
use crate::random::Mask;

impl Block<'_> {
    fn rows(&self) -> usize {
        self.x.len() / self.width
    }

    fn mask(&self) -> Option<Mask> {
        (!self.dropout.is_none()).then(|| self.dropout.mask())
    }

    /// A register of a row's elements from a column on, dropped; 0 beyond its end.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    unsafe fn read<S: Isa>(&self, dropout: Option<&Mask>, row: usize, col: usize) -> S::Register {
        let at = row * self.width + col;
        // SAFETY: what is read ends with the row.
        unsafe {
            let x = upto::<S>(self.width - col, self.x.as_ptr().add(at));
            match dropout {
                None => x,
                Some(dropout) => S::dropped(x, dropout, self.first.wrapping_add(at as u32)),
            }
        }
    }
}

/// A register of the elements from an address on, of which there are `left`.
///
/// # Safety
/// The processor has the instructions, and the elements are readable.
#[inline(always)]
unsafe fn upto<S: Isa>(left: usize, from: *const f32) -> S::Register {
    // SAFETY: promised by the caller.
    unsafe {
        match left >= S::LANES {
            true => S::read(from),
            false => S::read_first(left, from),
        }
    }
}

/// Calls a function for each group of 8, 4, 2 or 1 of the rank's columns.
macro_rules! in_groups {
    ($rank:expr, |$from:ident| $call:ident::<S>($($arg:expr),*)) => {
        let mut $from = 0;
        while $from < $rank {
            $from += match $rank - $from {
                1 => { $call::<S, 1>($($arg),*); 1 }
                2..=3 => { $call::<S, 2>($($arg),*); 2 }
                4..=7 => { $call::<S, 4>($($arg),*); 4 }
                _ => { $call::<S, 8>($($arg),*); 8 }
            };
        }
    };
}

/// out [rows, rank] = scale drop(x) factor^T, for a factor [rank, width].
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
pub(super) unsafe fn project<S: Isa>(out: &mut [f32], wide: Block<'_>, factor: &[f32], scale: f32) {
    let rank = factor.len() / wide.width;
    // SAFETY: promised by the caller.
    unsafe {
        in_groups!(rank, |from| project_group::<S>(
            out,
            wide,
            factor,
            scale,
            (from, rank)
        ));
    }
}

/// # Safety
/// As for [`project`].
#[inline(always)]
unsafe fn project_group<S: Isa, const R: usize>(
    out: &mut [f32],
    wide: Block<'_>,
    factor: &[f32],
    scale: f32,
    group: (usize, usize),
) {
    let rows = wide.rows();
    for row in (0..rows).step_by(S::PROJECTED) {
        // SAFETY: promised by the caller.
        unsafe {
            if S::PROJECTED == 2 && row + 1 < rows {
                project_rows::<S, R, 2>(out, wide, factor, scale, group, row);
            } else {
                project_rows::<S, R, 1>(out, wide, factor, scale, group, row);
            }
        }
    }
}

/// # Safety
/// As for [`project`].
#[inline(always)]
unsafe fn project_rows<S: Isa, const R: usize, const N: usize>(
    out: &mut [f32],
    wide: Block<'_>,
    factor: &[f32],
    scale: f32,
    (from, rank): (usize, usize),
    row: usize,
) {
    let dropout = wide.mask();
    let mut sums = [[S::zero(); R]; N];
    for col in (0..wide.width).step_by(S::LANES) {
        // SAFETY: what is read ends with the rows of x and of the factor.
        unsafe {
            let mut x = [S::zero(); N];
            for (n, x) in x.iter_mut().enumerate() {
                *x = wide.read::<S>(dropout.as_ref(), row + n, col);
            }
            for j in 0..R {
                let at = (from + j) * wide.width + col;
                let factor = upto::<S>(wide.width - col, factor.as_ptr().add(at));
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[j] = S::mul_add(x, factor, sums[j]);
                }
            }
        }
    }
    for (n, sums) in sums.iter().enumerate() {
        let at = (row + n) * rank + from;
        for (out, sum) in out[at..at + R].iter_mut().zip(sums) {
            // SAFETY: the instructions are there.
            *out = scale * unsafe { S::sum(*sum) };
        }
    }
}

/// Rows that are added while the sums of some columns are in registers.
const ROWS: usize = 8;

/// out [rank, width] += t^T drop(x), for t [rows, rank].
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
pub(super) unsafe fn gather<S: Isa>(out: &mut [f32], wide: Block<'_>, t: &[f32]) {
    let rank = out.len() / wide.width;
    // SAFETY: promised by the caller.
    unsafe {
        in_groups!(rank, |from| gather_group::<S>(out, wide, t, (from, rank)));
    }
}

/// # Safety
/// As for [`gather`].
#[inline(always)]
unsafe fn gather_group<S: Isa, const R: usize>(
    out: &mut [f32],
    wide: Block<'_>,
    t: &[f32],
    (from, rank): (usize, usize),
) {
    let (rows, width) = (wide.rows(), wide.width);
    let dropout = wide.mask();
    for top in (0..rows).step_by(ROWS) {
        let bottom = (top + ROWS).min(rows);
        for col in (0..width).step_by(S::LANES) {
            let left = width - col;
            let mut sums = [S::zero(); R];
            // SAFETY: what is read and written ends with the rows.
            unsafe {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = upto::<S>(left, out.as_ptr().add((from + j) * width + col));
                }
                for row in top..bottom {
                    let x = wide.read::<S>(dropout.as_ref(), row, col);
                    let at = row * rank + from;
                    for (sum, t) in sums.iter_mut().zip(&t[at..at + R]) {
                        *sum = S::mul_add(x, S::splat(*t), *sum);
                    }
                }
                for (j, sum) in sums.iter().enumerate() {
                    let to = out.as_mut_ptr().add((from + j) * width + col);
                    match left >= S::LANES {
                        true => S::write(to, *sum),
                        false => S::write_first(left, to, *sum),
                    }
                }
            }
        }
    }
}

/// Rows that a register of the factor is read for.
const SHARED: usize = 4;

/// out = drop(bias + scale t b), or out += it, for rows that the call is about.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
pub(super) unsafe fn spread<S: Isa>(out: &mut [f32], of: &Spread<'_>) {
    let rows = out.len() / of.width;
    let mut row = 0;
    // SAFETY: promised by the caller.
    unsafe {
        while row + SHARED <= rows {
            spread_rows::<S, SHARED>(out, of, row);
            row += SHARED;
        }
        while row < rows {
            spread_rows::<S, 1>(out, of, row);
            row += 1;
        }
    }
}

/// # Safety
/// As for [`spread`].
#[inline(always)]
unsafe fn spread_rows<S: Isa, const N: usize>(out: &mut [f32], of: &Spread<'_>, row: usize) {
    let (width, rank) = (of.width, of.b.len() / of.width);
    let dropout = (!of.dropout.is_none()).then(|| of.dropout.mask());
    for col in (0..width).step_by(S::LANES) {
        let left = width - col;
        // SAFETY: what is read and written ends with the rows.
        unsafe {
            let begin = match of.bias {
                Some(bias) => upto::<S>(left, bias.as_ptr().add(col)),
                None => S::zero(),
            };
            let mut sums = [begin; N];
            for j in 0..rank {
                let b = upto::<S>(left, of.b.as_ptr().add(j * width + col));
                for (n, sum) in sums.iter_mut().enumerate() {
                    let factor = of.scale * of.t[(row + n) * rank + j];
                    *sum = S::mul_add(S::splat(factor), b, *sum);
                }
            }
            for (n, sum) in sums.iter().enumerate() {
                let at = (row + n) * width + col;
                let mut sum = match &dropout {
                    Some(mask) => S::dropped(*sum, mask, of.first.wrapping_add(at as u32)),
                    None => *sum,
                };
                let to = out.as_mut_ptr().add(at);
                if of.added {
                    sum = S::add(sum, upto::<S>(left, to.cast_const()));
                }
                match left >= S::LANES {
                    true => S::write(to, sum),
                    false => S::write_first(left, to, sum),
                }
            }
        }
    }
}
