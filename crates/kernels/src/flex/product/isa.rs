//! The instructions that products are made of: AVX-512 and AVX2 with FMA.

use std::arch::x86_64::*;

use super::pack::Source;
use super::tile::{At, Goal, Lines};
use super::{Block, Spread, pack, thin, tile};
use crate::random::Mask;

/// Instructions on registers of f32, and the sizes of what is made of them.
///
/// Every function needs a processor for which `available` is true. Those on registers are inlined into the last five, which are
/// compiled with the instructions.
pub(super) trait Isa: Copy + Sync + 'static {
    type Register: Copy;

    /// Elements of a register.
    const LANES: usize;
    /// Rows of a tile: its sums, the columns of b and an element of a fill the registers.
    const ROWS: usize;
    /// Columns of a tile.
    const COLS: usize = 2 * Self::LANES;
    /// Steps of the depth in one block: a tile of a and one of b share the first cache.
    const DEPTH: usize;
    /// Tiles of a, of every sum, that a task packs for itself at a time, by Strassen and in one piece: with some of b they fit
    /// the second cache.
    const STRASSEN_TILES: usize;
    const PLAIN_TILES: usize;
    /// Panels of b that a task goes through before the next sum: what they add to stays in the second cache.
    const PANELS: usize;
    /// Bytes of packed b at a time, unless one panel is more: with what the threads work on they stay in the last cache, of which other
    /// programs have their part.
    const PACKED: usize;
    /// Steps of the depth in one round of the innermost loop, which the compiler writes out: few, for it keeps to a loop where there are many.
    const UNROLLED: usize;
    /// Lines of b between the one that is multiplied and the one that is fetched.
    const AHEAD: usize;
    /// Steps before the end of a tile when what its sums go to is fetched; with more than there are, at the beginning.
    const FETCHED: usize;
    /// Rows from which a product in blocks is faster than the crate gemm's, for a right operand that is dense, and for one that is
    /// turned.
    const WORTH: [usize; 2];
    /// Rows that a projection goes through at a time.
    const PROJECTED: usize;

    fn available() -> bool;

    fn zero() -> Self::Register;
    fn splat(x: f32) -> Self::Register;
    /// Of an address that is a multiple of the register's bytes.
    unsafe fn load(from: *const f32) -> Self::Register;
    unsafe fn store(to: *mut f32, x: Self::Register);
    /// Of any address.
    unsafe fn read(from: *const f32) -> Self::Register;
    unsafe fn write(to: *mut f32, x: Self::Register);
    /// Of the first elements only; the others are read as 0.
    unsafe fn read_first(count: usize, from: *const f32) -> Self::Register;
    unsafe fn write_first(count: usize, to: *mut f32, x: Self::Register);
    unsafe fn add(a: Self::Register, b: Self::Register) -> Self::Register;
    unsafe fn sub(a: Self::Register, b: Self::Register) -> Self::Register;
    unsafe fn mul(a: Self::Register, b: Self::Register) -> Self::Register;
    /// a b + c
    unsafe fn mul_add(a: Self::Register, b: Self::Register, c: Self::Register) -> Self::Register;
    /// The sum of all elements.
    unsafe fn sum(x: Self::Register) -> f32;
    /// x times the factors of a mask from a position on.
    unsafe fn dropped(x: Self::Register, mask: &Mask, position: u32) -> Self::Register;
    /// Writes the columns of `rows` (a function of the row's number below LANES) to `to`, `step` elements apart, the first `count`
    /// of them.
    unsafe fn turn(rows: impl Fn(usize) -> Self::Register, count: usize, to: *mut f32, step: usize);

    /// As [`tile::tile`].
    unsafe fn tile(size: (usize, usize), depth: usize, a: Lines, b: Lines, goals: &[Goal], at: At);
    /// As [`pack::pack`].
    unsafe fn pack<const GRID: usize, const W: usize>(
        source: &Source,
        part: (usize, usize),
        step: usize,
        out: pack::Places,
        next: usize,
    );
    /// As [`thin::project`].
    unsafe fn project(out: &mut [f32], wide: Block<'_>, factor: &[f32], scale: f32);
    /// As [`thin::gather`].
    unsafe fn gather(out: &mut [f32], wide: Block<'_>, t: &[f32]);
    /// As [`thin::spread`].
    unsafe fn spread(out: &mut [f32], of: &Spread<'_>);
}

/// What is the same text for all instructions: registers that are made of numbers, and the functions that are compiled with the
/// instructions.
macro_rules! compiled {
    ($features:literal) => {
        #[inline(always)]
        fn zero() -> Self::Register {
            // SAFETY: a register of zeros.
            unsafe { std::mem::zeroed() }
        }

        #[inline(always)]
        fn splat(x: f32) -> Self::Register {
            // SAFETY: a register of so many elements.
            unsafe { std::mem::transmute([x; Self::LANES]) }
        }

        #[target_feature(enable = $features)]
        unsafe fn tile(
            size: (usize, usize),
            depth: usize,
            a: Lines,
            b: Lines,
            goals: &[Goal],
            at: At,
        ) {
            // SAFETY: promised by the caller.
            unsafe { tile::tile::<Self>(size, depth, a, b, goals, at) }
        }

        #[target_feature(enable = $features)]
        unsafe fn pack<const GRID: usize, const W: usize>(
            source: &Source,
            part: (usize, usize),
            step: usize,
            out: pack::Places,
            next: usize,
        ) {
            // SAFETY: promised by the caller.
            unsafe { pack::pack::<Self, GRID, W>(source, part, step, out, next) }
        }

        #[target_feature(enable = $features)]
        unsafe fn project(out: &mut [f32], wide: Block<'_>, factor: &[f32], scale: f32) {
            // SAFETY: promised by the caller.
            unsafe { thin::project::<Self>(out, wide, factor, scale) }
        }

        #[target_feature(enable = $features)]
        unsafe fn gather(out: &mut [f32], wide: Block<'_>, t: &[f32]) {
            // SAFETY: promised by the caller.
            unsafe { thin::gather::<Self>(out, wide, t) }
        }

        #[target_feature(enable = $features)]
        unsafe fn spread(out: &mut [f32], of: &Spread<'_>) {
            // SAFETY: promised by the caller.
            unsafe { thin::spread::<Self>(out, of) }
        }
    };
}

/// Functions of registers that are one instruction.
macro_rules! instructions {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? = $call:expr;)*) => {
        $(
            #[inline(always)]
            unsafe fn $name($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: promised by the caller.
                unsafe { $call }
            }
        )*
    };
}

/// The hashes behind [`Mask::factor`] at the positions from one on, a register full, by instructions on words.
macro_rules! hashes {
    ($words:ty, $lanes:expr, $set:ident, $add:ident, $xor:ident, $shift:ident, $multiply:ident) => {
        #[inline(always)]
        unsafe fn hashes(mask: &Mask, position: u32) -> $words {
            // SAFETY: promised by the caller.
            unsafe {
                let word = |word: u32| $set(word.cast_signed());
                let mixed = |x: $words| {
                    let x = $xor(x, $shift::<16>(x));
                    let x = $multiply(x, word(Mask::FACTORS[0]));
                    let x = $xor(x, $shift::<15>(x));
                    let x = $multiply(x, word(Mask::FACTORS[1]));
                    $xor(x, $shift::<16>(x))
                };
                let position = $add(word(position), $lanes);
                let hash = mixed($xor(position, word(mask.low)));
                mixed($add(hash, word(mask.high)))
            }
        }
    };
}

/// The first two of a turn's three stages: pairs of rows, then quadruples. Each 128 bits of a register then hold 4 x 4 elements
/// turned: number 4 i + j of the result has columns j, 4 + j, .. of the rows from 4 i to 4 i + 3.
macro_rules! quadruples {
    ($rows:expr, $low:ident, $high:ident, $shuffle:ident) => {{
        let rows = $rows;
        let mut pairs = [Self::zero(); Self::LANES];
        for i in (0..Self::LANES).step_by(2) {
            pairs[i] = $low(rows[i], rows[i + 1]);
            pairs[i + 1] = $high(rows[i], rows[i + 1]);
        }
        let mut quads = [Self::zero(); Self::LANES];
        for i in (0..Self::LANES).step_by(4) {
            quads[i] = $shuffle::<0x44>(pairs[i], pairs[i + 2]);
            quads[i + 1] = $shuffle::<0xee>(pairs[i], pairs[i + 2]);
            quads[i + 2] = $shuffle::<0x44>(pairs[i + 1], pairs[i + 3]);
            quads[i + 3] = $shuffle::<0xee>(pairs[i + 1], pairs[i + 3]);
        }
        quads
    }};
}

#[derive(Clone, Copy)]
pub(super) struct Avx512;

impl Avx512 {
    hashes!(
        __m512i,
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32,
        _mm512_add_epi32,
        _mm512_xor_si512,
        _mm512_srli_epi32,
        _mm512_mullo_epi32
    );
}

impl Isa for Avx512 {
    type Register = __m512;

    const LANES: usize = 16;
    const ROWS: usize = 14;
    const DEPTH: usize = 384;
    const STRASSEN_TILES: usize = 3;
    const PLAIN_TILES: usize = 16;
    const PANELS: usize = 6;
    // In tests so few that products of a moment have several rounds.
    const PACKED: usize = if cfg!(test) { 64 << 10 } else { 13 << 20 };
    const UNROLLED: usize = 1;
    const AHEAD: usize = 24;
    const FETCHED: usize = 60;
    const WORTH: [usize; 2] = [usize::MAX, 128];
    const PROJECTED: usize = 2;

    #[inline]
    fn available() -> bool {
        std::arch::is_x86_feature_detected!("avx512f")
    }

    instructions! {
        load(from: *const f32) -> __m512 = _mm512_load_ps(from);
        store(to: *mut f32, x: __m512) = _mm512_store_ps(to, x);
        read(from: *const f32) -> __m512 = _mm512_loadu_ps(from);
        write(to: *mut f32, x: __m512) = _mm512_storeu_ps(to, x);
        read_first(count: usize, from: *const f32) -> __m512 = _mm512_maskz_loadu_ps(first(count), from);
        write_first(count: usize, to: *mut f32, x: __m512) = _mm512_mask_storeu_ps(to, first(count), x);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        mul_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        sum(x: __m512) -> f32 = _mm512_reduce_add_ps(x);
    }

    #[inline(always)]
    unsafe fn dropped(x: __m512, mask: &Mask, position: u32) -> __m512 {
        // SAFETY: promised by the caller.
        unsafe {
            let threshold = _mm512_set1_epi32(mask.threshold.cast_signed());
            let falls = _mm512_cmplt_epu32_mask(Self::hashes(mask, position), threshold);
            _mm512_mul_ps(x, _mm512_maskz_mov_ps(!falls, _mm512_set1_ps(mask.keep)))
        }
    }

    #[inline(always)]
    unsafe fn turn(rows: impl Fn(usize) -> __m512, count: usize, to: *mut f32, step: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            let rows: [__m512; 16] = std::array::from_fn(rows);
            let quads = quadruples!(
                rows,
                _mm512_unpacklo_ps,
                _mm512_unpackhi_ps,
                _mm512_shuffle_ps
            );
            // Now the quarters change places.
            let mut out = [Self::zero(); Self::LANES];
            for j in 0..4 {
                let (a, b, c, d) = (quads[j], quads[4 + j], quads[8 + j], quads[12 + j]);
                let low_ab = _mm512_shuffle_f32x4::<0x88>(a, b);
                let high_ab = _mm512_shuffle_f32x4::<0xdd>(a, b);
                let low_cd = _mm512_shuffle_f32x4::<0x88>(c, d);
                let high_cd = _mm512_shuffle_f32x4::<0xdd>(c, d);
                out[j] = _mm512_shuffle_f32x4::<0x88>(low_ab, low_cd);
                out[8 + j] = _mm512_shuffle_f32x4::<0xdd>(low_ab, low_cd);
                out[4 + j] = _mm512_shuffle_f32x4::<0x88>(high_ab, high_cd);
                out[12 + j] = _mm512_shuffle_f32x4::<0xdd>(high_ab, high_cd);
            }
            for (line, column) in out.iter().enumerate() {
                if line < count {
                    _mm512_store_ps(to.add(line * step), *column);
                }
            }
        }
    }

    compiled!("avx512f");
}

/// The elements of a register that count when `count` are left.
fn first(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}

#[derive(Clone, Copy)]
pub(super) struct Avx2;

impl Avx2 {
    hashes!(
        __m256i,
        _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
        _mm256_set1_epi32,
        _mm256_add_epi32,
        _mm256_xor_si256,
        _mm256_srli_epi32,
        _mm256_mullo_epi32
    );
}

impl Isa for Avx2 {
    type Register = __m256;

    const LANES: usize = 8;
    const ROWS: usize = 6;
    const DEPTH: usize = 384;
    const STRASSEN_TILES: usize = 12;
    const PLAIN_TILES: usize = 24;
    const PANELS: usize = 8;
    const PACKED: usize = if cfg!(test) { 64 << 10 } else { 6 << 20 };
    const UNROLLED: usize = 2;
    const AHEAD: usize = 48;
    const FETCHED: usize = usize::MAX;
    const WORTH: [usize; 2] = [64, 64];
    const PROJECTED: usize = 1;

    #[inline]
    fn available() -> bool {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }

    instructions! {
        load(from: *const f32) -> __m256 = _mm256_load_ps(from);
        store(to: *mut f32, x: __m256) = _mm256_store_ps(to, x);
        read(from: *const f32) -> __m256 = _mm256_loadu_ps(from);
        write(to: *mut f32, x: __m256) = _mm256_storeu_ps(to, x);
        read_first(count: usize, from: *const f32) -> __m256 = _mm256_maskload_ps(from, first_of_8(count));
        write_first(count: usize, to: *mut f32, x: __m256) = _mm256_maskstore_ps(to, first_of_8(count), x);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        mul_add(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
    }

    #[inline(always)]
    unsafe fn sum(x: __m256) -> f32 {
        // SAFETY: promised by the caller.
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }

    #[inline(always)]
    unsafe fn dropped(x: __m256, mask: &Mask, position: u32) -> __m256 {
        // SAFETY: promised by the caller.
        unsafe {
            // An element stays where the hash is at least the threshold.
            let hash = Self::hashes(mask, position);
            let threshold = _mm256_set1_epi32(mask.threshold.cast_signed());
            let stays = _mm256_cmpeq_epi32(_mm256_max_epu32(hash, threshold), hash);
            let factors = _mm256_and_ps(_mm256_castsi256_ps(stays), _mm256_set1_ps(mask.keep));
            _mm256_mul_ps(x, factors)
        }
    }

    #[inline(always)]
    unsafe fn turn(rows: impl Fn(usize) -> __m256, count: usize, to: *mut f32, step: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            let rows: [__m256; 8] = std::array::from_fn(rows);
            let quads = quadruples!(
                rows,
                _mm256_unpacklo_ps,
                _mm256_unpackhi_ps,
                _mm256_shuffle_ps
            );
            // Now the halves change places.
            let mut out = [Self::zero(); Self::LANES];
            for j in 0..4 {
                out[j] = _mm256_permute2f128_ps::<0x20>(quads[j], quads[4 + j]);
                out[4 + j] = _mm256_permute2f128_ps::<0x31>(quads[j], quads[4 + j]);
            }
            for (line, column) in out.iter().enumerate() {
                if line < count {
                    _mm256_store_ps(to.add(line * step), *column);
                }
            }
        }
    }

    compiled!("avx2,fma");
}

/// A mask of the elements of a register that count when `count` are left.
#[inline(always)]
unsafe fn first_of_8(count: usize) -> __m256i {
    const MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: eight words from 0 to 8 on are inside; the instructions are promised by the caller.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - count.min(8)).cast()) }
}

/// Fetches the line of an address, which may be anywhere.
#[inline(always)]
pub(super) fn fetch<T>(address: *const T) {
    // SAFETY: fetching reads nothing, and every x86_64 has the instruction.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

/// Asks for the cache line of an address, which may be any, in the second cache.
#[inline(always)]
pub(super) fn fetch_far<T>(address: *const T) {
    // SAFETY: fetching reads nothing, and every x86_64 has the instruction.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
}
