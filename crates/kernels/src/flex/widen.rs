//! Frozen weights that are stored in 16 bit: they become f32 for one operation at a time.

use burn::tensor::{Bytes, DType, bf16, f16};
use burn_flex::{FlexTensor, Layout};
use half::slice::HalfFloatSliceExt;

use super::buffer::{for_row_blocks, written};

/// A weight in f32, in the layout that it has: itself, or a copy of one of halves.
///
/// # Panics
/// Panics when it is neither f32 nor of halves, or is not one piece of memory.
pub(crate) fn widened(weight: FlexTensor) -> FlexTensor {
    let layout = weight.layout();
    let place = layout.start_offset()..layout.start_offset() + layout.num_elements();
    let wide = match weight.dtype() {
        DType::F32 => return weight,
        DType::BF16 => copied(&weight.storage::<bf16>()[place], |from, to| {
            from.convert_to_f32_slice(to);
        }),
        DType::F16 => copied(&weight.storage::<f16>()[place], |from, to| {
            from.convert_to_f32_slice(to);
        }),
        other => panic!("a weight is f32, bf16 or f16, not {other:?}"),
    };
    let layout = Layout::new(layout.shape().clone(), layout.strides().to_vec(), 0);
    FlexTensor::new(Bytes::from_elems(wide), layout, DType::F32)
}

/// A copy that `convert` makes piece by piece, on all threads.
fn copied<T: Sync>(from: &[T], convert: impl Fn(&[T], &mut [f32]) + Sync + Send) -> Vec<f32> {
    // SAFETY: the blocks cover every element once.
    unsafe {
        written(from.len(), |out| {
            for_row_blocks(from.len(), 1, |first, len| {
                convert(&from[first..first + len], out.slice(first, len));
            });
        })
    }
}
