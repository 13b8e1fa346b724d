//! Labels and the rule that says which values a task allows.

use serde::{Deserialize, Serialize};

use crate::Task;

/// The label of a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// A class, an index into [`Task::labels`].
    Class(usize),
    /// A similarity from 0 to 5 (STS-B).
    Score(f32),
}

/// The highest score of STS-B.
const MAX_SCORE: f64 = 5.0;

/// Reads a class number; -1 is GLUE's mark of an unlabelled row.
pub(crate) fn class_label(task: Task, value: i64) -> Result<Option<Label>, String> {
    let classes = task.labels().len();
    match usize::try_from(value) {
        Ok(class) if class < classes => Ok(Some(Label::Class(class))),
        Err(_) if value == -1 => Ok(None),
        _ => Err(format!("label {value} is out of range for task {task}")),
    }
}

/// Reads a score; -1 is GLUE's mark of an unlabelled row.
pub(crate) fn score_label(task: Task, value: f64) -> Result<Option<Label>, String> {
    if value == -1.0 {
        Ok(None)
    } else if (0.0..=MAX_SCORE).contains(&value) {
        Ok(Some(Label::Score(value as f32)))
    } else {
        Err(format!("label {value} is out of range for task {task}"))
    }
}

/// What the allowed labels are, as the way out of an error.
pub(crate) fn allowed(task: Task) -> String {
    if task.is_regression() {
        return "a label is a number from 0 to 5, or -1 for none".to_owned();
    }
    let names: Vec<String> = task
        .labels()
        .iter()
        .enumerate()
        .map(|(class, name)| format!("{class} ({name})"))
        .collect();
    format!("a label is one of {}, or -1 for none", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(class_label(Task::Mnli, 2), Ok(Some(Label::Class(2))));
        assert_eq!(class_label(Task::Mnli, -1), Ok(None));
        for value in [2, -2, i64::MAX, i64::MIN] {
            assert!(
                class_label(Task::Rte, value)
                    .unwrap_err()
                    .contains(&value.to_string())
            );
        }
        assert_eq!(score_label(Task::Stsb, 5.0), Ok(Some(Label::Score(5.0))));
        assert_eq!(score_label(Task::Stsb, -1.0), Ok(None));
        for value in [5.1, -0.1, f64::NAN, f64::INFINITY] {
            assert!(score_label(Task::Stsb, value).is_err());
        }
    }
}
