//! New tensors, for heads that a checkpoint lacks and for random checkpoints.

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use lowburn_kernels::{derive_key, normal};
use rayon::prelude::*;

use crate::ModelError;
use crate::build::TensorSource;
use crate::manifest::{Kind, TensorSpec};

/// New tensors. Each is a function of the seed and its name.
pub(crate) struct RandomSource {
    specs: BTreeMap<String, TensorSpec>,
    seed: u64,
    deviation: f64,
}

impl RandomSource {
    pub(crate) fn new(specs: &[TensorSpec], seed: u64, deviation: f64) -> Self {
        let specs = specs.iter().map(|s| (s.name.clone(), s.clone())).collect();
        Self {
            specs,
            seed,
            deviation,
        }
    }
}

/// A key that depends on a name, for streams of random numbers.
pub(crate) fn name_key(seed: u64, name: &str) -> u64 {
    name.bytes()
        .fold(derive_key(seed, 0x6e61_6d65), |key, byte| {
            derive_key(key, u64::from(byte))
        })
}

impl TensorSource for RandomSource {
    fn take(&mut self, name: &str) -> Result<TensorData, ModelError> {
        let spec = &self.specs[name];
        let n = spec.elements();
        let key = name_key(self.seed, name);
        let values = match spec.kind {
            Kind::Zeros => vec![0.0; n],
            Kind::Ones => vec![1.0; n],
            Kind::Weight => drawn(key, n, self.deviation),
            Kind::Table(zero_row) => {
                let mut values = drawn(key, n, self.deviation);
                if let Some(row) = zero_row {
                    let width = spec.shape[1];
                    values[row * width..(row + 1) * width].fill(0.0);
                }
                values
            }
        };
        Ok(TensorData::new(values, spec.shape.clone()))
    }
}

fn drawn(key: u64, n: usize, deviation: f64) -> Vec<f32> {
    (0..n as u64)
        .into_par_iter()
        .map(|i| (normal(key, i) * deviation) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 200;
    const WIDTH: usize = 50;

    fn take(name: &str, kind: Kind, seed: u64) -> Vec<f32> {
        let spec = TensorSpec {
            name: name.to_owned(),
            shape: vec![ROWS, WIDTH],
            kind,
        };
        let data = RandomSource::new(&[spec], seed, 0.02).take(name).unwrap();
        assert_eq!(data.shape().to_vec(), [ROWS, WIDTH]);
        data.try_to_vec().unwrap()
    }

    #[test]
    fn weights_are_normal_with_the_initializer_range() {
        let values = take("classifier.dense.weight", Kind::Weight, 3);
        let n = values.len() as f64;
        let sum = |p| values.iter().map(|v| f64::from(*v).powi(p)).sum::<f64>();
        let (mean, square) = (sum(1) / n, sum(2) / n);
        // Five standard deviations of each estimate.
        assert!(mean.abs() < 5.0 * 0.02 / n.sqrt(), "{mean}");
        assert!(
            (square / 4e-4 - 1.0).abs() < 5.0 * (2.0 / n).sqrt(),
            "{square}"
        );
    }

    #[test]
    fn biases_scales_and_the_padding_row_are_constant() {
        assert!(take("b", Kind::Zeros, 3).iter().all(|v| *v == 0.0));
        assert!(take("g", Kind::Ones, 3).iter().all(|v| *v == 1.0));
        let table = take("t", Kind::Table(Some(7)), 3);
        for (row, values) in table.chunks_exact(WIDTH).enumerate() {
            assert_eq!(values.iter().all(|v| *v == 0.0), row == 7, "row {row}");
        }
    }

    #[test]
    fn numbers_depend_on_seed_and_name_and_on_nothing_else() {
        let first = take("a", Kind::Weight, 3);
        assert_eq!(first, take("a", Kind::Weight, 3));
        assert_ne!(first, take("a", Kind::Weight, 4));
        assert_ne!(first, take("b", Kind::Weight, 3));
    }
}
