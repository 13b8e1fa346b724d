//! The products of an adapter's factors with wide matrices, and what is added to a layer's output.

use rayon::prelude::*;

use super::buffer::{Out, for_row_blocks, written};
use super::product::{self, Matrix, Start, multiplied, product};
use super::simd::multiversion;
use crate::random::Dropout;

/// Ranks up to this are made in a pass over the wide matrix; above it a product is faster.
pub(crate) const SMALL_RANK: usize = 32;

/// Whether a factor of that rank meets a matrix of that width in one pass.
fn in_one_pass(width: usize, rank: usize) -> bool {
    rank <= SMALL_RANK && product::is_thin(width, rank)
}

/// Bytes of the copy of a matrix [rows, width] behind a dropout that its products with factors of that rank are made from; 0 where
/// there is none.
pub(crate) fn workspace(rows: usize, width: usize, rank: usize) -> usize {
    match in_one_pass(width, rank) {
        true => 0,
        false => rows.saturating_mul(width).saturating_mul(size_of::<f32>()),
    }
}

/// A matrix [rows, width] whose elements may be dropped.
#[derive(Clone, Copy)]
pub(super) struct Wide<'a> {
    x: &'a [f32],
    rows: usize,
    width: usize,
    dropout: Dropout,
}

impl<'a> Wide<'a> {
    pub(super) fn new(x: &'a [f32], [rows, width]: [usize; 2], dropout: Dropout) -> Self {
        assert_eq!(x.len(), rows * width);
        Self {
            x,
            rows,
            width,
            dropout,
        }
    }

    /// The matrix as its products with factors of that rank read it: itself where the dropout is drawn on the way or there is none,
    /// else a copy with the dropout applied.
    pub(super) fn settled<'b>(self, rank: usize, storage: &'b mut Vec<f32>) -> Wide<'b>
    where
        'a: 'b,
    {
        let (x, dropout) = (self.x, self.dropout);
        if dropout.is_none() || in_one_pass(self.width, rank) {
            return self;
        }
        // SAFETY: the blocks cover every element once.
        *storage = unsafe {
            written(x.len(), |out| {
                for_row_blocks(x.len(), 1, |first, len| {
                    let (out, x) = (out.slice(first, len), &x[first..first + len]);
                    write_dropped(out, x, first as u32, dropout);
                });
            })
        };
        Wide::new(storage, [self.rows, self.width], Dropout::NONE)
    }

    /// The matrix without its dropout.
    fn matrix(&self) -> Matrix<'a> {
        Matrix::new(self.x, self.rows, self.width)
    }

    /// scale drop(x) factor^T, [rows, rank], for a factor [rank, width].
    pub(super) fn project(&self, factor: &[f32], rank: usize, scale: f32) -> Vec<f32> {
        let rows = self.rows;
        if in_one_pass(self.width, rank) {
            // SAFETY: the blocks cover every row once, and each is written.
            return unsafe {
                written(rows * rank, |out| {
                    for_row_blocks(rows, self.width, |first, count| {
                        let out = out.slice(first * rank, count * rank);
                        product::project(out, self.block(first, count), factor, scale);
                    });
                })
            };
        }
        let mut storage = Vec::new();
        let factor = Matrix::new(factor, rank, self.width).transposed();
        multiplied(self.settled(rank, &mut storage).matrix(), factor, scale)
    }

    /// scale t^T drop(x), [rank, width], for t [rows, rank].
    pub(super) fn gather(&self, t: &[f32], rank: usize, scale: f32) -> Vec<f32> {
        let (rows, width) = (self.rows, self.width);
        if !in_one_pass(width, rank) {
            let mut storage = Vec::new();
            let t = Matrix::new(t, rows, rank).transposed();
            return multiplied(t, self.settled(rank, &mut storage).matrix(), scale);
        }
        // The order of additions depends on the shape only.
        let step = GATHERED.max(rows.div_ceil(SUMS));
        let partial: Vec<Vec<f32>> = (0..rows.div_ceil(step))
            .into_par_iter()
            .map(|block| {
                let first = block * step;
                let count = step.min(rows - first);
                let mut sum = vec![0.0; rank * width];
                let t = &t[first * rank..(first + count) * rank];
                product::gather(&mut sum, self.block(first, count), t);
                sum
            })
            .collect();
        let mut total = vec![0.0; rank * width];
        for sum in &partial {
            add_scaled(&mut total, sum, scale);
        }
        total
    }

    fn block(&self, first: usize, count: usize) -> product::Block<'_> {
        let from = first * self.width;
        product::Block {
            x: &self.x[from..from + count * self.width],
            width: self.width,
            first: from as u32,
            dropout: self.dropout,
        }
    }
}

/// Rows that are gathered into one sum, at least, and how many sums there are, at most.
const GATHERED: usize = 128;
const SUMS: usize = 16;

multiversion! {
    /// total += scale sum.
    pub(super) fn add_scaled(total: &mut [f32], sum: &[f32], scale: f32) {
        for (total, sum) in total.iter_mut().zip(sum) {
            *total = scale.mul_add(*sum, *total);
        }
    }
}

multiversion! {
    /// out = x times the dropout's mask, from position `first` of the stream.
    pub(crate) fn write_dropped(out: &mut [f32], x: &[f32], first: u32, dropout: Dropout) {
        let mask = dropout.mask();
        for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
            *out = x * mask.factor(first.wrapping_add(i as u32));
        }
    }
}

/// What a layer's output, or the gradient of its input, begins with: bias + scale t B, or scale drop(t B), for t
/// [rows, rank] and B [rank, width].
#[derive(Clone, Copy)]
pub(super) struct Prefill<'a> {
    pub(super) bias: Option<&'a [f32]>,
    pub(super) t: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) scale: f32,
    pub(super) dropout: Dropout,
}

impl Prefill<'_> {
    /// Writes it everywhere in `out` [rows, width].
    ///
    /// # Safety
    /// `out` points to rows x width elements.
    pub(super) unsafe fn write(&self, out: Out, rows: usize, width: usize) {
        // SAFETY: promised by the caller.
        unsafe { self.put(out, rows, width, false) };
    }

    /// Adds it to `out` [rows, width].
    ///
    /// # Safety
    /// `out` points to rows x width initialised elements.
    pub(super) unsafe fn add(&self, out: Out, rows: usize, width: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            if self.b.len() <= SMALL_RANK * width {
                return self.put(out, rows, width, true);
            }
            // Its dropout comes after its product, so it needs a place of its own.
            let own = written(rows * width, |own| self.put(own, rows, width, false));
            for_row_blocks(rows * width, 1, |first, len| {
                add_scaled(out.slice(first, len), &own[first..first + len], 1.0);
            });
        }
    }

    /// # Safety
    /// As for [`Prefill::write`]; initialised where it is `added`, which a large rank's is not.
    unsafe fn put(&self, out: Out, rows: usize, width: usize, added: bool) {
        debug_assert!(self.bias.is_none() || self.dropout.is_none());
        let rank = self.b.len() / width.max(1);
        let small = rank <= SMALL_RANK;
        for_row_blocks(rows, width, |first, count| {
            // SAFETY: blocks of rows are disjoint.
            let out = unsafe { out.slice(first * width, count * width) };
            let (t, b) = match small {
                true => (&self.t[first * rank..(first + count) * rank], self.b),
                false => (&[][..], &[][..]),
            };
            let spread = product::Spread {
                added,
                bias: self.bias,
                t,
                b,
                scale: self.scale,
                width,
                first: (first * width) as u32,
                // A dropout of a large rank's product comes after the product.
                dropout: if small { self.dropout } else { Dropout::NONE },
            };
            if in_one_pass(width, rank) {
                product::spread(out, &spread);
            } else {
                write_low_rank(out, spread);
            }
        });
        if !small {
            let (t, b) = (
                Matrix::new(self.t, rows, rank),
                Matrix::new(self.b, rank, width),
            );
            // SAFETY: the rows were just written.
            unsafe {
                product(out, Start::Add, t, b, self.scale);
                if !self.dropout.is_none() {
                    drop_in_place(out.slice(0, rows * width), self.dropout);
                }
            }
        }
    }
}

multiversion! {
    /// As [`product::spread`], for any width and rank.
    fn write_low_rank(out: &mut [f32], of: product::Spread<'_>) {
        let width = of.width;
        let rank = of.b.len() / width.max(1);
        let mask = of.dropout.mask();
        let mut own = vec![0.0; width];
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            match of.bias {
                Some(bias) => own.copy_from_slice(bias),
                None => own.fill(0.0),
            }
            for j in 0..rank {
                let factor = of.scale * of.t[row * rank + j];
                for (own, b) in own.iter_mut().zip(&of.b[j * width..(j + 1) * width]) {
                    *own = factor.mul_add(*b, *own);
                }
            }
            if !of.dropout.is_none() {
                let first = of.first.wrapping_add((row * width) as u32);
                for (i, own) in own.iter_mut().enumerate() {
                    *own *= mask.factor(first.wrapping_add(i as u32));
                }
            }
            match of.added {
                true => add_scaled(out, &own, 1.0),
                false => out.copy_from_slice(&own),
            }
        }
    }
}

/// x = drop(x).
pub(crate) fn drop_in_place(x: &mut [f32], dropout: Dropout) {
    let step = super::buffer::rows_per_task(1);
    x.par_chunks_mut(step).enumerate().for_each(|(block, x)| {
        scale_by_mask(x, (block * step) as u32, dropout);
    });
}

multiversion! {
    /// x times the dropout's mask, from position `first` of the stream.
    pub(crate) fn scale_by_mask(x: &mut [f32], first: u32, dropout: Dropout) {
        let mask = dropout.mask();
        for (i, x) in x.iter_mut().enumerate() {
            *x *= mask.factor(first.wrapping_add(i as u32));
        }
    }
}

/// The transpose of x [rows, cols].
pub(super) fn transpose(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols)
        .map(|i| x[(i % rows) * cols + i / rows])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flex::product::tests::{assert_close, exact as product_and_sizes};
    use crate::random::normals as normal;

    /// The product in double precision times `scale`, and the largest sum of sizes.
    fn exact(left: Matrix<'_>, right: Matrix<'_>, scale: f64) -> (Vec<f64>, f64) {
        let (product, sizes) = product_and_sizes(left, right);
        let largest = sizes.iter().fold(1.0, |a: f64, b| a.max(scale * b));
        (product.iter().map(|x| scale * x).collect(), largest)
    }

    #[test]
    fn products_with_factors_are_those_of_the_dropped_matrix() {
        for (rows, width, rank) in [
            (0, 16, 8),
            (1, 1, 1),
            (2, 16, 8),
            (3, 17, 3),
            (37, 100, 5),
            (131, 48, 8),
            (2300, 33, 15),
            (9, 64, 32),
            (20, 40, 33),
        ] {
            let x = normal(rows * width, 1);
            let factor = normal(rank * width, 2);
            let t = normal(rows * rank, 3);
            for dropout in [Dropout::NONE, Dropout::new(0.3, 5)] {
                let what = format!("{rows} x {width}, rank {rank}, {dropout:?}");
                let mask = dropout.factors(rows * width);
                let dropped: Vec<f32> = x.iter().zip(&mask).map(|(x, mask)| x * mask).collect();
                let dropped = Matrix::new(&dropped, rows, width);
                let wide = Wide::new(&x, [rows, width], dropout);

                let factors = Matrix::new(&factor, rank, width).transposed();
                let right = exact(dropped, factors, 0.5);
                assert_close(&wide.project(&factor, rank, 0.5), &right, &what);

                let right = exact(Matrix::new(&t, rows, rank).transposed(), dropped, 0.5);
                assert_close(&wide.gather(&t, rank, 0.5), &right, &what);
            }
        }
    }

    #[test]
    fn a_prefill_is_the_bias_and_the_dropped_product() {
        for (rows, width, rank) in [(5, 20, 3), (70, 300, 8), (6, 24, 40)] {
            let (t, b) = (normal(rows * rank, 1), normal(rank * width, 2));
            let dropout = Dropout::new(0.25, 9);
            let mask = dropout.factors(rows * width);
            let prefill = Prefill {
                bias: None,
                t: &t,
                b: &b,
                scale: 2.0,
                dropout,
            };
            // SAFETY: it writes every element.
            let found = unsafe { written(rows * width, |out| prefill.write(out, rows, width)) };
            let product = exact(
                Matrix::new(&t, rows, rank),
                Matrix::new(&b, rank, width),
                2.0,
            );
            let (mut right, largest) = product.clone();
            for (right, mask) in right.iter_mut().zip(&mask) {
                *right *= f64::from(*mask);
            }
            assert_close(&found, &(right.clone(), 2.0 * largest), "dropped");
            let dropped = right;

            let bias = normal(width, 3);
            let prefill = Prefill {
                bias: Some(&bias),
                dropout: Dropout::NONE,
                ..prefill
            };
            // SAFETY: as above.
            let mut found = unsafe { written(rows * width, |out| prefill.write(out, rows, width)) };
            let (mut right, largest) = product;
            for (at, right) in right.iter_mut().enumerate() {
                *right += f64::from(bias[at % width]);
            }
            assert_close(&found, &(right.clone(), 2.0 * largest), "with a bias");

            let added = Prefill {
                bias: None,
                dropout,
                ..prefill
            };
            // SAFETY: it was just written.
            unsafe { added.add(Out(found.as_mut_ptr()), rows, width) };
            for (right, dropped) in right.iter_mut().zip(dropped) {
                *right += dropped;
            }
            assert_close(&found, &(right, 4.0 * largest), "added");
        }
    }
}
