//! Numbers over seeds.

/// A sample over seeds, summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    /// Number of values.
    pub(crate) count: usize,
    /// Mean.
    pub(crate) mean: f64,
    /// Median.
    pub(crate) median: f64,
    /// Standard deviation of the sample (divisor n - 1); 0 for one value.
    pub(crate) deviation: f64,
    /// Smallest.
    pub(crate) min: f64,
    /// Largest.
    pub(crate) max: f64,
}

impl Summary {
    /// `None` for no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len();
        let mean = sorted.iter().sum::<f64>() / count as f64;
        let squares: f64 = sorted.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if count > 1 {
            (squares / (count - 1) as f64).sqrt()
        } else {
            0.0
        };
        let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
        Some(Self {
            count,
            mean,
            median,
            deviation,
            min,
            max,
        })
    }

    /// `89.4 ± 0.6`, or `89.4` for one value.
    pub(crate) fn mean_and_deviation(&self) -> String {
        if self.count > 1 {
            format!("{:.1} ± {:.1}", self.mean, self.deviation)
        } else {
            format!("{:.1}", self.mean)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_numpy_on_a_small_sample() {
        // numpy: mean 2.5, median 2.0, std(ddof=1) 1.7320508
        let summary = Summary::of(&[2.0, 1.0, 5.0, 2.0]).unwrap();
        assert_eq!(
            (summary.mean, summary.median, summary.min, summary.max),
            (2.5, 2.0, 1.0, 5.0)
        );
        assert!((summary.deviation - 1.732_050_8).abs() < 1e-6);
        assert!(Summary::of(&[]).is_none());
        assert_eq!(Summary::of(&[3.0]).unwrap().deviation, 0.0);
    }
}
