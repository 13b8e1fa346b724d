//! Cross-entropy and squared error, once as tensors for training and once in 64 bit for
//! evaluation.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use lowburn_glue::Label;

/// The share of a micro-batch in the mean loss of its effective batch of `effective` rows.
///
/// The parts of all micro-batches add up to the mean over the whole effective batch, uneven last
/// part included.
///
/// # Shapes
/// logits `[rows, labels]`, result `[1]`.
///
/// # Panics
/// When there are not as many labels as rows.
pub(crate) fn training_loss(logits: Tensor<2>, labels: &[Label], effective: usize) -> Tensor<1> {
    let [rows, _] = logits.dims();
    assert_eq!(rows, labels.len(), "a label for every row");
    let device = logits.device();
    let share = 1.0 / effective as f64;
    if let Some(scores) = scores(labels) {
        let target = Tensor::<2>::from_data(TensorData::new(scores, [rows, 1]), &device);
        let difference = logits - target; // [rows, 1]
        return (difference.clone() * difference).sum() * share;
    }
    let classes: Vec<i32> = labels.iter().map(|label| class(label) as i32).collect();
    let classes = Tensor::<2, Int>::from_data(TensorData::new(classes, [rows, 1]), &device);
    log_softmax(logits, 1).gather(1, classes).sum() * -share
}

/// The scores of a regression task, `None` for classes.
fn scores(labels: &[Label]) -> Option<Vec<f32>> {
    labels
        .iter()
        .map(|label| match label {
            Label::Score(score) => Some(*score),
            Label::Class(_) => None,
        })
        .collect()
}

fn class(label: &Label) -> usize {
    match label {
        Label::Class(class) => *class,
        Label::Score(_) => 0,
    }
}

/// The loss of one row in 64 bit: minus the log-probability of its class, or the squared error.
pub(crate) fn row_loss(logits: &[f32], label: &Label) -> f64 {
    match label {
        Label::Score(score) => (f64::from(logits[0]) - f64::from(*score)).powi(2),
        Label::Class(class) => {
            let (shift, sum) = shifted_exponentials(logits);
            sum.ln() + shift - f64::from(logits[*class])
        }
    }
}

/// Softmax in 64 bit.
pub(crate) fn probabilities(logits: &[f32]) -> Vec<f64> {
    let (shift, sum) = shifted_exponentials(logits);
    logits
        .iter()
        .map(|&logit| (f64::from(logit) - shift).exp() / sum)
        .collect()
}

/// The largest logit and the sum of the exponentials of the differences to it.
fn shifted_exponentials(logits: &[f32]) -> (f64, f64) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shift = f64::from(largest);
    let sum = logits
        .iter()
        .map(|&logit| (f64::from(logit) - shift).exp())
        .sum();
    (shift, sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn tensor(rows: usize, columns: usize, values: &[f32]) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [rows, columns]);
        Tensor::from_data(data, &Device::flex())
    }

    fn value(loss: Tensor<1>) -> f64 {
        f64::from(loss.into_scalar::<f32>())
    }

    #[test]
    fn parts_add_up_to_the_mean_of_the_whole() {
        let logits = [1.0, -2.0, 0.5, 0.25, 3.0, -1.0];
        let labels = [Label::Class(0), Label::Class(1), Label::Class(1)];
        let whole = value(training_loss(tensor(3, 2, &logits), &labels, 3));
        let first = value(training_loss(tensor(2, 2, &logits[..4]), &labels[..2], 3));
        let last = value(training_loss(tensor(1, 2, &logits[4..]), &labels[2..], 3));
        assert!((whole - first - last).abs() < 1e-6);
        let by_hand: f64 = logits
            .chunks(2)
            .zip(&labels)
            .map(|(logits, label)| row_loss(logits, label))
            .sum();
        assert!((whole - by_hand / 3.0).abs() < 1e-6);
        // ln(1 + e^-3), ln(1 + e^0.25), ln(1 + e^4)
        let expected: f64 = [-3.0_f64, 0.25, 4.0].iter().map(|d| d.exp().ln_1p()).sum();
        assert!((by_hand - expected).abs() < 1e-12);
    }

    #[test]
    fn regression_is_the_mean_squared_error() {
        let labels = [Label::Score(2.0), Label::Score(5.0)];
        let loss = value(training_loss(tensor(2, 1, &[2.5, 3.0]), &labels, 2));
        assert!((loss - (0.25 + 4.0) / 2.0).abs() < 1e-6);
        assert_eq!(row_loss(&[3.0], &labels[1]), 4.0);
    }

    #[test]
    fn probabilities_survive_huge_logits() {
        let p = probabilities(&[1e30, 1e30, -1e30]);
        assert_eq!(p, [0.5, 0.5, 0.0]);
    }
}
