//! GELU and its derivative by table, with AVX-512: a register has room for one coefficient of sixteen pieces, and one instruction
//! picks sixteen of them.
//!
//! GELU(x) = x / 2 + |x| (Phi(|x|) - 1/2), and GELU'(x) = 1/2 + sign(x) (Phi(u) + u phi(u) - 1/2) at u = |x|, so that one function on
//! [0, inf) is needed of each. It is made of 15 pieces of degree 5 and, where it is 1/2 but for less than the rounding of f32, of
//! that constant. Absolute error before rounding: 7e-9 of the first, 5e-8 of the second.

use std::arch::x86_64::*;
use std::sync::LazyLock;

/// Pieces, each with its middle at a multiple of the width.
const PIECES: usize = 16;
const WIDTH: f64 = 0.41;
/// Coefficients of a piece.
const TERMS: usize = 6;

/// Coefficients in powers of (u / WIDTH - piece), of all pieces side by side.
#[repr(align(64))]
struct Table([[f32; PIECES]; TERMS]);

static CUMULATIVE: LazyLock<Table> = LazyLock::new(|| Table::of(|u| normal(u).0));
static DERIVATIVE: LazyLock<Table> = LazyLock::new(|| {
    Table::of(|u| {
        let (cumulative, density) = normal(u);
        cumulative + u * density
    })
});

/// (Phi(u) - 1/2, phi(u)) in double precision, by the series phi(u) (u + u^3 / 3 + u^5 / (3 5) + ..), in which nothing cancels.
fn normal(u: f64) -> (f64, f64) {
    let density = (-0.5 * u * u).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let (mut term, mut sum, mut odd) = (u, 0.0, 1.0);
    while term > sum * f64::EPSILON {
        sum += term;
        odd += 2.0;
        term *= u * u / odd;
    }
    (density * sum, density)
}

impl Table {
    fn of(function: impl Fn(f64) -> f64) -> Self {
        let mut table = [[0.0; PIECES]; TERMS];
        for piece in 0..PIECES - 1 {
            let of_piece = interpolated(|r| {
                let u = WIDTH * (piece as f64 + r);
                function(u.abs()) * u.signum()
            });
            for (row, coefficient) in table.iter_mut().zip(of_piece) {
                row[piece] = coefficient as f32;
            }
        }
        table[0][PIECES - 1] = 0.5;
        Self(table)
    }
}

/// The polynomial that equals a function at the Chebyshev nodes of [-1/2, 1/2] (Newton's divided differences, then multiplied out).
fn interpolated(function: impl Fn(f64) -> f64) -> [f64; TERMS] {
    let node =
        |i: usize| 0.5 * ((2 * i + 1) as f64 / (2 * TERMS) as f64 * std::f64::consts::PI).cos();
    let mut differences: [f64; TERMS] = std::array::from_fn(|i| function(node(i)));
    for order in 1..TERMS {
        for i in (order..TERMS).rev() {
            differences[i] = (differences[i] - differences[i - 1]) / (node(i) - node(i - order));
        }
    }
    let mut powers = [0.0; TERMS];
    for i in (0..TERMS).rev() {
        // powers = powers (r - node) + difference
        for k in (1..TERMS).rev() {
            powers[k] = powers[k - 1] - node(i) * powers[k];
        }
        powers[0] = differences[i] - node(i) * powers[0];
    }
    powers
}

/// Whether the processor has the instructions.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

/// out = GELU(x + bias) of rows.
///
/// # Panics
/// Panics when the lengths do not agree.
///
/// # Safety
/// They are [`available`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn gelu(out: &mut [f32], x: &[f32], bias: Option<&[f32]>, width: usize) {
    let table = Registers::of(&CUMULATIVE);
    let half = _mm512_set1_ps(0.5);
    let apply = |x: __m512, _: __m512| {
        let (size, value) = table.at(x);
        _mm512_fmadd_ps(size, value, _mm512_mul_ps(x, half))
    };
    // SAFETY: promised by the caller.
    unsafe { for_registers::<false>(out, x, bias, width, apply) };
}

/// gradient *= GELU'(x + bias) of rows.
///
/// # Panics
/// Panics when the lengths do not agree.
///
/// # Safety
/// As for [`gelu`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn gelu_gradient(
    gradient: &mut [f32],
    x: &[f32],
    bias: Option<&[f32]>,
    width: usize,
) {
    let table = Registers::of(&DERIVATIVE);
    let half = _mm512_set1_ps(0.5);
    let sign = _mm512_set1_epi32(i32::MIN);
    let apply = |x: __m512, gradient: __m512| {
        let (_, value) = table.at(x);
        let sign = _mm512_and_epi32(_mm512_castps_si512(x), sign);
        let signed = _mm512_xor_epi32(_mm512_castps_si512(value), sign);
        _mm512_mul_ps(gradient, _mm512_add_ps(half, _mm512_castsi512_ps(signed)))
    };
    // SAFETY: promised by the caller.
    unsafe { for_registers::<true>(gradient, x, bias, width, apply) };
}

/// A table in registers.
#[derive(Clone, Copy)]
struct Registers([__m512; TERMS]);

impl Registers {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn of(table: &Table) -> Self {
        // SAFETY: every row is a register.
        Self(std::array::from_fn(|k| unsafe {
            _mm512_load_ps(table.0[k].as_ptr())
        }))
    }

    /// (|x|, the function there).
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn at(&self, x: __m512) -> (__m512, __m512) {
        // Adding 1.5 x 2^23 rounds to the nearest integer, which is then in the low bits.
        let shift = _mm512_set1_ps(12_582_912.0);
        let end = _mm512_set1_ps(PIECES as f32 - 1.0);
        let size = _mm512_abs_ps(x);
        // What is no number is the second operand, and stays none.
        let place = _mm512_min_ps(
            end,
            _mm512_mul_ps(size, _mm512_set1_ps((1.0 / WIDTH) as f32)),
        );
        let shifted = _mm512_add_ps(place, shift);
        let r = _mm512_sub_ps(place, _mm512_sub_ps(shifted, shift));
        let piece = _mm512_castps_si512(shifted);
        let mut value = _mm512_permutexvar_ps(piece, self.0[TERMS - 1]);
        for k in (0..TERMS - 1).rev() {
            value = _mm512_fmadd_ps(value, r, _mm512_permutexvar_ps(piece, self.0[k]));
        }
        (size, value)
    }
}

/// out = apply(x + bias, out) of rows, a register at a time; what `out` was is read only where READ says so.
///
/// # Safety
/// As for [`gelu`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn for_registers<const READ: bool>(
    out: &mut [f32],
    x: &[f32],
    bias: Option<&[f32]>,
    width: usize,
    apply: impl Fn(__m512, __m512) -> __m512,
) {
    const LANES: usize = 16;
    assert_eq!(out.len(), x.len(), "elements in and out");
    assert!(
        bias.is_none_or(|bias| bias.len() == width),
        "the bias's width"
    );
    for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        for first in (0..width).step_by(LANES) {
            let mask = ((1u32 << (width - first).min(LANES)) - 1) as __mmask16;
            // SAFETY: the mask ends with the row.
            unsafe {
                let read = |from: &[f32]| _mm512_maskz_loadu_ps(mask, from.as_ptr().add(first));
                let mut value = read(x);
                if let Some(bias) = bias {
                    value = _mm512_add_ps(value, read(bias));
                }
                let before = if READ { read(out) } else { value };
                _mm512_mask_storeu_ps(out.as_mut_ptr().add(first), mask, apply(value, before));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_functions_are_within_their_stated_error() {
        if !available() {
            return;
        }
        let x: Vec<f32> = (-80_000..80_000).map(|i| i as f32 * 1e-4).collect();
        let (mut out, mut slope) = (vec![0.0; x.len()], vec![1.0; x.len()]);
        // SAFETY: they are available.
        unsafe {
            gelu(&mut out, &x, None, x.len());
            gelu_gradient(&mut slope, &x, None, x.len());
        }
        for ((x, out), slope) in x.iter().zip(out).zip(slope) {
            let x = f64::from(*x);
            let (half, density) = normal(x.abs());
            let cumulative = 0.5 + half * x.signum();
            // The stated error, and three roundings of the largest number there is.
            let rounding = f64::from(f32::EPSILON) * x.abs();
            let off = (f64::from(out) - x * cumulative).abs();
            assert!(
                off < 7e-9 * x.abs() + 0.75 * rounding + 1e-12,
                "GELU({x}): {off:e}"
            );
            let off = (f64::from(slope) - (cumulative + x * density)).abs();
            assert!(off < 5e-8 + 1.2e-7, "GELU'({x}): {off:e}");
        }
    }

    #[test]
    fn what_is_far_out_is_exact_and_what_is_no_number_stays_none() {
        if !available() {
            return;
        }
        let x = [-1e30, -100.0, -6.0, 0.0, 6.0, 100.0, 1e30, f32::NAN];
        let (mut out, mut slope) = ([1.0; 8], [2.0; 8]);
        // SAFETY: they are available.
        unsafe {
            gelu(&mut out, &x, None, 8);
            gelu_gradient(&mut slope, &x, None, 8);
        }
        assert_eq!(out[..7], [0.0, 0.0, 0.0, 0.0, 6.0, 100.0, 1e30]);
        assert_eq!(slope[..7], [0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0]);
        assert!(out[7].is_nan() && slope[7].is_nan());
    }
}
