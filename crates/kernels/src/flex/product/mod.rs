//! Products of f32 matrices.
//!
//! Where the processor has AVX-512 or AVX2, large ones are this crate's own: Strassen's seven products of quarters instead of eight
//! (Strassen 1969), with the sums of quarters made while the operands are packed and the sums of products while they
//! are in the caches, so that a multiplication in eight is saved and no pass over memory is added (Huang et al. 2016). With fewer
//! rows they are made in the same blocks without Strassen; with AVX-512 only where the right operand is transposed, as weights of
//! a file are in forward passes. So are products on one thread, such as those of a head; those with an adapter's factors are a
//! pass over the wide matrix. Everything else is the crate `gemm`'s.
//!
//! The order of an element's additions depends on the sizes, the layout and the processor, never on the number of threads.
//! Strassen's products mix two rows each, half the rows apart: an infinite one, which a diverging run has, spoils the
//! other. Errors: an element of a plain product is off by a few units in the last place of the sum of |a| |b| over its depth; one of Strassen's by as much of
//! the largest such sum nearby, and in the mean by twice as much as a plain one (measured in the tests).

#[cfg(target_arch = "x86_64")]
mod blocked;
#[cfg(target_arch = "x86_64")]
mod isa;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod thin;
#[cfg(target_arch = "x86_64")]
mod tile;

use burn_flex::{FlexTensor, Layout};

use super::buffer::{Out, for_row_blocks, written};
use super::meter::counted;
use crate::random::Dropout;

/// A dense matrix, possibly read as its transpose.
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

    /// A two-dimensional tensor as it lies in memory: dense, or the transpose of a dense one.
    pub(crate) fn view(x: &'a FlexTensor) -> Option<Self> {
        let layout = x.layout();
        let [rows, cols] = [layout.shape()[0], layout.shape()[1]];
        let start = layout.start_offset();
        let strides = layout.strides();
        is_dense(layout).then(|| Self {
            data: &x.storage::<f32>()[start..start + rows * cols],
            rows,
            cols,
            row_stride: strides[0].unsigned_abs(),
            col_stride: strides[1].unsigned_abs(),
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

    /// The columns from one on: (pointer, [from row to row, from column to column]).
    pub(crate) fn columns_from(&self, first: usize) -> (*const f32, [usize; 2]) {
        let data = self.data.as_ptr().wrapping_add(first * self.col_stride);
        (data, [self.row_stride, self.col_stride])
    }

    /// Whether it is read as its transpose.
    fn is_turned(&self) -> bool {
        self.row_stride == 1 && self.col_stride != 1
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }
}

/// Whether a matrix, or its transpose, is one piece of memory.
pub(crate) fn is_dense(layout: &Layout) -> bool {
    let (shape, strides) = (layout.shape(), layout.strides());
    let is_row_major =
        |lines: usize, along: usize| strides[along] == 1 && strides[lines] == shape[along] as isize;
    is_row_major(0, 1) || is_row_major(1, 0)
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

/// Products of fewer multiplications than this stay on their thread.
const WORTH_THREADS: usize = 1 << 18;

/// out = start + scale a b, over all threads. `out` is dense [a.rows, b.cols].
///
/// # Safety
/// `out` points to that many elements, initialised for [`Start::Add`], and nobody else touches them.
pub(crate) unsafe fn product(out: Out, start: Start<'_>, a: Matrix<'_>, b: Matrix<'_>, scale: f32) {
    // SAFETY: promised by the caller.
    unsafe { one(joined, out, start, (a, b), scale) };
}

/// A single product, in some way.
///
/// # Safety
/// As for [`product`], and what the way asks for.
unsafe fn one(run: Run, out: Out, start: Start<'_>, (a, b): (Matrix<'_>, Matrix<'_>), scale: f32) {
    let of = Joined {
        results: &[(out, start)],
        a: &[a],
        b: &[b],
        scale,
    };
    // SAFETY: promised by the caller.
    unsafe { run(&of) };
}

/// Products that are made together, for they share an operand or a result: each result is what it starts with and `scale` times the
/// sum over t of a_t b_t. All left operands are of one size, and all right ones.
#[derive(Clone, Copy)]
pub(crate) struct Joined<'a> {
    /// Dense [a.rows, b.cols].
    pub(crate) results: &'a [(Out, Start<'a>)],
    pub(crate) a: &'a [Matrix<'a>],
    /// For the first left operand those of all results, then for the next.
    pub(crate) b: &'a [Matrix<'a>],
    pub(crate) scale: f32,
}

/// Makes products over all threads.
///
/// # Safety
/// Results point to so many elements, initialised for [`Start::Add`], and nobody else touches them.
pub(crate) unsafe fn joined(of: &Joined<'_>) {
    let [a, b] = [of.a[0], of.b[0]];
    assert_eq!(a.cols, b.rows);
    assert_eq!(of.b.len(), of.a.len() * of.results.len(), "right operands");
    let same = |x: &Matrix<'_>, y: &Matrix<'_>| [x.rows, x.cols] == [y.rows, y.cols];
    assert!(
        of.a.iter().all(|x| same(x, &a)),
        "left operands of one size"
    );
    assert!(
        of.b.iter().all(|x| same(x, &b)),
        "right operands of one size"
    );
    let (m, n, k) = (a.rows, b.cols, a.cols);
    for (_, start) in of.results {
        if let Start::Bias(bias) = start {
            assert_eq!(bias.len(), n);
        }
    }
    let parallel = m * n * k >= WORTH_THREADS;
    let threads = if parallel {
        rayon::current_num_threads()
    } else {
        1
    };
    // SAFETY: the sizes agree, and the output is the caller's promise.
    counted(threads, || unsafe {
        match Way::of([m, n, k], b.is_turned()) {
            Way::Crate => by_crate(of, parallel),
            Way::Blocked(own) => (own.blocked)(of),
            Way::Strassen(own) => (own.strassen)(of),
        }
    });
}

/// An operand inside a larger buffer: (pointer, from row to row, from column to column), one of which is 1.
pub(crate) type Operand = (*const f32, usize, usize);

/// dst = product of lhs [m, k] and rhs [k, n], times `scale`; dst += it when `accumulate`. On the calling thread; `dst` is (pointer, from
/// row to row).
///
/// # Safety
/// All three lie inside their allocations; nobody else writes to `dst`, and it is initialised when
/// `accumulate`. One of the steps of each operand is 1.
pub(crate) unsafe fn small_product(
    size: [usize; 3],
    dst: (*mut f32, usize),
    lhs: Operand,
    rhs: Operand,
    scale: f32,
    accumulate: bool,
) {
    let worth = size[0] >= SMALL_ROWS && size[1] >= SMALL_COLUMNS && size[2] > 0;
    let own = Own::here().filter(|_| worth);
    // SAFETY: promised by the caller.
    unsafe { on_this_thread(own, size, dst, lhs, rhs, scale, accumulate) };
}

/// As [`small_product`], by this crate's own products whatever the sizes where there are the instructions: the order of an element's
/// additions is that of the depth then, however the operands lie.
///
/// # Safety
/// As for [`small_product`].
pub(crate) unsafe fn ordered_product(
    size: [usize; 3],
    dst: (*mut f32, usize),
    lhs: Operand,
    rhs: Operand,
    scale: f32,
    accumulate: bool,
) {
    // SAFETY: promised by the caller.
    unsafe { on_this_thread(Own::here(), size, dst, lhs, rhs, scale, accumulate) };
}

/// # Safety
/// As for [`small_product`].
unsafe fn on_this_thread(
    own: Option<&Own>,
    size: [usize; 3],
    dst: (*mut f32, usize),
    lhs: Operand,
    rhs: Operand,
    scale: f32,
    accumulate: bool,
) {
    // SAFETY: promised by the caller.
    counted(1, || unsafe {
        match own {
            Some(own) => (own.alone)(size, dst, lhs, rhs, scale, accumulate),
            None => call_gemm(size, dst, lhs, rhs, scale, accumulate, false),
        }
    });
}

/// Smaller products on one thread are not worth packing.
const SMALL_ROWS: usize = 8;
const SMALL_COLUMNS: usize = 16;

/// As [`joined`].
type Run = unsafe fn(&Joined<'_>);
/// As [`small_product`].
type Small = unsafe fn([usize; 3], (*mut f32, usize), Operand, Operand, f32, bool);

/// This crate's own products for a set of instructions.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
struct Own {
    available: fn() -> bool,
    /// Rows from which a product in blocks is faster than the crate's: where the right operand is dense, and where it is turned.
    worth: [usize; 2],
    blocked: Run,
    strassen: Run,
    blocked_workspace: fn([usize; 3], [usize; 2]) -> usize,
    strassen_workspace: fn([usize; 3], [usize; 2]) -> usize,
    alone: Small,
    project: unsafe fn(&mut [f32], Block<'_>, &[f32], f32),
    gather: unsafe fn(&mut [f32], Block<'_>, &[f32]),
    spread: unsafe fn(&mut [f32], &Spread<'_>),
}

impl Own {
    /// The fastest first.
    #[cfg(target_arch = "x86_64")]
    const ALL: &[Self] = &[Self::of::<isa::Avx512>(), Self::of::<isa::Avx2>()];
    #[cfg(not(target_arch = "x86_64"))]
    const ALL: &[Self] = &[];

    #[cfg(target_arch = "x86_64")]
    const fn of<S: isa::Isa>() -> Self {
        Self {
            available: S::available,
            worth: S::WORTH,
            blocked: blocked::run::<S, 1>,
            strassen: blocked::run::<S, 2>,
            blocked_workspace: blocked::workspace::<S, 1>,
            strassen_workspace: blocked::workspace::<S, 2>,
            alone: blocked::alone::<S>,
            project: S::project,
            gather: S::gather,
            spread: S::spread,
        }
    }

    /// Those for the best instructions of this processor.
    fn here() -> Option<&'static Self> {
        Self::ALL.iter().find(|own| (own.available)())
    }
}

/// How a product is made.
#[derive(Clone, Copy)]
enum Way {
    Crate,
    Blocked(&'static Own),
    Strassen(&'static Own),
}

impl Way {
    /// The fastest for rows, columns and depth, as measured on two cores of an AMD EPYC (Zen 3 and Zen 4).
    fn of([m, n, k]: [usize; 3], turned: bool) -> Self {
        match Own::here() {
            Some(own) if m >= 640 && n >= 384 && k >= 384 => Self::Strassen(own),
            Some(own) if m >= own.worth[usize::from(turned)] && n >= 256 && k >= 256 => {
                Self::Blocked(own)
            }
            _ => Self::Crate,
        }
    }
}

/// Bytes that products [m, k] x [k, n] work in, for as long as they take; `turned` says that their right operands are transposes of
/// dense matrices, `joined` how many results and left operands they have.
pub(crate) fn workspace(size: [usize; 3], turned: bool, joined: [usize; 2]) -> usize {
    match Way::of(size, turned) {
        Way::Crate => size[2].min(CRATE_DEPTH) * size[1].min(CRATE_COLUMNS) * size_of::<f32>(),
        Way::Blocked(own) => (own.blocked_workspace)(size, joined),
        Way::Strassen(own) => (own.strassen_workspace)(size, joined),
    }
}

/// What the crate `gemm` packs at a time, at most.
const CRATE_DEPTH: usize = 512;
const CRATE_COLUMNS: usize = 768;

/// The same by the crate `gemm`, one after the other.
///
/// # Safety
/// As for [`joined`].
unsafe fn by_crate(of: &Joined<'_>, parallel: bool) {
    for (result, (out, start)) in of.results.iter().enumerate() {
        for (term, a) in of.a.iter().enumerate() {
            let start = if term == 0 { *start } else { Start::Add };
            let b = of.b[term * of.results.len() + result];
            // SAFETY: promised by the caller.
            unsafe { one_by_crate(*out, start, *a, b, of.scale, parallel) };
        }
    }
}

/// # Safety
/// As for [`product`].
unsafe fn one_by_crate(
    out: Out,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    parallel: bool,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if let Start::Bias(bias) = start {
        for_row_blocks(m, n, |first, count| {
            // SAFETY: blocks of rows are disjoint.
            let rows = unsafe { out.slice(first * n, count * n) };
            for row in rows.chunks_exact_mut(n.max(1)) {
                row.copy_from_slice(bias);
            }
        });
    }
    let operand = |x: Matrix<'_>| (x.data.as_ptr(), x.row_stride, x.col_stride);
    let add = !matches!(start, Start::Zero);
    // SAFETY: the matrices' sizes match their slices, the destination is the caller's promise.
    unsafe {
        call_gemm(
            [m, n, k],
            (out.0, n),
            operand(a),
            operand(b),
            scale,
            add,
            parallel,
        );
    }
}

/// dst = lhs rhs times `scale`, or dst += it, by the crate `gemm`.
///
/// # Safety
/// As for [`small_product`], with any steps.
unsafe fn call_gemm(
    [m, n, k]: [usize; 3],
    dst: (*mut f32, usize),
    lhs: Operand,
    rhs: Operand,
    scale: f32,
    accumulate: bool,
    parallel: bool,
) {
    let parallelism = match parallel {
        true => gemm::Parallelism::Rayon(0),
        false => gemm::Parallelism::None,
    };
    // SAFETY: promised by the caller.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.0,
            1,
            dst.1 as isize,
            accumulate,
            lhs.0,
            lhs.2 as isize,
            lhs.1 as isize,
            rhs.0,
            rhs.2 as isize,
            rhs.1 as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Rows of a wide matrix [rows, width], which begin at element `first` of its dropout's stream.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) width: usize,
    pub(crate) first: u32,
    pub(crate) dropout: Dropout,
}

/// Rows of bias + scale t b behind a dropout, for t [rows, rank] and b [rank, width]; they begin at element `first` of the dropout's stream.
#[derive(Clone, Copy)]
pub(crate) struct Spread<'a> {
    /// They are added to what is there.
    pub(crate) added: bool,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) t: &'a [f32],
    pub(crate) b: &'a [f32],
    pub(crate) scale: f32,
    pub(crate) width: usize,
    pub(crate) first: u32,
    pub(crate) dropout: Dropout,
}

/// Whether [`project`], [`gather`] and [`spread`] are there for a matrix of that width and a factor of that rank.
pub(crate) fn is_thin(width: usize, rank: usize) -> bool {
    width > 0 && rank > 0 && Own::here().is_some()
}

/// out [rows, rank] = scale drop(x) factor^T on the calling thread, for a factor [rank, width] that [`is_thin`].
pub(crate) fn project(out: &mut [f32], wide: Block<'_>, factor: &[f32], scale: f32) {
    let own = Own::here().expect("asked for where there are the instructions");
    // SAFETY: the instructions are there.
    counted(1, || unsafe { (own.project)(out, wide, factor, scale) });
}

/// out [rank, width] += t^T drop(x) on the calling thread, for t [rows, rank], where it [`is_thin`].
pub(crate) fn gather(out: &mut [f32], wide: Block<'_>, t: &[f32]) {
    let own = Own::here().expect("asked for where there are the instructions");
    // SAFETY: the instructions are there.
    counted(1, || unsafe { (own.gather)(out, wide, t) });
}

/// Writes rows [rows, width] on the calling thread, for a width and a rank that [`is_thin`].
pub(crate) fn spread(out: &mut [f32], of: &Spread<'_>) {
    let rows = out.len() / of.width;
    assert_eq!(of.t.len() * of.width, rows * of.b.len(), "rows of t");
    let whole = |bias: &[f32]| bias.len() == of.width;
    assert!(of.bias.is_none_or(whole), "a bias has the width");
    let own = Own::here().expect("asked for where there are the instructions");
    // SAFETY: the instructions are there.
    counted(1, || unsafe { (own.spread)(out, of) });
}

/// A new matrix a b (times `scale`).
pub(crate) fn multiplied(a: Matrix<'_>, b: Matrix<'_>, scale: f32) -> Vec<f32> {
    // SAFETY: the product writes every element.
    unsafe {
        written(a.rows * b.cols, |out| {
            product(out, Start::Zero, a, b, scale)
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::flex::low_rank::transpose;
    use crate::random::normals as normal;

    fn turn(matrix: Matrix<'_>) -> Vec<f32> {
        transpose(matrix.data, matrix.rows, matrix.cols)
    }

    /// The product in double precision, and the sums of |a| |b|.
    pub(crate) fn exact(a: Matrix<'_>, b: Matrix<'_>) -> (Vec<f64>, Vec<f64>) {
        let mut out = vec![(0.0, 0.0); a.rows * b.cols];
        for i in 0..a.rows {
            for p in 0..a.cols {
                let x = f64::from(a.data[i * a.row_stride + p * a.col_stride]);
                for (j, (sum, size)) in out[i * b.cols..(i + 1) * b.cols].iter_mut().enumerate() {
                    let y = f64::from(b.data[p * b.row_stride + j * b.col_stride]);
                    *sum += x * y;
                    *size += (x * y).abs();
                }
            }
        }
        out.into_iter().unzip()
    }

    /// That every element is within two units in the last place of the largest sum of sizes.
    pub(crate) fn assert_close(found: &[f32], (right, largest): &(Vec<f64>, f64), what: &str) {
        assert_eq!(found.len(), right.len(), "{what}");
        for (at, (found, right)) in found.iter().zip(right).enumerate() {
            let off = (f64::from(*found) - right).abs();
            let allowed = 2.0 * f64::from(f32::EPSILON) * largest;
            assert!(off <= allowed, "{what}, element {at}: {found} for {right}");
        }
    }

    /// This crate's own products that run here.
    fn all() -> impl Iterator<Item = (&'static str, &'static Own)> {
        let named = ["AVX-512", "AVX2"].into_iter().zip(Own::ALL);
        named.filter(|(_, own)| (own.available)())
    }

    /// Every way there is here, and the units in the last place of the largest sum of |a| |b| by which a result may be off. Strassen's
    /// products add up sums of two quarters, so intermediate values are up to four times as large, and there are twice as many.
    fn ways() -> Vec<(String, Run, f64)> {
        let by_crate: Run = |of| unsafe { by_crate(of, true) };
        let mut ways = vec![("crate".to_owned(), by_crate, 1.0)];
        for (name, own) in all() {
            ways.push((format!("blocked, {name}"), own.blocked, 1.0));
            ways.push((format!("strassen, {name}"), own.strassen, 8.0));
        }
        ways
    }

    #[test]
    fn joined_products_are_sums_for_every_result() {
        for (m, n, k) in [(3, 5, 2), (29, 65, 20), (61, 130, 800), (40, 400, 17)] {
            let matrices =
                |rows: usize, cols: usize, seeds: std::ops::Range<u64>| -> Vec<Vec<f32>> {
                    seeds.map(|seed| normal(rows * cols, seed)).collect()
                };
            for (results, terms) in [(1, 3), (3, 1), (2, 2)] {
                let a = matrices(m, k, 0..terms as u64);
                let b = matrices(k, n, 10..10 + (terms * results) as u64);
                let bias = normal(n, 30);
                let a: Vec<_> = a.iter().map(|x| Matrix::new(x, m, k)).collect();
                let b: Vec<_> = b.iter().map(|x| Matrix::new(x, k, n)).collect();
                for (name, run, units) in ways() {
                    let mut out = vec![vec![1.0f32; m * n]; results];
                    let starts = [Start::Zero, Start::Bias(&bias), Start::Add];
                    let places: Vec<_> = out
                        .iter_mut()
                        .zip(starts)
                        .map(|(out, start)| (Out(out.as_mut_ptr()), start))
                        .collect();
                    let of = Joined {
                        results: &places,
                        a: &a,
                        b: &b,
                        scale: 0.5,
                    };
                    // SAFETY: the buffers have the elements of the results.
                    unsafe { run(&of) };
                    for (result, out) in out.iter().enumerate() {
                        let mut right = vec![0.0; m * n];
                        let mut largest = 1.0f64;
                        for (term, a) in a.iter().enumerate() {
                            let (product, sizes) = exact(*a, b[term * results + result]);
                            largest += sizes.into_iter().fold(0.0, f64::max);
                            for (right, product) in right.iter_mut().zip(product) {
                                *right += 0.5 * product;
                            }
                        }
                        for (at, (found, right)) in out.iter().zip(right).enumerate() {
                            let right = match starts[result] {
                                Start::Zero => right,
                                Start::Bias(bias) => right + f64::from(bias[at % n]),
                                Start::Add => right + 1.0,
                            };
                            let off = (f64::from(*found) - right).abs();
                            let allowed = units * f64::from(f32::EPSILON) * largest;
                            assert!(
                                off <= allowed,
                                "{name}, {m} x {n} x {k}, result {result} of {results}, {terms} terms, element {at}: {found} for {right}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_are_right_in_every_way_for_all_sizes_and_orders() {
        let sizes = [
            (1, 1, 1),
            (2, 3, 2),
            (14, 32, 16),
            (28, 64, 384),
            (15, 33, 17),
            (29, 65, 769),
            (57, 31, 5),
            (100, 50, 1537),
            (7, 500, 40),
            (301, 97, 96),
        ];
        for (m, n, k) in sizes {
            let (a_data, b_data) = (normal(m * k, 1), normal(k * n, 2));
            let (bias, before) = (normal(n, 3), normal(m * n, 4));
            let (a, b) = (Matrix::new(&a_data, m, k), Matrix::new(&b_data, k, n));
            let (a_turned, b_turned) = (turn(a), turn(b));
            let (product, sizes) = exact(a, b);
            let largest = sizes.iter().copied().fold(1.0, f64::max);
            let orders = [
                (a, b),
                (Matrix::new(&a_turned, k, m).transposed(), b),
                (a, Matrix::new(&b_turned, n, k).transposed()),
            ];
            for (name, run, units) in ways() {
                for (order, (a, b)) in orders.into_iter().enumerate() {
                    for (start_name, start) in [
                        ("zero", Start::Zero),
                        ("bias", Start::Bias(&bias)),
                        ("add", Start::Add),
                    ] {
                        let mut out = match start {
                            Start::Add => before.clone(),
                            Start::Zero | Start::Bias(_) => vec![f32::NAN; m * n],
                        };
                        // SAFETY: the buffer has the elements of the result.
                        unsafe { one(run, Out(out.as_mut_ptr()), start, (a, b), 0.5) };
                        for (at, found) in out.iter().enumerate() {
                            let first = match start {
                                Start::Zero => 0.0,
                                Start::Bias(bias) => bias[at % n],
                                Start::Add => before[at],
                            };
                            let right = 0.5 * product[at] + f64::from(first);
                            let off = (f64::from(*found) - right).abs();
                            let allowed = units * f64::from(f32::EPSILON) * (largest + right.abs());
                            assert!(
                                off <= allowed,
                                "{name}, {m} x {n} x {k}, order {order}, from {start_name}, element {at}: {found} for {right}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn small_products_are_right_inside_larger_buffers() {
        let mut smalls: Vec<(&str, Small)> = vec![("as chosen", small_product)];
        smalls.extend(all().map(|(name, own)| (name, own.alone)));
        for [m, n, k] in [
            [1, 1, 1],
            [3, 20, 7],
            [8, 16, 16],
            [9, 17, 33],
            [14, 32, 64],
            [50, 50, 64],
            [128, 64, 130],
            [61, 129, 20],
        ] {
            let (a_data, b_data) = (normal(m * k, 1), normal(k * n, 2));
            let (a, b) = (Matrix::new(&a_data, m, k), Matrix::new(&b_data, k, n));
            let (product, sizes) = exact(a, b);
            let largest = sizes.iter().copied().fold(1.0, f64::max);
            let (a_turned, b_turned) = (turn(a), turn(b));
            let lefts = [(a_data.as_ptr(), k, 1), (a_turned.as_ptr(), 1, m)];
            let rights = [(b_data.as_ptr(), n, 1), (b_turned.as_ptr(), 1, k)];
            for (turned, accumulate) in [(0, false), (1, true), (2, false), (3, true)] {
                for (name, small) in &smalls {
                    // Rows with a gap between them, which must stay as it is.
                    let stride = n + 3;
                    let mut out = vec![if accumulate { 1.0 } else { f32::NAN }; m * stride];
                    for row in 0..m {
                        out[row * stride + n..(row + 1) * stride].fill(7.0);
                    }
                    let dst = (out.as_mut_ptr(), stride);
                    // SAFETY: the buffers have the sizes of the product.
                    unsafe {
                        let (left, right) = (lefts[turned & 1], rights[turned >> 1]);
                        small([m, n, k], dst, left, right, 0.5, accumulate);
                    }
                    for (at, found) in out.iter().enumerate() {
                        let (row, col) = (at / stride, at % stride);
                        let right = match col < n {
                            true => 0.5 * product[row * n + col] + f64::from(u8::from(accumulate)),
                            false => 7.0,
                        };
                        let off = (f64::from(*found) - right).abs();
                        let allowed = f64::from(f32::EPSILON) * (largest + 1.0);
                        assert!(
                            off <= allowed,
                            "{name}, {m} x {n} x {k}, {turned}: {found} for {right}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn products_with_factors_are_right_with_all_instructions() {
        for (rows, width, rank) in [
            (1, 1, 1),
            (3, 17, 3),
            (37, 100, 5),
            (9, 64, 15),
            (20, 40, 8),
        ] {
            let x = normal(rows * width, 1);
            let (factor, t) = (normal(rank * width, 2), normal(rows * rank, 3));
            for dropout in [Dropout::NONE, Dropout::new(0.3, 5)] {
                // The dropout's stream begins elsewhere.
                let (first, mask) = (11, dropout.mask());
                let dropped = |(at, x): (usize, &f32)| match dropout.is_none() {
                    true => *x,
                    false => x * mask.factor(first + at as u32),
                };
                let dropped: Vec<f32> = x.iter().enumerate().map(dropped).collect();
                let dropped = Matrix::new(&dropped, rows, width);
                let factors = Matrix::new(&factor, rank, width).transposed();
                let projected = exact(dropped, factors);
                let gathered = exact(Matrix::new(&t, rows, rank).transposed(), dropped);
                // scale x product + start, and the largest sum of sizes.
                let right = |(product, sizes): &(Vec<f64>, Vec<f64>), scale: f64, start: f64| {
                    let product = product.iter().map(|x| scale * x + start).collect();
                    (product, sizes.iter().copied().fold(1.0, f64::max) + start)
                };
                let wide = Block {
                    x: &x,
                    width,
                    first,
                    dropout,
                };
                for (name, own) in all() {
                    let mut projection = vec![f32::NAN; rows * rank];
                    let mut sum = vec![1.0; rank * width];
                    // SAFETY: the instructions are there.
                    unsafe {
                        (own.project)(&mut projection, wide, &factor, 0.5);
                        (own.gather)(&mut sum, wide, &t);
                    }
                    let what = format!("{name}, {rows} x {width}, rank {rank}, {dropout:?}");
                    assert_close(&projection, &right(&projected, 0.5, 0.0), &what);
                    assert_close(&sum, &right(&gathered, 1.0, 1.0), &what);
                }
            }
        }
    }

    #[test]
    fn errors_of_strassens_products_are_in_the_mean_twice_those_of_plain_ones() {
        let (m, n, k) = (300, 200, 768);
        // A few columns are as large as those that stand out in trained encoders.
        let mut a = normal(m * k, 1);
        for row in a.chunks_exact_mut(k) {
            row[77] *= 30.0;
            row[588] *= 30.0;
        }
        let b = normal(k * n, 2);
        let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
        let (right, _) = exact(a, b);
        let error = |run: Run| {
            let mut out = vec![0.0f32; m * n];
            // SAFETY: the buffer has the elements of the result.
            unsafe { one(run, Out(out.as_mut_ptr()), Start::Zero, (a, b), 1.0) };
            let square = |(found, right): (&f32, &f64)| (f64::from(*found) - right).powi(2);
            (out.iter().zip(&right).map(square).sum::<f64>() / right.len() as f64).sqrt()
        };
        let ways = ways();
        let plain = error(ways[0].1);
        for (name, run, _) in ways {
            let found = error(run);
            assert!(
                found < 3.0 * plain,
                "{name}: {found:e}, the crate gemm {plain:e}"
            );
        }
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        let (m, n, k) = (333, 160, 900);
        let (a, b) = (normal(m * k, 1), normal(k * n, 2));
        let other = normal(k * n, 3);
        for (name, run, _) in ways() {
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.expect("a pool").install(|| {
                    let mut out = vec![0.0f32; 2 * m * n];
                    let places = [0, m * n].map(|at| (Out(out[at..].as_mut_ptr()), Start::Zero));
                    let of = Joined {
                        results: &places,
                        a: &[Matrix::new(&a, m, k)],
                        b: &[&b, &other].map(|b| Matrix::new(b, k, n)),
                        scale: 1.0,
                    };
                    // SAFETY: the buffer has the elements of both results.
                    unsafe { run(&of) };
                    out
                })
            };
            let one = with(1);
            for threads in [2, 3, 8, 40] {
                let equal = |(x, y): (&f32, f32)| x.to_bits() == y.to_bits();
                assert!(
                    one.iter().zip(with(threads)).all(equal),
                    "{name}, {threads} threads"
                );
            }
        }
    }
}
