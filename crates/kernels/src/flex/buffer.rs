//! Between flex tensors and slices of f32.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;

/// Rows that one task of a row-wise kernel handles. It depends on the width only, never on the
/// number of threads.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (16_384 / width.max(1)).max(1)
}

/// The tensor itself if it is a dense f32 tensor, a dense copy otherwise.
pub(crate) fn contiguous(x: FlexTensor) -> FlexTensor {
    assert_eq!(x.dtype(), DType::F32, "the fused kernels work on f32");
    if x.is_contiguous() {
        x
    } else {
        x.to_contiguous()
    }
}

/// The elements of a contiguous f32 tensor.
pub(crate) fn values(x: &FlexTensor) -> &[f32] {
    let start = x.layout().start_offset();
    &x.storage::<f32>()[start..start + x.layout().num_elements()]
}

/// A tensor that owns its elements.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let shape = shape.into();
    debug_assert_eq!(values.len(), shape.num_elements());
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape),
        DType::F32,
    )
}

/// A vector of `len` elements that `write` sets through the pointer, all of them.
///
/// # Safety
/// `write` must initialise every one of the `len` elements.
pub(crate) unsafe fn written(len: usize, write: impl FnOnce(Out)) -> Vec<f32> {
    let mut buffer: Vec<f32> = Vec::with_capacity(len);
    write(Out(buffer.as_mut_ptr()));
    // SAFETY: the capacity is `len`, and the caller promises that all elements are written.
    unsafe { buffer.set_len(len) };
    buffer
}

/// A pointer to memory that parallel tasks write at disjoint places.
#[derive(Clone, Copy)]
pub(crate) struct Out(pub(crate) *mut f32);

// SAFETY: tasks write disjoint ranges, which each caller argues for.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// The `len` elements from `offset`.
    ///
    /// # Safety
    /// The range lies inside the allocation and no other task touches it.
    pub(crate) unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: promised by the caller; every f32 bit pattern is valid and is written before read.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(offset), len) }
    }

    /// The pointer moved by `offset` elements; where nothing is written there it may lie outside the allocation.
    pub(crate) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// Calls `task(first_row, rows)` for blocks of rows, in parallel.
pub(crate) fn for_row_blocks(rows: usize, width: usize, task: impl Fn(usize, usize) + Sync + Send) {
    let step = rows_per_task(width);
    (0..rows.div_ceil(step)).into_par_iter().for_each(|block| {
        let first = block * step;
        task(first, step.min(rows - first));
    });
}
