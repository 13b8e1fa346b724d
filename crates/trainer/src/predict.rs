//! Predictions for rows with or without labels.

use std::path::PathBuf;

use lowburn_glue::{Dataset, Example, Label, Prediction, Task};
use serde::Serialize;

use crate::config::DeviceName;
use crate::error::TrainError;
use crate::evaluate::{check_logits, logits_of};
use crate::load::{Source, check_batch, load};
use crate::loss::probabilities;
use crate::progress::Observer;

/// What to predict, and with what.
#[derive(Debug, Clone)]
pub struct PredictConfig {
    /// The model.
    pub source: Source,
    /// The task: its columns and labels.
    pub task: Task,
    /// The rows.
    pub input: PredictInput,
    /// Rows of one forward pass.
    pub batch_size: usize,
    /// Tokens of a row at most; as trained where known, else as pretrained.
    pub max_length: Option<usize>,
    /// Where to compute.
    pub device: DeviceName,
}

/// Where rows come from.
#[derive(Debug, Clone)]
pub enum PredictInput {
    /// A split of a data folder.
    Split {
        /// The folder that holds `<task>/<split>-*.parquet`.
        data_dir: PathBuf,
        /// The split.
        split: String,
    },
    /// A .parquet, .jsonl or .tsv file.
    File(PathBuf),
    /// One row, as typed.
    Text {
        /// The text.
        text: String,
        /// The second text, for tasks on pairs.
        pair: Option<String>,
    },
}

/// What the model says about one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictionRow {
    /// The row's `idx`.
    pub idx: i64,
    /// Its label, where it has one.
    pub label: Option<Label>,
    /// The most probable class, or the score.
    pub prediction: Label,
    /// The model's output.
    pub logits: Vec<f32>,
    /// Softmax of the logits; of a regression the score itself.
    pub probabilities: Vec<f64>,
}

/// Predicts every row, in order.
///
/// # Errors
/// When model, adapter or rows cannot be loaded or do not belong together, or a logit is no number.
pub fn predict(
    config: &PredictConfig,
    observer: &mut dyn Observer,
) -> Result<Vec<PredictionRow>, TrainError> {
    check_batch(config.batch_size)?;
    let dataset = dataset(config)?;
    let loaded = load(&config.source, Some(config.task), config.device, observer)?;
    let max_length = loaded.max_length(config.max_length)?;
    let rows = loaded.rows(dataset, max_length)?;
    let logits = logits_of(&loaded.model, &rows, config.batch_size, observer);
    check_logits(&logits, &rows, &config.source)?;
    let rows = rows.dataset.examples.iter().zip(logits);
    Ok(rows
        .map(|(example, logits)| row(config.task, example, logits))
        .collect())
}

fn row(task: Task, example: &Example, logits: Vec<f32>) -> PredictionRow {
    let (prediction, probabilities) = match Prediction::from_logits(task, &logits) {
        Prediction::Class(class) => (Label::Class(class), probabilities(&logits)),
        Prediction::Score(score) => (Label::Score(score), vec![f64::from(score)]),
    };
    PredictionRow {
        idx: example.idx,
        label: example.label,
        prediction,
        logits,
        probabilities,
    }
}

fn dataset(config: &PredictConfig) -> Result<Dataset, TrainError> {
    match &config.input {
        PredictInput::Split { data_dir, split } => Ok(Dataset::load(data_dir, config.task, split)?),
        PredictInput::File(path) => Ok(Dataset::from_file(path, config.task)?),
        PredictInput::Text { text, pair } => typed(config.task, text, pair.as_deref()),
    }
}

/// A data set of the one row that was typed.
fn typed(task: Task, text: &str, pair: Option<&str>) -> Result<Dataset, TrainError> {
    match (task.columns(), pair) {
        ((first, Some(second)), None) => {
            let reason = format!("{task} is about pairs ({first}, {second}): give --text-pair too");
            return Err(TrainError::config("text-pair", "missing", reason));
        }
        ((_, None), Some(_)) => {
            let reason = format!("{task} is about single texts: leave it out");
            return Err(TrainError::config("text-pair", "given", reason));
        }
        _ => {}
    }
    let example = Example {
        idx: 0,
        text: text.to_owned(),
        text_pair: pair.map(str::to_owned),
        label: None,
    };
    Ok(Dataset {
        task,
        split: "text".to_owned(),
        examples: vec![example],
        path: PathBuf::from("--text"),
        sha256: String::new(),
        files: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_row_must_fit_the_task() {
        assert!(typed(Task::Sst2, "good", None).is_ok());
        assert!(typed(Task::Rte, "a", Some("b")).is_ok());
        let error = typed(Task::Rte, "a", None)
            .expect_err("no pair")
            .to_string();
        assert!(error.contains("--text-pair"), "{error}");
        assert!(typed(Task::Sst2, "a", Some("b")).is_err());
    }
}
