//! Metrics by name and the scores of a task.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::metrics::{accuracy, f1, matthews, pearson, spearman};
use crate::{Label, Task};

/// A metric of GLUE; serialised as "accuracy", "f1", ...
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The share of right predictions.
    Accuracy,
    /// F1 of class 1.
    F1,
    /// Matthews' correlation of classes.
    Matthews,
    /// Pearson's correlation of scores.
    Pearson,
    /// Spearman's rank correlation of scores.
    Spearman,
}

impl Metric {
    /// The name in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Matthews => "matthews",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
        }
    }

    /// Whether `value` beats `best`: strictly greater, so that of equal values the earlier stays.
    /// Undefined (NaN) beats nothing and is beaten by every number.
    pub fn improves(self, value: f64, best: f64) -> bool {
        value > best || (best.is_nan() && !value.is_nan())
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Values by metric, in the task's order. Serialised as `{"accuracy":0.9,"f1":0.92}`; an undefined
/// value (NaN: a correlation with a constant) is `null` in JSON and comes back as NaN.
#[derive(Debug, Clone, Default)]
pub struct Scores(Vec<(Metric, f64)>);

impl Scores {
    /// The value of a metric, `None` where it was not computed.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0
            .iter()
            .find(|(m, _)| *m == metric)
            .map(|(_, value)| *value)
    }

    /// Metrics and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (Metric, f64)> + '_ {
        self.0.iter().copied()
    }

    /// The first metric and its value: the one that decides about the best epoch.
    pub fn primary(&self) -> Option<(Metric, f64)> {
        self.0.first().copied()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a value, at the end if the metric is new.
    pub fn insert(&mut self, metric: Metric, value: f64) {
        match self.0.iter_mut().find(|(m, _)| *m == metric) {
            Some(entry) => entry.1 = value,
            None => self.0.push((metric, value)),
        }
    }
}

impl PartialEq for Scores {
    /// Equal metrics in equal order with equal values, where NaN equals NaN: records can be compared.
    fn eq(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
        self.0.len() == other.0.len()
            && self
                .iter()
                .zip(other.iter())
                .all(|((m, a), (n, b))| m == n && same(a, b))
    }
}

impl FromIterator<(Metric, f64)> for Scores {
    fn from_iter<I: IntoIterator<Item = (Metric, f64)>>(values: I) -> Self {
        let mut scores = Self::default();
        values
            .into_iter()
            .for_each(|(metric, value)| scores.insert(metric, value));
        scores
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (metric, value) in self.iter() {
            map.serialize_entry(&metric, &(!value.is_nan()).then_some(value))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Scores;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of metrics and numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scores, A::Error> {
                let mut scores = Scores::default();
                while let Some((metric, value)) = map.next_entry::<Metric, Option<f64>>()? {
                    scores.insert(metric, value.unwrap_or(f64::NAN));
                }
                Ok(scores)
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// What a model says about a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prediction {
    /// A class, an index into [`Task::labels`].
    Class(usize),
    /// A similarity (STS-B), not clipped to 0 to 5.
    Score(f32),
}

impl Prediction {
    /// The prediction that logits stand for: the index of the greatest (the first of equal ones, as
    /// numpy's argmax), or the value itself for the regression task.
    ///
    /// # Panics
    /// When there are not [`Task::num_labels`] logits.
    pub fn from_logits(task: Task, logits: &[f32]) -> Self {
        assert_eq!(
            logits.len(),
            task.num_labels(),
            "logits of a row of task {task}"
        );
        if task.is_regression() {
            return Self::Score(logits[0]);
        }
        let mut best = 0;
        for (class, &logit) in logits.iter().enumerate() {
            if logit > logits[best] {
                best = class;
            }
        }
        Self::Class(best)
    }
}

/// Computes the task's metrics.
///
/// # Panics
/// When there are more or fewer predictions than labels, or scores where the task has classes (or the
/// reverse). Labels from a [`crate::Dataset`] of that task are always of the right kind.
pub fn score(task: Task, predictions: &[Prediction], labels: &[Label]) -> Scores {
    assert_eq!(
        predictions.len(),
        labels.len(),
        "predictions and labels of task {task}"
    );
    if task.is_regression() {
        let predicted: Vec<f64> = predictions
            .iter()
            .map(|prediction| match prediction {
                Prediction::Score(value) => f64::from(*value),
                Prediction::Class(class) => panic!("class {class} predicted for task {task}"),
            })
            .collect();
        let expected: Vec<f64> = labels
            .iter()
            .map(|label| match label {
                Label::Score(value) => f64::from(*value),
                Label::Class(class) => panic!("class {class} as a label of task {task}"),
            })
            .collect();
        return task
            .metrics()
            .iter()
            .map(|&metric| match metric {
                Metric::Spearman => (metric, spearman(&predicted, &expected)),
                _ => (metric, pearson(&predicted, &expected)),
            })
            .collect();
    }
    let predicted: Vec<usize> = predictions
        .iter()
        .map(|prediction| match prediction {
            Prediction::Class(class) => *class,
            Prediction::Score(value) => panic!("score {value} predicted for task {task}"),
        })
        .collect();
    let expected: Vec<usize> = labels
        .iter()
        .map(|label| match label {
            Label::Class(class) => *class,
            Label::Score(value) => panic!("score {value} as a label of task {task}"),
        })
        .collect();
    task.metrics()
        .iter()
        .map(|&metric| match metric {
            Metric::F1 => (metric, f1(&predicted, &expected)),
            Metric::Matthews => (metric, matthews(&predicted, &expected)),
            _ => (metric, accuracy(&predicted, &expected)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_order_and_nan_is_null() {
        let scores: Scores = [(Metric::Pearson, f64::NAN), (Metric::Accuracy, 0.1 + 0.2)]
            .into_iter()
            .collect();
        let json = serde_json::to_string(&scores).unwrap();
        assert_eq!(json, "{\"pearson\":null,\"accuracy\":0.30000000000000004}");
        let back: Scores = serde_json::from_str(&json).unwrap();
        assert_eq!(back, scores);
        assert!(back.get(Metric::Pearson).unwrap().is_nan());
        assert_eq!(back.primary().unwrap().0, Metric::Pearson);
        assert_eq!(back.get(Metric::F1), None);
        assert!(serde_json::from_str::<Scores>("{\"accurracy\":1}").is_err());
    }

    #[test]
    fn scores_of_tasks() {
        let classes = score(
            Task::Qqp,
            &[Prediction::Class(1), Prediction::Class(1)],
            &[Label::Class(1), Label::Class(0)],
        );
        assert_eq!(
            serde_json::to_string(&classes).unwrap(),
            "{\"accuracy\":0.5,\"f1\":0.6666666666666666}"
        );
        let constant = score(
            Task::Stsb,
            &[Prediction::Score(1.0), Prediction::Score(1.0)],
            &[Label::Score(1.0), Label::Score(0.0)],
        );
        assert_eq!(
            serde_json::to_string(&constant).unwrap(),
            "{\"pearson\":null,\"spearman\":null}"
        );
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(
            Prediction::from_logits(Task::Mnli, &[0.0, 2.0, 2.0]),
            Prediction::Class(1)
        );
        assert_eq!(
            Prediction::from_logits(Task::Stsb, &[-0.5]),
            Prediction::Score(-0.5)
        );
    }

    #[test]
    fn only_strictly_better_improves() {
        let m = Metric::Pearson;
        assert!(m.improves(0.2, 0.1) && !m.improves(0.1, 0.1) && !m.improves(0.0, 0.1));
        assert!(
            m.improves(-1.0, f64::NAN)
                && !m.improves(f64::NAN, 0.0)
                && !m.improves(f64::NAN, f64::NAN)
        );
    }
}
