//! The numbers of weight files, as f32.

use half::slice::HalfFloatSliceExt;
use lowburn_lora::FileDtype;

/// What the elements of a tensor are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Numbers that become f32.
    Float(FileDtype),
    /// Anything else, by its name. Such tensors may be there as long as nobody needs them.
    Other(String),
}

/// Halves that are converted at a time: the conversion of a slice uses the processor's own
/// instruction, and the slice stays in its first cache.
const HALVES: usize = 4096;

/// Appends little-endian numbers to `out`, as f32. A partial one at the end is left out.
pub(super) fn append(dtype: FileDtype, bytes: &[u8], out: &mut Vec<f32>) {
    match dtype {
        FileDtype::F32 => out.extend(elements(bytes).map(f32::from_le_bytes)),
        FileDtype::F64 => out.extend(elements(bytes).map(|b| f64::from_le_bytes(b) as f32)),
        FileDtype::BF16 => out.extend(
            elements(bytes).map(|b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        ),
        FileDtype::F16 => {
            let mut halves = [half::f16::ZERO; HALVES];
            for part in bytes.chunks(2 * HALVES) {
                let count = part.len() / 2;
                for (half, bytes) in halves.iter_mut().zip(elements(part)) {
                    *half = half::f16::from_le_bytes(bytes);
                }
                let start = out.len();
                out.resize(start + count, 0.0);
                halves[..count].convert_to_f32_slice(&mut out[start..]);
            }
        }
    }
}

fn elements<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_becomes_the_number_it_is() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (dtype, expected) in [
            (
                FileDtype::F16,
                (0..=u16::MAX)
                    .map(|bits| half::f16::from_bits(bits).to_f32())
                    .collect::<Vec<_>>(),
            ),
            (
                FileDtype::BF16,
                (0..=u16::MAX)
                    .map(|bits| half::bf16::from_bits(bits).to_f32())
                    .collect(),
            ),
        ] {
            let mut values = vec![7.0];
            append(dtype, &bytes, &mut values);
            assert_eq!(values.len(), expected.len() + 1);
            for (value, expected) in values[1..].iter().zip(&expected) {
                let same = value == expected || (value.is_nan() && expected.is_nan());
                assert!(same, "{value} is not {expected}");
            }
        }
    }

    #[test]
    fn long_numbers_are_rounded_and_ends_left_out() {
        let mut values = Vec::new();
        let third = 1.0_f64 / 3.0;
        let bytes = [&third.to_le_bytes()[..], &[1, 2, 3]].concat();
        append(FileDtype::F64, &bytes, &mut values);
        append(FileDtype::F32, &0.5_f32.to_le_bytes(), &mut values);
        assert_eq!(values, [1.0 / 3.0, 0.5]);
    }
}
