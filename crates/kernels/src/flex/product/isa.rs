//! The instructions that products are made of: AVX-512 and AVX2 with FMA.

use std::arch::x86_64::*;

use super::pack::Source;
use super::tile::Goal;
use super::{Block, pack, thin, tile};
use crate::random::Mask;

/// Instructions on registers of f32, and the sizes of what is made of them.
///
/// Every function needs a processor for which `available` is true. Those on registers are inlined into the last four, which are
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
    /// Bytes of packed b at a time, unless one block of the depth is more: with what the threads work on they stay in the last cache.
    const PACKED: usize;
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
    unsafe fn tile(
        size: (usize, usize),
        depth: usize,
        a: *const f32,
        b: *const f32,
        goals: &[Goal],
    );
    /// As [`pack::pack`].
    unsafe fn pack<const GRID: usize, const W: usize>(
        source: &Source,
        part: (usize, usize),
        step: usize,
        out: pack::Places,
    );
    /// As [`thin::project`].
    unsafe fn project(out: &mut [f32], wide: Block<'_>, factor: &[f32], scale: f32);
    /// As [`thin::gather`].
    unsafe fn gather(out: &mut [f32], wide: Block<'_>, t: &[f32]);
}

/// The functions that are compiled with the instructions.
macro_rules! compiled {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        unsafe fn tile(
            size: (usize, usize),
            depth: usize,
            a: *const f32,
            b: *const f32,
            goals: &[Goal],
        ) {
            // SAFETY: promised by the caller.
            unsafe { tile::tile::<Self>(size, depth, a, b, goals) }
        }

        #[target_feature(enable = $features)]
        unsafe fn pack<const GRID: usize, const W: usize>(
            source: &Source,
            part: (usize, usize),
            step: usize,
            out: pack::Places,
        ) {
            // SAFETY: promised by the caller.
            unsafe { pack::pack::<Self, GRID, W>(source, part, step, out) }
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

#[derive(Clone, Copy)]
pub(super) struct Avx512;

impl Isa for Avx512 {
    type Register = __m512;

    const LANES: usize = 16;
    const ROWS: usize = 14;
    const DEPTH: usize = 384;
    const STRASSEN_TILES: usize = 3;
    const PLAIN_TILES: usize = 16;
    const PANELS: usize = 6;
    const PACKED: usize = 17 << 20;
    const AHEAD: usize = 24;
    const FETCHED: usize = 28;
    const WORTH: [usize; 2] = [usize::MAX, 128];
    const PROJECTED: usize = 2;

    #[inline]
    fn available() -> bool {
        std::arch::is_x86_feature_detected!("avx512f")
    }

    #[inline(always)]
    fn zero() -> __m512 {
        // SAFETY: a register of zeros.
        unsafe { std::mem::zeroed() }
    }

    #[inline(always)]
    fn splat(x: f32) -> __m512 {
        // SAFETY: a register of sixteen elements.
        unsafe { std::mem::transmute([x; 16]) }
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
        let word = |word: u32| word.cast_signed();
        // SAFETY: promised by the caller.
        unsafe {
            let mixed = |x: __m512i| {
                let x = _mm512_xor_si512(x, _mm512_srli_epi32::<16>(x));
                let x = _mm512_mullo_epi32(x, _mm512_set1_epi32(word(Mask::FACTORS[0])));
                let x = _mm512_xor_si512(x, _mm512_srli_epi32::<15>(x));
                let x = _mm512_mullo_epi32(x, _mm512_set1_epi32(word(Mask::FACTORS[1])));
                _mm512_xor_si512(x, _mm512_srli_epi32::<16>(x))
            };
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let position = _mm512_add_epi32(_mm512_set1_epi32(word(position)), lanes);
            let hash = mixed(_mm512_xor_si512(
                position,
                _mm512_set1_epi32(word(mask.low)),
            ));
            let hash = mixed(_mm512_add_epi32(hash, _mm512_set1_epi32(word(mask.high))));
            let falls = _mm512_cmplt_epu32_mask(hash, _mm512_set1_epi32(word(mask.threshold)));
            _mm512_mul_ps(x, _mm512_maskz_mov_ps(!falls, _mm512_set1_ps(mask.keep)))
        }
    }

    #[inline(always)]
    unsafe fn turn(rows: impl Fn(usize) -> __m512, count: usize, to: *mut f32, step: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            let r: [__m512; 16] = std::array::from_fn(rows);
            // Pairs of rows, then quadruples: every quarter of a register holds 4 x 4 elements turned.
            let mut pairs = [Self::zero(); Self::LANES];
            for i in 0..8 {
                pairs[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut quads = [_mm512_setzero_pd(); 16];
            for i in 0..4 {
                let at = 4 * i;
                let (a, b) = (_mm512_castps_pd(pairs[at]), _mm512_castps_pd(pairs[at + 1]));
                let (c, d) = (
                    _mm512_castps_pd(pairs[at + 2]),
                    _mm512_castps_pd(pairs[at + 3]),
                );
                quads[at] = _mm512_unpacklo_pd(a, c);
                quads[at + 1] = _mm512_unpackhi_pd(a, c);
                quads[at + 2] = _mm512_unpacklo_pd(b, d);
                quads[at + 3] = _mm512_unpackhi_pd(b, d);
            }
            // quads[4 i + j] holds columns j, 4 + j, 8 + j, 12 + j of rows 4 i to 4 i + 3: now the quarters change places.
            let mut out = [Self::zero(); Self::LANES];
            for j in 0..4 {
                let (a, b) = (_mm512_castpd_ps(quads[j]), _mm512_castpd_ps(quads[4 + j]));
                let (c, d) = (
                    _mm512_castpd_ps(quads[8 + j]),
                    _mm512_castpd_ps(quads[12 + j]),
                );
                let low_ab = _mm512_shuffle_f32x4::<0x88>(a, b);
                let high_ab = _mm512_shuffle_f32x4::<0xdd>(a, b);
                let low_cd = _mm512_shuffle_f32x4::<0x88>(c, d);
                let high_cd = _mm512_shuffle_f32x4::<0xdd>(c, d);
                out[j] = _mm512_shuffle_f32x4::<0x88>(low_ab, low_cd);
                out[8 + j] = _mm512_shuffle_f32x4::<0xdd>(low_ab, low_cd);
                out[4 + j] = _mm512_shuffle_f32x4::<0x88>(high_ab, high_cd);
                out[12 + j] = _mm512_shuffle_f32x4::<0xdd>(high_ab, high_cd);
            }
            for (line, column) in out.into_iter().enumerate().take(count) {
                _mm512_store_ps(to.add(line * step), column);
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

impl Isa for Avx2 {
    type Register = __m256;

    const LANES: usize = 8;
    const ROWS: usize = 6;
    const DEPTH: usize = 384;
    const STRASSEN_TILES: usize = 8;
    const PLAIN_TILES: usize = 24;
    const PANELS: usize = 12;
    const PACKED: usize = 6 << 20;
    const AHEAD: usize = 48;
    const FETCHED: usize = usize::MAX;
    const WORTH: [usize; 2] = [64, 64];
    const PROJECTED: usize = 1;

    #[inline]
    fn available() -> bool {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }

    #[inline(always)]
    fn zero() -> __m256 {
        // SAFETY: a register of zeros.
        unsafe { std::mem::zeroed() }
    }

    #[inline(always)]
    fn splat(x: f32) -> __m256 {
        // SAFETY: a register of eight elements.
        unsafe { std::mem::transmute([x; 8]) }
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
        let word = |word: u32| word.cast_signed();
        // SAFETY: promised by the caller.
        unsafe {
            let mixed = |x: __m256i| {
                let x = _mm256_xor_si256(x, _mm256_srli_epi32::<16>(x));
                let x = _mm256_mullo_epi32(x, _mm256_set1_epi32(word(Mask::FACTORS[0])));
                let x = _mm256_xor_si256(x, _mm256_srli_epi32::<15>(x));
                let x = _mm256_mullo_epi32(x, _mm256_set1_epi32(word(Mask::FACTORS[1])));
                _mm256_xor_si256(x, _mm256_srli_epi32::<16>(x))
            };
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let position = _mm256_add_epi32(_mm256_set1_epi32(word(position)), lanes);
            let hash = mixed(_mm256_xor_si256(
                position,
                _mm256_set1_epi32(word(mask.low)),
            ));
            let hash = mixed(_mm256_add_epi32(hash, _mm256_set1_epi32(word(mask.high))));
            // An element stays where the hash is at least the threshold.
            let threshold = _mm256_set1_epi32(word(mask.threshold));
            let stays = _mm256_cmpeq_epi32(_mm256_max_epu32(hash, threshold), hash);
            let factors = _mm256_and_ps(_mm256_castsi256_ps(stays), _mm256_set1_ps(mask.keep));
            _mm256_mul_ps(x, factors)
        }
    }

    #[inline(always)]
    unsafe fn turn(rows: impl Fn(usize) -> __m256, count: usize, to: *mut f32, step: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            let r: [__m256; 8] = std::array::from_fn(rows);
            // Pairs of rows, then quadruples: every half of a register holds 4 x 4 elements turned.
            let mut pairs = [Self::zero(); Self::LANES];
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut quads = [Self::zero(); Self::LANES];
            for i in 0..2 {
                let [a, b, c, d] = [0, 1, 2, 3].map(|j| pairs[4 * i + j]);
                quads[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
                quads[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
                quads[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
                quads[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
            }
            // quads[4 i + j] holds columns j and 4 + j of rows 4 i to 4 i + 3: now the halves change places.
            let mut out = [Self::zero(); Self::LANES];
            for j in 0..4 {
                out[j] = _mm256_permute2f128_ps::<0x20>(quads[j], quads[4 + j]);
                out[4 + j] = _mm256_permute2f128_ps::<0x31>(quads[j], quads[4 + j]);
            }
            for (line, column) in out.into_iter().enumerate().take(count) {
                _mm256_store_ps(to.add(line * step), column);
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
