//! A model over a whole split: logits in file order, loss and scores.

use std::path::PathBuf;

use lowburn_glue::{Prediction, Scores, Task, score};
use lowburn_models::{Mode, SequenceClassifier};
use serde::{Deserialize, Serialize};

use crate::config::DeviceName;
use crate::error::TrainError;
use crate::load::{Source, check_batch, load};
use crate::loss::row_loss;
use crate::progress::{Event, Observer};
use crate::rows::{Rows, model_input};

/// What to evaluate, and on what.
#[derive(Debug, Clone)]
pub struct EvalConfig {
    /// The model.
    pub source: Source,
    /// The task.
    pub task: Task,
    /// Folder that holds `<task>/<split>-*.parquet`.
    pub data_dir: PathBuf,
    /// The split; `validation` means every evaluation split of the task (MNLI has two).
    pub split: String,
    /// Rows of one forward pass.
    pub batch_size: usize,
    /// Tokens of a row at most; as trained where known, else as pretrained.
    pub max_length: Option<usize>,
    /// Where to compute.
    pub device: DeviceName,
}

/// Loss and scores of one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The task.
    pub task: Task,
    /// The split.
    pub split: String,
    /// Rows of the split.
    pub rows: usize,
    /// Mean loss; `None` when it is not a number.
    pub loss: Option<f64>,
    /// All metrics of the task.
    pub scores: Scores,
}

/// Evaluates a model on one split, or on both of MNLI's.
///
/// # Errors
/// When model, adapter or data cannot be loaded or do not belong together, or rows have no labels.
pub fn evaluate(
    config: &EvalConfig,
    observer: &mut dyn Observer,
) -> Result<Vec<Evaluation>, TrainError> {
    check_batch(config.batch_size)?;
    let task = config.task;
    let splits = if config.split == "validation" {
        task.evaluation_splits().to_vec()
    } else {
        vec![config.split.as_str()]
    };
    let mut datasets = Vec::new();
    for split in splits {
        datasets.push(Rows::dataset(&config.data_dir, task, split)?);
    }
    let loaded = load(&config.source, Some(task), config.device, observer)?;
    let max_length = loaded.max_length(config.max_length)?;
    let mut evaluations = Vec::new();
    for dataset in datasets {
        let rows = loaded.rows(dataset, max_length)?;
        let logits = logits_of(&loaded.model, &rows, config.batch_size, observer);
        check_logits(&logits, &rows, &config.source)?;
        evaluations.push(evaluation(&rows, &logits));
    }
    Ok(evaluations)
}

/// A loaded model on tokenised rows with labels.
pub(crate) fn on_rows(
    model: &SequenceClassifier,
    rows: &Rows,
    batch_size: usize,
    observer: &mut dyn Observer,
) -> Evaluation {
    evaluation(rows, &logits_of(model, rows, batch_size, observer))
}

/// [`all_logits`], its progress told as events.
pub(crate) fn logits_of(
    model: &SequenceClassifier,
    rows: &Rows,
    batch_size: usize,
    observer: &mut dyn Observer,
) -> Vec<Vec<f32>> {
    let split = rows.dataset.split.as_str();
    let total = rows.len();
    all_logits(model, rows, batch_size, |done| {
        observer.event(&Event::Evaluating { split, done, total });
    })
}

/// Whether all logits are numbers. Those of weights that are not would pass for a score near
/// chance.
pub(crate) fn check_logits(
    logits: &[Vec<f32>],
    rows: &Rows,
    source: &Source,
) -> Result<(), TrainError> {
    let bad = |logits: &Vec<f32>| logits.iter().any(|value| !value.is_finite());
    let Some(row) = logits.iter().position(bad) else {
        return Ok(());
    };
    let (path, whose) = match &source.adapter {
        Some(adapter) => (adapter, format!("with base {}", source.model.display())),
        None => (&source.model, "the model".to_owned()),
    };
    Err(TrainError::Mismatch {
        path: path.clone(),
        reason: format!(
            "{whose} gives {:?} for row {row} (counted from 0) of {}: weights are NaN, infinite or \
             far too large; fetch or train them again",
            logits[row],
            rows.dataset.path.display()
        ),
    })
}

/// Loss and scores of the logits of a split.
fn evaluation(rows: &Rows, logits: &[Vec<f32>]) -> Evaluation {
    let (loss, scores) = measure(rows.dataset.task, rows, logits);
    Evaluation {
        task: rows.dataset.task,
        split: rows.dataset.split.clone(),
        rows: rows.len(),
        loss,
        scores,
    }
}

/// The logits of every row, in the order of the file.
///
/// Rows run in batches of like length, longest first, which wastes no time on padding and shows
/// at once whether the memory suffices; a row's logits do not depend on its neighbours.
///
/// # Shapes
/// One vector of `labels` logits for each row.
fn all_logits(
    model: &SequenceClassifier,
    rows: &Rows,
    batch_size: usize,
    mut progress: impl FnMut(usize),
) -> Vec<Vec<f32>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(rows.lengths()[row]));
    let mut logits = vec![Vec::new(); rows.len()];
    let mut done = 0;
    progress(done);
    for indices in order.chunks(batch_size) {
        let input = model_input(rows.batch(indices));
        let output = model.forward(&input, &mut Mode::eval());
        let [_, columns] = output.dims();
        let values = output.into_data().convert::<f32>();
        let values = values.as_slice::<f32>().unwrap_or_default();
        for (&row, values) in indices.iter().zip(values.chunks_exact(columns)) {
            logits[row] = values.to_vec();
        }
        done += indices.len();
        progress(done);
    }
    logits
}

/// Mean loss (`None` when it is not a number) and all metrics of a task.
fn measure(task: Task, rows: &Rows, logits: &[Vec<f32>]) -> (Option<f64>, Scores) {
    let labels = rows.labels();
    let total: f64 = logits
        .iter()
        .zip(&labels)
        .map(|(logits, label)| row_loss(logits, label))
        .sum();
    let predictions: Vec<_> = logits
        .iter()
        .map(|logits| Prediction::from_logits(task, logits))
        .collect();
    let scores = score(task, &predictions, &labels);
    let loss = total / labels.len() as f64;
    (loss.is_finite().then_some(loss), scores)
}
