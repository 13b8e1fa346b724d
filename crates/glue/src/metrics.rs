//! The metrics of GLUE, equal to scikit-learn 1.9 and SciPy 1.17, degenerate cases included.
//!
//! All are functions of predictions and labels of equal length, and panic where the lengths differ.
//! Where a value is undefined, scikit-learn's and SciPy's answer is given (0 or NaN, said at each).

/// The share of predictions that equal their label; NaN for no rows.
pub fn accuracy(predicted: &[usize], expected: &[usize]) -> f64 {
    assert_eq!(predicted.len(), expected.len());
    let right = predicted
        .iter()
        .zip(expected)
        .filter(|(p, e)| p == e)
        .count();
    right as f64 / predicted.len() as f64
}

/// F1 of class 1: the harmonic mean of precision and recall; 0 where class 1 is neither predicted nor
/// expected, as scikit-learn's `f1_score` gives (with a warning).
pub fn f1(predicted: &[usize], expected: &[usize]) -> f64 {
    assert_eq!(predicted.len(), expected.len());
    let positives = |classes: &[usize]| classes.iter().filter(|&&class| class == 1).count();
    let hits = predicted
        .iter()
        .zip(expected)
        .filter(|&(&p, &e)| p == 1 && e == 1)
        .count();
    let all = positives(predicted) + positives(expected);
    if all == 0 {
        0.0
    } else {
        2.0 * hits as f64 / all as f64
    }
}

/// Matthews' correlation coefficient for any number of classes (Gorodkin's R_K); 0 where predictions
/// or labels are all of one class, as scikit-learn's `matthews_corrcoef` gives.
pub fn matthews(predicted: &[usize], expected: &[usize]) -> f64 {
    assert_eq!(predicted.len(), expected.len());
    let classes = predicted
        .iter()
        .chain(expected)
        .max()
        .map_or(0, |&class| class + 1);
    let count = |rows: &[usize]| {
        let mut counts = vec![0i128; classes];
        rows.iter().for_each(|&class| counts[class] += 1);
        counts
    };
    let (p, e) = (count(predicted), count(expected));
    let dot = |a: &[i128], b: &[i128]| a.iter().zip(b).map(|(x, y)| x * y).sum::<i128>();
    let rows = predicted.len() as i128;
    let right = predicted
        .iter()
        .zip(expected)
        .filter(|(p, e)| p == e)
        .count() as i128;
    // Covariances times rows^2, exact in integers.
    let joint = right * rows - dot(&p, &e);
    let (of_p, of_e) = (rows * rows - dot(&p, &p), rows * rows - dot(&e, &e));
    if of_p == 0 || of_e == 0 {
        0.0
    } else {
        joint as f64 / ((of_p as f64) * (of_e as f64)).sqrt()
    }
}

/// Pearson's correlation coefficient; NaN where either side is constant, holds a NaN or an infinity, or
/// there are fewer than two rows (SciPy's `pearsonr`, which refuses the last case).
pub fn pearson(predicted: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(predicted.len(), expected.len());
    let constant = |values: &[f64]| values.iter().all(|value| *value == values[0]);
    if predicted.len() < 2 || constant(predicted) || constant(expected) {
        return f64::NAN;
    }
    let centred = |values: &[f64]| -> Vec<f64> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let centred: Vec<f64> = values.iter().map(|value| value - mean).collect();
        // Scaled by the greatest deviation first, so that squares neither overflow nor vanish.
        let scale = centred
            .iter()
            .fold(0.0f64, |most, value| most.max(value.abs()));
        let norm = scale
            * centred
                .iter()
                .map(|value| (value / scale).powi(2))
                .sum::<f64>()
                .sqrt();
        centred.iter().map(|value| value / norm).collect()
    };
    let (x, y) = (centred(predicted), centred(expected));
    let r: f64 = x.iter().zip(&y).map(|(a, b)| a * b).sum();
    r.clamp(-1.0, 1.0)
}

/// Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of their ranks;
/// NaN where either side is constant or holds a NaN, or there are fewer than two rows (SciPy's `spearmanr`).
pub fn spearman(predicted: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(predicted.len(), expected.len());
    if predicted.iter().chain(expected).any(|value| value.is_nan()) {
        return f64::NAN;
    }
    pearson(&ranks(predicted), &ranks(expected))
}

/// Ranks from 1, ties averaged. No NaN allowed.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let tied = order[start..]
            .iter()
            .take_while(|&&row| values[row] == values[order[start]])
            .count();
        let mean = start as f64 + (tied as f64 + 1.0) / 2.0;
        order[start..start + tied]
            .iter()
            .for_each(|&row| ranks[row] = mean);
        start += tied;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_the_mean_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
        assert_eq!(ranks(&[0.0, -0.0]), [1.5, 1.5]);
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn no_rows() {
        assert!(accuracy(&[], &[]).is_nan());
        assert_eq!((f1(&[], &[]), matthews(&[], &[])), (0.0, 0.0));
        assert!(pearson(&[], &[]).is_nan() && spearman(&[1.0], &[2.0]).is_nan());
    }

    #[test]
    fn infinity_is_undefined_for_pearson_and_a_rank_for_spearman() {
        let (x, y) = ([1.0, 2.0, f64::INFINITY], [1.0, 2.0, 3.0]);
        assert!(pearson(&x, &y).is_nan());
        assert!((spearman(&x, &y) - 1.0).abs() < 1e-12);
    }
}
