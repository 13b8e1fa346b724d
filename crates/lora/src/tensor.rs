//! Tensors outside any device: what adapter files hold, and merging in f32.

use std::fmt;

/// Element type that a tensor has, or shall have, in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileDtype {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision. Values are rounded to f32 when read.
    F64,
}

impl FileDtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Little-endian bytes to f32. A trailing partial element is ignored; callers check lengths.
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => chunks(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            Self::BF16 => chunks(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            Self::F32 => chunks(bytes, f32::from_le_bytes),
            Self::F64 => chunks(bytes, |b| f64::from_le_bytes(b) as f32),
        }
    }

    /// f32 to little-endian bytes of this type, rounding to nearest even.
    pub(crate) fn encode(self, data: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(data.len() * self.size());
        for value in data {
            match self {
                Self::F16 => bytes.extend(half::f16::from_f32(*value).to_le_bytes()),
                Self::BF16 => bytes.extend(half::bf16::from_f32(*value).to_le_bytes()),
                Self::F32 => bytes.extend(value.to_le_bytes()),
                Self::F64 => bytes.extend(f64::from(*value).to_le_bytes()),
            }
        }
        bytes
    }
}

fn chunks<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().map(|element| convert(*element)).collect()
}

impl fmt::Display for FileDtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F32 => "F32",
            Self::F64 => "F64",
        })
    }
}

/// A tensor in ordinary memory: row-major f32 values, a shape, and the type it has on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Values in row-major order, as many as the product of `shape`.
    pub data: Vec<f32>,
    /// Type in the file it came from, and in the file it will be written to.
    pub dtype: FileDtype,
}

impl HostTensor {
    /// An f32 tensor.
    ///
    /// # Panics
    ///
    /// If `data` has not as many values as `shape` says.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            data.len(),
            "a tensor of shape {shape:?} cannot hold {} values",
            data.len()
        );
        Self {
            shape,
            data,
            dtype: FileDtype::F32,
        }
    }

    /// Rows and columns of a matrix, `None` for other ranks.
    pub fn matrix(&self) -> Option<(usize, usize)> {
        match self.shape[..] {
            [rows, columns] => Some((rows, columns)),
            _ => None,
        }
    }

    /// The matrix with rows and columns exchanged: a Burn linear layer keeps [in, out] where
    /// the files keep [out, in].
    ///
    /// # Panics
    ///
    /// If it is not a matrix.
    pub fn transposed(&self) -> Self {
        let [rows, columns] = self.shape[..] else {
            panic!(
                "only a matrix can be transposed, not shape {:?}",
                self.shape
            );
        };
        let mut data = Vec::with_capacity(self.data.len());
        for column in 0..columns {
            data.extend((0..rows).map(|row| self.data[row * columns + column]));
        }
        Self {
            shape: vec![columns, rows],
            data,
            dtype: self.dtype,
        }
    }
}

/// The pair of matrices of one layer, as they are on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// A, `[r, in]`.
    pub a: HostTensor,
    /// B, `[out, r]`.
    pub b: HostTensor,
}

impl Factors {
    /// Rank, inputs and outputs, or `None` if A and B are not a pair of matrices of one rank.
    pub fn sizes(&self) -> Option<(usize, usize, usize)> {
        let (rank, inputs) = self.a.matrix()?;
        let (outputs, columns) = self.b.matrix()?;
        (rank == columns).then_some((rank, inputs, outputs))
    }

    /// What merging adds to a weight: `scale * B A`, in f32.
    ///
    /// # Shapes
    ///
    /// Result `[out, in]`, the layout of the files (transpose it for a Burn linear layer).
    ///
    /// # Panics
    ///
    /// If A and B are not a pair ([`sizes`](Self::sizes)); adapters that were read are.
    pub fn delta(&self, scale: f64) -> HostTensor {
        let (rank, inputs, outputs) = self.sizes().unwrap_or_else(|| {
            panic!(
                "A {:?} and B {:?} are not [r, in] and [out, r]",
                self.a.shape, self.b.shape
            )
        });
        let mut data = vec![0.0; outputs * inputs];
        if inputs > 0 && rank > 0 {
            let b_rows = self.b.data.chunks_exact(rank);
            for (row, b_row) in data.chunks_exact_mut(inputs).zip(b_rows) {
                for (factor, a_row) in b_row.iter().zip(self.a.data.chunks_exact(inputs)) {
                    for (sum, value) in row.iter_mut().zip(a_row) {
                        *sum += factor * value;
                    }
                }
                row.iter_mut().for_each(|sum| *sum *= scale as f32);
            }
        }
        HostTensor::new([outputs, inputs], data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_types_survive_a_round_trip() {
        let values = [0.0, -1.5, 65504.0, 1.0 / 3.0];
        for dtype in [FileDtype::F16, FileDtype::BF16] {
            let bytes = dtype.encode(&values);
            assert_eq!(bytes.len(), values.len() * dtype.size());
            let read = dtype.decode(&bytes);
            assert_eq!(dtype.encode(&read), bytes);
        }
        let bytes = FileDtype::F64.encode(&values);
        assert_eq!(FileDtype::F64.decode(&bytes), values);
    }

    #[test]
    fn transposing_twice_is_nothing() {
        let tensor = HostTensor::new([2, 3], vec![1., 2., 3., 4., 5., 6.]);
        let transposed = tensor.transposed();
        assert_eq!(transposed.shape, [3, 2]);
        assert_eq!(transposed.data, [1., 4., 2., 5., 3., 6.]);
        assert_eq!(transposed.transposed(), tensor);
    }

    #[test]
    fn delta_is_scaled_b_times_a() {
        let factors = Factors {
            a: HostTensor::new([2, 3], vec![1., 2., 3., 4., 5., 6.]),
            b: HostTensor::new([1, 2], vec![10., 100.]),
        };
        let delta = factors.delta(0.5);
        assert_eq!(delta.shape, [1, 3]);
        assert_eq!(delta.data, [205., 260., 315.]);
    }

    #[test]
    #[should_panic(expected = "not [r, in] and [out, r]")]
    fn factors_of_different_ranks_have_no_delta() {
        Factors {
            a: HostTensor::new([2, 1], vec![1., 2.]),
            b: HostTensor::new([1, 1], vec![1.]),
        }
        .delta(1.0);
    }
}
