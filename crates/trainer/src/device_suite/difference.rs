//! How far what a device computed is from what it should be.

use std::collections::BTreeMap;

use super::side::{Pass, Trajectory};

/// A gradient below this share of the largest of all gradients is measured by that share: some are 0 but for rounding.
const LEAST_GRADIENT: f64 = 1e-2;

/// A largest difference. What is no number, or of another shape, is infinitely far away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// As it is.
    pub absolute: f64,
    /// Over the largest magnitude of what was expected, tensor by tensor.
    pub relative: f64,
}

impl Difference {
    const NONE: Self = Self {
        absolute: 0.0,
        relative: 0.0,
    };
    const INFINITE: Self = Self {
        absolute: f64::INFINITY,
        relative: f64::INFINITY,
    };

    /// Between two numbers, one of the size `size`.
    pub(super) fn new(absolute: f64, size: f64) -> Self {
        let relative = match absolute == 0.0 {
            true => 0.0,
            false => absolute / size,
        };
        match relative.is_nan() {
            true => Self::INFINITE,
            false => Self { absolute, relative },
        }
    }

    /// Between two tensors, where no size below `least` counts.
    pub(super) fn of(found: &[f32], expected: &[f32], least: f64) -> Self {
        if found.len() != expected.len() {
            return Self::INFINITE;
        }
        let pairs = found.iter().zip(expected);
        let apart = pairs.map(|(found, expected)| f64::from(*found) - f64::from(*expected));
        Self::new(largest(apart), size(expected).max(least))
    }

    /// Between logits, and between gradients.
    pub(super) fn of_passes(found: &Pass, expected: &Pass) -> [Self; 2] {
        let logits = Self::of(&found.logits, &expected.logits, 0.0);
        [
            logits,
            Self::of_gradients(&found.gradients, &expected.gradients),
        ]
    }

    fn of_gradients(found: &Named, expected: &Named) -> Self {
        if !found.keys().eq(expected.keys()) {
            return Self::INFINITE;
        }
        let most = largest(expected.values().map(|values| size(values)));
        let pairs = found.values().zip(expected.values());
        let each = pairs.map(|(found, expected)| Self::of(found, expected, LEAST_GRADIENT * most));
        each.fold(Self::NONE, Self::larger)
    }

    /// Between losses, each relative to its own.
    pub(super) fn of_losses(found: &[f64], expected: &[f64]) -> Self {
        if found.len() != expected.len() {
            return Self::INFINITE;
        }
        let pairs = found.iter().zip(expected);
        let each =
            pairs.map(|(found, expected)| Self::new(largest([found - expected]), expected.abs()));
        each.fold(Self::NONE, Self::larger)
    }

    /// Between the ends of two trajectories from one start: the largest difference of a parameter, and the length of
    /// the difference over the length of the way.
    pub(super) fn of_parameters(found: &Trajectory, expected: &Trajectory) -> Self {
        let (mut most, mut apart, mut way) = (0.0, 0.0, 0.0);
        if found.end.len() != expected.end.len() {
            return Self::INFINITE;
        }
        let ends = found.end.iter().zip(&expected.end).zip(&expected.start);
        for ((found, expected), start) in ends.filter(|((found, _), _)| !is_unseen(&found.name)) {
            if found.name != expected.name || found.values.len() != expected.values.len() {
                return Self::INFINITE;
            }
            let values = found.values.iter().zip(&expected.values).zip(&start.values);
            for ((found, expected), start) in values {
                let [found, expected, start] = [found, expected, start].map(|v| f64::from(*v));
                most = largest([most, found - expected]);
                apart += (found - expected).powi(2);
                way += (expected - start).powi(2);
            }
        }
        let relative = Self::new(apart.sqrt(), way.sqrt()).relative;
        Self {
            absolute: most,
            relative,
        }
    }

    /// The larger of each.
    pub(super) fn larger(self, other: Self) -> Self {
        Self {
            absolute: self.absolute.max(other.absolute),
            relative: self.relative.max(other.relative),
        }
    }
}

/// Tensors by name.
type Named = BTreeMap<String, Vec<f32>>;

/// Whether no output depends on it: with plain attention a key's bias adds the same number to all scores of a query,
/// which softmax does not see. Its gradient is rounding alone, which AdamW makes steps of full length of.
fn is_unseen(name: &str) -> bool {
    name.ends_with("attention.self.key.bias")
}

fn size(values: &[f32]) -> f64 {
    largest(values.iter().map(|value| f64::from(*value)))
}

/// The largest magnitude; infinite where one is no number.
pub(super) fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values
        .into_iter()
        .fold(0.0, |most, value| match value.is_nan() {
            true => f64::INFINITY,
            false => most.max(value.abs()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::NamedTensor;

    fn difference(absolute: f64, relative: f64) -> Difference {
        Difference { absolute, relative }
    }

    fn named(all: &[(&str, &[f32])]) -> Named {
        let owned = |(name, values): &(&str, &[f32])| ((*name).to_owned(), values.to_vec());
        all.iter().map(owned).collect()
    }

    #[test]
    fn tensors_are_measured_by_their_largest_number() {
        let of = |found: &[f32]| Difference::of(found, &[1.0, -8.0, 0.0], 0.0);
        assert_eq!(of(&[1.0, -8.0, 0.0]), Difference::NONE);
        assert_eq!(of(&[1.0, -8.0, 0.5]), difference(0.5, 0.0625));
        assert_eq!(of(&[3.0, -8.0, 0.5]), difference(2.0, 0.25));
        assert_eq!(of(&[1.0, f32::NAN, 0.5]), Difference::INFINITE);
        assert_eq!(of(&[1.0, f32::INFINITY, 0.0]), Difference::INFINITE);
        assert_eq!(of(&[1.0, -8.0]), Difference::INFINITE);
        let least = Difference::of(&[0.5], &[0.25], 2.0);
        assert_eq!(least, difference(0.25, 0.125));
        assert_eq!(Difference::of(&[0.5], &[0.0], 0.0).relative, f64::INFINITY);
        // Both sides may be wrong in the same way; that is no reason to pass.
        let nan = Difference::of(&[f32::NAN], &[f32::NAN], 0.0);
        assert_eq!(nan, Difference::INFINITE);
    }

    #[test]
    fn small_gradients_are_measured_by_the_largest() {
        let expected = named(&[("a", &[4.0, -1.0]), ("b", &[0.0, 0.0])]);
        let found = named(&[("a", &[4.0, -1.0]), ("b", &[0.02, 0.0])]);
        let found = Difference::of_gradients(&found, &expected);
        assert!((found.relative - 0.5).abs() < 1e-6, "{found:?}");
        let other = named(&[("a", &[4.0, -1.0])]);
        assert_eq!(
            Difference::of_gradients(&other, &expected),
            Difference::INFINITE
        );
        assert_eq!(
            Difference::of_gradients(&expected, &other),
            Difference::INFINITE
        );
    }

    #[test]
    fn each_loss_counts_by_itself() {
        let found = Difference::of_losses(&[2.5, 100.0], &[2.0, 101.0]);
        assert_eq!(found, difference(1.0, 0.25));
        let nan = Difference::of_losses(&[f64::NAN, 1.0], &[2.0, 1.0]);
        assert_eq!(nan, Difference::INFINITE);
        assert_eq!(Difference::of_losses(&[], &[2.0]), Difference::INFINITE);
    }

    #[test]
    fn parameters_are_measured_by_the_way_they_went() {
        let tensor = |name: &str, values: &[f32]| NamedTensor {
            name: name.to_owned(),
            shape: vec![values.len()],
            values: values.to_vec(),
        };
        let unseen = "roberta.encoder.layer.0.attention.self.key.bias";
        let trajectory = |seen: &[f32], bias: f32| Trajectory {
            losses: Vec::new(),
            start: vec![tensor("a", &[1.0, 1.0]), tensor(unseen, &[0.0])],
            end: vec![tensor("a", seen), tensor(unseen, &[bias])],
        };
        let expected = trajectory(&[4.0, 5.0], 0.0); // 5 from the start
        let found = Difference::of_parameters(&trajectory(&[4.0, 5.5], 9.0), &expected);
        assert_eq!(found, difference(0.5, 0.1));
        let nan = Difference::of_parameters(&trajectory(&[4.0, f32::NAN], 0.0), &expected);
        assert_eq!(nan, Difference::INFINITE);
    }
}
