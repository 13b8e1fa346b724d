//! Products of f32 matrices.
//!
//! Where the processor has AVX-512 the product is this crate's own: both operands are packed into the order in which a
//! tile of 14 x 32 results reads them, and the tile stays in registers over the whole depth of a block (Goto and van de Geijn
//! 2008, with the tile sizes that AVX-512 has room for). A product may begin from a bias, and may be a sum of several
//! products, such as x W + t B of a LoRA layer, without another pass over its result. Elsewhere it is the crate
//! `gemm`'s.
//!
//! The order of the additions of an element depends on the sizes alone, never on the number of threads.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod blocked;
#[cfg(target_arch = "x86_64")]
mod pack;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use burn_flex::FlexTensor;

use super::buffer::{Out, for_row_blocks, written};

/// A dense matrix, possibly read as its transpose, or a part of a larger one.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row after row.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols);
        Self {
            data,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// The elements at multiples of the strides, one of which is 1.
    ///
    /// # Safety
    /// They lie inside one allocation that outlives the matrix.
    pub(crate) unsafe fn from_raw(
        data: *const f32,
        [rows, cols]: [usize; 2],
        [row_stride, col_stride]: [usize; 2],
    ) -> Self {
        let last = rows.saturating_sub(1) * row_stride + cols.saturating_sub(1) * col_stride;
        let len = if rows * cols == 0 { 0 } else { last + 1 };
        Self {
            // SAFETY: promised by the caller.
            data: unsafe { std::slice::from_raw_parts(data, len) },
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }

    /// A two-dimensional tensor as it lies in memory: dense, or the transpose of a dense one.
    pub(crate) fn view(x: &'a FlexTensor) -> Option<Self> {
        let layout = x.layout();
        let [rows, cols] = [layout.shape()[0], layout.shape()[1]];
        let start = layout.start_offset();
        let strides = layout.strides();
        let (row_stride, col_stride) = (strides[0], strides[1]);
        let dense = (col_stride == 1 && row_stride == cols as isize)
            || (row_stride == 1 && col_stride == rows as isize);
        dense.then(|| Self {
            data: &x.storage::<f32>()[start..start + rows * cols],
            rows,
            cols,
            row_stride: row_stride as usize,
            col_stride: col_stride as usize,
        })
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Nothing: what was there does not count.
    Zero,
    /// One value a column.
    Bias(&'a [f32]),
    /// What is there.
    Add,
}

/// Where a product goes: rows that are `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) out: Out,
    pub(crate) stride: usize,
}

/// `scale` a b.
#[derive(Clone, Copy)]
pub(crate) struct Term<'a> {
    pub(crate) a: Matrix<'a>,
    pub(crate) b: Matrix<'a>,
    pub(crate) scale: f32,
}

/// Nanoseconds that threads were busy with products.
static BUSY: AtomicU64 = AtomicU64::new(0);

/// Seconds that threads of this process were busy with products.
pub(crate) fn busy_seconds() -> f64 {
    BUSY.load(Ordering::Relaxed) as f64 / 1e9
}

/// Products of fewer multiplications than this stay on their thread.
const WORTH_THREADS: usize = 1 << 18;

/// out = start + sum of the terms.
///
/// # Safety
/// `target` points to the rows and columns of the terms' results, initialised for [`Start::Add`], and nobody else
/// touches them.
pub(crate) unsafe fn sum_of_products(target: Target, start: Start<'_>, terms: &[Term<'_>]) {
    let first = terms.first().expect("a term");
    let (m, n) = (first.a.rows, first.b.cols);
    for term in terms {
        assert_eq!(
            (term.a.rows, term.b.cols, term.a.cols),
            (m, n, term.b.rows)
        );
    }
    if let Start::Bias(bias) = start {
        assert_eq!(bias.len(), n);
    }
    let work: usize = terms.iter().map(|term| m * n * term.a.cols).sum();
    let parallel = work >= WORTH_THREADS && rayon::current_num_threads() > 1;
    // SAFETY: the sizes agree, and the target is the caller's promise.
    unsafe { dispatch(target, start, terms, parallel) }
}

/// The same on the calling thread alone, for tasks that run beside each other already.
///
/// # Safety
/// As for [`sum_of_products`].
pub(crate) unsafe fn sum_of_products_alone(target: Target, start: Start<'_>, terms: &[Term<'_>]) {
    // SAFETY: the caller's promise.
    unsafe { dispatch(target, start, terms, false) }
}

/// # Safety
/// As for [`sum_of_products`], with sizes that agree.
unsafe fn dispatch(target: Target, start: Start<'_>, terms: &[Term<'_>], parallel: bool) {
    let began = Instant::now();
    #[cfg(target_arch = "x86_64")]
    let ours = blocked::worth_it(terms[0].a.rows, terms[0].b.cols, terms[0].a.cols);
    #[cfg(not(target_arch = "x86_64"))]
    let ours = false;
    // SAFETY: the caller's promise, and the instructions are there.
    unsafe {
        if ours {
            #[cfg(target_arch = "x86_64")]
            blocked::run(target, start, terms, parallel);
        } else {
            with_crate(target, start, terms, parallel);
        }
    }
    let threads = if parallel {
        rayon::current_num_threads() as u64
    } else {
        1
    };
    BUSY.fetch_add(
        began.elapsed().as_nanos() as u64 * threads,
        Ordering::Relaxed,
    );
}

/// The same by the crate `gemm`.
///
/// # Safety
/// As for [`sum_of_products`].
unsafe fn with_crate(target: Target, start: Start<'_>, terms: &[Term<'_>], parallel: bool) {
    let (m, n) = (terms[0].a.rows, terms[0].b.cols);
    let mut add = matches!(start, Start::Add);
    if let Start::Bias(bias) = start {
        for_row_blocks(m, n, |first, count| {
            for row in first..first + count {
                // SAFETY: rows are disjoint and inside the target.
                let row = unsafe { target.out.slice(row * target.stride, n) };
                row.copy_from_slice(bias);
            }
        });
        add = true;
    }
    for Term { a, b, scale } in terms {
        let parallelism = if parallel {
            gemm::Parallelism::Rayon(0)
        } else {
            gemm::Parallelism::None
        };
        // SAFETY: the matrices' sizes match their slices, the destination is the caller's promise.
        unsafe {
            gemm::gemm(
                m,
                n,
                a.cols,
                target.out.0,
                1,
                target.stride as isize,
                add,
                a.data.as_ptr(),
                a.col_stride as isize,
                a.row_stride as isize,
                b.data.as_ptr(),
                b.col_stride as isize,
                b.row_stride as isize,
                1.0,
                *scale,
                false,
                false,
                false,
                parallelism,
            );
        }
        add = true;
    }
}

/// out = a b, or out += a b, dense [a.rows, b.cols].
///
/// # Safety
/// `out` points to that many elements, initialised when `accumulate`.
pub(crate) unsafe fn product(out: Out, a: Matrix<'_>, b: Matrix<'_>, scale: f32, accumulate: bool) {
    let start = if accumulate { Start::Add } else { Start::Zero };
    let stride = b.cols;
    // SAFETY: the caller's promise.
    unsafe { sum_of_products(Target { out, stride }, start, &[Term { a, b, scale }]) }
}

/// A new matrix a b (times `scale`).
pub(crate) fn multiplied(a: Matrix<'_>, b: Matrix<'_>, scale: f32) -> Vec<f32> {
    // SAFETY: the product writes every element.
    unsafe { written(a.rows * b.cols, |out| product(out, a, b, scale, false)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn normal(len: usize, key: u64) -> Vec<f32> {
        (0..len as u64).map(|at| random::normal(key, at) as f32).collect()
    }

    fn exact(start: &[f64], n: usize, terms: &[Term<'_>]) -> Vec<f64> {
        let mut out = start.to_vec();
        for (at, out) in out.iter_mut().enumerate() {
            let (i, j) = (at / n, at % n);
            for Term { a, b, scale } in terms {
                let sum: f64 = (0..a.cols)
                    .map(|p| {
                        let x = a.data[i * a.row_stride + p * a.col_stride];
                        f64::from(x) * f64::from(b.data[p * b.row_stride + j * b.col_stride])
                    })
                    .sum();
                *out += f64::from(*scale) * sum;
            }
        }
        out
    }

    /// A sum of k products in single precision is off by a few sqrt(k) units in the last place.
    fn assert_close(found: &[f32], exact: &[f64], depth: usize, what: &str) {
        let tolerance = 4.0 * f64::from(f32::EPSILON) * (depth as f64).sqrt();
        for (at, (found, exact)) in found.iter().zip(exact).enumerate() {
            let off = (f64::from(*found) - exact).abs() / (depth as f64).sqrt().max(exact.abs());
            assert!(off <= tolerance, "{what}, element {at}: {found} for {exact}");
        }
    }

    #[test]
    fn products_are_right_for_all_sizes_and_orders() {
        let sizes = [
            (1, 1, 1),
            (14, 32, 16),
            (15, 33, 17),
            (28, 64, 384),
            (13, 16, 5),
            (7, 48, 40),
            (100, 50, 70),
            (150, 200, 800),
            (301, 97, 1000),
            (16, 768, 64),
            (64, 8, 300),
            (8, 300, 64),
        ];
        for (m, n, k) in sizes {
            let a = normal(m * k, 1);
            let b = normal(k * n, 2);
            let bias = normal(n, 3);
            let before = normal(m * n, 4);
            for turned in 0..4 {
                let a = if turned & 1 == 0 {
                    Matrix::new(&a, m, k)
                } else {
                    Matrix::new(&a, k, m).transposed()
                };
                let b = if turned & 2 == 0 {
                    Matrix::new(&b, k, n)
                } else {
                    Matrix::new(&b, n, k).transposed()
                };
                let terms = [Term { a, b, scale: 0.5 }, Term { a, b, scale: 1.0 }];
                for (name, start) in [
                    ("zero", Start::Zero),
                    ("bias", Start::Bias(&bias)),
                    ("add", Start::Add),
                ] {
                    let first: Vec<f64> = match start {
                        Start::Zero => vec![0.0; m * n],
                        Start::Bias(bias) => (0..m * n).map(|at| f64::from(bias[at % n])).collect(),
                        Start::Add => before.iter().map(|x| f64::from(*x)).collect(),
                    };
                    let exact = exact(&first, n, &terms);
                    let what = format!("{m} x {n} x {k}, turned {turned}, from {name}");
                    for parallel in [false, true] {
                        // Rows with a gap between them, which must stay as it is.
                        let stride = n + 3;
                        let mut out = vec![f32::NAN; m * stride];
                        for row in 0..m {
                            let row_before = &before[row * n..(row + 1) * n];
                            out[row * stride..row * stride + n].copy_from_slice(row_before);
                        }
                        let target = Target {
                            out: Out(out.as_mut_ptr()),
                            stride,
                        };
                        // SAFETY: the buffer has the rows of the result.
                        unsafe {
                            #[cfg(target_arch = "x86_64")]
                            if blocked::available() {
                                blocked::run(target, start, &terms, parallel);
                            } else {
                                with_crate(target, start, &terms, parallel);
                            }
                            #[cfg(not(target_arch = "x86_64"))]
                            with_crate(target, start, &terms, parallel);
                        }
                        let dense: Vec<f32> = (0..m * n)
                            .map(|at| out[at / n * stride + at % n])
                            .collect();
                        assert_close(&dense, &exact, 2 * k, &what);
                        assert!((0..m).all(|row| {
                            out[row * stride + n..(row + 1) * stride].iter().all(|x| x.is_nan())
                        }));
                    }
                }
            }
        }
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        let (m, n, k) = (333, 160, 900);
        let (a, b) = (normal(m * k, 1), normal(k * n, 2));
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool").install(|| {
                multiplied(Matrix::new(&a, m, k), Matrix::new(&b, k, n), 1.0)
            })
        };
        let one = with(1);
        for threads in [2, 3, 8] {
            assert!(one.iter().zip(with(threads)).all(|(x, y)| x.to_bits() == y.to_bits()));
        }
    }
}
